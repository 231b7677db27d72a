/**
 * Takes points from the queues that this device can serve, one at a time, and measures them as a local sweep would. A row is in
 * Redis before its job is acknowledged; a worker that falls silent loses its job to another after the lease.
 */
import { randomUUID } from 'node:crypto';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Job as QueuedJob, UnrecoverableError, Worker } from 'bullmq';
import { withDevice } from '../contract/devices.ts';
import type { Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import { skippedPoint } from '../engine/measure.ts';
import type { Clock, MeasuringBackend } from '../engine/ports.ts';
import { startRun } from '../engine/run.ts';
import { announce, type Host, withdraw } from './hosts.ts';
import { type Connection, jobSchema, keepSeconds, keyPrefix, queuesFor, rowsKey } from './queue.ts';

/** A point whose worker was lost this many times is not given to another. */
const mostLosses = 3;
const idleMilliseconds = 100;
const announceMilliseconds = 5000;

export interface WorkOptions {
  readonly connection: Connection;
  readonly backend: MeasuringBackend;
  readonly clock: Clock;
  readonly environment: Environment;
  readonly device: { readonly backend: string; readonly name: string; readonly memoryBytes: number };
  readonly version: string;
  /** After this long without a sign of life a job goes to another worker. */
  readonly leaseSeconds: number;
  readonly onPoint?: (point: Point) => void;
  /** Stops taking points; the one at hand is finished. */
  readonly signal: AbortSignal;
}

export async function work(options: WorkOptions): Promise<void> {
  const worker = new FleetWorker(options);
  try {
    await worker.run();
  } finally {
    await worker.close();
  }
}

class FleetWorker {
  private readonly options: WorkOptions;
  private readonly token = randomUUID();
  private queues: readonly Worker[] = [];
  private readonly startedAt = new Date().toISOString();
  private readonly finishedAt: number[] = [];
  private done = 0;
  private doing: string | undefined;
  private announcing: NodeJS.Timeout | undefined;

  constructor(options: WorkOptions) {
    this.options = options;
  }

  async run(): Promise<void> {
    const { device, signal } = this.options;
    for (const name of queuesFor(device)) this.queues = [...this.queues, await this.open(name)];
    for (const queue of this.queues) await queue.startStalledCheckTimer();
    await this.announce();
    this.announcing = setInterval(() => void this.announce().catch(() => undefined), announceMilliseconds);
    while (!signal.aborted) {
      const job = await this.next();
      if (job) await this.take(job);
      else await sleep(idleMilliseconds, undefined, { signal }).catch(() => undefined);
    }
  }

  /** If the line breaks while BullMQ opens a queue, that one object would take jobs and never complete one: another is made. */
  private open(name: string): Promise<Worker> {
    const { connection, leaseSeconds } = this.options;
    const lease = leaseSeconds * 1000;
    return connection.steadily(async () => {
      const queue = new Worker(name, null, {
        connection: connection.redis,
        prefix: keyPrefix,
        autorun: false,
        lockDuration: lease,
        stalledInterval: lease,
        maxStalledCount: mostLosses - 1,
      });
      queue.on('error', () => undefined); // the connection tells of itself; what failed is tried again
      try {
        await queue.waitUntilReady();
      } catch (error) {
        await queue.close(true).catch(() => undefined);
        throw error;
      }
      return queue;
    });
  }

  async close(): Promise<void> {
    clearInterval(this.announcing);
    const { connection } = this.options;
    if (connection.redis.status === 'ready') await withdraw(connection, this.token).catch(() => undefined);
    await Promise.all(this.queues.map((queue) => queue.close(true).catch(() => undefined)));
  }

  /** From the first queue that has one: a look at all of them together costs less than to ask each in vain. */
  private async next(): Promise<QueuedJob | undefined> {
    const { redis, steadily } = this.options.connection;
    const waiting = await steadily(() =>
      redis.pipeline(this.queues.map((queue) => ['llen', queue.toKey('wait')])).exec(),
    );
    for (const [i, queue] of this.queues.entries()) {
      if (waiting?.[i]?.[1] === 0) continue;
      // An answer that is lost is a job that the lease gives back.
      const job = await steadily(() => queue.getNextJob(this.token, { block: false }));
      if (job) return job as QueuedJob;
    }
    return undefined;
  }

  private async take(job: QueuedJob): Promise<void> {
    // BullMQ marks a job whose workers were lost too often; it is failed by whoever takes it next.
    if (job.deferredFailure) return this.giveUp(job, job.deferredFailure);
    const { connection, leaseSeconds, onPoint } = this.options;
    const lease = leaseSeconds * 1000;
    const renewing = setInterval(() => void job.extendLock(this.token, lease).catch(() => undefined), lease / 3);
    try {
      const { run, row } = await this.measure(job.data);
      const key = rowsKey(run);
      const text = JSON.stringify(row);
      await connection.steadily(() =>
        connection.redis.multi().hsetnx(key, row.id, text).expire(key, keepSeconds).exec(),
      );
      // Refused where the lease was lost meanwhile: another worker has the job, and one of the two rows is kept.
      await connection.steadily(() => job.moveToCompleted(null, this.token, false)).catch(() => undefined);
      this.done += 1;
      this.finishedAt.push(Date.now());
      onPoint?.(row);
    } catch (error) {
      await this.giveUp(job, error instanceof Error ? error.message : String(error));
    } finally {
      clearInterval(renewing);
      this.doing = undefined;
    }
  }

  private async giveUp(job: QueuedJob, reason: string): Promise<void> {
    await job.moveToFailed(new UnrecoverableError(reason), this.token, false).catch(() => undefined);
  }

  private async measure(data: unknown): Promise<{ run: string; row: Point }> {
    const { version, run, point, measuring } = jobSchema.parse(data);
    const { backend, clock, environment, device } = this.options;
    if (version !== this.options.version) {
      const reason = `${os.hostname()} refused it: the kernels or the protocol differ (${this.options.version}, wanted ${version})`;
      return { run, row: skippedPoint(point, reason) };
    }
    this.doing = `${point.config.level} ${point.config.phase}`;
    const planned = { ...point, config: { ...point.config, backend: device.backend } };
    const { points } = await startRun({
      plan: [planned],
      backend,
      clock,
      measuring,
      environment,
      record: async () => undefined,
    }).finished;
    const [row] = points;
    if (!row) throw new Error('the worker was closed');
    return { run, row: { ...withDevice(row, os.hostname(), environment), config: point.config } };
  }

  private announce(): Promise<void> {
    const { connection, version, device } = this.options;
    while (this.finishedAt.length > 0 && (this.finishedAt[0] as number) < Date.now() - 60_000) this.finishedAt.shift();
    const seconds = Math.min(60, Math.max(1, (Date.now() - Date.parse(this.startedAt)) / 1000));
    const host: Host = {
      id: this.token,
      version,
      host: os.hostname(),
      device: device.name,
      backend: device.backend,
      memoryBytes: device.memoryBytes,
      queues: this.queues.map(({ name }) => name),
      startedAt: this.startedAt,
      done: this.done,
      pointsPerMinute: (60 * this.finishedAt.length) / seconds,
      ...(this.doing === undefined ? {} : { doing: this.doing }),
    };
    return announce(connection, host);
  }
}
