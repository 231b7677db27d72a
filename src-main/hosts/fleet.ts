/** The two ends of a queue, and a look at who works for it. What does the queueing is large: it is loaded by those who queue. */
import type { FleetOptions, SweepRun } from '../contract/api.ts';
import { InputError } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
import type { FleetView } from '../contract/places.ts';
import type { Environment } from '../contract/session.ts';
import type { PlannedPoint } from '../engine/plan.ts';
import type { Clock, MeasuringBackend } from '../engine/ports.ts';
import { viewFleet } from '../fleet/hosts.ts';
import { type Connection, connect, readQueueAddress, versionOf } from '../fleet/queue.ts';
import type { FleetPlace, FleetPlan } from '../fleet/run.ts';
import { kernelsFingerprint } from './environment.ts';

export interface WorkerOptions {
  readonly queue: string;
  /** `cpu` or `cuda:N`: what measures here. */
  readonly backend: string;
  /** After this long without a sign of life a point goes to another worker. */
  readonly leaseSeconds: number;
  /** Once, with the name of the device. */
  readonly onReady: (device: string) => void;
  readonly onPoint: (point: Point) => void;
  readonly onNotice: (line: string) => void;
  /** No further point is taken; the one at hand is finished. */
  readonly signal: AbortSignal;
}

interface Machine {
  readonly measuring: MeasuringBackend;
  readonly clock: Clock;
  readonly environment: Environment;
}

const ignore = (): void => undefined;

const reach = (queue: string, tell: (line: string) => void): Promise<Connection> =>
  connect(readQueueAddress(queue, process.env), tell);

export async function workForQueue(
  { queue, backend, onReady, onNotice, ...options }: WorkerOptions,
  { measuring, clock, environment }: Machine,
): Promise<void> {
  const { work } = await import('../fleet/worker.ts');
  const connection = await reach(queue, onNotice);
  try {
    const gpu = environment.gpus?.find((other) => other.backend === backend);
    const { name, memoryBytes } = gpu ?? { name: environment.cpu, memoryBytes: environment.memoryBytes };
    const device = { backend, name, memoryBytes };
    onReady(name);
    const version = versionOf(kernelsFingerprint());
    await work({ ...options, backend: measuring, clock, environment, connection, device, version });
  } finally {
    connection.close();
  }
}

/**
 * One look at a queue.
 * @throws InputError with the reason why it cannot be reached
 */
export async function lookAtFleet(queue: string, onNotice: (line: string) => void): Promise<FleetView> {
  const connection = await reach(queue, onNotice);
  try {
    return await viewOver(connection, queue);
  } finally {
    connection.close();
  }
}

const viewOver = async (connection: Connection, queue: string): Promise<FleetView> => ({
  queue: readQueueAddress(queue, process.env).url,
  ...(await viewFleet(connection, versionOf(kernelsFingerprint()))),
});

/** A look at a queue now and then, over one connection. */
export interface FleetWatch {
  /** Without password. */
  readonly queue: string;
  look(): Promise<FleetView>;
  close(): void;
}

const lookSeconds = 5;
const nothingKnown = { hosts: [], waiting: 0, atWork: 0, pointsPerMinute: 0 };

/** @throws InputError for an address that is none; whether the queue is there is told by each look */
export function watchFleet(queue: string): FleetWatch {
  const { url } = readQueueAddress(queue, process.env);
  let connection: Promise<Connection> | undefined;
  const look = async (): Promise<FleetView> => {
    try {
      connection ??= reach(queue, ignore);
      return await viewOver(await connection, queue);
    } catch (error) {
      connection = undefined;
      if (!(error instanceof InputError)) throw error;
      return { queue: url, outOfReach: error.message, ...nothingKnown };
    }
  };
  let looking: Promise<FleetView> | undefined;
  return {
    queue: url,
    look: async () => {
      looking ??= look().finally(() => {
        looking = undefined;
      });
      // While the line is broken its commands wait; whoever looks does not.
      let timer: NodeJS.Timeout | undefined;
      const overdue = new Promise<FleetView>((resolve) => {
        const outOfReach = `the queue at ${url} does not answer; trying again`;
        timer = setTimeout(() => resolve({ queue: url, outOfReach, ...nothingKnown }), lookSeconds * 1000);
      });
      try {
        return await Promise.race([looking, overdue]);
      } finally {
        clearTimeout(timer);
      }
    },
    close: () => void connection?.then(({ close }) => close(), ignore),
  };
}

/** Connected to the queue, and sure that its workers can be used: only then is there something to record. */
export async function joinFleet(
  { queue, device, onNotice = ignore }: FleetOptions,
  plan: readonly PlannedPoint[],
): Promise<{ start(what: Omit<FleetPlan, keyof FleetPlace>): SweepRun; leave(): void }> {
  const { checkFleet, startFleetRun } = await import('../fleet/run.ts');
  const connection = await reach(queue, onNotice);
  const place = {
    connection,
    version: versionOf(kernelsFingerprint()),
    onNotice,
    ...(device === undefined ? {} : { device }),
  };
  try {
    await checkFleet(place, plan);
  } catch (error) {
    connection.close();
    throw error;
  }
  return {
    leave: connection.close,
    start: (what) => {
      const run = startFleetRun({ ...what, ...place });
      return { ...run, finished: run.finished.finally(connection.close) };
    },
  };
}
