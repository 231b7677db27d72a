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

export interface Roofline {
  readonly x: Axis;
  readonly y: Axis;
  readonly marks: readonly Mark[];
  /** Undefined where this session measured none. */
  readonly ceilings: Ceilings | undefined;
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
    marks.push({ id: point.id, level: point.config.level, phase: point.config.phase, x, y, size: 0.35, point });
  }
  const ceilings = ceilingsOf(environment);
  const xs = marks.map((mark) => mark.x);
  const ys = marks.map((mark) => mark.y);
  if (ceilings && marks.length > 0) {
    xs.push(ceilings.ridge / roomAboutRidge, ceilings.ridge * roomAboutRidge);
    ys.push(ceilings.flopsPerSecond);
  }
  return {
    x: axisFor(intensity, xs, scales.x ?? 'log'),
    y: axisFor(work, ys, scales.y ?? 'log'),
    marks,
    ceilings,
    missing,
  };
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
