/**
 * Optimisation levels: a name, what it does in words, and the techniques it stands for on a given layer.
 *
 * Short names: G = referenceKvHeads, D = headDim, d = hiddenDim. Figures in the summaries follow from byte counts
 * (attention-spec 0), not from measurements.
 */
import { cachedChannels } from '../contract/cached-channels.ts';
import type { ModelShape, Technique } from '../contract/sweep.ts';

export interface Level {
  readonly summary: string;
  readonly techniques: readonly string[];
  readonly resolve: (shape: ModelShape) => Technique;
}

/** Channels that share a scale: attention-spec B.5. */
const groupSize = 32;
const windowTokens = 512;
const sinkTokens = 4;

/** Largest divisor of `channels` that is at most `wanted`: a group must not straddle heads. */
function groupWithin(channels: number, wanted: number): number {
  let size = Math.min(channels, wanted);
  while (channels % size !== 0) size -= 1;
  return size;
}

/** Channels of one cached value. */
const valueChannels = (shape: ModelShape): number => cachedChannels(shape, 1).valueDim;

/** Every level starts here: nothing saved. */
const baseline = (shape: ModelShape): Technique => ({
  kernel: 'flash',
  kvHeads: shape.referenceKvHeads,
  cacheKind: 'direct',
  keyDtype: 'f32',
  valueDtype: 'f32',
  keyRope: 'post',
  residualTokens: 0,
  sinkTokens: 0,
});

const oneSharedHead = (shape: ModelShape): Partial<Technique> =>
  shape.referenceKvHeads > 1 ? { kvHeads: 1, kvConversion: 'mean' } : { kvHeads: 1 };

const storedAs = (dtype: Technique['keyDtype']): Pick<Technique, 'keyDtype' | 'valueDtype'> => ({
  keyDtype: dtype,
  valueDtype: dtype,
});

/** Groups of channels of one token, for keys and for values. */
const tokenGroups = (size: number): Partial<Technique> => ({
  keyGrouping: 'token',
  keyGroupSize: size,
  valueGrouping: 'token',
  valueGroupSize: size,
});

/** KIVI (attention-spec B.5): keys by channel over `keyTokens` tokens, values by token over `channels` of them. */
const kiviGroups = (keyTokens: number, channels: number): Partial<Technique> => ({
  keyGrouping: 'channel',
  keyGroupSize: keyTokens,
  valueGrouping: 'token',
  valueGroupSize: channels,
});

const latent: Partial<Technique> = { latentBasis: 'activation', latentCentred: true };

const conservative = (shape: ModelShape): Technique => ({
  ...baseline(shape),
  ...oneSharedHead(shape),
  ...storedAs('f16'),
  ...latent,
  cacheKind: 'latent-separate',
  latentRankKey: Math.max(1, Math.floor(shape.headDim / 2)),
  latentRankValue: Math.max(1, Math.floor(shape.headDim / 2)),
});

/**
 * Latent coordinates of one token that calibration shares out between keys and values: 0.75 D, and no fewer than leave
 * keys some room, because values are stored in whole eights.
 */
const adaptiveCoordinates = (shape: ModelShape): number => Math.max(12, Math.floor(0.75 * shape.headDim));

const balanced = (shape: ModelShape): Technique => ({
  ...baseline(shape),
  ...oneSharedHead(shape),
  ...storedAs('f16'),
  ...latent,
  cacheKind: 'latent-separate',
  keyRope: 'pre',
  window: windowTokens,
  sinkTokens,
  adaptiveBudgetBytes: 2 * adaptiveCoordinates(shape),
});

function aggressive(shape: ModelShape): Technique {
  const coordinates = adaptiveCoordinates(shape);
  return {
    ...balanced(shape),
    ...storedAs('int8'),
    ...tokenGroups(groupSize),
    symmetric: true,
    // One byte a coordinate, one f16 scale a group. Two latents may leave a ragged group each; then fewer fit.
    adaptiveBudgetBytes: coordinates + 2 * Math.ceil(coordinates / groupSize),
    speculativeTokens: 4,
  };
}

/** Keys vary least along a channel, values within a token (attention-spec B.5). */
const nearLossless = (shape: ModelShape): Technique => ({
  ...baseline(shape),
  ...storedAs('int8'),
  ...kiviGroups(64, groupWithin(valueChannels(shape), 64)),
  symmetric: true,
});

const quantisedInput =
  (dtype: 'int8' | 'int4') =>
  (shape: ModelShape): Technique => ({
    ...baseline(shape),
    ...storedAs(dtype),
    ...tokenGroups(groupWithin(shape.hiddenDim, groupSize)),
    cacheKind: 'input',
    // At 8 bits the minimum buys nothing and costs 6 % (G.7: 3.8x is without it); at 4 bits it is worth its room.
    symmetric: dtype === 'int8',
    sinkTokens,
  });

/** Bands are given for d = 2048 and scale with d: attention-spec B.9. */
type Band = readonly [coordinates: number, bits: 8 | 4 | 3 | 2];

/** The bands that exist on this layer: multiples of a group, least energetic dropped beyond min(d, 2GD). */
function bandsFor(shape: ModelShape, bands: readonly Band[]): string {
  let left = Math.min(shape.hiddenDim, 2 * shape.referenceKvHeads * shape.headDim);
  const parts: string[] = [];
  for (const [coordinates, bits] of bands) {
    const scaled = Math.max(groupSize, Math.round((coordinates * shape.hiddenDim) / 2048 / groupSize) * groupSize);
    const kept = Math.min(scaled, left);
    if (kept > 0) parts.push(`${kept}x${bits}`);
    left -= kept;
  }
  return parts.join('+');
}

const mixedLatent =
  (...bands: Band[]) =>
  (shape: ModelShape): Technique => ({
    ...baseline(shape),
    ...storedAs('int8'), // in name only: each band brings its own bits
    ...latent,
    cacheKind: 'latent-joint',
    keyRope: 'pre',
    latentBands: bandsFor(shape, bands),
    sinkTokens,
  });

/** Asymmetric 4-bit keys by channel, before the rotary embedding: what shared heads tolerate best (G.2). */
const fourBitKeys: Partial<Technique> = { keyDtype: 'int4', keyRope: 'pre', symmetric: false, sinkTokens };

const table = {
  baseline: {
    summary: 'the reference: full cache in f32',
    techniques: ['f32 cache', 'flash kernel'],
    resolve: baseline,
  },
  conservative: {
    summary: 'one shared head, latent of D/2 for keys and for values',
    techniques: ['MQA', 'latent D/2, activation-aware, f16', 'absorbed decode', 'flash kernel'],
    resolve: conservative,
  },
  balanced: {
    summary: 'conservative + exact RoPE + window 512 + adaptive ranks',
    techniques: [
      'MQA',
      'adaptive latent, 0.75 D coordinates, f16',
      'exact RoPE',
      'window 512, 4 sinks',
      'flash kernel',
    ],
    resolve: balanced,
  },
  aggressive: {
    summary: 'balanced + 8-bit latents + speculative decoding',
    techniques: [
      'MQA',
      'adaptive latent, 0.75 D coordinates, int8',
      'exact RoPE',
      'window 512, 4 sinks',
      'speculative decoding, 4 draft tokens',
      'flash kernel',
    ],
    resolve: aggressive,
  },
  'near-lossless': {
    summary: '8-bit keys and values',
    techniques: ['int8 keys by channel, 64 tokens', 'int8 values by token', 'flash kernel'],
    resolve: nearLossless,
  },
  'near-lossless-input': {
    summary: '8-bit cache of the layer input; keys and values are computed from it again',
    techniques: ['layer input cached in int8, groups of 32', '4 sinks', 'flash kernel'],
    resolve: quantisedInput('int8'),
  },
  'four-bit': {
    summary: '4-bit keys and values after KIVI',
    techniques: ['int4 keys by channel before RoPE', 'int4 values by token', '4 sinks', 'flash kernel'],
    resolve: (shape) => ({
      ...baseline(shape),
      ...fourBitKeys,
      ...kiviGroups(groupSize, groupWithin(valueChannels(shape), groupSize)),
      valueDtype: 'int4',
    }),
  },
  'four-bit-input': {
    summary: '4-bit cache of the layer input',
    techniques: ['layer input cached in int4, groups of 32', '4 sinks', 'flash kernel'],
    resolve: quantisedInput('int4'),
  },
  'mixed-latent-7x': {
    summary: 'joint latent in 8, 4 and 2 bits by energy, about 7x against 16 bit',
    techniques: ['joint latent 256x8+768x4+1024x2 per 2048', 'exact RoPE', '4 sinks', 'flash kernel'],
    resolve: mixedLatent([256, 8], [768, 4], [1024, 2]),
  },
  'mixed-latent': {
    summary: 'joint latent in 4, 3 and 2 bits by energy, about 11x against 16 bit',
    techniques: ['joint latent 256x4+768x3+512x2 per 2048', 'exact RoPE', '4 sinks', 'flash kernel'],
    resolve: mixedLatent([256, 4], [768, 3], [512, 2]),
  },
  'mixed-latent-17x': {
    summary: 'joint latent in 4, 3 and 2 bits by energy, about 17x against 16 bit: a draft',
    techniques: ['joint latent 128x4+384x3+512x2 per 2048', 'exact RoPE', '4 sinks', 'flash kernel'],
    resolve: mixedLatent([128, 4], [384, 3], [512, 2]),
  },
  'shared-64x': {
    summary: 'for models trained with one shared head: 8-bit cache',
    techniques: ['native MQA', 'int8 keys by channel, 64 tokens', 'int8 values by token', 'flash kernel'],
    resolve: nearLossless,
  },
  'shared-128x': {
    summary: 'for models trained with one shared head: 4-bit keys, 8-bit values',
    techniques: [
      'native MQA',
      'int4 keys by channel before RoPE, 16 tokens',
      'int8 values by token',
      '4 sinks',
      'flash kernel',
    ],
    resolve: (shape) => ({
      ...baseline(shape),
      ...fourBitKeys,
      ...kiviGroups(16, valueChannels(shape)),
      valueDtype: 'int8',
    }),
  },
  'shared-512x': {
    summary: 'for models trained with one shared head: 3- and 2-bit cache of a window of 576',
    techniques: [
      'native MQA',
      'int3 keys by channel before RoPE, 64 tokens',
      'int2 values by token',
      'window 576, 4 sinks',
      'flash kernel',
    ],
    // The lowest error of the stacks tried above 512x at (2048, 32, 1024): a wide window of few bits beats a narrow
    // one of many, and both beat low-rank latents by far.
    resolve: (shape) => ({
      ...baseline(shape),
      ...fourBitKeys,
      ...kiviGroups(64, groupWithin(valueChannels(shape), 64)),
      keyDtype: 'int3',
      valueDtype: 'int2',
      window: 576,
    }),
  },
  custom: {
    summary: 'baseline, changed by the axes of the sweep',
    techniques: ['any stack'],
    resolve: baseline,
  },
} satisfies Record<string, Level>;

export type LevelName = keyof typeof table;

/** All levels by name, in the order in which they are shown. */
export const levels: Readonly<Record<LevelName, Level>> = table;
export const levelNames = Object.keys(table) as LevelName[];
/** Levels for models with full heads, and for models trained with one shared head. */
export const sharedLevelNames = levelNames.filter((name) => name.startsWith('shared-'));
export const fullHeadLevelNames = levelNames.filter((name) => name !== 'custom' && !name.startsWith('shared-'));
