/** A metric along a numeric axis: one line for each level and whatever else varies. */
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, defaultScale, placeOn, type Scale } from './axis.ts';
import { deviceField, fieldMetric, numericFields, readField, restInWords, tellingFields } from './fields.ts';
import { medianOf } from './levels.ts';
import { metricOf } from './metric.ts';
import { type Missing, whyMissing } from './missing.ts';
import type { Mark } from './plane.ts';

export interface ScalingOptions {
  readonly x?: Scale | undefined;
  readonly y?: Scale | undefined;
  /** Fields that tell lines of a level apart, where they are known already: they do not depend on the metric. */
  readonly telling?: readonly string[];
}

/** More lines than this are a hatching. */
const mostLines = 40;

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
  /** What lines are medians over, because one for each value would be too many to read; empty = nothing. */
  readonly medianOver: readonly string[];
  readonly missing: readonly Missing[];
}

export function scalingOf(
  points: readonly Point[],
  ids: { readonly x: string; readonly y: string },
  levels: readonly string[],
  options: ScalingOptions = {},
): Scaling {
  const [x, y] = [fieldMetric(ids.x), metricOf(ids.y)];
  const scaleX = options.x ?? 'log';
  const scaleY = options.y ?? defaultScale(y);
  const raw: Mark[] = [];
  const missing: Missing[] = [];
  for (const point of points) {
    const reason = whyMissing(point, [x, scaleX], [y, scaleY]);
    if (reason !== undefined) missing.push({ point, reason });
    else {
      const { level, phase } = point.config;
      raw.push({
        id: point.id,
        level,
        phase,
        x: x.read(point) as number,
        y: y.read(point) as number,
        size: 0.1,
        point,
      });
    }
  }
  const axisX = axisFor(
    x,
    raw.map((mark) => mark.x),
    scaleX,
  );
  const axisY = axisFor(
    y,
    raw.map((mark) => mark.y),
    scaleY,
  );
  const marks = raw.map((mark) => ({ ...mark, x: placeOn(axisX, mark.x), y: placeOn(axisY, mark.y) }));
  const telling = options.telling ?? tellingFields(points, ids.x);
  const isTooMany = isHatching(marks, telling);
  const { lines, rests } = linesOf(marks, isTooMany ? telling.filter(isDevice) : telling, levels);
  return {
    x: axisX,
    y: axisY,
    marks,
    lines,
    rests,
    medianOver: isTooMany ? telling.filter((field) => !isDevice(field)) : [],
    missing,
  };
}

/** A median over devices would be a figure of none. */
const isDevice = (field: string): boolean => field === deviceField;

function isHatching(marks: readonly Mark[], telling: readonly string[]): boolean {
  const keys = new Set<string>();
  for (const { point } of marks) {
    keys.add([point.config.level, ...telling.map((field) => readField(point, field))].join(' '));
    if (keys.size > mostLines) return true;
  }
  return false;
}

function linesOf(marks: readonly Mark[], telling: readonly string[], levels: readonly string[]) {
  const byKey = new Map<string, { level: string; rest: string; at: Map<number, number[]> }>();
  for (const { level, x, y, point } of marks) {
    const rest = restInWords(point, telling);
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

/** Fields along which some level has a line of two places or more; others would be columns of marks. */
export function scalingFields(points: readonly Point[]): string[] {
  return numericFields(points).filter((field) => {
    const telling = tellingFields(points, field);
    const placeOf = new Map<string, unknown>();
    return points.some((point) => {
      const value = readField(point, field);
      if (typeof value !== 'number') return false;
      const line = [point.config.level, ...telling.map((name) => readField(point, name))].join('|');
      if (!placeOf.has(line)) placeOf.set(line, value);
      return placeOf.get(line) !== value;
    });
  });
}
