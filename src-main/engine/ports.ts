/** What the engine needs from outside. Implemented by worker/ (real) and test/fakes (scripted). */
import type { RunEvent } from '../contract/api.ts';
import type { Capacity, Controls, LayerError, Memory, Point, Quality } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import type { PointConfig } from '../contract/sweep.ts';

/** Speculative decoding as it was measured. */
export interface SpeculateResult {
  /** Per prompt. */
  readonly output: readonly Int32Array[];
  /** By the target alone. */
  readonly plainOutput: readonly Int32Array[];
  /** By place in the round: proposals that were checked there, and those that were kept. */
  readonly offered: readonly number[];
  readonly accepted: readonly number[];
  readonly rounds: number;
  readonly tokens: number;
  /** Prompts not counted. */
  readonly seconds: number;
  readonly plainSeconds: number;
  readonly draftSeconds: number;
  readonly verifySeconds: number;
  /** Allocated, of the longest sequence. */
  readonly targetCacheBytes: number;
  readonly draftCacheBytes: number;
}

/** A point that the backend has built, checked against the reference, and can now time. */
export interface Prepared {
  readonly handle: number;
  /** Worker generation that built it; a handle is void in any other. */
  readonly generation: number;
  readonly memory: Omit<
    Memory,
    | 'differenceExplained'
    | 'bytesPerToken'
    | 'reductionVsF32MhaPercent'
    | 'multiplierVsF32Mha'
    | 'reductionVsOwn16BitPercent'
    | 'multiplierVsOwn16Bit'
  > & {
    readonly cachedTokens: number;
    /** Tokens that the model itself would cache, summed over its layers: one layer without a window where it is absent. */
    readonly ownTokens?: number;
  };
  /** Absent where the output is exact by construction. */
  readonly error?: Omit<LayerError, 'grade'>;
  readonly controls?: Controls;
  /** Of a whole model. */
  readonly quality?: Omit<Quality, 'perplexityChangePercent'>;
  /** Of a model that speculates, against the same model alone, greedy. */
  readonly speculation?: SpeculateResult;
  /** Operations and bytes that one step must at least do; tokens it produces. */
  readonly work: { readonly flops: number; readonly bytes: number; readonly tokens: number };
}

/** How far caches may go. */
export interface ReachLimits {
  /** Of a sequence. */
  readonly tokens: number;
  /** Of all caches; absent = what the device has. The CPU needs one. */
  readonly limitBytes?: number;
  readonly mostSequences: number;
  /** Taken beside them on a device, for the weights of the model. */
  readonly reservedBytes: number;
}

/** What memory really held. */
export interface Reached {
  readonly sequences: number;
  /** Of the sequence that was refused; 0 if none was, or where sequences are laid out whole. */
  readonly tokensOfLast: number;
  /** Of the complete sequences. */
  readonly allocatedBytes: number;
  /** What caches could have: the limit, or what the device had free where that was less. */
  readonly limitBytes: number;
}

export interface Ceilings {
  readonly fmaFlopsPerSecond: number;
  readonly readBytesPerSecond: number;
}

/** What a device showed while a point was sampled. */
export interface Conditions {
  /** Samples discarded because the device had slowed itself down. */
  readonly throttledSamples: number;
  /** Others that used the device. */
  readonly foreignProcesses: number;
  /** Kernels and copies of the step, where it was recorded and started as one; else 0. */
  readonly graphNodes: number;
}

export interface BackendInfo {
  readonly name: string;
  readonly threads: number;
  readonly instructionSet: string;
  readonly buildFlags: string;
}

export type FailureKind = 'crashed' | 'timeout' | 'out-of-memory' | 'refused' | 'failed' | 'cancelled';

/** Why a call to the backend failed; `poisoned` = nothing from this generation may be trusted any more. */
export class BackendFailure extends Error {
  readonly kind: FailureKind;
  readonly poisoned: boolean;
  constructor(kind: FailureKind, message: string, poisoned: boolean) {
    super(message);
    this.kind = kind;
    this.poisoned = poisoned;
  }
}

/** What a run is given wherever its points are measured: here, by a fleet, or by an agent. */
export interface RunSetting {
  readonly clock: Clock;
  readonly environment: Environment;
  /** Makes a row durable. Awaited before the row is told, and before anyone forgets it; if it rejects, the run ends and `finished` rejects alike. */
  readonly record: (point: Point) => Promise<void>;
  /** Rows of an earlier run of the same session, by id: not measured again, whatever their outcome. */
  readonly done?: ReadonlyMap<string, Point>;
  readonly onEvent?: (event: RunEvent) => void;
}

/** Every call takes a deadline in seconds and rejects with {@link BackendFailure}, never otherwise. */
export interface MeasuringBackend {
  info(): Promise<BackendInfo>;
  ceilings(): Promise<Ceilings>;
  /** Builds the point and compares it with the fp64 reference. Nothing is timed before this succeeds. */
  prepare(config: PointConfig, deadlineSeconds: number): Promise<Prepared>;
  /** Runs steps until `seconds` have passed or `maxSamples` are taken, at least one; seconds per step each. */
  sample(prepared: Prepared, seconds: number, maxSamples: number, deadlineSeconds: number): Promise<readonly number[]>;
  /** Of the samples so far; asked of devices other than the CPU. */
  conditions?(prepared: Prepared): Promise<Conditions>;
  release(prepared: Prepared): Promise<void>;
  /** Of a point of the phase capacity. */
  capacity?(config: PointConfig, deadlineSeconds: number): Promise<Capacity>;
  /** Ends the call at hand, if need be by killing the worker. */
  cancel(): void;
  close(): Promise<void>;
}

export interface Clock {
  /** Monotonic, seconds. */
  now(): number;
}
