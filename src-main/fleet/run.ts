/**
 * A sweep run by a fleet: the same events and the same rows as a local run. All points are submitted at once, so the fleet works
 * on while this machine sleeps; a run that is resumed takes its rows from where they wait.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import type { RunEnd, RunEvent, RunEventBody, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import { type Point, pointSchema } from '../contract/metrics.ts';
import type { Measuring } from '../contract/sweep.ts';
import { failedPoint, skippedPoint } from '../engine/measure.ts';
import type { PlannedPoint } from '../engine/plan.ts';
import type { RunSetting } from '../engine/ports.ts';
import { listHosts } from './hosts.ts';
import { type Connection, type Job, jobId, keepSeconds, keyPrefix, queueOf, rowsKey } from './queue.ts';

/** Where a sweep is run. */
export interface FleetPlace {
  readonly connection: Connection;
  readonly version: string;
  /** Only devices of this name. */
  readonly device?: string;
  /** What the user should know and no row says. */
  readonly onNotice?: (line: string) => void;
}

/** `environment`: of this machine; each row names the one it was measured on, and leaves the queue once it is recorded. */
export interface FleetPlan extends FleetPlace, RunSetting {
  readonly plan: readonly PlannedPoint[];
  readonly measuring: Measuring;
  /** Id of the session: whoever resumes it finds its jobs and rows. */
  readonly run: string;
}

const collectMilliseconds = 100;
/** Between two looks for points that were given up, or that a restarted Redis has forgotten. */
const lookMilliseconds = 2000;

/**
 * Says what will have to wait: points that no worker can take now.
 * @throws InputError if every worker of the queue has other kernels
 */
export async function checkFleet(
  { connection, version, device, onNotice }: FleetPlace,
  plan: readonly PlannedPoint[],
): Promise<void> {
  const hosts = await listHosts(connection);
  const ours = hosts.filter((host) => host.version === version);
  if (hosts.length > 0 && ours.length === 0) {
    const theirs = [...new Set(hosts.map((host) => host.version))].join(', ');
    const reason = `no worker of the queue has the kernels of this program (${version}); theirs: ${theirs}`;
    throw new InputError(`refused: ${reason}`, '--queue');
  }
  if (hosts.length === 0) return onNotice?.('no worker is at work for this queue: the points wait until one is');
  const names = new Set(plan.filter(({ refused }) => refused === undefined).map((point) => queueOf(point, device)));
  const unserved = [...names].filter((name) => !ours.some(({ queues }) => queues.includes(name)));
  if (unserved.length > 0)
    onNotice?.(`no worker can take the points of ${unserved.join(', ')}: they wait until one can`);
}

export function startFleetRun(options: FleetPlan): SweepRun {
  const run = new FleetRun(options);
  return {
    pause: () => run.pause(),
    continue: () => run.continue(),
    stop: () => run.end('stopped'),
    cancel: (how = 'cancelled') => run.end(how),
    finished: run.start(),
  };
}

class FleetRun {
  private readonly options: FleetPlan;
  private readonly rows: Map<string, Point>;
  /** Not yet recorded, by id. */
  private readonly open: Map<string, PlannedPoint>;
  private readonly queues = new Map<string, Queue>();
  private readonly queueOfPoint: ReadonlyMap<string, string>;
  private readonly key: string;
  private sequence = 0;
  private ending: RunEnd | undefined;
  private paused = false;
  /** The jobs of this run are in the queue, as far as they are open. */
  private submitted = false;
  private toldPaused = false;
  private doneBefore = 0;

  constructor(options: FleetPlan) {
    this.options = options;
    this.key = rowsKey(options.run);
    this.rows = new Map(
      options.plan.flatMap(({ id }) => (options.done?.has(id) ? [[id, options.done.get(id) as Point]] : [])),
    );
    this.open = new Map(options.plan.filter(({ id }) => !this.rows.has(id)).map((point) => [point.id, point]));
    const possible = [...this.open.values()].filter(({ refused }) => refused === undefined);
    this.queueOfPoint = new Map(possible.map((point) => [point.id, queueOf(point, options.device)]));
    for (const name of new Set(this.queueOfPoint.values())) {
      const queue = new Queue(name, { connection: options.connection.redis, prefix: keyPrefix });
      this.queues.set(
        name,
        queue.on('error', () => undefined),
      );
    }
  }

  pause(): void {
    this.paused = true;
  }

  continue(): void {
    this.paused = false;
  }

  end(how: RunEnd): void {
    if (this.ending !== 'cancelled' && this.ending !== 'interrupted') this.ending = how;
  }

  async start(): Promise<{ points: Point[]; how: RunEnd }> {
    const { plan, environment, clock } = this.options;
    this.doneBefore = this.rows.size;
    const startedAt = clock.now();
    this.tell({ type: 'started', total: plan.length, done: this.rows.size, environment });
    for (const point of [...this.open.values()])
      if (point.refused !== undefined) await this.take(skippedPoint(point, point.refused), startedAt);
    try {
      let lookedAt = clock.now();
      while (this.open.size > 0) {
        await this.settle();
        await this.collect(startedAt);
        if (this.ending === 'cancelled' || this.ending === 'interrupted') break;
        if (this.ending === 'stopped' && !(await this.isAnyAtWork())) {
          await this.collect(startedAt);
          break;
        }
        if (clock.now() - lookedAt > lookMilliseconds / 1000) {
          await this.look(startedAt);
          lookedAt = clock.now();
        }
        if (this.open.size > 0) await sleep(collectMilliseconds);
      }
      await this.clear();
    } finally {
      await Promise.all([...this.queues.values()].map((queue) => queue.close().catch(() => undefined)));
    }
    const how = this.open.size === 0 ? 'done' : (this.ending ?? 'done');
    this.tell({ type: 'ended', how });
    return { points: plan.flatMap(({ id }) => this.rows.get(id) ?? []), how };
  }

  /** Jobs are in the queue while they should be, and what the user asked for has been told. */
  private async settle(): Promise<void> {
    const wanted = !this.paused && !this.ending;
    if (wanted !== this.submitted) await (wanted ? this.submit() : this.withdraw());
    this.submitted = wanted;
    if (this.paused === this.toldPaused || this.ending) return;
    this.toldPaused = this.paused;
    this.tell({ type: this.paused ? 'paused' : 'continued' });
  }

  /** A job that is there already stays as it is. */
  private async submit(): Promise<void> {
    const { run, version, measuring } = this.options;
    for (const [name, queue] of this.queues) {
      const points = this.openIn(name);
      for (let first = 0; first < points.length; first += 500) {
        const jobs = points.slice(first, first + 500).map(({ id, config }) => ({
          name: 'point',
          data: { version, run, point: { id, config }, measuring } satisfies Job,
          opts: {
            jobId: jobId(run, id),
            // Kept for a while, so that submitting again does not measure again.
            removeOnComplete: { age: keepSeconds },
            removeOnFail: { age: keepSeconds },
          },
        }));
        await this.steadily(() => queue.addBulk(jobs));
      }
    }
  }

  /** Those at work stay; their rows still count. */
  private async withdraw(): Promise<void> {
    const { run } = this.options;
    for (const [name, queue] of this.queues)
      await this.steadily(() => Promise.all(this.openIn(name).map(({ id }) => queue.remove(jobId(run, id)))));
  }

  private async isAnyAtWork(): Promise<boolean> {
    for (const [name, queue] of this.queues) {
      const active = new Set((await this.steadily(() => queue.getActive())).flatMap((job) => job?.id ?? []));
      if (this.openIn(name).some(({ id }) => active.has(jobId(this.options.run, id)))) return true;
    }
    return false;
  }

  private openIn(queue: string): PlannedPoint[] {
    return [...this.open.values()].filter(({ id }) => this.queueOfPoint.get(id) === queue);
  }

  private async collect(startedAt: number): Promise<void> {
    const { redis } = this.options.connection;
    let cursor = '0';
    do {
      const [next, found] = await this.steadily(() => redis.hscan(this.key, cursor, 'COUNT', 200));
      cursor = next;
      for (let i = 0; i + 1 < found.length; i += 2) {
        const [id, text] = [found[i] as string, found[i + 1] as string];
        const planned = this.open.get(id);
        if (planned) await this.take(rowOf(planned, text), startedAt);
        await this.steadily(() => redis.hdel(this.key, id)); // on our disk, or there for the second time
      }
    } while (cursor !== '0');
  }

  /** For what no row will come of by itself: jobs that were given up, and jobs or rows that a restarted Redis has forgotten. */
  private async look(startedAt: number): Promise<void> {
    await this.collectGivenUp(startedAt);
    const { run } = this.options;
    const oldest = [...this.open.keys()]
      .slice(0, 50)
      .map((id) => ({ id, queue: this.queues.get(this.queueOfPoint.get(id) ?? '') }));
    const finished: typeof oldest = [];
    for (const job of oldest)
      if ((await this.steadily(async () => job.queue?.getJobState(jobId(run, job.id)))) === 'completed')
        finished.push(job);
    await this.collect(startedAt);
    for (const { id, queue } of finished)
      if (this.open.has(id)) await this.steadily(async () => queue?.remove(jobId(run, id)));
    if (this.submitted) await this.submit();
  }

  /** Points that BullMQ has given up, because every worker that took them was lost. */
  private async collectGivenUp(startedAt: number): Promise<void> {
    const { run } = this.options;
    for (const [name, queue] of this.queues) {
      const open = new Map(this.openIn(name).map((point) => [jobId(run, point.id), point]));
      for (const job of await this.steadily(() => queue.getFailed())) {
        const planned = job?.id === undefined ? undefined : open.get(job.id);
        if (!planned) continue;
        const lost = /stalled/.test(job.failedReason ?? '');
        const reason = lost
          ? 'quarantined: every worker that took it was lost'
          : `the worker failed: ${job.failedReason}`;
        await this.take(failedPoint(planned, reason), startedAt);
      }
    }
  }

  private async take(point: Point, startedAt: number): Promise<void> {
    const { record, plan, clock } = this.options;
    await record(point);
    this.open.delete(point.id);
    this.rows.set(point.id, point);
    const [done, total] = [this.rows.size, plan.length];
    const etaSeconds = ((clock.now() - startedAt) * (total - done)) / (done - this.doneBefore);
    this.tell({ type: 'point', point, done, total, etaSeconds });
  }

  /** Nothing of a run that has ended stays behind. */
  private async clear(): Promise<void> {
    const { run, connection } = this.options;
    for (const [id, name] of this.queueOfPoint)
      await this.steadily(async () => this.queues.get(name)?.remove(jobId(run, id)));
    if (this.open.size === 0) await this.steadily(() => connection.redis.del(this.key));
  }

  private steadily<T>(task: () => Promise<T>): Promise<T> {
    return this.options.connection.steadily(task);
  }

  private tell(body: RunEventBody): void {
    this.sequence += 1;
    this.options.onEvent?.({ ...body, sequence: this.sequence } as RunEvent);
  }
}

/** What a worker left in Redis, checked: whoever has the password of the queue can write there. */
export function rowOf(planned: PlannedPoint, text: string): Point {
  try {
    const row = pointSchema.safeParse(JSON.parse(text));
    if (row.success && row.data.id === planned.id) return { ...row.data, config: planned.config };
  } catch {
    // told below
  }
  return failedPoint(planned, 'the worker returned a row that cannot be understood');
}
