/** Where an axis begins and ends and where its ticks stand: round numbers, a little room, never an empty range. */
import { formatMetric, formatNumber } from '../../src-main/contract/format.ts';
import type { Metric } from '../../src-main/contract/metrics.ts';
import { isLogarithmic } from './metric.ts';

export interface Axis {
  readonly metric: Metric;
  readonly scale: 'log' | 'linear';
  readonly domain: readonly [number, number];
  readonly ticks: readonly number[];
  /** Where zero stands on a log scale, below everything else; absent if no value is zero. */
  readonly zero?: number;
}

const mostTicks = 9;
const leastRelativeWidth = 1e-9;

export type Scale = Axis['scale'];

/** @param scale as the user wants it; by default as the metric is usually read */
export function axisFor(metric: Metric, values: readonly number[], scale: Scale = defaultScale(metric)): Axis {
  const usable = values.filter((value) => Number.isFinite(value) && (scale === 'linear' || value > 0));
  const hasZero = scale === 'log' && values.includes(0);
  if (usable.length === 0 && hasZero) return { metric, scale, domain: [0.5, 10], ticks: [1], zero: 1 };
  if (usable.length === 0) return { metric, scale, domain: scale === 'log' ? [1, 10] : [0, 1], ticks: [] };
  let [least, most] = [usable[0], usable[0]];
  for (const value of usable) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  if (scale === 'linear') return { metric, scale, ...linearRange(least, most) };
  if (!hasZero) return { metric, scale, ...logRange(least, most, metric.unit) };
  const zero = least / Math.max(4, (most / least) ** 0.15);
  const { domain, ticks } = logRange(zero, most, metric.unit);
  return { metric, scale, domain, zero, ticks: [zero, ...ticks.filter((tick) => tick > Math.sqrt(zero * least))] };
}

/** Where a value stands on an axis. */
export const placeOn = ({ zero }: Axis, value: number): number => (value === 0 && zero !== undefined ? zero : value);

export const defaultScale = (metric: Metric): Scale => (isLogarithmic(metric) ? 'log' : 'linear');

/** The same axis between two other ends, chosen by the user: data that arrive later do not move them. */
export const zoomedAxis = (axis: Axis, domain: Axis['domain'] | undefined): Axis =>
  domain === undefined
    ? axis
    : {
        ...axis,
        domain,
        ticks:
          axis.scale === 'log'
            ? [
                ...(axis.zero === undefined ? [] : [axis.zero]),
                ...logTicks(domain, axis.metric.unit).filter((tick) => tick > 1.5 * (axis.zero ?? 0)),
              ]
            : linearTicks(domain),
      };

function logRange(least: number, most: number, unit: Metric['unit']): Pick<Axis, 'domain' | 'ticks'> {
  // Marks have a size: none may be cut at the edge.
  const room = Math.max(1.25, (most / least) ** 0.07);
  const domain = [least / room, most * room] as const;
  return { domain, ticks: logTicks(domain, unit) };
}

/** Bytes, multiples and counts are read in powers of two, everything else in powers of ten. */
function logTicks(domain: Axis['domain'], unit: Metric['unit']): number[] {
  const isBinary = unit === 'bytes' || unit === 'x' || unit === 'bytes/s' || unit === 'count';
  const decades = Math.log10(domain[1] / domain[0]);
  const ticks = isBinary
    ? powersWithin(domain, 2)
    : decades > 2.5
      ? powersWithin(domain, 10)
      : withinDecades(domain, decades > 1.2 ? [1, 3] : [1, 2, 3, 5, 7]);
  // Between two neighbouring powers an axis still needs something to be read by.
  return ticks.length < 2 ? linearTicks(domain) : ticks;
}

function linearTicks([from, to]: Axis['domain']): number[] {
  const step = roundStep(to - from);
  const first = Math.ceil(from / step);
  const last = Math.floor(to / step);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function roundStep(width: number): number {
  const rough = width / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
}

function powersWithin([from, to]: readonly [number, number], base: number): number[] {
  const first = Math.ceil(Math.log(from) / Math.log(base) - 1e-9);
  const last = Math.floor(Math.log(to) / Math.log(base) + 1e-9);
  const every = Math.ceil((last - first + 1) / mostTicks);
  const ticks: number[] = [];
  for (let power = first; power <= last; power += every) ticks.push(base ** power);
  return ticks;
}

function withinDecades([from, to]: readonly [number, number], steps: readonly number[]): number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power += 1) {
    for (const step of steps) {
      // 3 * 10 ** -7 is not 3e-7; the decimal text is.
      const tick = Number(`${step}e${power}`);
      if (tick >= from && tick <= to) ticks.push(tick);
    }
  }
  return ticks;
}

function linearRange(least: number, most: number): Pick<Axis, 'domain' | 'ticks'> {
  // Values that differ in the last digits only are one value: ticks between them could not be told apart.
  const size = Math.max(Math.abs(least), Math.abs(most));
  const width = most - least > size * leastRelativeWidth ? most - least : size || 1;
  const step = roundStep(width);
  const last = Math.ceil(most / step);
  // A single round value would be an axis without length.
  const first = Math.min(Math.floor(least / step), last - 1);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { domain: [Math.min(ticks[0], least), Math.max(ticks[ticks.length - 1], most)], ticks };
}

export const axisTick = ({ metric, zero }: Axis, tick: number): string =>
  tick === zero ? '0' : tickLabel(tick, metric.unit);

/** A tick is round, so it needs no three digits. */
export function tickLabel(value: number, unit: Metric['unit']): string {
  if (value === 0 && unit !== '%' && unit !== 'share') return '0'; // of no unit more than of another
  if (unit === 'ratio') return Math.abs(value) < 1e-3 ? value.toExponential(0) : formatNumber(value);
  if (unit === '%') return `${Number(value.toPrecision(4))} %`;
  if (unit === 'share') return tickLabel(100 * value, '%');
  return formatMetric(value, unit);
}
