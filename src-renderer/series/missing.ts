/** Points that have no place on a chart, and why. */
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import type { Scale } from './axis.ts';

export interface Missing {
  readonly point: Point;
  readonly reason: string;
}

/** The reason why a point cannot be drawn on these axes; undefined if it can. */
export function whyMissing(
  point: Point,
  ...axes: readonly (readonly [metric: Metric, scale: Scale])[]
): string | undefined {
  if (point.outcome !== 'measured') return point.reason ?? `was ${point.outcome}`;
  for (const [metric, scale] of axes) {
    const value = metric.read(point);
    if (value === undefined) return `${metric.label} does not apply`;
    if (scale === 'log' && value < 0) return `${metric.label} is below zero: choose a linear scale`;
  }
  return undefined;
}
