/** Marks of sessions beside the current one: outlines in the colour of the session, each led to where the point is now. */
import { memo } from 'react';
import type { Axis } from '../series/axis.ts';
import { markOf } from '../series/marks.ts';
import { type Box, groupOf, type Mark, mostSvgMarks, type PlacedMark, placeMarks } from '../series/plane.ts';
import { shapePath } from './mark.tsx';

export interface OutlinedMarks {
  readonly colour: string;
  readonly marks: readonly Mark[];
}

interface OutlinedMarksProps {
  readonly beside: readonly OutlinedMarks[];
  /** Of the current session. */
  readonly placed: readonly PlacedMark[];
  readonly x: Axis;
  readonly y: Axis;
  readonly box: Box;
  readonly groups: readonly string[];
}

/** Where nothing moved the outlines still show, one around the other. */
const firstRing = 3;
const nextRing = 3;
/** How far outlines reach beyond the mark that they surround. */
export const roomOfOutlines = (sessions: number): number =>
  sessions === 0 ? 0 : firstRing + (sessions - 1) * nextRing + 1;

/** Shorter ways are within the marks themselves. */
const leastWay = 3;

export const OutlinedMarksOf = memo(({ beside, placed, x, y, box, groups }: OutlinedMarksProps) => {
  if (beside.length === 0 || beside.reduce((sum, { marks }) => sum + marks.length, 0) > mostSvgMarks) return null;
  const now = new Map(placed.map((mark) => [mark.mark.id, mark]));
  return (
    <g>
      {beside.map(({ colour, marks }, i) =>
        placeMarks(marks, x, y, box).map(({ mark, cx, cy, radius }) => {
          const to = now.get(mark.id);
          const isMoved = to && Math.hypot(to.cx - cx, to.cy - cy) > leastWay;
          return (
            <g key={`${colour} ${mark.id}`} data-beside={mark.id}>
              {isMoved && <line x1={cx} y1={cy} x2={to.cx} y2={to.cy} stroke={colour} strokeWidth={1} opacity={0.6} />}
              <path
                d={shapePath(markOf(groupOf(mark), groups).shape, radius + firstRing + i * nextRing)}
                transform={`translate(${cx} ${cy})`}
                fill="none"
                stroke={colour}
                strokeWidth={1.6}
                strokeDasharray={mark.phase === 'prefill' ? '3 2' : 'none'}
              />
            </g>
          );
        }),
      )}
    </g>
  );
});
