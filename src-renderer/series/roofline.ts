/** Measured points under the measured ceilings of the machine: work per byte against work per second. */
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
  /** Undefined: the machine of the session. */
  readonly device: string | undefined;
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
  environment: Partial<Pick<Environment, 'fmaFlopsPerSecond' | 'readBytesPerSecond'>> | undefined,
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
function roofsOf(
  points: readonly Point[],
  environment: Partial<Pick<Environment, 'fmaFlopsPerSecond' | 'readBytesPerSecond'>> | undefined,
): Roof[] {
  const sources = new Map<string | undefined, { fmaFlopsPerSecond?: number; readBytesPerSecond?: number }[]>();
  for (const { device } of points) {
    const source = device ?? environment ?? {};
    const group = sources.get(device?.name);
    if (group) group.push(source);
    else sources.set(device?.name, [source]);
  }
  const most = (values: readonly (number | undefined)[]): number =>
    values.reduce<number>((highest, value) => Math.max(highest, value ?? 0), 0);
  return [...sources].flatMap(([device, of]) => {
    const ceilings = ceilingsOf({
      fmaFlopsPerSecond: most(of.map((source) => source.fmaFlopsPerSecond)),
      readBytesPerSecond: most(of.map((source) => source.readBytesPerSecond)),
    });
    return ceilings ? [{ device, ceilings }] : [];
  });
}

function ceilingsOf(
  environment: Partial<Pick<Environment, 'fmaFlopsPerSecond' | 'readBytesPerSecond'>> | undefined,
): Ceilings | undefined {
  const [flopsPerSecond, bytesPerSecond] = [environment?.fmaFlopsPerSecond, environment?.readBytesPerSecond];
  return flopsPerSecond && bytesPerSecond
    ? { flopsPerSecond, bytesPerSecond, ridge: flopsPerSecond / bytesPerSecond }
    : undefined;
}

/** The most work a second at a given intensity. */
export const roofAt = ({ flopsPerSecond, bytesPerSecond }: Ceilings, x: number): number =>
  Math.min(flopsPerSecond, bytesPerSecond * x);
