/** A language model as its configuration describes it: what a cache, a plan and a decoder need to know. */
import type { Speculation } from './metrics.ts';
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

/** A mixture of experts in place of the MLP of some layers (DeepSeek, Mixtral, Qwen3): a router chooses a few of many, shared ones read all. */
export interface Experts {
  readonly count: number;
  /** For a token. */
  readonly chosen: number;
  readonly mlpDim: number;
  /** Of all shared ones together; 0 = none. */
  readonly sharedMlpDim: number;
  /** Layers from this one on, every `everyLayers`th, have experts. */
  readonly firstLayer: number;
  readonly everyLayers: number;
  /** Scores are sigmoids of the router's logits, and a group is worth its two best experts; else a softmax, and the best one. */
  readonly sigmoid: boolean;
  /** Experts stand in groups, of which the best `chosenGroups` are looked at. */
  readonly groups: number;
  readonly chosenGroups: number;
  /** Scores of those chosen are divided by their sum. */
  readonly normalises: boolean;
  readonly scaling: number;
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
  /** Projections are stored in 8 bits, with one scale for every block of so many rows and columns. */
  readonly weightBlock?: readonly [rows: number, columns: number];
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
  readonly experts?: Experts;
  readonly embeddingScale: number;
  /** Learned absolute positions are added to the embedding. */
  readonly learnedPositions: boolean;
  readonly tiedEmbeddings: boolean;
  /** The decoder cannot run it, and why; planning can. */
  readonly planOnly?: string;
}

/** Rows of a stored matrix, or elements of a vector (one column): a fused projection is cut by its ranges. */
export interface StoredRows {
  readonly file: string;
  /** Of the tensor's first byte in the file. */
  readonly offset: number;
  readonly dtype: 'F32' | 'F64' | 'F16' | 'BF16' | 'F8_E4M3' | 'F8_E5M2';
  readonly columns: number;
  /** First row and count. */
  readonly ranges: readonly (readonly [first: number, count: number])[];
  /** One f32 for every block of so many rows and columns, by which its weights are multiplied. */
  readonly scales?: { readonly file: string; readonly offset: number; readonly rows: number; readonly columns: number };
}

/** All that the engine needs to read a model by itself. */
export interface ModelFiles {
  /** The same for the same weights, different for others: what is read is kept under it. */
  readonly key: string;
  readonly config: ModelConfig;
  /** By what the decoder calls them: `embedding`, `layers.3.q`, … */
  readonly tensors: Readonly<Record<string, StoredRows>>;
}

/** A fact to be found again, asked for at the end of a haystack. */
export interface Probe {
  /** Where the fact stands: 0 the beginning, 1 the end. */
  readonly depth: number;
  readonly question: Int32Array;
  readonly answer: Int32Array;
}

/** Tokens that a model is judged on, and others that levels are fitted to. */
export interface EvaluationText {
  /** The same for the same text. */
  readonly key: string;
  /** Tokens of a document that are read at once; the others come one by one, from the cache. */
  readonly prompt: number;
  /** Of one length. */
  readonly documents: readonly Int32Array[];
  readonly haystacks: readonly Int32Array[];
  /** Per haystack. */
  readonly probes: readonly (readonly Probe[])[];
  readonly calibration: readonly Int32Array[];
}

/** What a serving stack would run instead: the model's own KV heads in 16 bit. Stands beside the levels of a plan. */
export const own16Bit = 'own-16-bit';

/** What a model caches under a level: one configuration for every kind of layer, and how many layers are of that kind. */
export type LevelOnModel = readonly { readonly config: PointConfig; readonly layers: number }[];

/** One row of a plan: a level on this model. Bytes are of the allocator of this engine, page slack included. */
export interface PlanRow {
  readonly level: string;
  /** Why the level does not apply; the figures are then absent. */
  readonly refused?: string;
  /** Where the bytes of a sequence are: kinds of layers, and what all layers of a kind take. */
  readonly kinds?: readonly (LevelOnModel[number] & { readonly bytesPerSequence: number })[];
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
  /** What nobody should take from these bytes alone. */
  readonly caution?: string;
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

/** A level along the context: one place for each context, the model's longest last. */
export interface PlanCurve {
  readonly level: string;
  readonly places: readonly {
    readonly context: number;
    readonly bytesPerSequence: number;
    /** Sequences of the whole context that fit together. */
    readonly largestBatch: number;
  }[];
}

export interface MemoryPlan {
  readonly model: string;
  readonly memoryBytes: number;
  readonly weightBytes: number;
  readonly context: number;
  readonly maxPositions: number;
  readonly rows: readonly PlanRow[];
  /** Of the levels that apply. */
  readonly curves: readonly PlanCurve[];
}

/** Speculative decoding measured: one draft level, one draft length, one context. */
export interface SpeculationRow extends Partial<Speculation> {
  readonly context: number;
  readonly draft: string;
  /** Proposed in a round. */
  readonly draftTokens: number;
  /** Why it could not be measured; the figures are then absent. */
  readonly refused?: string;
}
