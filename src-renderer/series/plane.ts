/** Points on two axes: from figures to pixels and back, which mark is near, which one is next. */
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Axis } from './axis.ts';

export interface Mark {
  readonly id: string;
  readonly level: string;
  /** What gives it its colour and shape, where that is not its level. */
  readonly group?: string;
  /** Where the level alone would not tell. */
  readonly name?: string;
  readonly phase: string;
  readonly x: number;
  readonly y: number;
  /** 0 to 1; 0.5 where nothing is known. */
  readonly size: number;
  readonly point: Point;
}

export const groupOf = ({ group, level }: Mark): string => group ?? level;

/** In pixels of the drawing. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

export interface PlacedMark {
  readonly mark: Mark;
  readonly cx: number;
  readonly cy: number;
  readonly radius: number;
}

/** 0 at the beginning of the axis, 1 at its end. */
export function shareOf({ scale, domain: [from, to] }: Axis, value: number): number {
  return scale === 'log' ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from);
}

export function valueAt({ scale, domain: [from, to] }: Axis, share: number): number {
  return scale === 'log' ? from * (to / from) ** share : from + (to - from) * share;
}

export const toX = (axis: Axis, { left, right }: Box, value: number): number =>
  left + (right - left) * shareOf(axis, value);

export const toY = (axis: Axis, { top, bottom }: Box, value: number): number =>
  bottom - (bottom - top) * shareOf(axis, value);

/** Above this many, marks are drawn on a canvas: a picture of so many SVG elements stalls the window. */
export const mostSvgMarks = 1500;

/** Many marks are drawn small, or they would hide each other. */
const radii = (count: number): readonly [number, number] =>
  count <= 200 ? [5, 11] : count <= mostSvgMarks ? [3.5, 7] : [2.5, 5];

/** Marks in sight, in pixels; what a zoom leaves outside is left out. */
export function placeMarks(marks: readonly Mark[], x: Axis, y: Axis, box: Box): PlacedMark[] {
  const [smallest, largest] = radii(marks.length);
  const placed: PlacedMark[] = [];
  for (const mark of marks) {
    const [cx, cy] = [toX(x, box, mark.x), toY(y, box, mark.y)];
    // Written so that NaN is outside too.
    if (!(cx >= box.left - 1 && cx <= box.right + 1 && cy >= box.top - 1 && cy <= box.bottom + 1)) continue;
    placed.push({ mark, cx, cy, radius: smallest + mark.size * (largest - smallest) });
  }
  return placed;
}

const cellPixels = 24;

/** Finds the nearest of many marks without looking at all of them; they are sorted when the first one is looked for. */
export function indexOf(placed: readonly PlacedMark[]): (x: number, y: number) => PlacedMark | undefined {
  const keyOf = (column: number, row: number): number => column * 65536 + row;
  const cellOf = (pixels: number): number => Math.floor(pixels / cellPixels) + 1;
  const fill = (): Map<number, PlacedMark[]> => {
    const filled = new Map<number, PlacedMark[]>();
    for (const mark of placed) {
      const key = keyOf(cellOf(mark.cx), cellOf(mark.cy));
      const cell = filled.get(key);
      if (cell) cell.push(mark);
      else filled.set(key, [mark]);
    }
    return filled;
  };
  let cells: Map<number, PlacedMark[]> | undefined;
  return (x, y) => {
    cells ??= fill();
    let nearest: PlacedMark | undefined;
    let least = cellPixels ** 2;
    for (let column = cellOf(x) - 1; column <= cellOf(x) + 1; column += 1) {
      for (let row = cellOf(y) - 1; row <= cellOf(y) + 1; row += 1) {
        for (const mark of cells.get(keyOf(column, row)) ?? []) {
          const distance = (mark.cx - x) ** 2 + (mark.cy - y) ** 2;
          if (distance > least) continue;
          least = distance;
          nearest = mark;
        }
      }
    }
    return nearest;
  };
}

export function within(placed: readonly PlacedMark[], { left, right, top, bottom }: Box): PlacedMark[] {
  return placed.filter(({ cx, cy }) => cx >= left && cx <= right && cy >= top && cy <= bottom);
}

/** The mark that an arrow key leads to; from nowhere, the first one. */
export function nextMark(
  placed: readonly PlacedMark[],
  from: string | undefined,
  key: 'ArrowLeft' | 'ArrowRight' | 'ArrowUp' | 'ArrowDown' | 'Home' | 'End',
): PlacedMark | undefined {
  const isVertical = key === 'ArrowUp' || key === 'ArrowDown';
  const sorted = [...placed].sort((a, b) => (isVertical ? b.cy - a.cy || a.cx - b.cx : a.cx - b.cx || b.cy - a.cy));
  const at = sorted.findIndex(({ mark }) => mark.id === from);
  if (key === 'Home' || at === -1) return sorted[0];
  if (key === 'End') return sorted.at(-1);
  const by = key === 'ArrowRight' || key === 'ArrowUp' ? 1 : -1;
  return sorted[Math.min(sorted.length - 1, Math.max(0, at + by))];
}

/** Both ends moved towards or away from a place that stays where it is. */
export function zoomAbout(axis: Axis, share: number, factor: number): readonly [number, number] {
  return [valueAt(axis, share - share * factor), valueAt(axis, share + (1 - share) * factor)];
}

const nameHeight = 13;
const nameCharacter = 6.4;

export interface PlacedName {
  readonly text: string;
  readonly x: number;
  readonly y: number;
  readonly isLeft: boolean;
}

/** Names beside their marks, where they cover no other name and no mark. */
export function placeNames(
  named: readonly PlacedMark[],
  { left, right }: Box,
  others: readonly PlacedMark[] = [],
): PlacedName[] {
  const taken: Box[] = [...named, ...others].map(({ cx, cy, radius }) => ({
    left: cx - radius,
    right: cx + radius,
    top: cy - radius,
    bottom: cy + radius,
  }));
  const isFree = (box: Box): boolean =>
    !taken.some(
      (other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top,
    );
  return named.flatMap(({ mark, cx, cy, radius }) => {
    const text = mark.name ?? mark.level;
    const width = text.length * nameCharacter;
    for (const isLeft of cx + radius + 9 + width > right ? [true, false] : [false, true]) {
      const x = isLeft ? cx - radius - 9 : cx + radius + 9;
      const box = {
        left: isLeft ? x - width : x,
        right: isLeft ? x : x + width,
        top: cy - nameHeight / 2,
        bottom: cy + nameHeight / 2,
      };
      if (box.left < left || box.right > right + 24 || !isFree(box)) continue;
      taken.push(box);
      return [{ text, x, y: cy + 4, isLeft }];
    }
    return [];
  });
}
