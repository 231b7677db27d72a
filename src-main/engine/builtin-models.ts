/** Shapes of the models that come with FastMQA: what a sweep must know before it runs. A test compares them with their files. */
import type { ModelShape } from '../contract/sweep.ts';

export type KnownModel = Omit<ModelShape, 'modelSeed'> & { readonly layers: number };

const byte = { hiddenDim: 256, heads: 8, headDim: 32, ropeTheta: 10000, layers: 4 };

export const builtinModelShapes: Readonly<Record<string, KnownModel>> = {
  'byte-mha': { ...byte, referenceKvHeads: 8 },
  'byte-mqa': { ...byte, referenceKvHeads: 1 },
};
