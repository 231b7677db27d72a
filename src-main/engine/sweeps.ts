/** Sweeps by name. Every one is also an example of what a user may write. */
import { cacheDtypes, type Sweep } from '../contract/sweep.ts';
import { fullHeadLevelNames, sharedLevelNames } from './levels.ts';

/** The two layers that every table shows: d 1024, 16 heads, 512 tokens and d 2048, 32 heads, 1024 tokens; B = 4. */
const twoLayers = { hiddenDim: [1024, 2048], heads: [16, 32], seqLen: [512, 1024], batch: [4] };
const zip = [['hiddenDim', 'heads', 'seqLen']];
/** Levels stand last, so that neighbours share layer and phase and are measured in turn. */
const prefillAndDecode = { phase: ['prefill', 'decode'] };
const onText = { seqLen: [512], calibrationTokens: [2048], phase: ['decode'] };
const speculating = {
  model: ['byte-mha'],
  calibrationTokens: [2048],
  phase: ['speculate'],
  seqLen: [256, 768, 1900],
  speculativeTokens: [1, 2, 4],
};
const oneLayer = { hiddenDim: [1024], heads: [16], seqLen: [512] };

export const sweeps: Readonly<Record<string, Sweep>> = {
  // What a level does to a trained model; and how a model whose heads are averaged compares with one trained to share them.
  quick: {
    name: 'quick',
    axes: {
      model: ['byte-mha'],
      ...onText,
      level: [
        'baseline',
        'near-lossless',
        'four-bit',
        'near-lossless-input',
        'four-bit-input',
        'mixed-latent-7x',
        'mixed-latent',
        'conservative',
      ],
    },
    also: [
      { axes: { model: ['byte-mha'], ...onText, level: ['custom'], cacheDtype: ['int2'] } },
      {
        axes: {
          model: ['byte-mha'],
          ...onText,
          level: ['custom'],
          cacheDtype: ['f16'],
          window: [128],
          sinkTokens: [4],
        },
      },
      { axes: { model: ['byte-mqa'], ...onText, level: ['baseline', 'shared-64x', 'shared-128x'] } },
      { axes: { model: ['byte-mqa'], ...onText, level: ['custom'], cacheDtype: ['int2'] } },
      { axes: { model: ['byte-mqa'], ...onText, level: ['shared-128x'], window: [128] } },
    ],
    measuring: { minSeconds: 0.1, maxSeconds: 0.3 },
  },
  // Where a compressed draft pays, and where it does not: short contexts are bound by weights, long ones by the cache.
  speculation: {
    name: 'speculation',
    axes: { ...speculating, level: ['near-lossless', 'conservative', 'aggressive'] },
    also: [{ axes: { ...speculating, level: ['custom'], cacheDtype: ['int8'], window: [256], sinkTokens: [4] } }],
    measuring: { minSeconds: 0.1, maxSeconds: 0.3, minSamples: 3 },
  },
  levels: {
    name: 'levels',
    axes: { ...twoLayers, ...prefillAndDecode, level: fullHeadLevelNames },
    zip,
    also: [{ axes: { ...twoLayers, referenceKvHeads: [1], ...prefillAndDecode, level: sharedLevelNames }, zip }],
    // Prefill of the large layer takes about a second a step: three steps, not ten.
    measuring: { minSeconds: 0.3, maxSeconds: 1 },
  },
  'kv-dtype': {
    name: 'kv-dtype',
    axes: { ...oneLayer, level: ['custom'], cacheDtype: [...cacheDtypes] },
    measuring: { maxSeconds: 2 },
  },
  scaling: {
    name: 'scaling',
    axes: {
      hiddenDim: [1024],
      heads: [16],
      seqLen: [512, 1024, 2048, 4096, 8192],
      level: ['baseline', 'near-lossless', 'four-bit', 'balanced'],
    },
    measuring: { maxSeconds: 2 },
  },
  pareto: {
    name: 'pareto',
    axes: { ...oneLayer, level: fullHeadLevelNames },
    also: [
      {
        axes: {
          ...oneLayer,
          level: ['custom'],
          keyRope: ['pre', 'post'],
          cacheDtype: ['f16', 'fp8', 'int8', 'int4', 'int3', 'int2'],
        },
      },
      { axes: { ...oneLayer, level: ['four-bit'], cacheDtype: ['int8', 'int4', 'int3', 'int2'] } },
      { axes: { ...oneLayer, level: ['four-bit-input'], cacheDtype: ['int8', 'int4', 'int3', 'int2'] } },
      {
        axes: {
          ...oneLayer,
          level: ['mixed-latent'],
          latentRank: [128, 256, 512, 768, 1024],
          cacheDtype: ['f16', 'int8', 'int4'],
        },
      },
      { axes: { ...oneLayer, level: ['baseline', 'near-lossless', 'four-bit'], window: [128, 256], sinkTokens: [4] } },
      {
        axes: {
          ...oneLayer,
          level: ['custom'],
          kvHeads: ['MQA', 'GQA-4', 'GQA-8'],
          kvConversion: ['mean', 'aligned'],
          cacheDtype: ['f16'],
        },
      },
    ],
    measuring: { maxSeconds: 2 },
  },
};
