/**
 * Runs a plan: neighbours of one layer and phase are prepared together and sampled in turn (A B C A B C), so that drift of the
 * machine meets all of them alike. Each point ends as a row: measured, skipped or failed. A row is recorded before it is told.
 */
import type { RunEnd, RunEvent, RunEventBody, SweepRun } from '../contract/api.ts';
import type { Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import type { Measuring, PointConfig } from '../contract/sweep.ts';
import { estimateSeconds } from './estimate.ts';
import { capacityPoint, failedPoint, measuredPoint, skippedPoint } from './measure.ts';
import type { PlannedPoint } from './plan.ts';
import { BackendFailure, type Ceilings, type MeasuringBackend, type Prepared, type RunSetting } from './ports.ts';
import { isEnough, isSlow } from './stopping.ts';

/** A point that crashed in an earlier run of the session is quarantined: it gets no second chance to take the worker down. */
export interface RunPlan extends RunSetting {
  readonly plan: readonly PlannedPoint[];
  readonly backend: MeasuringBackend;
  readonly measuring: Measuring;
}

/** More would fill the memory with prepared layers and stretch the time between two samples of one point. */
const mostTogether = 4;
const firstTogether = 2;
/** A point is sampled in this many rounds at least, each taking turns with its neighbours. */
const rounds = 5;
/** Different points that crash one after the other: then the fault is not the points'. */
const crashesBeforePause = 5;

/** A point on its way to its row. */
interface Task {
  readonly planned: PlannedPoint;
  prepared?: Prepared | undefined;
  /** Taken up once: a stop lets it finish. */
  begun: boolean;
  warm: boolean;
  samples: number[];
  /** Seconds the backend has spent on it since it was last prepared. */
  spentSeconds: number;
  /** Those of them that went into `samples`. */
  sampledSeconds: number;
  /** Did not fit beside its neighbours: waits until they are done. */
  alone: boolean;
  row?: Point;
}

/** Starts the run; the returned promise `finished` holds the earlier and the new rows in the order of the plan. */
export function startRun(options: RunPlan): SweepRun {
  const run = new Run(options);
  return {
    pause: () => run.pause(),
    continue: () => run.continue(),
    stop: () => run.stop(),
    cancel: (how) => run.cancel(how),
    finished: run.start(),
  };
}

class Run {
  private readonly options: RunPlan;
  private readonly rows: Map<string, Point>;
  private sequence = 0;
  private ending: RunEnd | undefined;
  private paused = false;
  private pauseReason: string | undefined;
  private wake: () => void = () => undefined;
  private crashesInRow = 0;
  private startedAt = 0;
  private pausedSeconds = 0;
  private secondsPlanned = 0;
  private secondsDone = 0;

  constructor(options: RunPlan) {
    this.options = options;
    this.rows = new Map(
      options.plan.flatMap(({ id }) => {
        const row = options.done?.get(id);
        return row ? [[id, row] as const] : [];
      }),
    );
  }

  pause(): void {
    this.paused = true;
  }

  continue(): void {
    this.paused = false;
    this.pauseReason = undefined;
    this.wake();
  }

  stop(): void {
    this.ending ??= 'stopped';
    this.continue();
  }

  cancel(how: 'cancelled' | 'interrupted' = 'cancelled'): void {
    this.ending = how;
    this.options.backend.cancel();
    this.continue();
  }

  private get cancelled(): boolean {
    return this.ending === 'cancelled' || this.ending === 'interrupted';
  }

  async start(): Promise<{ points: Point[]; how: RunEnd }> {
    const { plan, environment, clock } = this.options;
    this.startedAt = clock.now();
    const waiting = plan.filter(({ id }) => !this.rows.has(id));
    this.secondsPlanned = waiting.reduce((sum, point) => sum + this.weight(point), 0);
    this.tell({ type: 'started', total: plan.length, done: this.rows.size, environment });
    for (const group of groupsOf(waiting)) {
      await this.rest();
      if (this.ending) break;
      await this.runGroup(group);
    }
    const how = this.rows.size === plan.length ? 'done' : (this.ending ?? 'done');
    this.tell({ type: 'ended', how });
    return { points: plan.flatMap(({ id }) => this.rows.get(id) ?? []), how };
  }

  private async runGroup(group: readonly PlannedPoint[]): Promise<void> {
    const tasks = group.map(
      (planned): Task => ({
        planned,
        begun: false,
        warm: false,
        samples: [],
        spentSeconds: 0,
        sampledSeconds: 0,
        alone: false,
      }),
    );
    try {
      for (;;) {
        const open = tasks.filter((task) => !task.row);
        const together = open.filter((task) => !task.alone);
        if (open.length === 0) break;
        for (const task of together.length > 0 ? together : open.slice(0, 1)) {
          await this.rest();
          if (this.cancelled) return await this.recordFinished(tasks, true);
          await this.advance(task, tasks);
          await this.recordFinished(tasks);
        }
        // After a stop, what was begun is finished and what was not is left for another run.
        if (this.ending && tasks.every((task) => task.row || !task.begun)) return;
      }
    } finally {
      for (const task of tasks) await this.release(task);
    }
  }

  /** One step of one point: prepare it, warm it up, or take one round of samples. */
  private async advance(task: Task, group: readonly Task[]): Promise<void> {
    const { backend, measuring } = this.options;
    const { planned } = task;
    if (task.row || (this.ending && !task.begun)) return;
    if (planned.refused !== undefined) {
      task.row = skippedPoint(planned, planned.refused);
      return;
    }
    task.begun = true;
    try {
      const { prepared } = task;
      const deadline = measuring.timeoutSeconds - task.spentSeconds;
      if (deadline <= 0)
        throw new BackendFailure('timeout', `it took longer than ${measuring.timeoutSeconds} s`, false);
      if (planned.config.phase === 'capacity') {
        task.row = await this.fillMemory(task, deadline);
        return;
      }
      if (!prepared) {
        this.tell({ type: 'progress', pointId: planned.id, step: 'preparing', samples: 0 });
        task.prepared = await this.timed(task, () => backend.prepare(planned.config, deadline));
        this.dropOtherGenerations(task.prepared.generation, group);
        return;
      }
      const most = Math.ceil(measuring.maxSamples / rounds);
      const spentBefore = task.spentSeconds;
      const batch = await this.timed(task, () =>
        backend.sample(prepared, measuring.minSeconds / rounds, most, deadline),
      );
      if (!task.warm) {
        task.warm = true; // what was measured while caches and clocks settled is discarded
        if (!isSlow(batch, measuring)) return; // a slow step was warmed up by the one that `prepare` compared
      }
      task.sampledSeconds += task.spentSeconds - spentBefore;
      task.samples.push(...batch.slice(0, measuring.maxSamples - task.samples.length));
      this.tell({ type: 'progress', pointId: planned.id, step: 'sampling', samples: task.samples.length });
      if (batch.length === 0) throw new BackendFailure('failed', 'the backend returned no sample', false);
      if (!isEnough(task.samples, measuring, task.sampledSeconds)) return;
      const conditions = planned.config.backend === 'cpu' ? undefined : await backend.conditions?.(prepared);
      const ceilings = ceilingsOf(planned.config.backend, this.options.environment);
      task.row = measuredPoint(planned, prepared, task.samples, measuring, ceilings, conditions);
      this.crashesInRow = 0;
      await this.release(task);
    } catch (error) {
      if (!(error instanceof BackendFailure)) throw error;
      await this.fail(task, error, group);
    }
  }

  private async fillMemory(task: Task, deadline: number): Promise<Point> {
    const { planned } = task;
    const { backend } = this.options;
    if (!backend.capacity) throw new BackendFailure('refused', 'this backend has no phase capacity', false);
    this.tell({ type: 'progress', pointId: planned.id, step: 'preparing', samples: 0 });
    const capacity = await backend.capacity(planned.config, deadline);
    this.crashesInRow = 0;
    return capacityPoint(planned, capacity);
  }

  private async fail(task: Task, failure: BackendFailure, group: readonly Task[]): Promise<void> {
    if (this.cancelled) return;
    const crashed = failure.kind === 'crashed';
    const neighbours = group.some((other) => other !== task && other.prepared);
    // A handle of a dead or poisoned worker is void; its neighbours are prepared anew and their samples discarded.
    if (failure.poisoned || crashed) for (const other of group) reset(other);
    await this.release(task);
    if (failure.kind === 'out-of-memory' && neighbours && !task.alone) {
      reset(task);
      task.alone = true;
      return;
    }
    const row = failure.kind === 'refused' ? skippedPoint : failedPoint;
    task.row = row(task.planned, `${reasonPrefix[failure.kind] ?? ''}${failure.message}`);
    if (!crashed) return;
    this.crashesInRow += 1;
    if (this.crashesInRow < crashesBeforePause) return;
    this.pauseReason = `${this.crashesInRow} points in a row crashed the backend, the last with: ${failure.message}`;
    this.crashesInRow = 0;
    this.pause();
  }

  /** A worker that was replaced unnoticed took the handles of the others with it. */
  private dropOtherGenerations(generation: number, group: readonly Task[]): void {
    for (const task of group) if (task.prepared && task.prepared.generation !== generation) reset(task);
  }

  private async release(task: Task): Promise<void> {
    const { prepared } = task;
    task.prepared = undefined;
    // A handle that cannot be released died with its worker; a worker that is poisoned says so at the next call.
    if (prepared) await this.options.backend.release(prepared).catch(() => undefined);
  }

  private async timed<T>(task: Task, call: () => Promise<T>): Promise<T> {
    const before = this.options.clock.now();
    try {
      return await call();
    } finally {
      task.spentSeconds += this.options.clock.now() - before;
    }
  }

  /** Rows leave the group in the order of the plan, each as soon as those before it have; `all`: without waiting for those. */
  private async recordFinished(tasks: readonly Task[], all = false): Promise<void> {
    for (const { planned, row } of tasks) {
      if (!row && !all) return;
      if (!row || this.rows.has(planned.id)) continue;
      await this.options.record(row);
      this.rows.set(planned.id, row);
      this.secondsDone += this.weight(planned);
      this.tell({
        type: 'point',
        point: row,
        done: this.rows.size,
        total: this.options.plan.length,
        etaSeconds: this.eta(),
      });
    }
  }

  /** Time spent so far, scaled by the estimates of what is left and what is done. */
  private eta(): number {
    if (this.secondsDone === 0) return this.secondsPlanned;
    const spent = this.options.clock.now() - this.startedAt - this.pausedSeconds;
    return (spent * (this.secondsPlanned - this.secondsDone)) / this.secondsDone;
  }

  private weight({ config, refused }: PlannedPoint): number {
    return refused === undefined ? estimateSeconds(config, this.options.measuring) : 0;
  }

  /** Returns at once, or when a pause is over. */
  private async rest(): Promise<void> {
    if (!this.paused) return;
    const { clock } = this.options;
    const since = clock.now();
    this.tell(this.pauseReason === undefined ? { type: 'paused' } : { type: 'paused', reason: this.pauseReason });
    while (this.paused)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    this.pausedSeconds += clock.now() - since;
    this.tell({ type: 'continued' });
  }

  private tell(body: RunEventBody): void {
    this.sequence += 1;
    this.options.onEvent?.({ ...body, sequence: this.sequence } as RunEvent);
  }
}

/** What the device that a point runs on can do at most, as measured in this run. */
function ceilingsOf(backend: string, environment: Environment): Ceilings | undefined {
  const gpu = environment.gpus?.find((other) => other.backend === backend);
  if (gpu) return { fmaFlopsPerSecond: gpu.matrixFlopsPerSecond, readBytesPerSecond: gpu.copyBytesPerSecond };
  const { fmaFlopsPerSecond, readBytesPerSecond } = environment;
  const isKnown = backend === 'cpu' && fmaFlopsPerSecond && readBytesPerSecond;
  return isKnown ? { fmaFlopsPerSecond, readBytesPerSecond } : undefined;
}

const reasonPrefix: Partial<Record<BackendFailure['kind'], string>> = {
  crashed: 'the backend crashed: ',
  timeout: 'timed out: ',
  'out-of-memory': 'out of memory: ',
};

function reset(task: Task): void {
  if (task.row) return;
  task.prepared = undefined;
  task.warm = false;
  task.samples = [];
  task.spentSeconds = 0;
  task.sampledSeconds = 0;
}

const layerOf = (c: PointConfig): string =>
  [
    c.backend,
    c.model,
    c.phase,
    c.verifyTokens,
    c.hiddenDim,
    c.heads,
    c.headDim,
    c.referenceKvHeads,
    c.latentDim,
    c.ropeTheta,
    c.modelSeed,
    c.batch,
    c.seqLen,
    c.seed,
  ].join();

/**
 * Consecutive points of one layer and phase, a few at a time; refused ones take no part in sampling but keep their place. A row
 * is not told before its group is measured: where there are more than fit together anyway, the first group of a run is small,
 * so that its first row comes soon.
 */
function groupsOf(points: readonly PlannedPoint[]): PlannedPoint[][] {
  const layers: PlannedPoint[][] = [];
  for (const point of points) {
    const last = layers.at(-1);
    if (last && layerOf(last[0].config) === layerOf(point.config)) last.push(point);
    else layers.push([point]);
  }
  return layers.flatMap((layer, i) => {
    const small = i === 0 && layer.length > mostTogether ? firstTogether : 0;
    const groups = small > 0 ? [layer.slice(0, small)] : [];
    for (let at = small; at < layer.length; at += mostTogether) groups.push(layer.slice(at, at + mostTogether));
    return groups;
  });
}
