/** Two metrics against each other, a third as size: what the trade-off chart paints. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, defaultScale, placeOn, type Scale } from './axis.ts';
import { metricOf } from './metric.ts';
import { type Missing, whyMissing } from './missing.ts';
import { paretoFrontier } from './pareto.ts';
import type { Mark } from './plane.ts';

export type TradeOffMark = Mark;

export interface TradeOff {
  readonly x: Axis;
  readonly y: Axis;
  readonly size: Metric;
  /** In the order of `levels`. */
  readonly groups: readonly { readonly level: string; readonly marks: readonly TradeOffMark[] }[];
  /** One for each model that was measured: an error against one model says nothing about another. */
  readonly frontiers: readonly (readonly TradeOffMark[])[];
  /** Of each session beside the current one, those that have a place. */
  readonly beside: readonly (readonly TradeOffMark[])[];
  /** Points that have no place on the chart, and why. */
  readonly missing: readonly Missing[];
}

export function tradeOffOf(
  points: readonly Point[],
  ids: { readonly x: string; readonly y: string; readonly size: string },
  levels: readonly string[],
  scales: { readonly x?: Scale | undefined; readonly y?: Scale | undefined } = {},
  besidePoints: readonly (readonly Point[])[] = [],
  isByDevice = false,
): TradeOff {
  const [x, y, size] = [metricOf(ids.x), metricOf(ids.y), metricOf(ids.size)];
  const scaleSize = logShare([points, ...besidePoints].flat().flatMap((point) => size.read(point) ?? []));
  const [scaleX, scaleY] = [scales.x ?? defaultScale(x), scales.y ?? defaultScale(y)];
  const missing: Missing[] = [];
  const whyNot = (point: Point): string | undefined => whyMissing(point, [x, scaleX], [y, scaleY]);
  const shown = points.filter((point) => {
    const reason = whyNot(point);
    if (reason !== undefined) missing.push({ point, reason });
    return reason === undefined;
  });
  const shownBeside = besidePoints.map((others) => others.filter((point) => whyNot(point) === undefined));
  const axisOver = (metric: Metric, scale: Scale): Axis =>
    axisFor(
      metric,
      [shown, ...shownBeside].flat().map((point) => metric.read(point) as number),
      scale,
    );
  const [axisX, axisY] = [axisOver(x, scaleX), axisOver(y, scaleY)];
  const markOf = (point: Point): Mark => ({
    id: point.id,
    level: point.config.level,
    phase: point.config.phase,
    ...(isByDevice && point.device ? { group: point.device.name } : {}),
    x: placeOn(axisX, x.read(point) as number),
    y: placeOn(axisY, y.read(point) as number),
    size: scaleSize(size.read(point)),
    point,
  });
  const marks = shown.map(markOf);
  const beside = shownBeside.map((others) => others.map(markOf));
  const byLevel = groupBy(marks, (mark) => mark.level);
  const byModel = groupBy(marks, ({ point }) => modelInWords(point));
  const place = (level: string): number => (levels.indexOf(level) + levels.length + 1) % (levels.length + 1);
  return {
    x: axisX,
    y: axisY,
    size,
    groups: [...byLevel]
      .map(([level, ofLevel]) => ({ level, marks: ofLevel }))
      .sort((a, b) => place(a.level) - place(b.level)),
    frontiers: [...byModel].map(([model, ofModel]) =>
      paretoFrontier(ofModel, x.better, y.better).map((mark) =>
        byModel.size > 1 ? { ...mark, name: `${mark.level} · ${model}` } : mark,
      ),
    ),
    beside,
    missing,
  };
}

/** What errors are against: a trained model, or synthetic layers with as many KV heads as heads, or fewer. */
function modelInWords({ config: { model, heads, referenceKvHeads } }: Point): string {
  if (model !== undefined) return model;
  return referenceKvHeads === heads ? 'full heads' : `${referenceKvHeads} KV head${referenceKvHeads === 1 ? '' : 's'}`;
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
