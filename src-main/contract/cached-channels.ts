/** How many numbers of a token a layer caches, before any technique. */
import type { ModelShape } from './sweep.ts';

type Shape = Pick<ModelShape, 'headDim' | 'latentDim' | 'ropeDim'>;

/** Heads of the direct cache, and channels of each: keys and values, or the one rotated key and the latent that all heads share. */
export function cachedChannels(shape: Shape, kvHeads: number): { heads: number; keyDim: number; valueDim: number } {
  const { headDim, latentDim, ropeDim } = shape;
  if (latentDim === undefined) return { heads: kvHeads, keyDim: headDim, valueDim: headDim };
  return { heads: 1, keyDim: ropeDim ?? 0, valueDim: latentDim };
}
