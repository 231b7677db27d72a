/**
 * Everything a window may ask of its host, once: name → what it takes → what it returns. Routes of the web host, channels of
 * Electron and the client of the window all derive from this table.
 */
import { z } from 'zod';
import type { DeviceInfo, DeviceVitals, LevelInfo } from './api.ts';
import type { Comparison } from './comparison.ts';
import {
  type Download,
  type Library,
  largestSessionBytes,
  type SessionPoints,
  type SessionSummary,
} from './library.ts';
import type { MemoryPlan, PlanRow } from './model.ts';
import { type AgentInfo, type FleetView, type Places, placeSchema } from './places.ts';
import type { HubEvent, RunSession, RunState } from './run-state.ts';
import { exportFormats, labelSchema } from './session.ts';
import { type Sweep, sweepSchema } from './sweep.ts';

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

export interface NamedSweeps {
  readonly builtin: readonly Sweep[];
  /** By name. */
  readonly own: readonly Sweep[];
}

/** `Output` exists for the compiler only. */
export interface Call<Input extends z.ZodType, Output> {
  readonly input: Input;
  /** Of the input as JSON. A sweep with a hundred thousand written values fits many times. */
  readonly largestBytes: number;
  readonly output?: Output;
}

const usualBytes = 4 * 1024 * 1024;
const takes = <Input extends z.ZodType>(input: Input, largestBytes = usualBytes) => ({
  returns: <Output>(): Call<Input, Output> => ({ input, largestBytes }),
});
const nothing = z.strictObject({});
/** Of a session of the library. */
const id = z.string().regex(/^[0-9a-f]{32}$/, 'expected the id of a session');
const oneSession = z.strictObject({ id });
/** A name, a folder or a file. */
const model = z.string().min(1).max(4096);
const memorySize = z
  .number()
  .int()
  .min(0)
  .max(2 ** 50);
const context = z
  .number()
  .int()
  .min(1)
  .max(2 ** 27);
const longestBase64 = Math.ceil(largestSessionBytes / 3) * 4;

export const calls = {
  levels: takes(nothing).returns<readonly LevelInfo[]>(),
  devices: takes(nothing).returns<readonly DeviceInfo[]>(),
  /** Clock, temperature and memory this moment. */
  vitals: takes(nothing).returns<readonly DeviceVitals[]>(),
  preview: takes(z.strictObject({ sweep: sweepSchema })).returns<PreviewSummary>(),
  /** `place`: where it is measured, if not on this machine. */
  startRun: takes(z.strictObject({ sweep: sweepSchema, place: placeSchema.optional() })).returns<RunSession>(),
  places: takes(nothing).returns<Places>(),
  /** The fleet behind this host's queue; null where it was given none. */
  fleet: takes(nothing).returns<FleetView | null>(),
  /** Every agent that was reached before, asked now. */
  agents: takes(nothing).returns<readonly AgentInfo[]>(),
  /** Sweeps to start from: those of the program, and the user's own. */
  sweeps: takes(nothing).returns<NamedSweeps>(),
  /** Keeps a sweep under its name, in place of one that had it. */
  saveSweep: takes(z.strictObject({ sweep: sweepSchema })).returns<NamedSweeps>(),
  deleteSweep: takes(z.strictObject({ name: sweepSchema.shape.name })).returns<NamedSweeps>(),
  pause: takes(nothing).returns<null>(),
  continue: takes(nothing).returns<null>(),
  stop: takes(nothing).returns<null>(),
  cancel: takes(nothing).returns<null>(),
  /** All that is known about the current sweep. */
  snapshot: takes(nothing).returns<RunState>(),
  /** Raw samples of one point of the current sweep, seconds per step in the order taken; none = not measured. */
  samples: takes(z.strictObject({ pointId: z.string().max(64) })).returns<readonly number[]>(),
  library: takes(nothing).returns<Library>(),
  labelSession: takes(z.strictObject({ id, label: labelSchema })).returns<null>(),
  /** Into the trash. @returns its id there */
  trashSession: takes(oneSession).returns<string>(),
  /** Out of the trash. @returns its id in the library */
  restoreSession: takes(oneSession).returns<string>(),
  /** Deletes for good. @returns how many */
  emptyTrash: takes(nothing).returns<number>(),
  /** Shows a session in place of the current one. */
  openSession: takes(oneSession).returns<RunSession>(),
  /** Opens a session and measures the points it lacks. */
  continueSession: takes(z.strictObject({ id, place: placeSchema.optional() })).returns<RunSession>(),
  /** The crash of this session needs to be told no more. */
  acceptCrash: takes(oneSession).returns<null>(),
  /** `fmqa`: the session file itself. */
  exportSession: takes(z.strictObject({ id, format: z.enum([...exportFormats, 'fmqa']) })).returns<Download>(),
  /** Takes a session file into the library, once it is seen to be one. @returns the one there already if it is the same */
  importSession: takes(
    z.strictObject({ fileName: z.string().min(1).max(255), base64: z.string().max(longestBase64) }),
    longestBase64 + 4096,
  ).returns<SessionSummary>(),
  sessionPoints: takes(oneSession).returns<SessionPoints>(),
  /** Models that a plan knows by name. */
  models: takes(nothing).returns<readonly string[]>(),
  /** How far a device's memory goes on a model, per level and along the context. `weightBytes`: default by the configuration. */
  plan: takes(
    z.strictObject({ model, memoryBytes: memorySize, weightBytes: memorySize.optional(), context }),
  ).returns<MemoryPlan>(),
  /** Allocates caches of one level for real until `limitBytes` refuse them. @returns its row, with the proof */
  provePlan: takes(
    z.strictObject({ model, level: z.string().max(64), context, limitBytes: memorySize }),
  ).returns<PlanRow>(),
  compareSessions: takes(z.strictObject({ before: id, after: id })).returns<Comparison>(),
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
