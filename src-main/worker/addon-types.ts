/** The whole surface of the native addon, typed by hand. Values cross as plain objects and typed arrays. */
import type { EvaluationText, LevelOnModel, ModelFiles } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import type { Conditions, Prepared, Reached, ReachLimits, SpeculateResult } from '../engine/ports.ts';

/** A dense row-major tensor; `data` is f32, or u8 for boolean masks and i32 for positions. */
export interface Tensor<Data = Float32Array> {
  readonly shape: readonly number[];
  readonly data: Data;
}

/**
 * Attention on given tensors; shapes as in `fastmqa attend`. The last query is aligned with the last key: query i stands at
 * position past + Skv - Sq + i, new key j at past + j.
 */
export interface AttendRequest {
  /** [B, H, Sq, D] */
  readonly q: Tensor;
  /** [B, G, Skv, D] */
  readonly k: Tensor;
  /** [B, G, Skv, Dv] */
  readonly v: Tensor;
  readonly pastK?: Tensor;
  readonly pastV?: Tensor;
  /** Additive (f32) or boolean (u8, 1 = may attend), broadcastable to [B, H, Sq, Skv + past]. */
  readonly mask?: Tensor<Float32Array | Uint8Array>;
  /** [maxPosition, rotary / 2] each; applied to q and k (not to past) in rotate-half layout. */
  readonly cos?: Tensor;
  readonly sin?: Tensor;
  /** [B, S] or [S], S the longer of Sq and Skv; the shorter takes the last of them. Default: the token's position. */
  readonly positionIds?: Tensor<Int32Array>;
  readonly causal: boolean;
  /** Default 1 / sqrt(D). */
  readonly scale?: number;
  readonly softcap?: number;
  /** Keys further left of the query than this are invisible; absent = unlimited. */
  readonly windowLeft?: number;
  readonly windowRight?: number;
  readonly sinkTokens?: number;
  readonly cacheDtype: string;
  readonly kernel: 'naive' | 'flash';
  /** Rotary pairs (2c, 2c+1) instead of (c, c + rotary/2). */
  readonly interleavedRope?: boolean;
  /** `cpu`, which it is when absent, or `cuda:N`, which takes no mask. */
  readonly backend?: string;
}

export interface AttendResult {
  /** [B, H, Sq, Dv] */
  readonly out: Float32Array;
  /** [B, G, past + Skv, D] and [.., Dv]: what the cache holds, read back. */
  readonly presentK: Float32Array;
  readonly presentV: Float32Array;
}

export interface ForwardResult {
  /** [B, S, d] */
  readonly y: Float32Array;
  readonly cache: { readonly kvAllocatedBytes: number; readonly kvLogicalBytes: number; readonly tokens: number };
}

/** One kernel at one shape; the ceilings are medians of readings taken between its samples. */
export interface BenchCase {
  readonly name: string;
  readonly shape: string;
  readonly flops: number;
  readonly bytes: number;
  readonly medianSeconds: number;
  readonly fmaFlopsPerSecond: number;
  readonly readBytesPerSecond: number;
}

export interface SpeculateRequest {
  readonly target: PointConfig;
  readonly draft: PointConfig;
  /** Proposed in a round. */
  readonly draftTokens: number;
  /** Made after each prompt. */
  readonly tokens: number;
  /** 0 = greedy. */
  readonly temperature: number;
  readonly seed: number;
  /** Also without a draft, for comparison. */
  readonly plain: boolean;
  readonly prompts: readonly Int32Array[];
}

export interface BenchOptions {
  /** Context of the decode cases, tokens. */
  readonly decodeTokens?: number;
  readonly secondsPerCase?: number;
  /** Kernels: each timed step follows an untimed one, not the reading of the ceilings, which empties the caches. */
  readonly warm?: boolean;
  /** Only cases whose name contains this. */
  readonly only?: string;
}

/** Of a CUDA device this moment; what is absent the driver's management library does not tell. */
export interface CudaState {
  readonly memoryBytes?: number;
  readonly freeBytes?: number;
  readonly clockMHz?: number;
  readonly mostClockMHz?: number;
  readonly memoryClockMHz?: number;
  readonly temperatureCelsius?: number;
  readonly powerWatts?: number;
  readonly powerLimitWatts?: number;
  readonly foreignProcesses?: number;
  /** Why the clock is not higher. */
  readonly clockReasons?: readonly string[];
}

export interface CudaDevice extends CudaState {
  readonly name: string;
  readonly computeCapability: string;
  readonly multiprocessors: number;
  /** Of CUDA, the newest that the driver knows. */
  readonly driverCudaVersion: string;
  readonly runtimeCudaVersion: string;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  /** L2. */
  readonly cacheBytes: number;
}

export interface CudaReport {
  readonly devices: readonly CudaDevice[];
  /** Why there is none, and what helps. */
  readonly reason?: string;
}

export interface Addon {
  info(): { readonly threads: number; readonly instructionSet: string; readonly buildFlags: string };
  ceilings(): Promise<{ readonly fmaFlopsPerSecond: number; readonly readBytesPerSecond: number }>;
  /** CUDA devices, or why there are none. */
  cuda(): Promise<CudaReport>;
  /** Of every CUDA device; opens none, so that it may be asked while samples are taken. */
  cudaVitals(): Promise<readonly CudaState[]>;
  /** Measured now: products of f16 matrices by our own kernel, or cuBLAS where it is installed and faster; copies on the device, bytes read plus written. */
  cudaCeilings(device: number): Promise<{ readonly matrixFlopsPerSecond: number; readonly copyBytesPerSecond: number }>;
  prepare(config: PointConfig): Promise<Omit<Prepared, 'generation'>>;
  /**
   * A whole model, its quality on the text; or one of its layers, on what it meets in the text; or the model speculating with a
   * level as its draft, the documents its prompts. Then to be timed.
   */
  prepareModel(config: PointConfig, model: ModelFiles, text: EvaluationText): Promise<Omit<Prepared, 'generation'>>;
  /** Seconds per step of each sample. */
  sample(handle: number, seconds: number, maxSamples: number): Promise<Float64Array>;
  /** What was noticed while a point was sampled. */
  conditions(handle: number): Conditions;
  release(handle: number): void;
  attend(request: AttendRequest): Promise<AttendResult>;
  /** A layer to be called with given inputs; ended by `release`. */
  createLayer(config: PointConfig): Promise<number>;
  /**
   * The layer's output for new tokens `x` [B, S, d], which are cached. With `useCache` they continue what earlier calls cached;
   * without, the cache is emptied first.
   */
  forward(handle: number, x: Tensor, useCache: boolean): Promise<ForwardResult>;
  /**
   * Logits [B, S, vocabulary] of token sequences [B, S] under a level that needs no calibration: the first `prompt` tokens at
   * once, the others one by one from the cache.
   */
  logits(model: ModelFiles, config: PointConfig, tokens: Tensor<Int32Array>, prompt: number): Promise<Float32Array>;
  /** Speculative decoding from prompts, one after the other; the text is what levels are fitted to. */
  speculate(model: ModelFiles, text: EvaluationText, request: SpeculateRequest): Promise<SpeculateResult>;
  /** Fills caches of whole sequences, where the configurations say, until memory is refused. */
  reach(kinds: LevelOnModel, limits: ReachLimits): Promise<Reached>;
  bench(options: BenchOptions): Promise<readonly BenchCase[]>;
  /** Makes running calls reject with code `cancelled` as soon as they look. */
  cancel(): void;
}

/** Errors from the addon carry one of these as `code`; after any other, `poisoned` above all, the process must end. */
export type AddonErrorCode = 'cancelled' | 'refused' | 'out-of-memory' | 'failed';
