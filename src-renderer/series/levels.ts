/** Every level of a sweep side by side: one median a level and metric. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type Axis, axisFor, type Scale } from './axis.ts';
import { metricOf } from './metric.ts';

export interface LevelBar {
  readonly level: string;
  /** Median over the points of the level; undefined where none has the metric. */
  readonly value: number | undefined;
  /** Where the bar ends: never outside the axis. */
  readonly end: number;
  /** Points behind the median. */
  readonly ids: readonly string[];
}

export interface LevelBars {
  readonly metric: Metric;
  readonly axis: Axis;
  readonly bars: readonly LevelBar[];
}

/** The three numbers of every point. */
export const headlineMetrics = ['multiplierVsF32Mha', 'tokensPerSecond', 'relativeL2'] as const;

export function levelBarsOf(
  points: readonly Point[],
  metricIds: readonly string[],
  levels: readonly string[],
  scaleOf: (metric: string) => Scale | undefined = () => undefined,
  /** Medians of other sessions, for which the axes have room too. */
  beside: readonly (readonly LevelBars[])[] = [],
): LevelBars[] {
  const byLevel = new Map<string, Point[]>();
  for (const point of points) {
    const ofLevel = byLevel.get(point.config.level);
    if (ofLevel) ofLevel.push(point);
    else byLevel.set(point.config.level, [point]);
  }
  const present = levels.filter((level) => byLevel.has(level));
  return metricIds.map((id, column) => {
    const metric = metricOf(id);
    const rows = present.map((level) => {
      const ofLevel = (byLevel.get(level) ?? []).filter((point) => metric.read(point) !== undefined);
      const value = medianOf(ofLevel.map((point) => metric.read(point) as number));
      return { level, value, ids: ofLevel.map((point) => point.id) };
    });
    const axis = axisFor(
      metric,
      [...rows, ...beside.flatMap((others) => others[column].bars)].flatMap(({ value }) => value ?? []),
      scaleOf(id),
    );
    const bars = rows.map((row) => ({ ...row, end: Math.max(row.value ?? axis.domain[0], axis.domain[0]) }));
    return { metric, axis, bars };
  });
}

export function medianOf(values: readonly number[]): number | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}
