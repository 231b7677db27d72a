/** Few enough marks to be elements: each can be found, and is saved as it is. */
import { memo } from 'react';
import { markOf } from '../series/marks.ts';
import { groupOf, type PlacedMark } from '../series/plane.ts';
import { dimmed } from './canvas-marks.tsx';
import { MarkPath } from './mark.tsx';

interface SvgMarksProps {
  readonly placed: readonly PlacedMark[];
  readonly groups: readonly string[];
  readonly brushed: ReadonlySet<string> | undefined;
}

/** Painted again only when marks move, not when one is pointed at. */
export const SvgMarks = memo(({ placed, groups, brushed }: SvgMarksProps) => (
  <g>
    {placed.map(({ mark, cx, cy, radius }) => (
      <g
        key={mark.id}
        data-mark={mark.id}
        transform={`translate(${cx} ${cy})`}
        opacity={brushed && !brushed.has(mark.id) ? dimmed : 1}
      >
        <MarkPath mark={markOf(groupOf(mark), groups)} radius={radius} hollow={mark.phase === 'prefill'} />
      </g>
    ))}
  </g>
));
