/** Combinations that are well formed and cannot exist, each with the reason in one sentence. Pure. */
import { cachedChannels } from '../contract/cached-channels.ts';
import type { PointConfig, Technique } from '../contract/sweep.ts';
import type { Axes } from './axes.ts';
import type { KnownModel } from './builtin-models.ts';
import { bandsOf } from './estimate.ts';

export const isLatent = (kind: Technique['cacheKind']): boolean =>
  kind === 'latent-separate' || kind === 'latent-joint';

/** Ways to size a latent. One replaces another; the two ranks of a separate latent belong together. */
export const wholeSizes = ['latentRank', 'latentBands', 'adaptiveBudgetBytes', 'adaptiveEnergy'] as const;
export const rankPair = ['latentRankKey', 'latentRankValue'] as const;
export const latentFields = [...wholeSizes, ...rankPair, 'latentBasis', 'latentCentred'] as const;

/**
 * The first reason why there is no such point.
 * @param axes what the sweep says of it: what it leaves out may be chosen, what it says may not be ignored
 * @param known the shape of the point's model, where it is known
 */
export function whyImpossible(config: PointConfig, axes: Axes, known: KnownModel | undefined): string | undefined {
  return (
    whyModelImpossible(config, known) ??
    whyShapeImpossible(config, axes) ??
    whyOwnLatentImpossible(config) ??
    whyLatentImpossible(config, axes) ??
    whyCodecImpossible(config)
  );
}

/** A model has one shape: axes cannot give it another. */
function whyModelImpossible(c: PointConfig, known: KnownModel | undefined): string | undefined {
  if (c.phase === 'capacity' && (c.layer !== undefined || c.batch !== 1))
    return 'the phase capacity counts sequences by itself: it needs a batch of 1, and all layers of a model';
  if (c.model === undefined) {
    if (c.phase === 'speculate') return 'the phase speculate needs a model';
    const stray = (['layers', 'layer', 'tokenFile', 'latentDim', 'ropeDim', 'valueDim'] as const).find(
      (name) => c[name] !== undefined,
    );
    return stray && `${stray} needs a model`;
  }
  if (c.layers === undefined) return `the shape of model ${c.model} is not known here`;
  if (c.layer !== undefined && c.layer >= c.layers)
    return `model ${c.model} has layers 0 to ${c.layers - 1}, not ${c.layer}`;
  if (c.phase === 'speculate' && (c.layer !== undefined || c.batch !== 1))
    return 'the phase speculate needs a whole model and a batch of 1';
  const names = Object.keys(known ?? {}) as (keyof KnownModel)[];
  const other = names.find((name) => c[name] !== known?.[name]);
  return other && `model ${c.model} has ${other} ${known?.[other]}, not ${c[other]}`;
}

/** What cannot be done to a model that caches a latent by itself (DeepSeek). */
function whyOwnLatentImpossible(c: PointConfig): string | undefined {
  if (c.latentDim === undefined) return undefined;
  if (c.ropeDim === undefined || c.valueDim === undefined || c.ropeDim >= c.headDim)
    return 'latentDim needs a ropeDim below headDim, and a valueDim';
  const own = `the model caches one latent of ${c.latentDim}+${c.ropeDim} for all heads already`;
  if (c.kvHeads !== c.referenceKvHeads) return `${own}: there are no KV heads to merge`;
  if (isLatent(c.cacheKind)) return `${own}: it is not converted into another one`;
  if (c.cacheKind === 'input') return `${own}: the layer input, ${c.hiddenDim}, is no smaller cache`;
  if (c.hadamard) return `${own}: hadamard is for heads`;
  if (c.kernel === 'naive') return `${own}: kernel naive has no way to read it`;
  return undefined;
}

function whyShapeImpossible(c: PointConfig, axes: Axes): string | undefined {
  if (axes.headDim === undefined && c.headDim * c.heads !== c.hiddenDim)
    return `hiddenDim ${c.hiddenDim} does not divide into ${c.heads} heads: give headDim`;
  if (c.referenceKvHeads > c.heads) return `referenceKvHeads ${c.referenceKvHeads} exceeds heads ${c.heads}`;
  if (c.heads % c.referenceKvHeads !== 0)
    return `heads ${c.heads} is no multiple of referenceKvHeads ${c.referenceKvHeads}`;
  if (c.kvHeads > c.referenceKvHeads)
    return `the reference has ${c.referenceKvHeads} KV heads, so ${c.kvHeads} cannot be cached`;
  if (c.referenceKvHeads % c.kvHeads !== 0)
    return `referenceKvHeads ${c.referenceKvHeads} is no multiple of kvHeads ${c.kvHeads}`;
  if (c.headDim % 2 !== 0 && c.ropeTheta > 0)
    return `a rotary embedding needs an even headDim, not ${c.headDim}: set ropeTheta 0`;
  if (c.verifyTokens !== undefined && c.verifyTokens > c.seqLen)
    return `verifyTokens ${c.verifyTokens} exceeds seqLen ${c.seqLen}`;
  return undefined;
}

function whyLatentImpossible(c: PointConfig, axes: Axes): string | undefined {
  if (!isLatent(c.cacheKind)) {
    const stray = latentFields.find((name) => axes[name] !== undefined);
    return stray && `${stray} needs cacheKind latent-separate or latent-joint, not ${c.cacheKind}`;
  }
  const sizes = wholeSizes.filter((name) => c[name] !== undefined);
  const ranks = rankPair.filter((name) => c[name] !== undefined);
  if (sizes.length > 1) return `${sizes.join(' and ')} exclude each other`;
  if (sizes.length === 1 && ranks.length > 0) return `${sizes[0]} and ${ranks[0]} exclude each other`;
  const width = c.kvHeads * c.headDim;
  if (c.cacheKind === 'latent-separate') {
    const joint = (['latentRank', 'latentBands'] as const).find((name) => c[name] !== undefined);
    if (joint) return `${joint} needs cacheKind latent-joint`;
    if (sizes.length === 0 && ranks.length < 2)
      return 'a separate latent needs latentRankKey and latentRankValue, or an adaptive target';
    const most = Math.min(c.hiddenDim, width);
    const tooLarge = ranks.find((name) => (c[name] ?? 0) > most);
    return tooLarge && `${tooLarge} ${c[tooLarge]} exceeds the rank of what it compresses, ${most}`;
  }
  if (ranks.length > 0) return `${ranks[0]} needs cacheKind latent-separate`;
  if (sizes.length === 0) return 'a joint latent needs latentRank, latentBands or an adaptive target';
  const most = Math.min(c.hiddenDim, 2 * width);
  const rank = c.latentBands
    ? bandsOf(c.latentBands).reduce((sum, band) => sum + band.coordinates, 0)
    : (c.latentRank ?? 1);
  if (rank < 1 || rank > most) return `rank ${rank} is outside 1 to ${most}, the rank of what it compresses`;
  return undefined;
}

function whyCodecImpossible(c: PointConfig): string | undefined {
  if (c.cacheKind !== 'direct' && c.keyDtype !== c.valueDtype)
    return `one ${c.cacheKind} cache cannot be both ${c.keyDtype} and ${c.valueDtype}`;
  if (c.hadamard) {
    if (c.cacheKind !== 'direct') return `hadamard needs cacheKind direct, not ${c.cacheKind}`;
    if ((c.headDim & (c.headDim - 1)) !== 0) return `hadamard needs a headDim that is a power of two, not ${c.headDim}`;
    if (c.keyRope === 'pre' && c.ropeTheta > 0)
      return 'hadamard is applied after the rotary embedding: set keyRope post';
  }
  // A latent's last group may be ragged; groups of channels of a head or of the input may not.
  if (isLatent(c.cacheKind)) return undefined;
  const { keyDim, valueDim } = cachedChannels(c, 1);
  for (const side of ['key', 'value'] as const) {
    const channels = c.cacheKind === 'input' ? c.hiddenDim : side === 'key' ? keyDim : valueDim;
    const size = c[`${side}GroupSize`];
    if (c[`${side}Grouping`] === 'token' && size && channels % size !== 0)
      return `${side}GroupSize ${size} does not divide ${channels} channels`;
  }
  return undefined;
}
