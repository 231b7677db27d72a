/** Measured points under the measured ceilings of the machine: work per byte against work per second. */
import { deviceOf, type MeasuredDevice } from '../../src-main/contract/devices.ts';
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import type { Environment } from '../../src-main/contract/session.ts';
import { type Axis, axisFor, type Scale } from './axis.ts';
import { metricOf } from './metric.ts';
import { type Missing, whyMissing } from './missing.ts';
import type { Mark } from './plane.ts';

export interface Ceilings {
  readonly flopsPerSecond: number;
  readonly bytesPerSecond: number;
  /** Work per byte where memory stops being the limit. */
  readonly ridge: number;
}

export interface Roof {
  readonly device: string;
  readonly ceilings: Ceilings;
}

export interface Roofline {
  readonly x: Axis;
  readonly y: Axis;
  readonly marks: readonly Mark[];
  /** One for each device that has points here; none where no ceilings were measured. */
  readonly roofs: readonly Roof[];
  readonly missing: readonly Missing[];
}

export const intensity: Metric = {
  id: 'flopsPerByte',
  label: 'FLOP per byte',
  title: 'arithmetic intensity, FLOP per byte',
  unit: 'ratio',
  better: 'neither',
  read: ({ throughput }) =>
    throughput && throughput.bytesPerSecond > 0 ? throughput.flopsPerSecond / throughput.bytesPerSecond : undefined,
};

/** The whole roof is shown: at least this far to either side of its ridge. */
const roomAboutRidge = 4;

export function rooflineOf(
  points: readonly Point[],
  environment: Environment | undefined,
  scales: { readonly x?: Scale | undefined; readonly y?: Scale | undefined } = {},
  isByDevice = false,
): Roofline {
  const work = metricOf('flopsPerSecond');
  const marks: Mark[] = [];
  const missing: Missing[] = [];
  for (const point of points) {
    const reason = whyMissing(point, [intensity, 'log'], [work, 'log']);
    const [x, y] = [intensity.read(point), work.read(point)];
    if (reason !== undefined || !x || !y) {
      missing.push({ point, reason: reason ?? 'did no work that was counted' });
      continue;
    }
    const group = isByDevice && point.device ? { group: point.device.name } : {};
    const { level, phase } = point.config;
    marks.push({ id: point.id, level, ...group, phase, x, y, size: 0.35, point });
  }
  const roofs = roofsOf(marks.length > 0 ? marks.map(({ point }) => point) : points, environment);
  const xs = marks.map((mark) => mark.x);
  const ys = marks.map((mark) => mark.y);
  for (const { ceilings } of marks.length > 0 ? roofs : []) {
    xs.push(ceilings.ridge / roomAboutRidge, ceilings.ridge * roomAboutRidge);
    ys.push(ceilings.flopsPerSecond);
  }
  return {
    x: axisFor(intensity, xs, scales.x ?? 'log'),
    y: axisFor(work, ys, scales.y ?? 'log'),
    marks,
    roofs,
    missing,
  };
}

/** Of several hosts with one kind of device the highest ceilings: none of their points lies above. */
function roofsOf(points: readonly Point[], environment: Environment | undefined): Roof[] {
  const most = new Map<string, { flopsPerSecond: number; bytesPerSecond: number }>();
  for (const point of points) {
    const device = deviceIn(point, environment);
    if (!device?.fmaFlopsPerSecond || !device.readBytesPerSecond) continue;
    const before = most.get(device.name);
    most.set(device.name, {
      flopsPerSecond: Math.max(before?.flopsPerSecond ?? 0, device.fmaFlopsPerSecond),
      bytesPerSecond: Math.max(before?.bytesPerSecond ?? 0, device.readBytesPerSecond),
    });
  }
  return [...most].map(([device, of]) => ({
    device,
    ceilings: { ...of, ridge: of.flopsPerSecond / of.bytesPerSecond },
  }));
}

const deviceIn = (point: Point, environment: Environment | undefined): MeasuredDevice | undefined =>
  point.device ?? (environment && deviceOf(point, environment));

/** The roof over a mark. */
export function roofOf(mark: Mark, { roofs }: Roofline, environment: Environment | undefined): Roof | undefined {
  const device = deviceIn(mark.point, environment);
  return roofs.find((roof) => roof.device === device?.name);
}

/** The most work a second at a given intensity. */
export const roofAt = ({ flopsPerSecond, bytesPerSecond }: Ceilings, x: number): number =>
  Math.min(flopsPerSecond, bytesPerSecond * x);
