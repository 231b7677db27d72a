/**
 * What can be swept: the shape of a layer, the techniques of a level, and how both combine into points.
 *
 * Dimension names (public / short): batch B, heads H, kvHeads G, seqLen S, headDim D, hiddenDim d.
 */
import { z } from 'zod';

export const cacheDtypes = ['f32', 'f16', 'bf16', 'fp8-e4m3', 'fp8-e5m2', 'int8', 'int4', 'int3', 'int2'] as const;
export type CacheDtype = (typeof cacheDtypes)[number];

/**
 * `speculate`: a whole model decodes with the level as its draft and itself as the exact target. `capacity`: caches are
 * allocated and filled, sequence after sequence, until memory is refused.
 */
export const phases = ['prefill', 'decode', 'verify', 'speculate', 'capacity'] as const;
export type Phase = (typeof phases)[number];

const cacheKinds = ['direct', 'latent-separate', 'latent-joint', 'input'] as const;
export type CacheKind = (typeof cacheKinds)[number];

const count = z.number().int().min(1);
const tokens = z.number().int().min(0);
const dtype = z.enum(cacheDtypes);
/** Which values share a scale: `token` = n channels of one token, `channel` = n tokens of one channel. */
const grouping = z.enum(['token', 'channel']);

/** The reference layer: one set of weights from which every level of a sweep is derived. */
export const modelShapeSchema = z.strictObject({
  hiddenDim: count.max(16384),
  heads: count.max(256),
  headDim: count.max(512),
  /** KV heads of the reference model itself: `heads` = MHA; fewer = natively shared (GQA, MQA). */
  referenceKvHeads: count.max(256),
  /**
   * Of a model with multi-head latent attention (DeepSeek): rank of the latent that it caches by itself, for all heads, in place
   * of keys and values; `ropeDim` channels of one rotated key stand beside it. Absent = keys and values are cached.
   */
  latentDim: count.max(16384).optional(),
  ropeDim: count.max(1024).optional(),
  /** Channels of its values, per head; keys and queries have `headDim`. */
  valueDim: count.max(1024).optional(),
  /** Base of the rotary frequencies; 0 = no rotary embedding. */
  ropeTheta: z.number().min(0).max(1e9),
  /** Seed of the synthetic reference weights (attention-spec D). */
  modelSeed: z
    .number()
    .int()
    .min(0)
    .max(2 ** 32 - 1),
});
export type ModelShape = z.infer<typeof modelShapeSchema>;

/** The techniques of a level, fully resolved: every one of them an axis. Absent = not applied. */
export const techniqueSchema = z.strictObject({
  kernel: z.enum(['naive', 'flash']),
  /** KV heads the level caches; fewer than `referenceKvHeads` = converted without training (B.1). */
  kvHeads: count.max(256),
  kvConversion: z.enum(['mean', 'aligned', 'first']).optional(),
  cacheKind: z.enum(cacheKinds),
  /**
   * Types of cached keys and values (direct cache), or of the latent / layer input (both must then agree). Of a model that caches
   * a latent by itself: of the rotated key, and of the latent.
   */
  keyDtype: dtype,
  valueDtype: dtype,
  keyGrouping: grouping.optional(),
  keyGroupSize: count.max(65536).optional(),
  valueGrouping: grouping.optional(),
  valueGroupSize: count.max(65536).optional(),
  /** true: scale only; false: scale and minimum (B.5). Integer types only. */
  symmetric: z.boolean().optional(),
  /** Orthonormal Hadamard transform before quantisation (head size a power of two). */
  hadamard: z.boolean().optional(),
  /** Cache keys before (`pre`) or after (`post`) the rotary embedding. */
  keyRope: z.enum(['pre', 'post']),
  /** Most recent tokens kept exactly, in f16 (KIVI residual). */
  residualTokens: tokens.max(65536),
  /** First tokens kept exactly, in f16, and never evicted from a window. */
  sinkTokens: tokens.max(65536),
  /** Sliding window in tokens, the query's own included; absent = full attention. */
  window: count.max(1 << 24).optional(),
  /** Rank of a joint latent, or of the key and the value latent. */
  latentRank: count.max(65536).optional(),
  latentRankKey: count.max(65536).optional(),
  latentRankValue: count.max(65536).optional(),
  /** Mixed precision on the joint latent, most energetic coordinates first: `256x8+768x4` (B.9). */
  latentBands: z
    .string()
    .regex(/^\d+x(2|3|4|8|16)(\+\d+x(2|3|4|8|16))*$/, 'expected bands like 256x8+768x4')
    .optional(),
  latentBasis: z.enum(['activation', 'weight']).optional(),
  latentCentred: z.boolean().optional(),
  /** Adaptive rank allocation (B.6.1): never more than this many payload bytes a token. */
  adaptiveBudgetBytes: z.number().positive().optional(),
  /** Adaptive rank allocation: smallest rank that keeps this share of the calibration energy. */
  adaptiveEnergy: z.number().gt(0).max(1).optional(),
  /** Draft length of speculative decoding: `verify` then runs this many tokens plus one, `speculate` proposes as many a round. */
  speculativeTokens: count.max(64).optional(),
});
export type Technique = z.infer<typeof techniqueSchema>;

/** What a sweep means that does not say. */
export const unsaid = { level: 'baseline', phase: 'decode' } as const satisfies { level: string; phase: Phase };

/** One point of a sweep, complete: running it needs nothing else. */
export const pointConfigSchema = z.strictObject({
  level: z.string().min(1).max(64),
  /** A trained model: a built-in name or a folder. Absent = one layer of synthetic weights. */
  model: z.string().min(1).max(4096).optional(),
  /** Of the model. */
  layers: count.max(1024).optional(),
  /** Of the model, this layer on its own, from 0; its inputs are what it meets when the model reads. Absent = the whole model. */
  layer: z.number().int().min(0).max(1023).optional(),
  /** Token ids the model is judged on, for models with a tokenizer of their own; absent = the built-in corpus. */
  tokenFile: z.string().min(1).max(4096).optional(),
  ...modelShapeSchema.shape,
  ...techniqueSchema.shape,
  batch: count.max(4096),
  seqLen: count.max(1 << 20),
  phase: z.enum(phases),
  /** Tokens of one verify step; present only in that phase. */
  verifyTokens: count.max(65).optional(),
  /** Of the phase capacity: what its caches may take at most; absent = what the device has beside the weights of the model. */
  cacheLimitBytes: count.max(2 ** 50).optional(),
  backend: z.string().regex(/^(cpu|cuda:\d+)$/, 'expected cpu or cuda:N'),
  /** Seed of the evaluation stream; calibration streams are derived from it and never overlap it. */
  seed: z
    .number()
    .int()
    .min(0)
    .max(2 ** 31),
  calibrationTokens: count.max(1 << 20),
});
export type PointConfig = z.infer<typeof pointConfigSchema>;

/** A value of an axis as a user writes it; `default` removes the field. */
export const axisValueSchema = z.union([z.number(), z.string(), z.boolean()]);
export type AxisValue = z.infer<typeof axisValueSchema>;

export const measuringSchema = z.strictObject({
  /** Least measuring time of a point, seconds. */
  minSeconds: z.number().min(0).max(3600),
  /** Give up on the noise target after this many seconds of sampling. */
  maxSeconds: z.number().positive().max(36000),
  /** Target: inter-quartile range over median. */
  maxNoise: z.number().positive().max(1),
  minSamples: count.max(100000),
  maxSamples: count.max(1000000),
  /** A point that takes longer than this, preparation included, becomes a failed row. */
  timeoutSeconds: z.number().positive().max(86400),
});
export type Measuring = z.infer<typeof measuringSchema>;

/** Axis name → values; axes are crossed in the order written, those in one `zip` group advance together. */
const gridSchema = z.strictObject({
  /** Names are those of {@link pointConfigSchema}, plus `cacheDtype` (keys and values). */
  axes: z.record(z.string(), z.array(axisValueSchema).min(1).max(10000)),
  zip: z.array(z.array(z.string()).min(2)).max(16).optional(),
});
export type Grid = z.infer<typeof gridSchema>;

/** A sweep as written by a user: a grid of points, and perhaps further grids after it. */
export const sweepSchema = z.strictObject({
  name: z.string().min(1).max(200),
  ...gridSchema.shape,
  also: z.array(gridSchema).max(64).optional(),
  measuring: measuringSchema.partial().optional(),
});
export type Sweep = z.infer<typeof sweepSchema>;

export const mostKeptSweeps = 500;
/** The user's own sweeps, as they are kept. */
export const sweepShelfSchema = z.array(sweepSchema).max(mostKeptSweeps);
