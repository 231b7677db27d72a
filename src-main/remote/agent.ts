/**
 * The far end: measures one sweep at a time and keeps each session on its own disk until the client has acknowledged it. It
 * knows nothing of connections: whoever asks, and however often, gets the rows from where they ask on.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceInfo, RunEnd, RunEvent, RunOptions, SweepRun } from '../contract/api.ts';
import { withDevice } from '../contract/devices.ts';
import { InputError } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import type { Sweep } from '../contract/sweep.ts';
import { type AgentApi, type Followed, type HeldRun, type RemoteVerb, unknownRun } from './protocol.ts';

/** What an agent needs of its program. */
export interface AgentMachine {
  readonly host: string;
  readonly version: string;
  devices(): Promise<readonly DeviceInfo[]>;
  /** With the ceilings of these backends, measured now. @throws InputError for one that cannot be used */
  environment(backends: readonly string[]): Promise<Environment>;
  run(sweep: Sweep, options: RunOptions): Promise<SweepRun>;
  readSession(path: string): Promise<{
    readonly name: string;
    readonly header: { readonly environment: Environment };
    readonly points: ReadonlyMap<string, Point>;
    readonly how: RunEnd | undefined;
  }>;
}

/** An answer holds rows until they come to about this much. */
const answerBytes = 4 * 1024 * 1024;
const rowBytes = 4096;
const sampleBytes = 9;
/** Also a sign of life: see the client's deadline. */
const waitMilliseconds = 5000;
/** News are gathered for this long before they are told. */
const gatherMilliseconds = 30;

export class Agent {
  private readonly machine: AgentMachine;
  private readonly folder: string;
  private readonly devices: readonly DeviceInfo[];
  private readonly runs = new Map<string, AgentRun>();

  private constructor(machine: AgentMachine, folder: string, devices: readonly DeviceInfo[]) {
    this.machine = machine;
    this.folder = folder;
    this.devices = devices;
  }

  /** @param folder of its sessions: those that nobody has acknowledged are taken up again */
  static async open(machine: AgentMachine, folder: string): Promise<Agent> {
    const agent = new Agent(machine, folder, await machine.devices());
    for (const file of await readdir(folder)) if (file.endsWith('.fmqa')) await agent.takeUp(file);
    return agent;
  }

  private async takeUp(file: string): Promise<void> {
    const id = file.slice(0, -'.fmqa'.length);
    try {
      const { name, header, points, how } = await this.machine.readSession(join(this.folder, file));
      const rows = [...points.values()].map((row) => this.attributed(row, header.environment));
      this.runs.set(id, new AgentRun(id, name, rows, how));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      // it never got a whole header, so it holds nothing; a run of its name begins anew
    }
  }

  get isBusy(): boolean {
    return this.active !== undefined;
  }

  readonly api: AgentApi = {
    hello: async () => ({
      version: this.machine.version,
      host: this.machine.host,
      devices: [...this.devices],
      runs: [...this.runs.values()].map((run) => run.note()),
    }),
    environment: async ({ backends }) => {
      if (this.active) await this.active.started;
      return this.active?.environment ?? (await this.machine.environment(backends));
    },
    start: async ({ run: id, sweep, except }) => {
      const { active } = this;
      if (active?.id === id) return null;
      if (active) throw new InputError(`${this.machine.host} measures another sweep now: ${active.name}`, 'remote');
      const before = this.runs.get(id);
      if (before?.how === 'done') return null;
      const run = before ?? new AgentRun(id, sweep.name, []);
      this.runs.set(id, run);
      const file = this.fileOf(id);
      if (!before) await rm(file, { force: true });
      const options = { out: file, except, ...(before ? { resume: true } : {}) };
      run.measure(
        (onEvent) => this.machine.run(sweep, { ...options, onEvent }),
        (row, environment) => this.attributed(row, environment),
      );
      return null;
    },
    follow: async ({ run: id, from, seen }) => {
      const run = this.held(id);
      await run.news(from, seen);
      return run.state(from);
    },
    steer: async ({ run: id, verb }) => {
      this.held(id).steer(verb);
      return null;
    },
    acknowledge: async ({ run: id }) => {
      const run = this.runs.get(id);
      if (run?.isActive) throw new InputError(`the sweep still runs at ${this.machine.host}`);
      await run?.over;
      this.runs.delete(id);
      await rm(this.fileOf(id), { force: true });
      return null;
    },
  };

  /** Ends what runs; it stays on the disk and is taken up again when a client asks. */
  async close(): Promise<void> {
    const { active } = this;
    active?.interrupt();
    await active?.over;
  }

  private get active(): AgentRun | undefined {
    return [...this.runs.values()].find(({ isActive }) => isActive);
  }

  private fileOf(run: string): string {
    return join(this.folder, `${run}.fmqa`);
  }

  private held(id: string): AgentRun {
    const run = this.runs.get(id);
    if (!run) throw new InputError(unknownRun);
    return run;
  }

  /** Which machine measured a row, and under which ceilings. */
  private attributed(row: Point, environment: Environment | undefined): Point {
    return environment ? withDevice(row, this.machine.host, environment) : row;
  }
}

/** One sweep: its rows so far, in the order of its file. */
class AgentRun {
  readonly id: string;
  readonly name: string;
  private readonly rows: Point[];
  how: RunEnd | undefined;
  environment: Environment | undefined;
  /** Resolves when the engine has taken it up, or could not. */
  started: Promise<unknown> = Promise.resolve();
  over: Promise<unknown> = Promise.resolve();
  private status: Followed['status'];
  private failure: string | undefined;
  private pauseReason: string | undefined;
  private step: Followed['step'];
  private asked: RemoteVerb | 'interrupt' | undefined;
  private changes = 0;
  private run: SweepRun | undefined;
  private wake: () => void = () => undefined;
  private change = this.nextChange();

  constructor(id: string, name: string, rows: Point[], how?: RunEnd) {
    this.id = id;
    this.name = name;
    this.rows = rows;
    this.how = how;
    this.status = how === undefined || how === 'interrupted' ? 'idle' : 'ended';
  }

  get isActive(): boolean {
    return this.status !== 'ended' && this.status !== 'idle';
  }

  measure(
    start: (onEvent: (event: RunEvent) => void) => Promise<SweepRun>,
    attribute: (row: Point, environment: Environment | undefined) => Point,
  ): void {
    this.status = 'starting';
    this.how = undefined;
    this.failure = undefined;
    this.asked = undefined;
    const fail = (error: unknown): void => {
      this.failure = error instanceof Error ? error.message : String(error);
    };
    const starting = start((event) => this.hear(event, attribute));
    this.started = starting.catch(() => undefined);
    this.over = starting
      .then(async (run) => {
        this.run = run;
        if (this.asked === 'interrupt') run.cancel('interrupted');
        else if (this.asked) run[this.asked]();
        this.how = (await run.finished).how;
      })
      .catch(fail)
      .then(() => {
        this.run = undefined;
        this.status = 'ended';
        this.tellChange();
      });
  }

  steer(verb: RemoteVerb): void {
    this.asked = verb;
    this.run?.[verb]();
  }

  interrupt(): void {
    this.asked = 'interrupt';
    this.run?.cancel('interrupted');
  }

  note(): HeldRun {
    return { run: this.id, name: this.name, status: this.status, rows: this.rows.length };
  }

  /** Resolves when there is something to tell, or after a while. */
  async news(from: number, seen: number): Promise<void> {
    if (from < this.rows.length || seen !== this.changes) return;
    const giveUp = new AbortController();
    await Promise.race([
      this.change,
      sleep(waitMilliseconds, undefined, { signal: giveUp.signal }).catch(() => undefined),
    ]);
    giveUp.abort();
    await sleep(gatherMilliseconds);
  }

  state(from: number): Followed {
    const rows: Point[] = [];
    for (let i = from, bytes = 0; i < this.rows.length && (rows.length === 0 || bytes < answerBytes); i += 1) {
      const row = this.rows[i] as Point;
      rows.push(row);
      bytes += rowBytes + sampleBytes * (row.samplesSeconds?.length ?? 0);
    }
    return {
      rows,
      rowsSoFar: this.rows.length,
      changes: this.changes,
      status: this.status,
      ...(this.how === undefined ? {} : { how: this.how }),
      ...(this.failure === undefined ? {} : { failure: this.failure }),
      ...(this.pauseReason === undefined ? {} : { pauseReason: this.pauseReason }),
      ...(this.step === undefined ? {} : { step: this.step }),
    };
  }

  private hear(event: RunEvent, attribute: (row: Point, environment: Environment | undefined) => Point): void {
    if (event.type === 'started') this.environment = event.environment;
    if (event.type === 'started' || event.type === 'continued') this.status = 'running';
    if (event.type === 'continued') this.pauseReason = undefined;
    if (event.type === 'point') this.rows.push(attribute(event.point, this.environment));
    if (event.type === 'progress') {
      const { pointId, step, samples } = event;
      this.step = { pointId, step, samples };
    }
    if (event.type === 'paused') {
      this.status = 'paused';
      this.pauseReason = event.reason;
    }
    this.tellChange();
  }

  private tellChange(): void {
    this.changes += 1;
    this.wake();
    this.change = this.nextChange();
  }

  private nextChange(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }
}
