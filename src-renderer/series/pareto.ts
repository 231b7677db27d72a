/** The frontier: points that no other point beats on both axes at once. */
import type { Metric } from '../../src-main/contract/metrics.ts';

export interface Placed {
  readonly x: number;
  readonly y: number;
}

/**
 * In the order of x. An axis where neither direction is better is read as "lower". Of points in the same place the first counts.
 * O(n log n).
 */
export function paretoFrontier<Mark extends Placed>(
  marks: readonly Mark[],
  betterX: Metric['better'],
  betterY: Metric['better'],
): Mark[] {
  const signX = betterX === 'higher' ? -1 : 1;
  const signY = betterY === 'higher' ? -1 : 1;
  const byX = [...marks].sort((a, b) => signX * (a.x - b.x) || signY * (a.y - b.y));
  const frontier: Mark[] = [];
  let best = Number.POSITIVE_INFINITY;
  for (const mark of byX) {
    if (!(signY * mark.y < best)) continue;
    best = signY * mark.y;
    frontier.push(mark);
  }
  return frontier.sort((a, b) => a.x - b.x);
}
