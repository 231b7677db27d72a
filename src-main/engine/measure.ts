/** From what the backend measured to the figures of a point. Pure. */
import type { Capacity, Memory, Point, Quality, Throughput } from '../contract/metrics.ts';
import { pointSchema } from '../contract/metrics.ts';
import type { Measuring } from '../contract/sweep.ts';
import { f32MhaBytes, own16BitBytes } from './estimate.ts';
import { grade } from './grade.ts';
import type { PlannedPoint } from './plan.ts';
import type { Ceilings, Conditions, Prepared } from './ports.ts';
import { speculationFigures } from './speculation.ts';
import { interquartileRange, median, quantile } from './statistics.ts';
import { flagsOf } from './stopping.ts';

export const skippedPoint = ({ id, config }: PlannedPoint, reason: string): Point => ({
  id,
  config,
  outcome: 'skipped',
  reason,
});
export const failedPoint = ({ id, config }: PlannedPoint, reason: string): Point => ({
  id,
  config,
  outcome: 'failed',
  reason,
});

/** Sequences that memory held. */
export const capacityPoint = ({ id, config }: PlannedPoint, capacity: Capacity): Point => ({
  id,
  config,
  outcome: 'measured',
  capacity,
});

/**
 * A measured point, or a failed one where a figure is not finite or the backend's byte counts contradict each other.
 * @param samples seconds per step, in the order taken, warm-up excluded
 * @param ceilings of the same device; absent = no roofline
 * @param conditions that were noticed while sampling
 */
export function measuredPoint(
  planned: PlannedPoint,
  prepared: Prepared,
  samples: readonly number[],
  measuring: Measuring,
  ceilings?: Ceilings,
  conditions?: Conditions,
): Point {
  const contradiction = contradictionIn(prepared.memory);
  if (contradiction) return failedPoint(planned, contradiction);
  const point: Point = {
    id: planned.id,
    config: planned.config,
    outcome: 'measured',
    memory: memoryOf(planned, prepared),
    throughput: throughputOf(prepared.work, samples, measuring, ceilings, conditions),
    ...(prepared.error && {
      error: { ...prepared.error, grade: grade(prepared.error.relativeL2, planned.config.keyDtype) },
    }),
    ...(prepared.controls && { controls: prepared.controls }),
    ...(prepared.quality && { quality: qualityOf(prepared.quality) }),
    ...(prepared.speculation && { speculation: speculationFigures(prepared.speculation, 0) }),
    samplesSeconds: [...samples],
  };
  const checked = pointSchema.safeParse(point);
  if (checked.success) return checked.data;
  const where = checked.error.issues[0].path.join('.');
  return failedPoint(planned, `the backend returned a figure that is not finite or not plausible: ${where}`);
}

const qualityOf = (quality: NonNullable<Prepared['quality']>): Quality => ({
  ...quality,
  perplexityChangePercent: 100 * (quality.perplexity / quality.exactPerplexity - 1),
});

function contradictionIn(memory: Prepared['memory']): string | undefined {
  const parts = Object.values(memory.kvParts).reduce((sum, bytes) => sum + bytes, 0);
  if (parts !== memory.kvAllocatedBytes)
    return `the backend allocated ${memory.kvAllocatedBytes} B of cache but accounts for ${parts} B`;
  if (memory.kvAllocatedBytes < memory.kvLogicalBytes) {
    return `the backend allocated ${memory.kvAllocatedBytes} B of cache where the formula needs ${memory.kvLogicalBytes} B`;
  }
  return undefined;
}

function memoryOf({ config }: PlannedPoint, { memory: { cachedTokens, ownTokens, ...memory } }: Prepared): Memory {
  const allocated = memory.kvAllocatedBytes;
  // Layers of a model with a window of their own would not cache more than that.
  const layers = ownTokens === undefined ? 1 : ownTokens / config.seqLen;
  const [mha, own] = [f32MhaBytes(config) * layers, own16BitBytes(config) * layers];
  return {
    ...memory,
    differenceExplained: explainDifference(memory, cachedTokens),
    bytesPerToken: allocated / (config.batch * config.seqLen),
    reductionVsF32MhaPercent: 100 * (1 - allocated / mha),
    multiplierVsF32Mha: mha / allocated,
    reductionVsOwn16BitPercent: 100 * (1 - allocated / own),
    multiplierVsOwn16Bit: own / allocated,
  };
}

const partNames: Readonly<Record<keyof Memory['kvParts'], string>> = {
  payloadBytes: 'payload',
  scaleBytes: 'scales',
  sinkBytes: 'exact sinks',
  residualBytes: 'exact recent tokens',
  slackBytes: 'unused room in pages',
  tableBytes: 'page tables',
};

const formatCount = (value: number): string => value.toLocaleString('en-US');

/** Where the allocated bytes went, and how far they exceed the formula, in one sentence. */
function explainDifference(
  memory: Pick<Memory, 'kvLogicalBytes' | 'kvAllocatedBytes' | 'kvParts'>,
  cachedTokens: number,
): string {
  const parts = (Object.keys(partNames) as (keyof Memory['kvParts'])[])
    .filter((part) => memory.kvParts[part] > 0)
    .map((part) => `${partNames[part]} ${formatCount(memory.kvParts[part])} B`);
  const excess = memory.kvAllocatedBytes - memory.kvLogicalBytes;
  const sources = (['slackBytes', 'tableBytes'] as const)
    .filter((part) => memory.kvParts[part] > 0)
    .map((part) => partNames[part]);
  const cause =
    excess === 0
      ? 'exactly the formula'
      : `${formatCount(excess)} B above the formula${sources.length > 0 ? `: ${sources.join(' and ')}` : ''}`;
  return `${formatCount(cachedTokens)} cached tokens take ${formatCount(memory.kvAllocatedBytes)} B (${parts.join(', ')}), ${cause}.`;
}

function throughputOf(
  work: Prepared['work'],
  samples: readonly number[],
  measuring: Measuring,
  ceilings?: Ceilings,
  conditions?: Conditions,
): Throughput {
  const medianSeconds = median(samples);
  const flags = flagsOf(samples, measuring);
  if (conditions && conditions.foreignProcesses > 0) flags.push('foreign-load');
  if (conditions && conditions.throttledSamples > 0) flags.push('throttled');
  return {
    medianSeconds,
    p05Seconds: quantile(samples, 0.05),
    p95Seconds: quantile(samples, 0.95),
    iqrSeconds: interquartileRange(samples),
    samples: samples.length,
    tokensPerSecond: work.tokens / medianSeconds,
    flopsPerSecond: work.flops / medianSeconds,
    bytesPerSecond: work.bytes / medianSeconds,
    ...(ceilings && {
      rooflineFraction:
        Math.max(work.flops / ceilings.fmaFlopsPerSecond, work.bytes / ceilings.readBytesPerSecond) / medianSeconds,
    }),
    ...(conditions && conditions.throttledSamples > 0 && { throttledSamples: conditions.throttledSamples }),
    ...(conditions && conditions.graphNodes > 0 && { graphNodes: conditions.graphNodes }),
    flags,
  };
}
