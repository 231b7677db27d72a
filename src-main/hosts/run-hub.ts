/**
 * The one current sweep of a host, which any number of windows may watch and steer. It is recorded from its first point on;
 * windows get numbered events in batches and may ask for everything so far at any time.
 */
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProfilerApi, RunEvent, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import {
  type HubEvent,
  type HubEventBody,
  isActive,
  noRun,
  type RunSession,
  type RunState,
  type RunVerb,
  reduceRun,
} from '../contract/run-state.ts';
import type { Sweep } from '../contract/sweep.ts';
import { sessionFileName } from './folders.ts';

/** Thirty batches a second: more than an eye follows, little enough not to disturb the measurement. */
const batchMilliseconds = 1000 / 30;

export type BatchListener = (events: readonly HubEvent[]) => void;

export interface RunHubOptions {
  readonly profiler: Pick<ProfilerApi, 'preview' | 'run'>;
  /** Sessions are recorded here. */
  readonly folder: string;
}

export class RunHub {
  private readonly options: RunHubOptions;
  private readonly listeners = new Set<BatchListener>();
  private state: RunState = noRun;
  private waiting: HubEventBody[] = [];
  private timer: NodeJS.Timeout | undefined;
  private lastBatchAt = Number.NEGATIVE_INFINITY;
  private run: SweepRun | undefined;
  private over: Promise<void> = Promise.resolve();
  private samplesOf = new Map<string, readonly number[]>();

  constructor(options: RunHubOptions) {
    this.options = options;
  }

  /**
   * Starts a sweep; resolves when the engine has taken it up.
   * @throws InputError for a sweep that cannot be, or while another one runs.
   */
  async start(sweep: Sweep): Promise<RunSession> {
    this.flush();
    if (isActive(this.state)) throw new InputError('a sweep is running: stop or cancel it first');
    this.options.profiler.preview(sweep); // throws for one that cannot be, before anything is thrown away
    const file = join(this.options.folder, sessionFileName(sweep.name, new Date()));
    const session: RunSession = { id: randomUUID(), name: sweep.name, file };
    this.samplesOf = new Map();
    this.run = undefined;
    this.tell({ type: 'opened', session, sweep });
    this.flush();
    try {
      await mkdir(this.options.folder, { recursive: true });
      this.run = await this.options.profiler.run(sweep, { out: file, onEvent: (event) => this.hear(event) });
    } catch (error) {
      this.break(error);
      throw error;
    }
    this.over = this.run.finished.then(
      () => undefined,
      (error) => this.break(error),
    );
    // Asked for while the engine was still starting.
    if (this.state.asked) this.run[this.state.asked]();
    return session;
  }

  /** Without a sweep that runs there is nothing to steer, and nothing happens. */
  steer(verb: RunVerb): void {
    this.flush();
    if (!isActive(this.state)) return;
    this.tell({ type: 'asked', verb });
    this.flush();
    this.run?.[verb]();
  }

  /** Everything so far: equal to what a window has that saw every event up to `sequence`. */
  snapshot(): RunState {
    this.flush();
    return this.state;
  }

  samples(pointId: string): readonly number[] {
    return this.samplesOf.get(pointId) ?? [];
  }

  subscribe(listener: BatchListener): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  /** Ends the sweep as interrupted: what was measured stays in its session. */
  async close(): Promise<void> {
    if (isActive(this.snapshot())) this.run?.cancel('interrupted');
    await this.over;
    this.flush();
    this.listeners.clear();
  }

  private hear(event: RunEvent): void {
    const { sequence: _, ...body } = event;
    if (body.type === 'point') {
      // Samples outweigh the rest of a point by far and are looked at for one point at a time.
      const { samplesSeconds, ...point } = body.point;
      if (samplesSeconds) this.samplesOf.set(point.id, samplesSeconds);
      this.tell({ ...body, point });
    } else this.tell(body);
  }

  private break(error: unknown): void {
    this.tell({ type: 'broken', reason: error instanceof Error ? error.message : String(error) });
  }

  private tell(body: HubEventBody): void {
    // Of several steps within one batch only the last would be seen. Numbers are given later, so none is missing.
    if (body.type === 'progress' && this.waiting.at(-1)?.type === 'progress') this.waiting.pop();
    this.waiting.push(body);
    const due = this.lastBatchAt + batchMilliseconds - performance.now();
    if (due <= 0) this.flush();
    else this.timer ??= setTimeout(() => this.flush(), due);
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.waiting.length === 0) return;
    const first = this.state.sequence + 1;
    const events = this.waiting.map((body, i): HubEvent => ({ ...body, sequence: first + i }));
    this.waiting = [];
    this.lastBatchAt = performance.now();
    this.state = reduceRun(this.state, events);
    for (const listener of [...this.listeners]) listener(events);
  }
}
