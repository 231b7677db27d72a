/** Two metrics against each other, a third as size: what the trade-off chart paints. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor } from './axis.ts';
import { metricOf } from './metric.ts';
import { paretoFrontier } from './pareto.ts';

export interface TradeOffMark {
  readonly id: string;
  readonly level: string;
  readonly phase: string;
  readonly x: number;
  readonly y: number;
  /** 0 to 1 by the rank of the size metric on a log scale; 0.5 where it is unknown. */
  readonly size: number;
  readonly point: Point;
}

export interface TradeOff {
  readonly x: Axis;
  readonly y: Axis;
  readonly size: Metric;
  /** In the order of `levels`. */
  readonly groups: readonly { readonly level: string; readonly marks: readonly TradeOffMark[] }[];
  readonly frontier: readonly TradeOffMark[];
  /** Points that have no place on the chart, and why. */
  readonly missing: readonly { readonly point: Point; readonly reason: string }[];
}

/** An error of exactly zero has no place on a log scale; nothing measured comes near this. */
const smallestPlace = 1e-12;

export function tradeOffOf(
  points: readonly Point[],
  ids: { readonly x: string; readonly y: string; readonly size: string },
  levels: readonly string[],
): TradeOff {
  const [x, y, size] = [metricOf(ids.x), metricOf(ids.y), metricOf(ids.size)];
  const scaleSize = logShare(points.flatMap((point) => size.read(point) ?? []));
  const marks: TradeOffMark[] = [];
  const missing: { point: Point; reason: string }[] = [];
  for (const point of points) {
    const [valueX, valueY] = [x.read(point), y.read(point)];
    if (point.outcome !== 'measured' || valueX === undefined || valueY === undefined) {
      missing.push({ point, reason: point.reason ?? `${valueX === undefined ? x.label : y.label} does not apply` });
      continue;
    }
    const { level, phase } = point.config;
    const place = (value: number): number => Math.max(value, value < 0 ? value : smallestPlace);
    marks.push({
      id: point.id,
      level,
      phase,
      x: place(valueX),
      y: place(valueY),
      size: scaleSize(size.read(point)),
      point,
    });
  }
  const byLevel = groupBy(marks, (mark) => mark.level);
  const place = (level: string): number => (levels.indexOf(level) + levels.length + 1) % (levels.length + 1);
  return {
    x: axisFor(
      x,
      marks.map((mark) => mark.x),
    ),
    y: axisFor(
      y,
      marks.map((mark) => mark.y),
    ),
    size,
    groups: [...byLevel]
      .map(([level, ofLevel]) => ({ level, marks: ofLevel }))
      .sort((a, b) => place(a.level) - place(b.level)),
    frontier: paretoFrontier(marks, x.better, y.better),
    missing,
  };
}

function groupBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}

function logShare(values: readonly number[]): (value: number | undefined) => number {
  const logs = values.filter((value) => value > 0).map(Math.log);
  const least = logs.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = logs.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return (value) =>
    value === undefined || !(value > 0) || !(most > least) ? 0.5 : (Math.log(value) - least) / (most - least);
}
