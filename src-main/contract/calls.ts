/**
 * Everything a window may ask of its host, once: name → what it takes → what it returns. Routes of the web host, channels of
 * Electron and the client of the window all derive from this table.
 */
import { z } from 'zod';
import type { DeviceInfo, LevelInfo } from './api.ts';
import type { HubEvent, RunSession, RunState } from './run-state.ts';
import { sweepSchema } from './sweep.ts';

export interface PreviewSummary {
  readonly points: number;
  /** Combinations that cannot exist, by reason. */
  readonly impossible: readonly {
    readonly reason: string;
    readonly levels: readonly string[];
    readonly points: number;
  }[];
  readonly estimatedSeconds: number;
  /** Largest memory any one point is expected to need. */
  readonly estimatedPeakBytes: number;
}

/** `Output` exists for the compiler only. */
export interface Call<Input extends z.ZodType, Output> {
  readonly input: Input;
  readonly output?: Output;
}

const takes = <Input extends z.ZodType>(input: Input) => ({
  returns: <Output>(): Call<Input, Output> => ({ input }),
});
const nothing = z.strictObject({});

export const calls = {
  levels: takes(nothing).returns<readonly LevelInfo[]>(),
  devices: takes(nothing).returns<readonly DeviceInfo[]>(),
  preview: takes(z.strictObject({ sweep: sweepSchema })).returns<PreviewSummary>(),
  startRun: takes(z.strictObject({ sweep: sweepSchema })).returns<RunSession>(),
  pause: takes(nothing).returns<null>(),
  continue: takes(nothing).returns<null>(),
  stop: takes(nothing).returns<null>(),
  cancel: takes(nothing).returns<null>(),
  /** All that is known about the current sweep. */
  snapshot: takes(nothing).returns<RunState>(),
  /** Raw samples of one point of the current sweep, seconds per step in the order taken; none = not measured. */
  samples: takes(z.strictObject({ pointId: z.string().max(64) })).returns<readonly number[]>(),
};

export type CallName = keyof typeof calls;
export const callNames = Object.keys(calls) as CallName[];
export type InputOf<Name extends CallName> = z.input<(typeof calls)[Name]['input']>;
export type OutputOf<Name extends CallName> =
  (typeof calls)[Name] extends Call<z.ZodType, infer Output> ? Output : never;

/** The same table as functions. */
export type AppApi = { readonly [Name in CallName]: (input: InputOf<Name>) => Promise<OutputOf<Name>> };

/** `input`: the user can put it right. `engine`: the backend could not. `malformed`: no window of ours asks so. `fault`: ours. */
export type FailureOf = 'input' | 'engine' | 'malformed' | 'fault';

export type Reply =
  | { readonly ok: true; readonly value: unknown }
  | {
      readonly ok: false;
      readonly failure: FailureOf;
      readonly message: string;
      /** Axis or field to blame. */
      readonly subject?: string;
    };

/** What a host gives to a window, whatever carries it. */
export interface Bridge {
  call(name: CallName, input: unknown): Promise<Reply>;
  /**
   * Batches of events as they happen, at most 30 a second. `onReady` comes first and after every interruption, with the number
   * of the last event so far: what was missed in between is in the snapshot. @returns how to end it
   */
  subscribe(listener: StreamListener): () => void;
}

export interface StreamListener {
  onReady(sequence: number): void;
  onEvents(events: readonly HubEvent[]): void;
  /** The host is out of reach; it is tried again unless `forGood`. */
  onLost(forGood: boolean): void;
}
