/** The devices that points were measured on, and what the user pays for them. */
import { expected } from './input-error.ts';
import type { Point } from './metrics.ts';
import type { Environment, Gpu } from './session.ts';

/** What a reader needs to judge figures of a device. Ceilings: measured on it, for these very points. */
export interface MeasuredDevice {
  readonly name: string;
  readonly memoryBytes: number;
  readonly threads: number;
  readonly instructionSet: string;
  readonly fmaFlopsPerSecond?: number | undefined;
  readonly readBytesPerSecond?: number | undefined;
}

/** Of its own row; or the GPU, or else the CPU, of the session whose machine measured it. */
export function deviceOf({ device, config }: Point, environment: Environment): MeasuredDevice {
  if (device) return device;
  const gpu = environment.gpus?.find(({ backend }) => backend === config.backend);
  if (gpu) return deviceOfGpu(gpu);
  const { cpu: name, memoryBytes, threads, instructionSet, fmaFlopsPerSecond, readBytesPerSecond } = environment;
  return { name, memoryBytes, threads, instructionSet, ...known({ fmaFlopsPerSecond, readBytesPerSecond }) };
}

/** Its threads are its multiprocessors, its instruction set the compute capability. */
const deviceOfGpu = (gpu: Gpu): MeasuredDevice => ({
  name: gpu.name,
  memoryBytes: gpu.memoryBytes,
  threads: gpu.multiprocessors ?? 0,
  instructionSet: `sm ${gpu.computeCapability}`,
  ...known({ fmaFlopsPerSecond: gpu.matrixFlopsPerSecond, readBytesPerSecond: gpu.copyBytesPerSecond }),
});

/** One ceiling alone is no roof. */
const known = ({
  fmaFlopsPerSecond,
  readBytesPerSecond,
}: Partial<Record<'fmaFlopsPerSecond' | 'readBytesPerSecond', number | undefined>>) =>
  fmaFlopsPerSecond && readBytesPerSecond ? { fmaFlopsPerSecond, readBytesPerSecond } : {};

/** A row as it leaves the machine that measured it: it says which one, and under which ceilings. */
export const withDevice = (point: Point, host: string, environment: Environment): Point =>
  point.device ? point : { ...point, device: { host, ...deviceOf(point, environment) } };

export interface DeviceSummary {
  readonly name: string;
  /** None: the machine of the session. */
  readonly hosts: readonly string[];
  readonly points: number;
  /** The least and the most that was measured while these points were. */
  readonly fmaFlopsPerSecond?: readonly [number, number];
  readonly readBytesPerSecond?: readonly [number, number];
}

/** By name, in the order met. */
export function summariseDevices(points: readonly Point[], environment: Environment): DeviceSummary[] {
  const groups = new Map<string, Point[]>();
  for (const point of points) {
    if (point.outcome !== 'measured') continue;
    const { name } = deviceOf(point, environment);
    const group = groups.get(name);
    if (group) group.push(point);
    else groups.set(name, [point]);
  }
  return [...groups].map(([name, ofDevice]) => {
    const range = (read: (device: MeasuredDevice) => number | undefined): readonly [number, number] | undefined => {
      const values = ofDevice.flatMap((point) => read(deviceOf(point, environment)) ?? []);
      return values.length === 0
        ? undefined
        : [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
    };
    const [fma, read] = [range((d) => d.fmaFlopsPerSecond), range((d) => d.readBytesPerSecond)];
    return {
      name,
      hosts: [...new Set(ofDevice.flatMap(({ device }) => device?.host ?? []))].sort(),
      points: ofDevice.length,
      ...(fma && { fmaFlopsPerSecond: fma }),
      ...(read && { readBytesPerSecond: read }),
    };
  });
}

/** Name of a device → price of an hour of it, in the user's money. */
export type Prices = Readonly<Record<string, number>>;
/** The price of every device that has none of its own. */
const anyDevice = '*';

/** `2.5` for every device, or `NAME=2.5`. @throws InputError */
export function parsePrice(text: string): readonly [device: string, pricePerHour: number] {
  const at = text.lastIndexOf('=');
  const [device, price] = [text.slice(0, Math.max(0, at)).trim() || anyDevice, Number(text.slice(at + 1))];
  if (!(price > 0) || !Number.isFinite(price)) throw expected('PRICE or DEVICE=PRICE above 0', '--price', text);
  return [device, price];
}

/** The same points where no price is known. @param here name of the device of points that name none */
export function withPrices(points: readonly Point[], prices: Prices, here: string): readonly Point[] {
  if (Object.keys(prices).length === 0) return points;
  return points.map((point) => {
    const pricePerHour = prices[point.device?.name ?? here] ?? prices[anyDevice];
    return pricePerHour === undefined ? point : { ...point, pricePerHour };
  });
}
