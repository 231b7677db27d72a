/** A metric along a numeric axis; the pattern of a line tells what else varies beside the level. */
import { useMemo } from 'react';
import { dashOf, markOf } from '../series/marks.ts';
import type { Scaling } from '../series/scaling.ts';
import { PlaneChart, type PlaneChartProps } from './plane-chart.tsx';

interface ScalingChartProps
  extends Omit<PlaneChartProps, 'x' | 'y' | 'marks' | 'lines' | 'named' | 'metrics' | 'name' | 'notes'> {
  readonly data: Scaling;
}

export function ScalingChart({ data, ...rest }: ScalingChartProps) {
  const { x, y, marks, lines } = data;
  const drawn = useMemo(
    () =>
      lines.map(({ key, level, pattern, places }) => ({
        key,
        places,
        colour: markOf(level, rest.levels).colour,
        width: 2,
        dash: dashOf(pattern),
        opacity: 0.85,
      })),
    [lines, rest.levels],
  );
  return (
    <PlaneChart
      name={`${y.metric.title} along ${x.metric.title}`}
      x={x}
      y={y}
      marks={marks}
      lines={drawn}
      metrics={[y.metric]}
      isFaint={data.medianOver.length > 0}
      {...rest}
    />
  );
}
