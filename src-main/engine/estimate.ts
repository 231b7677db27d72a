/**
 * What a point will cost, by formula, before it runs: cache bytes, peak bytes, seconds. Planning only; never reported as measured.
 *
 * Short names as everywhere: B batch, H heads, G KV heads, S seqLen, D headDim, d hiddenDim.
 */
import { cachedChannels } from '../contract/cached-channels.ts';
import type { CacheDtype, Measuring, PointConfig } from '../contract/sweep.ts';

/** Assumed machine: two cores with AVX2. A faster one finishes earlier than promised. */
const referenceFlopsPerSecond = 30e9; // fp64
const kernelFlopsPerSecond = 60e9; // f32
const bytesPerSecond = 10e9;
/** One symmetric eigen-decomposition costs about this many flops per n^3. */
const eigenFlops = 9;
/** Query positions at which the fp64 reference is computed, at most, for each sequence. */
const referencePositions = 64;
const codecFlopsPerValue = 4;

const bits: Readonly<Record<CacheDtype, number>> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  'fp8-e4m3': 8,
  'fp8-e5m2': 8,
  int8: 8,
  int4: 4,
  int3: 3,
  int2: 2,
};

/** Bands like `256x8+768x4`, most energetic coordinates first. */
export const bandsOf = (text: string): { coordinates: number; bits: number }[] =>
  text.split('+').map((band) => {
    const [coordinates, width] = band.split('x').map(Number);
    return { coordinates: coordinates, bits: width };
  });

/** Tokens of one sequence that the cache holds: attention-spec 0, `window(W, n_sink)`. */
export const cachedTokens = (c: PointConfig): number =>
  c.window === undefined ? c.seqLen : Math.min(c.seqLen, c.window + c.sinkTokens);

/** Bytes of `channels` values of one token, scales included: attention-spec 0, payload table. */
function codedBytes(channels: number, dtype: CacheDtype, groupSize: number | undefined, symmetric = false): number {
  const scaleBytes = groupSize === undefined ? 0 : (channels / groupSize) * (symmetric ? 2 : 4);
  return (channels * bits[dtype]) / 8 + scaleBytes;
}

/** Channels of a token that the direct cache of so many KV heads has, keys and values together. */
function directChannels(c: PointConfig, kvHeads: number): number {
  const { heads, keyDim, valueDim } = cachedChannels(c, kvHeads);
  return heads * (keyDim + valueDim);
}

/** Values of one token that the cache stores, keys and values together. */
function storedChannels(c: PointConfig): number {
  const width = c.kvHeads * c.headDim;
  if (c.cacheKind === 'direct') return directChannels(c, c.kvHeads);
  if (c.cacheKind === 'input') return c.hiddenDim;
  if (c.latentBands) return bandsOf(c.latentBands).reduce((sum, band) => sum + band.coordinates, 0);
  if (c.latentRank) return c.latentRank;
  if (c.latentRankKey && c.latentRankValue) return c.latentRankKey + c.latentRankValue;
  const most = Math.min(c.hiddenDim, 2 * width);
  return c.adaptiveBudgetBytes ? Math.min(most, Math.floor((c.adaptiveBudgetBytes * 8) / bits[c.keyDtype])) : most;
}

/** Payload and scales of one compressed token, bytes. An energy target is taken at full rank: an upper bound. */
function compressedTokenBytes(c: PointConfig): number {
  const { heads, keyDim, valueDim } = cachedChannels(c, c.kvHeads);
  if (c.cacheKind === 'direct') {
    return (
      codedBytes(heads * keyDim, c.keyDtype, c.keyGroupSize, c.symmetric) +
      codedBytes(heads * valueDim, c.valueDtype, c.valueGroupSize, c.symmetric)
    );
  }
  if (c.adaptiveBudgetBytes) return c.adaptiveBudgetBytes;
  if (c.latentBands) {
    // Groups of 32: a scale at 8 bits, scale and minimum below, none at 16 (G.7).
    const overhead = (width: number): number => (width === 16 ? 0 : width === 8 ? 2 : 4);
    return bandsOf(c.latentBands).reduce(
      (sum, b) => sum + (b.coordinates * b.bits) / 8 + Math.ceil(b.coordinates / 32) * overhead(b.bits),
      0,
    );
  }
  return codedBytes(storedChannels(c), c.keyDtype, c.keyGroupSize, c.symmetric);
}

/** Cache bytes by formula for the whole batch: compressed tokens, and sinks and residual in f16. */
export function logicalCacheBytes(c: PointConfig): number {
  const held = cachedTokens(c);
  const compressed = compressedTokenBytes(c);
  const exact = c.cacheKind === 'input' ? 2 * c.hiddenDim : 2 * directChannels(c, c.kvHeads);
  const exactTokens = Math.min(held, c.sinkTokens + c.residualTokens);
  return c.batch * (exactTokens * exact + (held - exactTokens) * compressed);
}

/** Layers of a model that a point runs. */
export const layersOf = ({ layers, layer }: PointConfig): number => (layer === undefined ? (layers ?? 1) : 1);

/** What a cache of full heads in f32 needs: B * S * 2HD * 4 bytes. The "64x, 128x, 512x" refer to this. */
export const f32MhaBytes = (c: PointConfig): number =>
  c.batch * c.seqLen * c.heads * (c.headDim + (c.valueDim ?? c.headDim)) * 4;

/** What the reference itself would cache in 16 bit: its own KV heads, B * S * 2GD * 2 bytes, or its latent. */
export const own16BitBytes = (c: PointConfig): number => c.batch * c.seqLen * directChannels(c, c.referenceKvHeads) * 2;

function weightCount(c: PointConfig, kvHeads: number): number {
  if (c.latentDim === undefined) return 2 * c.hiddenDim * c.headDim * (c.heads + kvHeads);
  const [ropeDim, valueDim] = [c.ropeDim ?? 0, c.valueDim ?? 0];
  const expansion = c.latentDim * c.heads * (c.headDim - ropeDim + valueDim);
  return c.hiddenDim * (c.heads * (c.headDim + valueDim) + c.latentDim + ropeDim) + expansion;
}

/** Made in one timed step of the phase speculate, each for about so many passes of a model. */
const speculatedTokens = 48;
const speculationOverhead = 2;

/** Seconds of one timed step: projections and attention, or the bytes they must read, whichever takes longer. */
function stepSeconds(c: PointConfig): number {
  const queries = c.phase === 'prefill' ? c.seqLen : (c.verifyTokens ?? 1);
  const held = cachedTokens(c);
  const seen = c.phase === 'prefill' ? Math.min(held, c.seqLen / 2) : held;
  const projections = 2 * c.batch * queries * weightCount(c, c.kvHeads);
  const attention = 4 * c.batch * queries * c.heads * c.headDim * seen;
  // Keys of a latent or of the input are computed again, once a step (B.3 option A).
  const generated = c.phase === 'speculate' ? speculatedTokens * speculationOverhead : 1;
  const rebuild =
    c.cacheKind === 'direct'
      ? codecFlopsPerValue * 2 * c.kvHeads * c.headDim
      : 2 * storedChannels(c) * c.kvHeads * c.headDim;
  const flops = projections + attention + c.batch * held * rebuild;
  return (
    generated *
    Math.max(flops / kernelFlopsPerSecond, (4 * weightCount(c, c.kvHeads) + logicalCacheBytes(c)) / bytesPerSecond)
  );
}

/** Documents and haystacks that a model reads, and decodes half of, before it is timed. */
const evaluationSequences = 8;
/** Weights of a layer with its MLP, in units of d². */
const layerWeights = 12;

/** Of the phase capacity: calibration of one layer, then one layer's rows written into every cache until memory is full. */
function capacitySeconds(c: PointConfig): number {
  const bytes = c.cacheLimitBytes ?? typicalDeviceBytes;
  return prepareSeconds({ ...c, model: undefined, batch: 1, seqLen: 64, phase: 'decode' }) + bytes / bytesPerSecond;
}
const typicalDeviceBytes = 80e9;

/** Reference, calibration and filling the cache of one point. */
function prepareSeconds(c: PointConfig): number {
  // Prompts are read three times by each side, then continued with and without a draft.
  if (c.phase === 'speculate') return layersOf(c) * (6 * stepSeconds({ ...c, phase: 'prefill' }) + 2 * stepSeconds(c));
  if (c.model !== undefined && c.layer === undefined) {
    const tokens = evaluationSequences * c.seqLen * layersOf(c);
    const perToken = 2 * layerWeights * c.hiddenDim ** 2 + 4 * c.heads * c.headDim * (c.seqLen / 2);
    return (tokens * perToken) / kernelFlopsPerSecond;
  }
  const width = 2 * c.referenceKvHeads * c.headDim;
  const tokens = c.batch * c.seqLen;
  const positions = c.batch * Math.min(referencePositions, c.seqLen);
  const reference =
    2 * tokens * c.hiddenDim * width + positions * c.heads * c.headDim * (4 * c.hiddenDim + 4 * c.seqLen);
  const rank = Math.min(c.hiddenDim, 2 * c.kvHeads * c.headDim);
  const calibrates = c.cacheKind === 'latent-joint' || c.cacheKind === 'latent-separate';
  const calibration = calibrates ? 2 * c.calibrationTokens * c.hiddenDim * rank + eigenFlops * rank ** 3 : 0;
  const fill = 2 * tokens * c.hiddenDim * 2 * c.kvHeads * c.headDim;
  return (reference + calibration) / referenceFlopsPerSecond + fill / kernelFlopsPerSecond;
}

/** Preparing, warming up and sampling until the stopping rule is met. */
export function estimateSeconds(c: PointConfig, measuring: Measuring): number {
  if (c.phase === 'capacity') return capacitySeconds(c);
  const step = stepSeconds(c) * layersOf(c);
  const sampling = Math.min(
    Math.max(measuring.minSeconds, measuring.minSamples * step),
    Math.max(measuring.maxSeconds, 3 * step),
  );
  return prepareSeconds(c) + Math.max(step, measuring.minSeconds / 5) + sampling;
}

/**
 * One layer: weights in f64 and f32, the input and the reference's keys and values in f64, the cache.
 * A whole model: its weights as they are stored, and of each side (in the phase speculate target and draft, else the level alone)
 * the attention's weights, what the level adds, the exact cache and the level's, and the rows of one prompt between two layers.
 */
export function estimatePeakBytes(c: PointConfig): number {
  // On a GPU it takes what there is.
  if (c.phase === 'capacity') return 12 * weightCount(c, c.referenceKvHeads) + (c.cacheLimitBytes ?? 0);
  if (c.model === undefined || c.layer !== undefined) {
    const activations =
      c.batch * c.seqLen * (c.hiddenDim + 2 * c.referenceKvHeads * c.headDim + c.heads * c.headDim) * 8;
    return Math.ceil(12 * weightCount(c, c.referenceKvHeads) + activations + logicalCacheBytes(c));
  }
  const weights = storedWeightBytes * layerWeights * c.hiddenDim ** 2;
  const attention = 4 * weightCount(c, c.kvHeads) + addedWeightBytes(c);
  const caches = 2 * own16BitBytes(c) + logicalCacheBytes(c);
  const rows = 4 * rowWidth * c.hiddenDim * c.seqLen;
  const sides = c.phase === 'speculate' ? 2 : 1;
  return Math.ceil(layersOf(c) * (weights + sides * (attention + caches)) + sides * rows + calibrationBytes(c));
}

/** Numbers of a token between two layers, in units of d: the stream, its norm, what is added to it, an MLP's gate and up. */
const rowWidth = 12;

/** Of a weight of a model as it is published. */
const storedWeightBytes = 2;

/** Weights that turn what is cached into keys and values: of a latent down and up in f64, of the input in f32. */
function addedWeightBytes(c: PointConfig): number {
  const width = c.hiddenDim + 2 * c.referenceKvHeads * c.headDim;
  if (c.cacheKind === 'direct') return 0;
  return c.cacheKind === 'input' ? 4 * c.hiddenDim * width : 8 * storedChannels(c) * width;
}

/** Second moments of the keys and values of one layer at a time, and their eigenvectors, in f64. */
const calibrationBytes = (c: PointConfig): number =>
  c.cacheKind === 'direct' || c.cacheKind === 'input' ? 0 : 2 * 8 * (2 * c.referenceKvHeads * c.headDim) ** 2;
