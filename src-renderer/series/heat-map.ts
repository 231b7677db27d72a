/** A metric over two fields of the configuration: one cell for each pair, the median of its points. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, defaultScale, placeOn, type Scale } from './axis.ts';
import { cellValue, readField, valuesOf } from './fields.ts';
import { medianOf } from './levels.ts';
import { metricOf } from './metric.ts';
import { type Missing, whyMissing } from './missing.ts';
import { shareOf } from './plane.ts';

export interface HeatCell {
  readonly column: number;
  readonly row: number;
  readonly value: number;
  /** 0 to 1 along the ramp. */
  readonly share: number;
  readonly ids: readonly string[];
  readonly point: Point;
}

export interface HeatMap {
  readonly x: { readonly field: string; readonly values: readonly (string | number)[] };
  readonly y: { readonly field: string; readonly values: readonly (string | number)[] };
  readonly colour: Axis;
  readonly metric: Metric;
  readonly cells: readonly HeatCell[];
  readonly missing: readonly Missing[];
}

export function heatMapOf(
  points: readonly Point[],
  ids: { readonly x: string; readonly y: string; readonly colour: string },
  levels: readonly string[],
  scale?: Scale,
): HeatMap {
  const metric = metricOf(ids.colour);
  const chosen = scale ?? defaultScale(metric);
  const missing: Missing[] = [];
  const xValues = valuesOf(points, ids.x, levels);
  // Numbers grow upwards, as on any axis; names are read from the top.
  const yValues = valuesOf(points, ids.y, levels);
  if (typeof yValues[0] === 'number') yValues.reverse();
  const columns = new Map(xValues.map((value, i) => [value, i]));
  const rows = new Map(yValues.map((value, i) => [value, i]));
  const byCell = new Map<number, Point[]>();
  for (const point of points) {
    const column = columns.get(cellValue(readField(point, ids.x)) ?? '');
    const row = rows.get(cellValue(readField(point, ids.y)) ?? '');
    const reason = whyMissing(point, [metric, chosen]);
    if (reason !== undefined || column === undefined || row === undefined) {
      missing.push({ point, reason: reason ?? 'has no value on one of the axes' });
      continue;
    }
    const key = row * xValues.length + column;
    const cell = byCell.get(key);
    if (cell) cell.push(point);
    else byCell.set(key, [point]);
  }
  const medians = [...byCell].map(([key, inCell]) => ({
    key,
    inCell,
    value: medianOf(inCell.map((point) => metric.read(point) as number)) as number,
  }));
  const colour = axisFor(
    metric,
    medians.map(({ value }) => value),
    chosen,
  );
  const cells = medians.map(({ key, inCell, value }) => ({
    column: key % xValues.length,
    row: Math.floor(key / xValues.length),
    value,
    share: shareOf(colour, placeOn(colour, value)),
    ids: inCell.map(({ id }) => id),
    point: inCell[0],
  }));
  return {
    x: { field: ids.x, values: xValues },
    y: { field: ids.y, values: yValues },
    colour,
    metric,
    cells,
    missing,
  };
}
