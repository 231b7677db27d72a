/**
 * What submitter and worker agree on: how a queue is reached and named, what a job holds, where its row goes. BullMQ does the
 * queueing over Redis or Valkey; every key there begins with `fastmqa`.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { expected, InputError } from '../contract/input-error.ts';
import { measuringSchema, pointConfigSchema } from '../contract/sweep.ts';
import { estimatePeakBytes } from '../engine/estimate.ts';
import type { PlannedPoint } from '../engine/plan.ts';

/** Raised when a worker of before could misread a job, or a submitter its row. */
const protocol = 1;

/** Software that must be the same on both sides: figures of other kernels do not belong into one session. */
export const versionOf = (kernels: string): string => `${protocol}-${kernels}`;

export const jobSchema = z.strictObject({
  /** Of the submitter: {@link versionOf}. */
  version: z.string(),
  run: z.string(),
  point: z.strictObject({ id: z.string(), config: pointConfigSchema }),
  measuring: measuringSchema,
});
export type Job = z.infer<typeof jobSchema>;

/** Holds the row of each finished point until the submitter has it on its disk; field = id of the point. */
export const rowsKey = (run: string): string => `fastmqa:rows:${run}`;
/** What nobody collects goes after a week. */
export const keepSeconds = 7 * 24 * 3600;

/** One job per point of a run, however often it is submitted. */
export const jobId = (run: string, point: string): string => `${run}-${point}`;

/** BullMQ cannot choose a job by its needs, so each class of needs has a queue: memory in steps of four. */
const memoryClasses = [1, 4, 16, 64, 256, 1024, 4096] as const;
const gibibyte = 2 ** 30;

const slug = (device: string): string => device.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
const queueName = (kind: string, device: string | undefined, gibibytes: number): string =>
  `${kind}-${device === undefined ? 'any' : slug(device)}-${gibibytes}GiB`;

/** Backend without the index of a device: which GPU of a host takes it is the host's business. */
const kindOf = (backend: string): string => backend.split(':')[0] as string;

/** @throws InputError for a point that no machine could hold */
export function queueOf({ config }: Pick<PlannedPoint, 'config'>, device: string | undefined): string {
  const bytes = estimatePeakBytes(config);
  const gibibytes = memoryClasses.find((size) => bytes <= size * gibibyte);
  if (gibibytes === undefined)
    throw new InputError(`a point needs ${Math.ceil(bytes / gibibyte)} GiB, more than any worker can have`);
  return queueName(kindOf(config.backend), device, gibibytes);
}

/** Every queue that a device serves, the largest points first: others can take the small ones. */
export function queuesFor(device: { backend: string; name: string; memoryBytes: number }): string[] {
  const kind = kindOf(device.backend);
  return memoryClasses
    .filter((size) => size === memoryClasses[0] || size * gibibyte <= device.memoryBytes)
    .reverse()
    .flatMap((size) => [queueName(kind, device.name, size), queueName(kind, undefined, size)]);
}

export const keyPrefix = 'fastmqa';

export interface QueueAddress {
  /** Without its password: it may be shown. */
  readonly url: string;
  readonly password?: string;
}

/**
 * `redis://[user@]host[:port][/database]`, or `rediss:` for TLS (an own certificate authority: NODE_EXTRA_CA_CERTS). The password
 * comes from FASTMQA_QUEUE_PASSWORD or from the file that FASTMQA_QUEUE_PASSWORD_FILE names, never from the address: what is in
 * argv, every user of the machine can read.
 * @throws InputError
 */
export function readQueueAddress(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
): QueueAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.password)
    throw new InputError(
      'the address of the queue holds a password, which others can read there: set FASTMQA_QUEUE_PASSWORD instead',
      '--queue',
    );
  if (!url || !['redis:', 'rediss:'].includes(url.protocol) || !url.hostname)
    throw expected('redis://HOST or rediss://HOST', '--queue', text);
  const { FASTMQA_QUEUE_PASSWORD: password, FASTMQA_QUEUE_PASSWORD_FILE: file } = environment;
  if (password) return { url: url.href, password };
  if (!file) return { url: url.href };
  try {
    return { url: url.href, password: readFileSync(file, 'utf8').trimEnd() };
  } catch {
    throw expected('a file that can be read', 'FASTMQA_QUEUE_PASSWORD_FILE', file);
  }
}

export interface Connection {
  readonly redis: Redis;
  /**
   * Several commands at a time: if the line breaks between their answers, those without one are given up, so the task is done
   * again as a whole. It must be one that may be done twice.
   */
  steadily<T>(task: () => Promise<T>): Promise<T>;
  close(): void;
}

const connectSeconds = 5;
const againMilliseconds = 50;

/**
 * Connected, and from now on connected again whenever the line breaks; commands wait for that.
 * @param tell each loss and each return of the connection
 * @throws InputError if there is no such queue now
 */
export async function connect(address: QueueAddress, tell: (line: string) => void): Promise<Connection> {
  const { Redis } = await import('ioredis'); // loaded by nobody else: most commands know no queue
  const redis = new Redis(address.url, {
    ...(address.password === undefined ? {} : { password: address.password }),
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: connectSeconds * 1000,
    retryStrategy: (attempt) => Math.min(100 * attempt, 2000),
  });
  let [connected, reason] = [false, 'no answer'];
  redis.on('error', (error) => {
    reason = error.message;
  });
  try {
    await within(connectSeconds, redis.connect());
    await within(connectSeconds, redis.ping());
  } catch (error) {
    redis.disconnect();
    const why = error instanceof Error && error.message !== 'Connection is closed.' ? error.message : reason;
    throw new InputError(`the queue at ${address.url} cannot be reached: ${why}`, '--queue');
  }
  connected = true;
  let [losses, closed] = [0, false];
  redis.on('close', () => {
    losses += 1;
    if (connected) tell(`the queue at ${address.url} is out of reach; trying again`);
    connected = false;
  });
  redis.on('ready', () => {
    if (!connected) tell('the queue is back');
    connected = true;
  });
  return {
    redis,
    steadily: async (task) => {
      for (;;) {
        const lossesBefore = losses;
        try {
          return await task();
        } catch (error) {
          const broke = losses > lossesBefore || redis.status !== 'ready';
          if (closed || !broke) throw error;
          await sleep(againMilliseconds);
        }
      }
    },
    close: () => {
      [connected, closed] = [false, true];
      redis.disconnect();
    },
  };
}

async function within<T>(seconds: number, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const overdue = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, overdue]);
  } finally {
    clearTimeout(timer);
  }
}
