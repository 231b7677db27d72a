/** Wires engine, sessions, models, the worker and the fleet into the one API that every face of the app uses. */
import { randomUUID } from 'node:crypto';
import os from 'node:os';
import { resolve } from 'node:path';
import type { DeviceInfo, LevelInfo, ProfilerApi, RunOptions, SweepRun } from '../contract/api.ts';
import type { Comparison } from '../contract/comparison.ts';
import type { Prices } from '../contract/devices.ts';
import { expected } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
import type { MemoryPlan, SpeculationRow } from '../contract/model.ts';
import type { AgentInfo, FleetView } from '../contract/places.ts';
import type { Recommendation } from '../contract/recommendation.ts';
import {
  type Environment,
  type ExportFormat,
  type Gpu,
  type SessionHeader,
  type SessionRecord,
  sessionSchemaVersion,
} from '../contract/session.ts';
import type { Sweep } from '../contract/sweep.ts';
import { compareSessions } from '../engine/compare.ts';
import { levelNames, levels } from '../engine/levels.ts';
import { defaultMeasuring, expandSweep, previewSweep, resolveMeasuring } from '../engine/plan.ts';
import { BackendFailure, type Clock, type MeasuringBackend } from '../engine/ports.ts';
import type { SearchProgress } from '../engine/recommend.ts';
import { checkBudget } from '../engine/recommend.ts';
import { startRun } from '../engine/run.ts';
import { builtinModels, findModel } from '../models/find.ts';
import { publishedModels } from '../models/published.ts';
import { exportSession } from '../sessions/export-session.ts';
import { holdSession } from '../sessions/hold.ts';
import { appendRecord, createRecording, type Recording } from '../sessions/recording.ts';
import { type Damage, damageOf, readSession, resumeRecording } from '../sessions/recovery.ts';
import { writeWhole } from '../sessions/storage.ts';
import type { BenchOptions } from '../worker/addon-types.ts';
import { workerScript } from '../worker/location.ts';
import { forkWorker, type SpawnWorker } from '../worker/spawn.ts';
import { Supervisor } from '../worker/supervisor.ts';
import { type AgentOptions, attachToAgent, runAgent } from './agent.ts';
import { forgetAgent, joinAgent, knownAgents, listAgents } from './agents.ts';
import { type AttendOptions, checkAttendOutput, encodeAttendResult, readAttendRequest } from './attend.ts';
import { type BenchOutcome, benchLevels } from './bench-levels.ts';
import { ceilingsOf, cudaDevices, cudaVitals, gpusOf, wantedDevices } from './cuda.ts';
import { cpuName, describeEnvironment, fastmqaVersion } from './environment.ts';
import { type FleetWatch, joinFleet, lookAtFleet, type WorkerOptions, watchFleet, workForQueue } from './fleet.ts';
import { builtinFolder } from './folders.ts';
import { withModels } from './model-backend.ts';
import { type PlanOptions, planModel } from './plan.ts';
import { type RecommendOptions, recommendLevel } from './recommend.ts';
import { type SpeculateOptions, speculateModel } from './speculate.ts';
import { readSweep, type SweepChanges } from './sweep-source.ts';
import { cpuVitals } from './vitals.ts';

export { byReason, defaultMeasuring } from '../engine/plan.ts';
export { exportPoints } from '../sessions/export.ts';
export type {
  AgentOptions,
  AttendOptions,
  BenchOptions,
  BenchOutcome,
  Damage,
  FleetWatch,
  SweepChanges,
  WorkerOptions,
};
export { BackendFailure, fastmqaVersion };

/** What only a host with files at hand can do. */
export interface Profiler extends ProfilerApi {
  /** The sweep a user names: see {@link readSweep}. */
  readSweep(source: string | undefined, changes?: SweepChanges): Promise<Sweep>;
  /** Measures nothing. @throws InputError for a backend that cannot be used on this machine. */
  refuseUnusable(backends: readonly string[]): Promise<void>;
  /** Attention on the tensors of a safetensors file; resolves to the shape of the output, [B, H, Sq, Dv]. */
  attend(input: string, output: string, options: AttendOptions): Promise<readonly number[]>;
  exportSession(
    path: string,
    format: ExportFormat,
    prices?: Prices,
  ): Promise<{ readonly content: string | Uint8Array; readonly damage: readonly Damage[] }>;
  /** Two session files, point by point. */
  compare(before: string, after: string): Promise<ComparisonOfFiles>;
  /** Adds to a session file what is said about it, also while this profiler records it. */
  append(path: string, record: SessionRecord): Promise<void>;
  /** Models that {@link plan} knows by name. */
  models(): readonly string[];
  /** How far a device's memory goes on a model, per level. */
  plan(model: string, options: PlanOptions): Promise<MemoryPlan>;
  /** Speculative decoding against plain decoding, per draft, draft length and context. */
  speculate(options: SpeculateOptions, onRow?: (row: SpeculationRow) => void): Promise<readonly SpeculationRow[]>;
  /** The smallest cache that keeps an error budget. */
  recommend(options: RecommendOptions, onProgress?: (progress: SearchProgress) => void): Promise<Recommendation>;
  /** Kernels (of the CPU), then whole layers at every level, against the ceilings of `backend`. */
  bench(options: BenchOptions, backend?: string, told?: (name: string) => void): Promise<readonly BenchOutcome[]>;
  /** Measures the points of a queue until `signal`; the one at hand is finished. */
  work(options: WorkerOptions): Promise<void>;
  /**
   * The workers of a queue and what waits for them.
   * @throws InputError with the reason why it cannot be reached
   */
  lookAtFleet(queue: string, onNotice: (line: string) => void): Promise<FleetView>;
  /** The same, now and then. */
  watchFleet(queue: string): FleetWatch;
  /** Measures for whoever attaches over ssh, until `signal` or until it is idle for long. */
  serveAgent(options: AgentOptions): Promise<void>;
  /** Joins stdin and stdout with the agent of this machine, which is started if there is none. */
  attachToAgent(): Promise<void>;
  /** Asks agents what they offer; without hosts, all that were reached before. */
  agents(hosts: readonly string[], command?: string): Promise<readonly AgentInfo[]>;
  /** Hosts whose agents were reached before. */
  knownAgents(): Promise<readonly string[]>;
  forgetAgent(host: string): Promise<void>;
  /** Ends the call at hand. */
  cancel(): void;
}

export interface ComparisonOfFiles extends Comparison {
  readonly damage: readonly Damage[];
}

/** Attention on given tensors has no natural limit; this one only keeps a hung worker from lasting for ever. */
const attendDeadlineSeconds = 6 * 3600;

const benchDeadlineSeconds = 3600;

const monotonic: Clock = { now: () => performance.now() / 1000 };

export interface ProfilerOptions {
  readonly workerScript?: string;
  /** How a worker process is started: as a child of Node's unless the host has its own way. */
  readonly startWorker?: (script: string) => SpawnWorker;
}

export function createProfiler(options: ProfilerOptions = {}): Profiler {
  const { startWorker = forkWorker } = options;
  const backend = new Supervisor({ spawn: startWorker(options.workerScript ?? workerScript) });
  const measuring = withModels(backend);
  const recordings: Recordings = new Map();
  /** Known once somebody has asked for devices: a machine without any is not asked for their state again and again. */
  let hasGpus = false;
  const environment = async (measures = true, gpus: readonly Gpu[] = []): Promise<Environment> =>
    describeEnvironment(await backend.info(), measures ? await backend.ceilings() : undefined, gpus);
  const usableGpus = (backends: readonly string[]) => gpusOf(backends, backend);

  const profiler: Profiler = {
    levels: () =>
      levelNames.map((name): LevelInfo => {
        const { summary, techniques } = levels[name];
        return { name, summary, techniques };
      }),
    devices: async () => {
      const gpus = await cudaDevices(backend);
      hasGpus = gpus.some(({ usable }) => usable);
      return [await cpuDevice(backend), ...gpus];
    },
    vitals: async () => [await cpuVitals(), ...(hasGpus ? await cudaVitals(backend) : [])],
    preview: previewSweep,
    refuseUnusable: async (backends) => void (await wantedDevices(backends, backend)),
    run: (sweep, runOptions = {}) => run(sweep, runOptions, measuring, { environment, usableGpus }, recordings),
    readSweep,
    attend: async (input, output, attendOptions) => {
      await wantedDevices([attendOptions.backend ?? 'cpu'], backend);
      const request = await readAttendRequest(input, attendOptions);
      await checkAttendOutput(input, output);
      const result = await backend.attend(request, attendDeadlineSeconds);
      await writeWhole(output, encodeAttendResult(request, result));
      return [...request.q.shape.slice(0, 3), request.v.shape[3]];
    },
    exportSession: async (path, format, prices = {}) => {
      const session = await readSession(path);
      return { content: await exportSession(session, format, levelNames, prices), damage: damageOf(path, session) };
    },
    compare: async (before, after) => {
      const [a, b] = [await readSession(before), await readSession(after)];
      const contentOf = ({ header, points }: typeof a) => ({
        environment: header.environment,
        points: [...points.values()],
      });
      const damage = [...damageOf(before, a), ...(before === after ? [] : damageOf(after, b))];
      return { ...compareSessions(contentOf(a), contentOf(b)), damage };
    },
    append: async (path, record) => {
      const open = recordings.get(resolve(path));
      if (open) return open.append(record);
      const release = await holdSession(path);
      await appendRecord(path, record).finally(release);
    },
    models: () => [...builtinModels, ...publishedModels],
    plan: async (model, planOptions) => {
      if (planOptions.prove) await wantedDevices([planOptions.prove.backend], backend);
      return planModel(model, planOptions, backend);
    },
    speculate: (speculateOptions, onRow) => speculateModel(speculateOptions, backend, onRow),
    recommend: async ({ model, context, batch, tokenFile, backend: place, out, ...asked }, onProgress) => {
      const text = tokenFile === undefined ? [] : [`tokenFile=${tokenFile}`];
      const set = [
        `model=${model}`,
        `seqLen=${context}`,
        `batch=${batch}`,
        'phase=decode',
        `backend=${place}`,
        ...text,
      ];
      const { maxPositions } = (await findModel(model, builtinFolder)).config;
      if (context > maxPositions) throw expected(`at most ${maxPositions}, the model's positions,`, 'context', context);
      const gpus = await usableGpus([place]);
      const sweep = { ...(await readSweep('baseline', { set })), name: 'recommend' };
      const base = Object.fromEntries(
        Object.entries(sweep.axes).map(([name, [value]]) => [name, value as string | number]),
      );
      const { level: _, ...shared } = base;
      asked.budgets.forEach(checkBudget);
      const header = { sweep, measuring: defaultMeasuring, environment: await environment(true, gpus) };
      const recording = out === undefined ? undefined : (await openRecording(out, header, false, recordings)).recording;
      const record = async (point: Point) => recording?.append({ kind: 'point', point });
      try {
        const found = await recommendLevel(shared, asked, measuring, record, onProgress);
        await recording?.append({ kind: 'ended', how: 'done' });
        return found;
      } finally {
        await recording?.close();
      }
    },
    bench: async (benchOptions, place = 'cpu', told = () => {}) => {
      await usableGpus([place]);
      if (place === 'cpu') told('ceilings and kernels');
      return [
        ...(place === 'cpu' ? await backend.bench(benchOptions, benchDeadlineSeconds) : []),
        ...(await benchLevels(measuring, benchOptions, place, () => ceilingsOf(place, backend), told)),
      ];
    },
    work: async (workOptions) => {
      const environmentHere = await environment(true, await usableGpus([workOptions.backend]));
      await workForQueue(workOptions, { measuring, clock: monotonic, environment: environmentHere });
    },
    lookAtFleet,
    watchFleet,
    serveAgent: (agentOptions) =>
      runAgent(agentOptions, {
        devices: profiler.devices,
        environment: async (backends) => environment(true, await usableGpus(backends)),
        run: profiler.run,
        readSession,
      }),
    attachToAgent,
    agents: listAgents,
    knownAgents,
    forgetAgent,
    cancel: () => backend.cancel(),
    close: () => backend.close(),
  };
  return profiler;
}

async function cpuDevice(backend: Supervisor): Promise<DeviceInfo> {
  const device = { backend: 'cpu', name: cpuName(), memoryBytes: os.totalmem() };
  try {
    const { threads, instructionSet } = await backend.info();
    return { ...device, usable: true, threads, instructionSet, ...(await backend.ceilings()) };
  } catch (error) {
    if (error instanceof BackendFailure) return { ...device, usable: false, reason: error.message };
    throw error;
  }
}

/** What this profiler records now, by path. */
type Recordings = Map<string, Recording>;

async function run(
  sweep: Sweep,
  { out, resume = false, onEvent, onNotice, except = [], fleet, remote }: RunOptions,
  backend: MeasuringBackend,
  machine: {
    environment(measures: boolean, gpus: readonly Gpu[]): Promise<Environment>;
    usableGpus(backends: readonly string[]): Promise<readonly Gpu[]>;
  },
  recordings: Recordings,
): Promise<SweepRun> {
  if (resume && out === undefined) throw expected('--out FILE.fmqa', '--resume', 'nothing');
  const elsewhere = new Set(except);
  const plan = expandSweep(sweep).filter(({ id }) => !elsewhere.has(id));
  const gpus = fleet || remote ? [] : await machine.usableGpus(plan.map(({ config }) => config.backend));
  const measuring = resolveMeasuring(sweep);
  const joinedFleet = fleet && (await joinFleet(fleet, plan));
  const joinedAgent = remote && (await joinAgent(remote, plan, resume));
  try {
    // A session of an agent is one of its machine; of a fleet, each row says which machine it is of.
    const environment = joinedAgent?.environment ?? (await machine.environment(!fleet, gpus));
    const header = { sweep, measuring, environment };
    const { recording, done, id } =
      out === undefined ? { id: randomUUID() } : await openRecording(out, header, resume, recordings, onNotice);
    const what = {
      plan,
      clock: monotonic,
      record: async (point: Point) => recording?.append({ kind: 'point', point }),
      ...(done ? { done } : {}),
      ...(onEvent ? { onEvent } : {}),
    };
    const started =
      joinedFleet?.start({ ...what, measuring, environment, run: id }) ??
      joinedAgent?.start({ ...what, sweep, run: id }) ??
      startRun({ ...what, measuring, environment, backend });
    return { ...started, finished: endRecording(started.finished, recording) };
  } catch (error) {
    joinedFleet?.leave();
    joinedAgent?.leave();
    throw error;
  }
}

/** Begins or resumes a session that nobody else records, and lists it until it is closed. */
async function openRecording(
  path: string,
  header: Pick<SessionHeader, 'sweep' | 'measuring' | 'environment'>,
  resume: boolean,
  recordings: Recordings,
  onNotice: (line: string) => void = () => undefined,
): Promise<{ recording: Recording; id: string; done?: ReadonlyMap<string, Point> }> {
  const release = await holdSession(path);
  const listed = (recording: Recording): Recording => {
    recordings.set(resolve(path), recording);
    const close = async (): Promise<void> => {
      recordings.delete(resolve(path));
      await recording.close().finally(release);
    };
    return { ...recording, close };
  };
  try {
    if (!resume) {
      const id = randomUUID();
      const first = { kind: 'header', schemaVersion: sessionSchemaVersion, id, name: header.sweep.name } as const;
      return { recording: listed(await createRecording(path, { ...first, ...header })), id };
    }
    refuseOtherSweep(header.sweep, (await readSession(path)).header, path);
    const { recording, session, copy } = await resumeRecording(path, header.environment);
    for (const { sentence } of damageOf(path, session, copy)) onNotice(sentence);
    return { recording: listed(recording), id: session.header.id, done: session.points };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Points of two sweeps in one file would be read as one. */
function refuseOtherSweep(sweep: Sweep, header: SessionHeader, path: string): void {
  const planOf = (other: Sweep): string =>
    expandSweep(other)
      .map(({ id }) => id)
      .join();
  if (planOf(sweep) !== planOf(header.sweep)) throw expected(`the sweep that ${path} holds`, '--resume', 'another one');
  const [ours, theirs] = [resolveMeasuring(sweep), header.measuring];
  const changed = (Object.keys(ours) as (keyof typeof ours)[]).find((name) => ours[name] !== theirs[name]);
  if (changed) throw expected(`${theirs[changed]}, as in ${path},`, changed, ours[changed]);
}

async function endRecording(finished: SweepRun['finished'], recording: Recording | undefined): SweepRun['finished'] {
  try {
    const result = await finished;
    await recording?.append({ kind: 'ended', how: result.how });
    return result;
  } finally {
    // Every record was durable before this; a failure to close loses nothing.
    await recording?.close().catch(() => undefined);
  }
}
