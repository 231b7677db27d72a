/** What a point reports. Names carry units; an absent field means "not applicable", never 0. */
import { z } from 'zod';
import { pointConfigSchema } from './sweep.ts';

const bytes = z.number().int().min(0);
const figure = z.number();

export const memorySchema = z.strictObject({
  /** By formula (attention-spec 0), for the tokens the cache holds. */
  kvLogicalBytes: bytes,
  /** Counted by the backend's allocator for cache buffers. */
  kvAllocatedBytes: bytes,
  /** Why allocated exceeds logical: parts in bytes, summing to `kvAllocatedBytes`. */
  kvParts: z.strictObject({
    payloadBytes: bytes,
    scaleBytes: bytes,
    sinkBytes: bytes,
    residualBytes: bytes,
    slackBytes: bytes,
    tableBytes: bytes,
  }),
  /** The same in one sentence. */
  differenceExplained: z.string(),
  /** High-water mark of everything the backend allocated while the point ran (cache, weights, workspace). */
  peakBytes: bytes,
  /** Weights a level adds (up/down projections, bases, means). */
  extraWeightBytes: bytes,
  bytesPerToken: figure,
  reductionVsF32MhaPercent: figure,
  multiplierVsF32Mha: figure,
  reductionVsOwn16BitPercent: figure,
  multiplierVsOwn16Bit: figure,
});
export type Memory = z.infer<typeof memorySchema>;

export const flags = ['noisy', 'outliers', 'few-samples', 'foreign-load', 'throttled', 'drift'] as const;
export type Flag = (typeof flags)[number];

export const throughputSchema = z.strictObject({
  medianSeconds: figure,
  p05Seconds: figure,
  p95Seconds: figure,
  iqrSeconds: figure,
  samples: z.number().int().min(1),
  tokensPerSecond: figure,
  flopsPerSecond: figure,
  bytesPerSecond: figure,
  /** Floor time (ceilings measured on this machine) over measured time. */
  rooflineFraction: figure.optional(),
  /** Samples discarded because the device had slowed itself down. */
  throttledSamples: z.number().int().min(1).optional(),
  /** On a GPU: kernels and copies of the step, which was recorded and is started as one. Absent: they were started one by one. */
  graphNodes: z.number().int().min(1).optional(),
  flags: z.array(z.enum(flags)),
});
export type Throughput = z.infer<typeof throughputSchema>;

export const grades = ['exact', 'near-lossless', 'mild', 'moderate', 'heavy', 'destroyed'] as const;
export type Grade = (typeof grades)[number];

/**
 * One layer: against the fp64 reference of the same weights and inputs, layer output after the output projection.
 * A whole model: its last hidden state against that of the same model with an exact cache.
 */
export const errorSchema = z.strictObject({
  relativeL2: figure,
  cosine: figure,
  rms: figure,
  maxAbs: figure,
  referenceRms: figure,
  /** Largest and median relative L2 of a single token. */
  tokenP95: figure,
  tokenMedian: figure,
  grade: z.enum(grades),
  /** Query positions evaluated, in every sequence of the batch. */
  positions: z.array(z.number().int().min(0)),
});
export type LayerError = z.infer<typeof errorSchema>;

const share = z.number().min(0).max(1);
/** A whole model against itself with an exact (f32) cache, on the same text: half of each document is read, the rest decoded. */
export const qualitySchema = z.strictObject({
  /** Mean and 95th percentile of KL(exact to level) over the positions compared, nats. */
  logitKl: figure,
  logitKlP95: figure,
  /** Positions whose likeliest token is the same. */
  top1Agreement: share,
  /** Mean of sum min(p, q): the chance that a draft of this level is accepted. */
  acceptance: share,
  perplexity: figure,
  exactPerplexity: figure,
  perplexityChangePercent: figure,
  /** Facts found again in a haystack as long as the context, with this level and with an exact cache. */
  retrieved: share.optional(),
  exactRetrieved: share.optional(),
  /** By depth of the fact: 0 the beginning, 1 the end. */
  retrievalDepths: z.array(share).optional(),
  retrievedByDepth: z.array(share).optional(),
  /** Relative L2 of the residual stream after each layer, errors of earlier layers included. */
  layerErrors: z.array(figure),
  positions: z.number().int().min(1),
});
export type Quality = z.infer<typeof qualitySchema>;

/** Speculative decoding against the same model alone, in the same run; every token is the one that the model alone says. */
export const speculationSchema = z.strictObject({
  /** Made by speculation. */
  tokens: z.number().int().min(1),
  /** One more than are accepted on average: the target adds one itself. */
  tokensPerRound: figure,
  /** By place in the round: share of the proposals checked there that were kept. */
  acceptedByPlace: z.array(share),
  plainTokensPerSecond: figure,
  tokensPerSecond: figure,
  speedUp: figure,
  /** Time of a draft token, and of a verification, in plain tokens of the target. */
  draftCost: figure,
  verifyCost: figure,
  targetCacheBytes: bytes,
  /** What speculation adds. */
  draftCacheBytes: bytes,
  /** Greedy: tokens that differ from what the target alone says. */
  differing: z.number().int().min(0).optional(),
});
export type Speculation = z.infer<typeof speculationSchema>;

/** Sequences that memory holds, allocated and filled for real, beside what the plan says beforehand. */
export const capacitySchema = z.strictObject({
  /** What caches could have. */
  limitBytes: bytes,
  /** Taken beside them, for the weights of the model. */
  reservedBytes: bytes,
  plannedSequences: z.number().int().min(0),
  reachedSequences: z.number().int().min(0),
  /** Of the sequences reached, and what the plan says for as many. */
  allocatedBytes: bytes,
  plannedBytes: figure,
  /** It went no further than this; absent = until memory was refused. */
  endedAtSequences: z.number().int().min(1).optional(),
});
export type Capacity = z.infer<typeof capacitySchema>;

/** The same metrics for three outputs that no method should resemble (attention-spec C). */
export const controlsSchema = z.strictObject({
  zeroOutput: figure,
  uniformAttention: figure,
  independentLayer: figure,
});
export type Controls = z.infer<typeof controlsSchema>;

/** A machine of a fleet, or the remote end of a session, as far as its figures depend on it. */
export const deviceSchema = z.strictObject({
  host: z.string(),
  name: z.string(),
  memoryBytes: bytes,
  threads: z.number().int(),
  instructionSet: z.string(),
  fmaFlopsPerSecond: figure.optional(),
  readBytesPerSecond: figure.optional(),
});

export const pointSchema = z.strictObject({
  id: z.string(),
  config: pointConfigSchema,
  outcome: z.enum(['measured', 'skipped', 'failed']),
  reason: z.string().optional(),
  memory: memorySchema.optional(),
  throughput: throughputSchema.optional(),
  error: errorSchema.optional(),
  controls: controlsSchema.optional(),
  quality: qualitySchema.optional(),
  speculation: speculationSchema.optional(),
  capacity: capacitySchema.optional(),
  /** Raw samples, seconds per step, in the order taken. */
  samplesSeconds: z.array(figure).optional(),
  /** Where it was measured, if not on the machine of the session. */
  device: deviceSchema.optional(),
  /** Of one such device, in the user's money. The user says it when the points are looked at; it is never recorded. */
  pricePerHour: figure.positive().optional(),
});
export type Point = z.infer<typeof pointSchema>;

/** One table of metrics: CSV columns, CLI tables and charts derive from it. */
export interface Metric {
  readonly id: string;
  /** For the head of a column. */
  readonly label: string;
  /** Where there is room for more words. */
  readonly title: string;
  /** `share` is of 1, and shown in percent. */
  readonly unit: 'bytes' | 'x' | '%' | 'share' | 's' | 'tokens/s' | 'tokens' | 'FLOP/s' | 'bytes/s' | 'ratio' | 'count';
  readonly better: 'lower' | 'higher' | 'neither';
  readonly read: (point: Point) => number | undefined;
}

const metric = (
  id: string,
  label: string,
  unit: Metric['unit'],
  better: Metric['better'],
  read: Metric['read'],
  title = label,
): Metric => ({ id, label, title, unit, better, read });

export const metrics: readonly Metric[] = [
  metric('kvLogicalBytes', 'cache by formula', 'bytes', 'lower', (p) => p.memory?.kvLogicalBytes),
  metric('kvAllocatedBytes', 'cache allocated', 'bytes', 'lower', (p) => p.memory?.kvAllocatedBytes),
  metric('peakBytes', 'peak memory', 'bytes', 'lower', (p) => p.memory?.peakBytes),
  metric('extraWeightBytes', 'extra weights', 'bytes', 'lower', (p) => p.memory?.extraWeightBytes),
  metric('bytesPerToken', 'cache per token', 'bytes', 'lower', (p) => p.memory?.bytesPerToken),
  metric(
    'reductionVsF32MhaPercent',
    'saved vs f32 MHA',
    '%',
    'higher',
    (p) => p.memory?.reductionVsF32MhaPercent,
    'cache saved vs f32 MHA',
  ),
  metric(
    'multiplierVsF32Mha',
    'x vs f32 MHA',
    'x',
    'higher',
    (p) => p.memory?.multiplierVsF32Mha,
    'cache reduction vs f32 MHA',
  ),
  metric(
    'reductionVsOwn16BitPercent',
    'saved vs own 16 bit',
    '%',
    'higher',
    (p) => p.memory?.reductionVsOwn16BitPercent,
    'cache saved vs own 16 bit',
  ),
  metric(
    'multiplierVsOwn16Bit',
    'x vs own 16 bit',
    'x',
    'higher',
    (p) => p.memory?.multiplierVsOwn16Bit,
    'cache reduction vs own 16 bit',
  ),
  metric('relativeL2', 'relative L2', 'ratio', 'lower', (p) => p.error?.relativeL2, 'relative L2 error'),
  metric('cosine', 'cosine', 'ratio', 'higher', (p) => p.error?.cosine),
  metric('rms', 'error RMS', 'ratio', 'lower', (p) => p.error?.rms),
  metric('maxAbs', 'max abs error', 'ratio', 'lower', (p) => p.error?.maxAbs),
  metric('referenceRms', 'reference RMS', 'ratio', 'neither', (p) => p.error?.referenceRms),
  metric('logitKl', 'logit KL', 'ratio', 'lower', (p) => p.quality?.logitKl, 'logit KL, nats'),
  metric('top1Agreement', 'top-1 agreement', 'share', 'higher', (p) => p.quality?.top1Agreement),
  metric('acceptance', 'draft acceptance', 'share', 'higher', (p) => p.quality?.acceptance),
  metric('perplexity', 'perplexity', 'ratio', 'lower', (p) => p.quality?.perplexity),
  metric('perplexityChangePercent', 'perplexity change', '%', 'lower', (p) => p.quality?.perplexityChangePercent),
  metric('retrieved', 'facts found', 'share', 'higher', (p) => p.quality?.retrieved),
  metric('speedUp', 'speed-up', 'x', 'higher', (p) => p.speculation?.speedUp, 'speed-up by speculation'),
  metric('tokensPerRound', 'tokens a round', 'ratio', 'higher', (p) => p.speculation?.tokensPerRound),
  metric('draftCost', 'draft cost', 'ratio', 'lower', (p) => p.speculation?.draftCost, 'draft cost, plain tokens'),
  metric('verifyCost', 'verify cost', 'ratio', 'lower', (p) => p.speculation?.verifyCost, 'verify cost, plain tokens'),
  metric('draftCacheBytes', 'draft cache', 'bytes', 'lower', (p) => p.speculation?.draftCacheBytes),
  metric(
    'plannedSequences',
    'planned',
    'count',
    'higher',
    (p) => p.capacity?.plannedSequences,
    'sequences planned to fit',
  ),
  metric('reachedSequences', 'reached', 'count', 'higher', (p) => p.capacity?.reachedSequences, 'sequences that fit'),
  metric(
    'sequenceBytes',
    'cache a sequence',
    'bytes',
    'lower',
    (p) => p.capacity && p.capacity.allocatedBytes / Math.max(1, p.capacity.reachedSequences),
    'cache of one sequence',
  ),
  metric('medianSeconds', 'median time', 's', 'lower', (p) => p.throughput?.medianSeconds),
  metric('p05Seconds', 'p05 time', 's', 'lower', (p) => p.throughput?.p05Seconds),
  metric('p95Seconds', 'p95 time', 's', 'lower', (p) => p.throughput?.p95Seconds),
  metric('iqrSeconds', 'inter-quartile range', 's', 'lower', (p) => p.throughput?.iqrSeconds),
  metric('samples', 'samples', 'count', 'neither', (p) => p.throughput?.samples),
  metric('tokensPerSecond', 'tokens per second', 'tokens/s', 'higher', (p) => p.throughput?.tokensPerSecond),
  metric(
    'tokensPerDeviceHour',
    'tokens per device-hour',
    'tokens',
    'higher',
    (p) => p.throughput && p.throughput.tokensPerSecond * 3600,
  ),
  metric(
    'tokensPerUnitOfMoney',
    'tokens per unit of money',
    'tokens',
    'higher',
    (p) => p.throughput && p.pricePerHour && (p.throughput.tokensPerSecond * 3600) / p.pricePerHour,
    'tokens per unit of money, at the prices given',
  ),
  metric('flopsPerSecond', 'FLOP per second', 'FLOP/s', 'higher', (p) => p.throughput?.flopsPerSecond),
  metric('bytesPerSecond', 'bytes per second', 'bytes/s', 'higher', (p) => p.throughput?.bytesPerSecond),
  metric('rooflineFraction', 'share of roofline', 'share', 'higher', (p) => p.throughput?.rooflineFraction),
];
