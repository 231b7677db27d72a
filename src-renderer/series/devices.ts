/** Devices side by side: what each was measured to be able to do, and what it did with the same points. */
import {
  type DeviceSummary,
  deviceOf,
  type Prices,
  summariseDevices,
  withPrices,
} from '../../src-main/contract/devices.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Environment } from '../../src-main/contract/session.ts';
import { medianOf } from './levels.ts';
import { metricOf } from './metric.ts';

/** A session: its points may be of several devices. */
export interface DeviceSet {
  readonly session: string;
  /** Of a baseline. */
  readonly colour?: string;
  readonly points: readonly Point[];
  readonly environment: Environment;
}

export const deviceMetrics = [
  'rooflineFraction',
  'tokensPerSecond',
  'tokensPerDeviceHour',
  'tokensPerUnitOfMoney',
] as const;

export interface DeviceRow extends DeviceSummary {
  readonly key: string;
  readonly session: string;
  readonly colour: string | undefined;
  readonly pricePerHour: number | undefined;
  /** Medians in the order of {@link deviceMetrics}. */
  readonly medians: readonly (number | undefined)[];
}

export interface Devices {
  readonly rows: readonly DeviceRow[];
  /** Points that every device here has measured, over which all medians are; 0: there are none, and each is over its own. */
  readonly shared: number;
}

/** The same thing to do, whichever backend does it. */
const taskOf = ({ config: { backend: _, ...task } }: Point): string =>
  JSON.stringify(Object.entries(task).sort(([a], [b]) => a.localeCompare(b)));

export function devicesOf(sets: readonly DeviceSet[], prices: Prices): Devices {
  const groups = sets.flatMap(({ points, environment, ...set }) => {
    const timed = withPrices(points, prices, environment.cpu).filter(({ throughput }) => throughput !== undefined);
    return summariseDevices(timed, environment).map((device) => ({
      ...set,
      device,
      points: timed.filter((point) => deviceOf(point, environment).name === device.name),
    }));
  });
  const tasks = groups.map(({ points }) => new Set(points.map(taskOf)));
  const common = new Set([...(tasks[0] ?? [])].filter((task) => tasks.every((others) => others.has(task))));
  const rows = groups.map(({ session, colour, device, points }): DeviceRow => {
    const compared = common.size > 0 ? points.filter((point) => common.has(taskOf(point))) : points;
    return {
      ...device,
      key: `${session} ${device.name}`,
      session,
      colour,
      pricePerHour: points[0]?.pricePerHour,
      medians: deviceMetrics.map((id) => medianOf(compared.flatMap((point) => metricOf(id).read(point) ?? []))),
    };
  });
  return { rows, shared: common.size };
}
