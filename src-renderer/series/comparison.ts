/** What the compare chart and its table show: every point against every baseline, filtered and in order. */
import type { Comparison, PointComparison, Verdict } from '../../src-main/contract/comparison.ts';
import { changesInWords, tellingFieldsOf } from '../../src-main/contract/comparison-words.ts';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { toCsv } from './csv.ts';
import { nameInWords } from './fields.ts';
import { type Column, sortRows } from './table.ts';

export interface BaselineMark {
  readonly id: string;
  readonly name: string;
  readonly colour: string;
}

export interface Side {
  readonly baseline: BaselineMark;
  readonly comparison: Comparison;
}

/** One point against one baseline. */
export interface ComparedPoint extends PointComparison {
  readonly key: string;
  readonly baseline: BaselineMark;
}

export const comparedPoints = (sides: readonly Side[], ids: ReadonlySet<string>): ComparedPoint[] =>
  sides.flatMap(({ baseline, comparison }) =>
    comparison.points
      .filter(({ id }) => ids.has(id))
      .map((point) => ({ ...point, baseline, key: `${baseline.id} ${point.id}` })),
  );

export function countVerdicts(points: readonly ComparedPoint[]): Record<Verdict, number> {
  const counts = { SAME: 0, FASTER: 0, SLOWER: 0, UNSURE: 0 };
  for (const { verdict } of points) counts[verdict] += 1;
  return counts;
}

/** How far a time is from the baseline's: twice and half of it are equally far. Nothing timed is nearest. */
const distanceOf = ({ timeRatio }: PointComparison): number =>
  timeRatio === undefined ? -1 : Math.abs(Math.log(timeRatio));

const gravity: Readonly<Record<Verdict, number>> = { SLOWER: 0, FASTER: 1, UNSURE: 2, SAME: 3 };

/** By a column; without one the gravest first: slower, faster, unsure, same, each with the largest change first. */
export function sortCompared(
  points: readonly ComparedPoint[],
  column: Column<ComparedPoint> | undefined,
  descending: boolean,
): ComparedPoint[] {
  if (column) return sortRows(points, column, descending);
  return [...points].sort((a, b) => gravity[a.verdict] - gravity[b.verdict] || distanceOf(b) - distanceOf(a));
}

/** One row of the chart: a point, and all that its baselines have to say about it. */
export interface ComparisonRow {
  readonly id: string;
  readonly config: PointConfig;
  readonly label: string;
  readonly entries: readonly ComparedPoint[];
}

/** In the order in which the points first come. */
export function rowsOf(points: readonly ComparedPoint[]): ComparisonRow[] {
  const isPhaseTold = new Set(points.map(({ config }) => config.phase)).size > 1;
  const told = tellingFieldsOf(points.map(({ config }) => config)).filter(
    (field) => field !== 'level' && (field !== 'phase' || isPhaseTold),
  );
  const rows = new Map<string, ComparedPoint[]>();
  for (const point of points) {
    const row = rows.get(point.id);
    if (row) row.push(point);
    else rows.set(point.id, [point]);
  }
  return [...rows].map(([id, entries]) => {
    const { config } = entries[0];
    return { id, config, entries, label: nameInWords({ config }, told) };
  });
}

export interface RatioAxis {
  readonly scale: 'log' | 'linear';
  readonly domain: readonly [number, number];
  readonly ticks: readonly number[];
}

const leastReach = 0.04;
/** Beyond it, percents say less than multiples. */
const mostLinear = 1.7;

/** Equally far to both sides of 1. */
export function ratioAxis(points: readonly ComparedPoint[]): RatioAxis {
  const most = points.reduce((reach, point) => Math.max(reach, ...(point.timeRatioRange ?? []).map(farness)), 1);
  if (most <= mostLinear) {
    const reach = Math.max(leastReach, (most - 1) * 1.08);
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((size) => reach / size <= 5) ?? 0.5;
    const count = Math.floor(reach / step);
    const ticks = Array.from({ length: 2 * count + 1 }, (_, i) => Number((1 + (i - count) * step).toPrecision(6)));
    return { scale: 'linear', domain: [1 - reach, 1 + reach], ticks };
  }
  const reach = most * 1.1;
  const base = [2, 4, 10, 100].find((size) => Math.log(reach) / Math.log(size) <= 4) ?? 1000;
  const count = Math.floor(Math.log(reach) / Math.log(base));
  const ticks = Array.from({ length: 2 * count + 1 }, (_, i) => base ** (i - count));
  return { scale: 'log', domain: [1 / reach, reach], ticks };
}

/** A ratio and its inverse are equally far. */
const farness = (ratio: number): number => (ratio > 0 ? Math.max(ratio, 1 / ratio) : 1);

/** Where a ratio stands, 0 to 1; beyond the ends it stands at the end. */
export function shareOfRatio({ scale, domain: [from, to] }: RatioAxis, ratio: number): number {
  const share = scale === 'log' ? Math.log(ratio / from) / Math.log(to / from) : (ratio - from) / (to - from);
  return Math.min(1, Math.max(0, share));
}

/** `+3.1 %`, `−12 %`, `2.4x`: time after over time before. */
export function ratioInWords(ratio: number): string {
  if (ratio > mostLinear) return `${Number(ratio.toPrecision(3))}x`;
  if (ratio < 1 / mostLinear) return `1/${Number((1 / ratio).toPrecision(3))}x`;
  const percent = 100 * (ratio - 1);
  const text = Math.abs(percent).toFixed(Math.abs(percent) < 9.95 ? 1 : 0);
  return Number(text) === 0 ? '0 %' : `${percent > 0 ? '+' : '−'}${text.replace(/\.0$/, '')} %`;
}

export function comparisonCsv(points: readonly ComparedPoint[]): string {
  const fields = tellingFieldsOf(points.map(({ config }) => config));
  const header = [
    'id',
    'baseline',
    ...fields,
    'verdict',
    'isRegression',
    'timeRatio',
    'timeRatioLow',
    'timeRatioHigh',
    'chance',
    'changes',
    'reason',
  ];
  const rows = points.map((point) => [
    point.id,
    point.baseline.name,
    ...fields.map((field) => point.config[field]),
    point.verdict,
    point.isRegression,
    point.timeRatio,
    point.timeRatioRange?.[0],
    point.timeRatioRange?.[1],
    point.chance,
    changesInWords(point),
    point.reason,
  ]);
  return toCsv(header, rows);
}
