/** Points in the order of a column. */
import type { Point } from '../../src-main/contract/metrics.ts';

export interface Column {
  readonly id: string;
  readonly read: (point: Point) => string | number | undefined;
}

/** Stable; what a column does not apply to stands last in either direction. */
export function sortPoints(points: readonly Point[], { read }: Column, descending: boolean): Point[] {
  const sign = descending ? -1 : 1;
  return points
    .map((point) => ({ point, value: read(point) }))
    .sort((a, b) => {
      if (a.value === undefined || b.value === undefined)
        return Number(a.value === undefined) - Number(b.value === undefined);
      if (typeof a.value === 'number' && typeof b.value === 'number') return sign * (a.value - b.value);
      return sign * String(a.value).localeCompare(String(b.value));
    })
    .map(({ point }) => point);
}
