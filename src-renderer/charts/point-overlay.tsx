/** What moves with the pointer: rings, the brush, the figures of one point. Apart from the marks, so that those stay as painted. */
import type { ReactNode } from 'react';
import type { Box, PlacedMark } from '../series/plane.ts';
import classes from './plane-chart.module.css';

interface PointOverlayProps {
  readonly width: number;
  readonly height: number;
  readonly selected: readonly PlacedMark[];
  readonly near: PlacedMark | undefined;
  readonly brush: Box | undefined;
}

export const PointOverlay = ({ width, height, selected, near, brush }: PointOverlayProps) => (
  <svg className={classes.overlay} width={width} height={height} aria-hidden="true" data-overlay="">
    {selected.map(({ mark, cx, cy, radius }) => (
      <circle key={mark.id} cx={cx} cy={cy} r={radius + 5} fill="none" stroke="var(--app-accent)" strokeWidth={2.5} />
    ))}
    {near && (
      <circle
        cx={near.cx}
        cy={near.cy}
        r={near.radius + 3}
        fill="none"
        stroke="var(--app-text)"
        strokeWidth={1.5}
        opacity={0.7}
      />
    )}
    {brush && (
      <rect
        x={brush.left}
        y={brush.top}
        width={brush.right - brush.left}
        height={brush.bottom - brush.top}
        fill="var(--app-accent)"
        fillOpacity={0.12}
        stroke="var(--app-accent)"
      />
    )}
  </svg>
);

interface PlacedTooltipProps {
  readonly cx: number;
  readonly cy: number;
  readonly width: number;
  readonly height: number;
  readonly gap: number;
  readonly children: ReactNode;
}

/** On the side of the mark where there is room. */
export const PlacedTooltip = ({ cx, cy, width, height, gap, children }: PlacedTooltipProps) => (
  <div
    className={classes.tooltip}
    style={{
      ...(cx < width / 2 ? { left: cx + gap } : { right: width - cx + gap }),
      ...(cy < height / 2 ? { top: Math.max(2, cy - gap) } : { bottom: Math.max(2, height - cy - gap) }),
    }}
  >
    {children}
  </div>
);
