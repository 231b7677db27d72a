/**
 * The one current sweep of a host, which any number of windows may watch and steer. It is recorded from its first point on;
 * windows get numbered events in batches and may ask for everything so far at any time.
 */
import { mkdir } from 'node:fs/promises';
import type { ProfilerApi, RunEvent, RunOptions, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
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
import { expandSweep } from '../engine/plan.ts';
import type { Session } from '../sessions/recovery.ts';
import { freePath, sessionFileName, sessionIdOf } from './folders.ts';

/** Thirty batches a second: more than an eye follows, little enough not to disturb the measurement. */
const batchMilliseconds = 1000 / 30;

export type BatchListener = (events: readonly HubEvent[]) => void;

/** Where a sweep is measured; empty: on this machine. */
export type RunPlace = Pick<RunOptions, 'fleet' | 'remote'>;

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
  async start(sweep: Sweep, place: RunPlace = {}): Promise<RunSession> {
    this.refuseWhileActive();
    this.options.profiler.preview(sweep); // throws for one that cannot be, before anything is thrown away
    const file = freePath(this.options.folder, sessionFileName(sweep.name, new Date()));
    const session: RunSession = { id: sessionIdOf(file), name: sweep.name, file };
    this.samplesOf = new Map();
    this.run = undefined;
    this.tell({ type: 'opened', session, sweep });
    this.flush();
    await this.measure(sweep, { out: file, ...this.noticed(place) });
    return session;
  }

  /**
   * Shows a recorded session in place of the current one.
   * @throws InputError while a sweep runs.
   */
  open(file: string, session: Session): RunSession {
    this.refuseWhileActive();
    return this.replace(file, session, 'ended');
  }

  /**
   * Opens a recorded session and measures the points that it lacks.
   * @throws InputError as {@link start}
   */
  async continueSession(file: string, session: Session, place: RunPlace = {}): Promise<RunSession> {
    this.refuseWhileActive();
    this.options.profiler.preview(session.header.sweep);
    const opened = this.replace(file, session, 'starting');
    await this.measure(session.header.sweep, { out: file, resume: true, ...this.noticed(place) });
    return opened;
  }

  /** The session in view has another name now. */
  rename(id: string, name: string): void {
    if (this.snapshot().session?.id === id) this.tell({ type: 'renamed', name });
  }

  /** Windows should look at the library again. */
  tellLibraryChanged(): void {
    this.tell({ type: 'library' });
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

  /** What a place has to say is told to the windows. */
  private noticed({ fleet, remote }: RunPlace): RunPlace {
    const onNotice = (text: string): void => this.tell({ type: 'notice', text });
    return { ...(fleet && { fleet: { ...fleet, onNotice } }), ...(remote && { remote: { ...remote, onNotice } }) };
  }

  private refuseWhileActive(): void {
    if (isActive(this.snapshot())) throw new InputError('a sweep is running: stop or cancel it first');
  }

  private async measure(sweep: Sweep, options: RunOptions): Promise<void> {
    try {
      await mkdir(this.options.folder, { recursive: true });
      this.run = await this.options.profiler.run(sweep, {
        ...options,
        onEvent: (event) => this.hear(event),
        onNotice: (text) => this.tell({ type: 'notice', text }),
      });
    } catch (error) {
      this.break(error);
      throw error;
    }
    this.over = this.run.finished.then(
      () => undefined,
      (error) => this.break(error),
    );
    void this.over.then(() => this.tellLibraryChanged());
    // Asked for while the engine was still starting.
    if (this.state.asked) this.run[this.state.asked]();
  }

  /** Events cannot tell a whole session: the number of the next one leaves a gap, and windows ask for a snapshot. */
  private replace(file: string, { header, name, how, points }: Session, status: 'ended' | 'starting'): RunSession {
    const session: RunSession = { id: sessionIdOf(file), name, file };
    const sequence = this.state.sequence + 2;
    const rows = [...points.values()];
    this.run = undefined;
    this.samplesOf = new Map(rows.flatMap(({ id, samplesSeconds }) => (samplesSeconds ? [[id, samplesSeconds]] : [])));
    this.state = {
      ...noRun,
      sequence,
      libraryChanges: this.state.libraryChanges,
      status,
      session,
      sweep: header.sweep,
      environment: header.environment,
      points: rows.map(withoutSamples),
      done: rows.length,
      total: Math.max(rows.length, plannedPoints(header.sweep) ?? 0),
      ...(status === 'ended' && how ? { how } : {}),
    };
    for (const listener of [...this.listeners]) listener([{ type: 'replaced', sequence }]);
    return session;
  }

  private hear(event: RunEvent): void {
    const { sequence: _, ...body } = event;
    if (body.type === 'point') {
      // Samples outweigh the rest of a point by far and are looked at for one point at a time.
      const { samplesSeconds, id } = body.point;
      if (samplesSeconds) this.samplesOf.set(id, samplesSeconds);
      this.tell({ ...body, point: withoutSamples(body.point) });
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

export const withoutSamples = ({ samplesSeconds: _, ...point }: Point): Point => point;

/** Undefined for a sweep that only a later version understands. */
export function plannedPoints(sweep: Sweep): number | undefined {
  try {
    return expandSweep(sweep).length;
  } catch {
    return undefined;
  }
}
