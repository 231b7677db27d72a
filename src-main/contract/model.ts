/** A language model as its configuration describes it: what a cache, a plan and a decoder need to know. */
import type { PointConfig } from './sweep.ts';

export type RopeScalingKind = 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3';

/** Rotary embedding of one layer: attention-spec B.2. */
export interface Rope {
  readonly theta: number;
  /** Channels of a head that rotate: the first ones. */
  readonly rotaryDim: number;
  /** Pairs (2c, 2c+1) instead of (c, c + rotary/2). */
  readonly interleaved?: boolean;
  readonly scaling?: {
    readonly kind: RopeScalingKind;
    readonly factor: number;
    readonly originalMaxPositions?: number;
    readonly betaFast?: number;
    readonly betaSlow?: number;
    readonly mscale?: number;
    readonly mscaleAllDim?: number;
    readonly lowFrequencyFactor?: number;
    readonly highFrequencyFactor?: number;
    readonly shortFactors?: readonly number[];
    readonly longFactors?: readonly number[];
    readonly attentionFactor?: number;
  };
}

/** What differs from layer to layer. */
export interface ModelLayer {
  /** Keys a query sees, its own included; absent = all. */
  readonly window?: number;
  /** Absent = no rotary embedding. */
  readonly rope?: Rope;
}

/** Multi-head latent attention (DeepSeek): the model itself caches a latent and one rotated key per token. */
export interface LatentAttention {
  readonly rank: number;
  readonly ropeDim: number;
  readonly nopeDim: number;
  readonly valueDim: number;
  readonly queryRank?: number;
}

export interface ModelConfig {
  /** `model_type` of the configuration. */
  readonly family: string;
  readonly hiddenDim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly layers: readonly ModelLayer[];
  readonly mla?: LatentAttention;
  readonly vocabSize: number;
  readonly mlpDim: number;
  readonly maxPositions: number;
  /** Bytes of a weight as stored. */
  readonly weightBytes: number;
  /** Weights of the whole model, by formula. */
  readonly parameters: number;

  readonly norm: 'rms' | 'rms-plus-one' | 'layer';
  readonly normEpsilon: number;
  /** `sandwich`: norms before and after (Gemma); `parallel`: attention and MLP read the same residual. */
  readonly residual: 'sequential' | 'sandwich' | 'parallel';
  readonly queryKeyNorm: boolean;
  readonly attentionScale: number;
  readonly attentionSoftcap?: number;
  readonly logitSoftcap?: number;
  readonly activation: 'silu' | 'gelu' | 'gelu-tanh';
  readonly gatedMlp: boolean;
  readonly embeddingScale: number;
  /** Learned absolute positions are added to the embedding. */
  readonly learnedPositions: boolean;
  readonly tiedEmbeddings: boolean;
  /** The decoder cannot run it, and why; planning can. */
  readonly planOnly?: string;
}

/** What a model caches under a level: one configuration for every kind of layer, and how many layers are of that kind. */
export type LevelOnModel = readonly { readonly config: PointConfig; readonly layers: number }[];

/** One row of a plan: a level on this model. Bytes are of the allocator of this engine, page slack included. */
export interface PlanRow {
  readonly level: string;
  /** Why the level does not apply; the figures are then absent. */
  readonly refused?: string;
  /** Cache of one sequence at the context asked for, divided by its tokens. */
  readonly bytesPerToken?: number;
  readonly bytesPerSequence?: number;
  /** Sequences of the whole context that fit together. */
  readonly largestBatch?: number;
  /** Sequences that fit when the average one has used half of the context. */
  readonly concurrentUsers?: number;
  /** Tokens of a single sequence that fit, at most the model's positions. */
  readonly longestContext?: number;
  /** The model's positions end there, not the memory. */
  readonly endsAtModel?: boolean;
  readonly multiplierVsOwn16Bit?: number;
  /** What was allocated for real, under a limit. */
  readonly proof?: PlanProof;
}

export interface PlanProof {
  readonly limitBytes: number;
  readonly context: number;
  readonly plannedSequences: number;
  readonly reachedSequences: number;
  /** Of the sequences reached, and what the plan says for as many. */
  readonly allocatedBytes: number;
  readonly plannedBytes: number;
}

export interface MemoryPlan {
  readonly model: string;
  readonly memoryBytes: number;
  readonly weightBytes: number;
  readonly context: number;
  readonly rows: readonly PlanRow[];
}
