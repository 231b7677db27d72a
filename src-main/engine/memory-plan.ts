/**
 * How far a device's memory goes on a model, per level: by formula, with the pages in which the engine allocates. Pure.
 * Layers with a window and layers without are summed, never averaged. What the formula promises is proven by allocating
 * for real (`plan --prove`).
 */
import { cachedChannels } from '../contract/cached-channels.ts';
import {
  type LevelOnModel,
  type MemoryPlan,
  type ModelConfig,
  own16Bit,
  type PlanCurve,
  type PlanRow,
} from '../contract/model.ts';
import type { CacheDtype, PointConfig } from '../contract/sweep.ts';
import { bandsOf } from './estimate.ts';
import { type LevelName, levelNames } from './levels.ts';
import { resolvePoint } from './plan.ts';

/** Compressed tokens come in pages of 64, exact recent ones in pages of 16; buffers are rounded up to 64 bytes. */
const pageTokens = 64;
const exactPageTokens = 16;
/** A page's entry in its table. */
const tableEntryBytes = { cpu: 56, device: 4 };
const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;
const buffer = (bytes: number): number => roundUp(bytes, 64);

interface Band {
  readonly channels: number;
  readonly bits: number;
  /** Bytes of the scale, and minimum, of a group; 0 = no groups. */
  readonly scaleBytes: number;
}

/** Channels of one token as a store keeps them. */
interface Store {
  readonly heads: number;
  readonly bands: readonly Band[];
  /** Tokens of a channel share a scale, not channels of a token. */
  readonly groupsTokens?: boolean;
  readonly groupSize?: number;
  /** Each token's channels stand together, padded to whole bytes of eight. */
  readonly tokenRows?: boolean;
}

const bits: Readonly<Record<CacheDtype, number>> = {
  ...{ f32: 32, f16: 16, bf16: 16, 'fp8-e4m3': 8, 'fp8-e5m2': 8 },
  ...{ int8: 8, int4: 4, int3: 3, int2: 2 },
};
const isInteger = (dtype: CacheDtype): boolean => dtype.startsWith('int');

function bytesOfPage(store: Store, tokens: number): number {
  const codes = store.bands.reduce((sum, { channels, bits: width }) => {
    const stored = store.tokenRows ? roundUp(channels, 8) : channels;
    return sum + (stored * tokens * width) / 8;
  }, 0);
  const scales = store.bands.reduce((sum, band) => sum + scaleBytesOf(store, band, tokens), 0);
  return buffer(codes * store.heads) + buffer(scales * store.heads) + tableEntryBytes.cpu;
}

/** Of a head. */
function scaleBytesOf({ groupSize: size = 32, groupsTokens }: Store, band: Band, tokens: number): number {
  const groups = groupsTokens ? band.channels * (tokens / size) : Math.ceil(band.channels / size) * tokens;
  return groups * band.scaleBytes;
}

/** On a device each band has a buffer of codes and one of scales, for all pages of all layers at once. */
function bytesOnDevice(store: Store, pages: number): number {
  const bands = store.bands.reduce((sum, band) => {
    const codes = Math.ceil((band.channels * band.bits) / 8) * pageTokens;
    const scales = scaleBytesOf(store, band, pageTokens);
    return sum + buffer(pages * store.heads * codes) + buffer(pages * store.heads * scales);
  }, 0);
  return bands + buffer(pages * tableEntryBytes.device);
}

function bandOf(channels: number, dtype: CacheDtype, symmetric: boolean | undefined): Band {
  return { channels, bits: bits[dtype], scaleBytes: isInteger(dtype) ? (symmetric ? 2 : 4) : 0 };
}

/** A model's own latent lies beside its rotated key on a device where both are floats of one type that are read as they are. */
function storesOnDevice(c: PointConfig): readonly Store[] {
  const isOneRow = c.keyDtype === c.valueDtype && bits[c.keyDtype] >= 16 && (c.keyRope !== 'pre' || c.ropeTheta === 0);
  if (c.latentDim === undefined || !isOneRow) return storesOf(c);
  return [{ heads: 1, bands: [bandOf(c.latentDim + (c.ropeDim ?? 0), c.keyDtype, c.symmetric)] }];
}

/** The stores of a level's compressed tokens. */
function storesOf(c: PointConfig): readonly Store[] {
  if (c.cacheKind === 'direct') {
    const { heads, ...widths } = cachedChannels(c, c.kvHeads);
    const side = (which: 'key' | 'value'): Store => ({
      heads,
      bands: [bandOf(widths[`${which}Dim`], c[`${which}Dtype`], c.symmetric)],
      groupsTokens: c[`${which}Grouping`] === 'channel' && isInteger(c[`${which}Dtype`]),
      groupSize: c[`${which}GroupSize`] ?? 32,
      tokenRows: which === 'value',
    });
    return [side('key'), side('value')];
  }
  const groupSize = c.keyGroupSize ?? 32;
  if (c.cacheKind === 'input') {
    // The loudest channels of the input stay in 16 bit (layer.cpp: loudChannels).
    const most = Math.min(Math.floor(c.hiddenDim / 2), Math.max(4, Math.floor(c.hiddenDim / 256)));
    const loud = bits[c.keyDtype] < 16 ? most : 0;
    const rest = bandOf(c.hiddenDim - loud, c.keyDtype, c.symmetric);
    return [{ heads: 1, bands: loud > 0 ? [bandOf(loud, 'f16', false), rest] : [rest], groupSize }];
  }
  if (c.latentBands) {
    const bands = bandsOf(c.latentBands).map(({ coordinates, bits: width }) => ({
      channels: coordinates,
      bits: width,
      scaleBytes: width === 16 ? 0 : width === 8 ? 2 : 4,
    }));
    return [{ heads: 1, bands, groupSize }];
  }
  const most = Math.min(c.hiddenDim, c.kvHeads * c.headDim);
  if (c.cacheKind === 'latent-joint') {
    // Bits of an adaptive joint latent follow the spectrum, and spend its budget but for the last few bytes.
    if (c.adaptiveBudgetBytes !== undefined)
      return [{ heads: 1, bands: [bandOf(c.adaptiveBudgetBytes, 'fp8-e4m3', false)] }];
    const rank = c.latentRank ?? Math.min(c.hiddenDim, 2 * c.kvHeads * c.headDim);
    return [{ heads: 1, bands: [bandOf(rank, c.keyDtype, c.symmetric)], groupSize }];
  }
  const separate = (rankKey: number, rankValue: number): readonly [Store, Store] => [
    { heads: 1, bands: [bandOf(rankKey, c.keyDtype, c.symmetric)], groupSize },
    {
      heads: 1,
      bands: [bandOf(rankValue, c.valueDtype, c.symmetric)],
      groupSize: c.valueGroupSize ?? 32,
      tokenRows: true,
    },
  ];
  if (c.adaptiveBudgetBytes === undefined) return separate(c.latentRankKey ?? most, c.latentRankValue ?? most);
  return dearestSplit(separate, most, c.adaptiveBudgetBytes);
}

/**
 * The stores of an adaptive budget: calibration chooses among splits between keys and values that cost the same, the most
 * that the budget allows (layer.cpp: splitsOf), so any of them stands for all.
 */
function dearestSplit(
  separate: (rankKey: number, rankValue: number) => readonly [Store, Store],
  most: number,
  budgetBytes: number,
): readonly Store[] {
  const cost = (stores: readonly Store[]): number =>
    stores.reduce((sum, store) => sum + bytesOfPage(store, pageTokens) - tableEntryBytes.cpu, 0);
  let dearest: readonly Store[] = separate(1, 1);
  let spent = 0;
  let rankKey = 0;
  for (let rankValue = roundUp(most, 8); rankValue > 0; rankValue -= 8) {
    const values = Math.min(rankValue, most);
    while (rankKey < most && cost(separate(rankKey + 1, values)) <= budgetBytes * pageTokens) rankKey += 1;
    if (rankKey === 0) continue;
    const stores = separate(rankKey, values);
    if (cost(stores) > spent) [dearest, spent] = [stores, cost(stores)];
  }
  return dearest;
}

/**
 * Bytes that the engine allocates for the cache of one sequence of `tokens` tokens in `layers` layers, on the CPU or on the
 * device that the configuration names. An upper bound for what no level does: ranks by an energy target, bits of a joint
 * latent by a budget.
 */
export function pagedCacheBytes(c: PointConfig, tokens: number, layers = 1): number {
  const stores = storesOf(c);
  const { heads, keyDim, valueDim } = cachedChannels(c, c.kvHeads);
  const exact: readonly Store[] = [
    { heads, bands: [{ channels: keyDim, bits: 16, scaleBytes: 0 }] },
    { heads, bands: [{ channels: valueDim, bits: 16, scaleBytes: 0 }], tokenRows: true },
  ];
  const tokenGroup = Math.max(1, ...stores.map((store) => (store.groupsTokens ? (store.groupSize ?? 1) : 1)));
  const hasTail = tokenGroup > 1 || c.residualTokens > 0;
  const settled = hasTail ? Math.floor(Math.max(0, tokens - c.residualTokens) / tokenGroup) * tokenGroup : tokens;
  const oldest = c.window === undefined ? 0 : Math.max(0, tokens - c.window + 1);
  const pages = Math.max(0, Math.ceil(settled / pageTokens) - Math.floor(oldest / pageTokens));
  if (c.backend !== 'cpu') {
    const rows = (count: number): number =>
      [keyDim, valueDim].reduce((sum, channels) => sum + buffer(layers * count * heads * channels * 2), 0);
    const tail = hasTail ? roundUp(tokens - settled, exactPageTokens) : 0;
    return (
      storesOnDevice(c).reduce((sum, store) => sum + bytesOnDevice(store, layers * pages), 0) +
      rows(tail) +
      rows(tokens > 0 ? roundUp(c.sinkTokens, 8) : 0)
    );
  }
  let bytes = stores.reduce((sum, store) => sum + pages * bytesOfPage(store, pageTokens), 0);
  if (hasTail && tokens > settled) {
    const tail = Math.ceil(tokens / exactPageTokens) - Math.floor(settled / exactPageTokens);
    for (const store of exact) bytes += tail * bytesOfPage(store, exactPageTokens);
  }
  if (c.sinkTokens > 0 && tokens > 0) {
    const size = Math.min(pageTokens, roundUp(c.sinkTokens, 8));
    for (const store of exact) bytes += Math.ceil(c.sinkTokens / size) * bytesOfPage(store, size);
  }
  return layers * bytes;
}

/** @returns a sentence where the level does not apply. */
export function levelOnModel(model: ModelConfig, level: string, tokens: number): LevelOnModel | string {
  const { mla } = model;
  if (level.startsWith('shared-') && model.kvHeads > 1) return 'for models trained with one shared KV head';
  // A layer of its own kind exists in models only.
  const own = mla && { latentDim: mla.rank, ropeDim: mla.ropeDim, valueDim: mla.valueDim };
  const ofModel = own && { model: model.family, layers: model.layers.length };
  const { config, refused } = resolvePoint({
    ...own,
    ...ofModel,
    ...(level === own16Bit ? { level: 'custom', cacheDtype: 'f16' } : { level }),
    hiddenDim: model.hiddenDim,
    heads: model.heads,
    headDim: model.headDim,
    referenceKvHeads: model.kvHeads,
    ropeTheta: model.layers[0]?.rope?.theta ?? 0,
    seqLen: Math.min(tokens, 2 ** 20),
  });
  if (refused !== undefined) return refused;
  return stackOnModel(model, config);
}

const notLinear = 'keys are normalised after their projection: a latent or an input cache of them is not linear';

/** A layer that attends through a window of its own is not windowed further, and has no sinks. */
const withNativeWindow = (config: PointConfig, window: number | undefined): PointConfig =>
  window === undefined ? config : { ...config, window, sinkTokens: 0 };

/** What a model caches under one configuration, its level and axes resolved. @returns a sentence where it does not apply. */
export function stackOnModel(model: ModelConfig, config: PointConfig): LevelOnModel | string {
  if (model.queryKeyNorm && config.cacheKind !== 'direct') return notLinear;
  const kinds = new Map<number | undefined, number>();
  for (const { window } of model.layers) kinds.set(window, (kinds.get(window) ?? 0) + 1);
  return [...kinds].map(([window, layers]) => ({ config: withNativeWindow(config, window), layers }));
}

export const sequenceBytes = (kinds: LevelOnModel, tokens: number): number =>
  kinds.reduce((sum, { config, layers }) => sum + pagedCacheBytes(config, tokens, layers), 0);

/** Most tokens of one sequence that fit. */
function longestContext(kinds: LevelOnModel, bytes: number, most: number): number {
  let [fits, fails] = [0, most + 1];
  while (fails - fits > 1) {
    const middle = Math.floor((fits + fails) / 2);
    if (sequenceBytes(kinds, middle) <= bytes) fits = middle;
    else fails = middle;
  }
  return fits;
}

export interface PlanRequest {
  /** What messages and tables call the model. */
  readonly name: string;
  readonly config: ModelConfig;
  readonly memoryBytes: number;
  readonly context: number;
  /** Of the weights on the device; default: the model's parameters in the type they are stored in. */
  readonly weightBytes?: number;
}

export function planMemory({ name, config, memoryBytes, context, weightBytes }: PlanRequest): MemoryPlan {
  const weights = weightBytes ?? config.parameters * config.weightBytes;
  const free = Math.max(0, memoryBytes - weights);
  const own = levelOnModel(config, own16Bit, context) as LevelOnModel;
  const names: readonly (LevelName | typeof own16Bit)[] = [
    own16Bit,
    ...levelNames.filter((level) => level !== 'custom'),
  ];
  const rows = names.map((level): PlanRow => {
    const kinds = levelOnModel(config, level, context);
    if (typeof kinds === 'string') return { level, refused: kinds };
    const bytesPerSequence = sequenceBytes(kinds, context);
    const longest = longestContext(kinds, free, config.maxPositions);
    return {
      level,
      kinds: kinds.map((kind) => ({ ...kind, bytesPerSequence: sequenceBytes([kind], context) })),
      bytesPerToken: bytesPerSequence / context,
      bytesPerSequence,
      largestBatch: Math.floor(free / bytesPerSequence),
      concurrentUsers: Math.floor(free / sequenceBytes(kinds, Math.ceil(context / 2))),
      longestContext: longest,
      endsAtModel: longest === config.maxPositions,
      multiplierVsOwn16Bit: sequenceBytes(own, context) / bytesPerSequence,
      ...cautionOf(kinds),
    };
  });
  const curves = names.flatMap((level): PlanCurve[] => {
    const kinds = levelOnModel(config, level, context);
    if (typeof kinds === 'string') return [];
    const places = contextsTo(config.maxPositions).map((tokens) => {
      const bytesPerSequence = sequenceBytes(kinds, tokens);
      return { context: tokens, bytesPerSequence, largestBatch: Math.floor(free / bytesPerSequence) };
    });
    return [{ level, places }];
  });
  const { maxPositions } = config;
  return { model: name, memoryBytes, weightBytes: weights, context, maxPositions, rows, curves };
}

/** A plan shows bytes without errors: where an error is known to be fatal, it says so. */
function cautionOf([kind]: LevelOnModel): Pick<PlanRow, 'caution'> {
  const { kvHeads, referenceKvHeads } = kind.config;
  if (kvHeads >= referenceKvHeads) return {};
  const merged = `the ${referenceKvHeads} KV heads of the model are merged into ${kvHeads}`;
  return { caution: `${merged}; without further training that destroys what it says, whatever it saves` };
}

const shortestContext = 128;
/** Powers of two, and the longest that the model can. */
function contextsTo(most: number): number[] {
  const contexts: number[] = [];
  for (let context = shortestContext; context < most; context *= 2) contexts.push(context);
  return [...contexts, most];
}
