/**
 * What an agent is asked and what it answers, in the frames of the worker protocol. A client asks, the agent answers: nothing
 * comes unasked, so a line that breaks leaves nothing half told, and asking again is always right.
 */
import { z } from 'zod';
import type { DeviceInfo } from '../contract/api.ts';
import { pointSchema } from '../contract/metrics.ts';
import { environmentSchema } from '../contract/session.ts';
import { sweepSchema } from '../contract/sweep.ts';

/** The agent's first line. Whatever a server's login scripts print stands before it. The number is that of the protocol. */
export const greeting = 'fastmqa-agent 1\n';
/** A row with the most samples that a sweep may ask for takes 9 MB. */
export const largestFrameBytes = 64 * 1024 * 1024;

const nothing = z.strictObject({});
const count = z.number().int().min(0);
const run = z.uuid();
const oneRun = z.strictObject({ run });
const verb = z.enum(['pause', 'continue', 'stop', 'cancel']);
export type RemoteVerb = z.infer<typeof verb>;

/** The rest of what a device says about itself stays behind. */
const deviceSchema = z.object({
  backend: z.string(),
  usable: z.boolean(),
  name: z.string().optional(),
  reason: z.string().optional(),
  memoryBytes: z.number().optional(),
  threads: z.number().optional(),
  instructionSet: z.string().optional(),
  fmaFlopsPerSecond: z.number().optional(),
  readBytesPerSecond: z.number().optional(),
}) satisfies z.ZodType<DeviceInfo>;

/** `idle`: it lacks points and nobody measures them, because the agent itself was restarted. */
const status = z.enum(['starting', 'running', 'paused', 'ended', 'idle']);

const heldRunSchema = z.strictObject({ run, name: z.string(), status, rows: count });
export type HeldRun = z.infer<typeof heldRunSchema>;

const helloSchema = z.strictObject({
  /** Of the kernels and the fleet's protocol: rows of others do not belong into one session. */
  version: z.string(),
  host: z.string(),
  devices: z.array(deviceSchema),
  /** Sessions that it keeps until they are acknowledged. */
  runs: z.array(heldRunSchema),
});
export type Hello = z.infer<typeof helloSchema>;

const followedSchema = z.strictObject({
  /** From the row asked for on, as many as fit one answer. */
  rows: z.array(pointSchema),
  /** All that there are now. */
  rowsSoFar: count,
  /** Grows with whatever happens. */
  changes: count,
  status,
  how: z.enum(['done', 'stopped', 'cancelled', 'interrupted']).optional(),
  /** Why it ended without having ended well. */
  failure: z.string().optional(),
  pauseReason: z.string().optional(),
  step: z.strictObject({ pointId: z.string(), step: z.enum(['preparing', 'sampling']), samples: count }).optional(),
});
export type Followed = z.infer<typeof followedSchema>;

/** Every call: what it takes, what it returns. Each may be asked again where its answer was lost. */
export const agentCalls = {
  hello: { input: nothing, output: helloSchema },
  /** Of the machine, the ceilings of these backends measured now; or that of the sweep that runs. */
  environment: { input: z.strictObject({ backends: z.array(z.string().max(64)).max(64) }), output: environmentSchema },
  /** Measures a sweep, or what is left of it. `except`: ids of points that the client has. */
  start: {
    input: z.strictObject({ run, sweep: sweepSchema, except: z.array(z.string().max(64)).max(1_000_000) }),
    output: z.null(),
  },
  /** Rows from number `from` on; waits a while if there are none and nothing has changed since `seen`. */
  follow: { input: z.strictObject({ run, from: count, seen: z.number().int().min(-1) }), output: followedSchema },
  steer: { input: z.strictObject({ run, verb }), output: z.null() },
  /** The client has every row on its disk: the session is deleted. */
  acknowledge: { input: oneRun, output: z.null() },
} as const;

/** What the agent says of a sweep that it does not hold, or no longer. */
export const unknownRun = 'the agent has no such sweep';

export type AgentCall = keyof typeof agentCalls;
export type InputOf<Call extends AgentCall> = z.infer<(typeof agentCalls)[Call]['input']>;
export type OutputOf<Call extends AgentCall> = z.infer<(typeof agentCalls)[Call]['output']>;
export type AgentApi = { readonly [Call in AgentCall]: (input: InputOf<Call>) => Promise<OutputOf<Call>> };

export const requestSchema = z.strictObject({
  id: count,
  call: z.enum(Object.keys(agentCalls) as [AgentCall, ...AgentCall[]]),
  input: z.unknown(),
});
export type Request = z.infer<typeof requestSchema>;

export const replySchema = z.discriminatedUnion('ok', [
  z.strictObject({ id: count, ok: z.literal(true), value: z.unknown() }),
  z.strictObject({ id: count, ok: z.literal(false), message: z.string(), subject: z.string().optional() }),
]);
export type Reply = z.infer<typeof replySchema>;
