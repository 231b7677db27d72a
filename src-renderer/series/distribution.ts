/** Raw samples of one point: how they are spread, and whether they drifted while they were taken. */

import { type Axis, axisFor } from './axis.ts';
import { metricOf } from './metric.ts';

export interface Distribution {
  readonly count: number;
  readonly median: number;
  readonly p05: number;
  readonly p95: number;
  readonly quartiles: readonly [lower: number, upper: number];
  readonly bins: readonly { readonly from: number; readonly to: number; readonly count: number }[];
  /** The axis of seconds that both drawings share. */
  readonly seconds: Axis;
  /** In the order taken. Long runs are drawn by neighbours: the least, the median and the most of each stretch. */
  readonly stretches: readonly {
    readonly at: number;
    readonly least: number;
    readonly median: number;
    readonly most: number;
  }[];
  /** Samples in one stretch; 1 = every sample is drawn. */
  readonly stretchLength: number;
  /** Samples beyond the axis: so far out that they would flatten all the others. */
  readonly beyond: number;
}

const mostBins = 40;
const leastBins = 8;
const mostStretches = 600;

export function distributionOf(samples: readonly number[]): Distribution | undefined {
  if (samples.length === 0) return undefined;
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (share: number): number => quantile(sorted, share);
  const quartiles = [at(0.25), at(0.75)] as const;
  const [p05, median, p95] = [at(0.05), at(0.5), at(0.95)];
  // A single preemption may take a hundred times the median: it is counted, not drawn to scale.
  const reach = Math.max(8 * (quartiles[1] - quartiles[0]), 2 * (p95 - median), median * 0.02);
  const shown = sorted.filter((value) => value <= median + reach || value <= p95);
  const seconds = axisFor(metricOf('medianSeconds'), [shown[0], shown[shown.length - 1]], 'linear');
  return {
    count: samples.length,
    median,
    p05,
    p95,
    quartiles,
    bins: binsOf(shown, seconds.domain, quartiles),
    seconds,
    ...stretchesOf(samples),
    beyond: samples.length - shown.length,
  };
}

/** Linear between neighbours, as everywhere else in this app. @param sorted ascending, not empty */
export function quantile(sorted: readonly number[], share: number): number {
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(sorted.length - 1, low + 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

/** Width by Freedman and Diaconis, within reason. */
function binsOf(sorted: readonly number[], [from, to]: Axis['domain'], quartiles: readonly [number, number]) {
  const wanted = (2 * (quartiles[1] - quartiles[0])) / Math.cbrt(sorted.length);
  const count = Math.min(mostBins, Math.max(leastBins, wanted > 0 ? Math.ceil((to - from) / wanted) : leastBins));
  const width = (to - from) / count;
  const bins = Array.from({ length: count }, (_, i) => ({
    from: from + i * width,
    to: from + (i + 1) * width,
    count: 0,
  }));
  for (const value of sorted) bins[Math.min(count - 1, Math.max(0, Math.floor((value - from) / width)))].count += 1;
  return bins;
}

function stretchesOf(samples: readonly number[]): Pick<Distribution, 'stretches' | 'stretchLength'> {
  const stretchLength = samples.length <= mostStretches ? 1 : Math.ceil(samples.length / mostStretches);
  const stretches = Array.from({ length: Math.ceil(samples.length / stretchLength) }, (_, i) => {
    const part = samples.slice(i * stretchLength, (i + 1) * stretchLength).sort((a, b) => a - b);
    const middle = i * stretchLength + (part.length - 1) / 2;
    return { at: middle + 1, least: part[0], median: quantile(part, 0.5), most: part[part.length - 1] };
  });
  return { stretches, stretchLength };
}
