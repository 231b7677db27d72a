/** A metric along a numeric axis: one line for each level and whatever else varies. */
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, defaultScale, type Scale } from './axis.ts';
import { fieldMetric, fieldTitle, readField, tellingFields } from './fields.ts';
import { medianOf } from './levels.ts';
import { metricOf } from './metric.ts';
import { type Missing, placeOf, whyMissing } from './missing.ts';
import type { Mark } from './plane.ts';

export interface ScalingLine {
  readonly key: string;
  readonly level: string;
  /** What tells it from other lines of its level, `batch 4`; empty if nothing does. */
  readonly rest: string;
  /** Index of `rest` among all of them: the pattern of the line. */
  readonly pattern: number;
  /** Median at each place, in the order of x. */
  readonly places: readonly { readonly x: number; readonly y: number }[];
}

export interface Scaling {
  readonly x: Axis;
  readonly y: Axis;
  readonly marks: readonly Mark[];
  readonly lines: readonly ScalingLine[];
  readonly rests: readonly string[];
  readonly missing: readonly Missing[];
}

export function scalingOf(
  points: readonly Point[],
  ids: { readonly x: string; readonly y: string },
  levels: readonly string[],
  scales: { readonly x?: Scale | undefined; readonly y?: Scale | undefined } = {},
): Scaling {
  const [x, y] = [fieldMetric(ids.x), metricOf(ids.y)];
  const scaleX = scales.x ?? 'log';
  const scaleY = scales.y ?? defaultScale(y);
  const marks: Mark[] = [];
  const missing: Missing[] = [];
  for (const point of points) {
    const reason = whyMissing(point, [x, scaleX], [y, scaleY]);
    if (reason !== undefined) missing.push({ point, reason });
    else {
      const { level, phase } = point.config;
      marks.push({
        id: point.id,
        level,
        phase,
        x: placeOf(x.read(point) as number, scaleX),
        y: placeOf(y.read(point) as number, scaleY),
        size: 0.1,
        point,
      });
    }
  }
  const { lines, rests } = linesOf(marks, ids.x, levels);
  return {
    x: axisFor(
      x,
      marks.map((mark) => mark.x),
      scaleX,
    ),
    y: axisFor(
      y,
      marks.map((mark) => mark.y),
      scaleY,
    ),
    marks,
    lines,
    rests,
    missing,
  };
}

function linesOf(marks: readonly Mark[], along: string, levels: readonly string[]) {
  const telling = tellingFields(
    marks.map(({ point }) => point),
    along,
  );
  const restOf = (point: Point): string =>
    telling
      .map((field) => {
        const value = readField(point, field);
        return field === 'phase' ? String(value) : `${fieldTitle(field)} ${value ?? 'none'}`;
      })
      .join(', ');
  const byKey = new Map<string, { level: string; rest: string; at: Map<number, number[]> }>();
  for (const { level, x, y, point } of marks) {
    const rest = restOf(point);
    const key = `${level} ${rest}`;
    const line = byKey.get(key) ?? { level, rest, at: new Map<number, number[]>() };
    byKey.set(key, line);
    const values = line.at.get(x);
    if (values) values.push(y);
    else line.at.set(x, [y]);
  }
  const rests = [...new Set([...byKey.values()].map(({ rest }) => rest))].sort((a, b) =>
    a.localeCompare(b, 'en', { numeric: true }),
  );
  const lines = [...byKey]
    .map(([key, { level, rest, at }]) => ({
      key,
      level,
      rest,
      pattern: rests.indexOf(rest),
      places: [...at].map(([x, values]) => ({ x, y: medianOf(values) as number })).sort((a, b) => a.x - b.x),
    }))
    .sort((a, b) => levels.indexOf(a.level) - levels.indexOf(b.level));
  return { lines, rests };
}
