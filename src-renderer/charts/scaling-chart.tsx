/** A metric along a numeric axis; the pattern of a line tells what else varies beside the level. */
import { useMemo } from 'react';
import type { Axis } from '../series/axis.ts';
import { dashOf, markOf } from '../series/marks.ts';
import type { Scaling } from '../series/scaling.ts';
import { PlaneChart, type PlaneChartProps, type PlaneLine } from './plane-chart.tsx';

interface ScalingChartProps
  extends Omit<PlaneChartProps, 'x' | 'y' | 'marks' | 'lines' | 'named' | 'metrics' | 'name' | 'notes'> {
  readonly data: Scaling;
}

/** Above it speculation pays, below it costs. */
const evenLine = (x: Axis): PlaneLine => ({
  key: 'even',
  places: x.domain.map((end) => ({ x: end, y: 1 })),
  colour: 'var(--chart-axis)',
  width: 1.5,
  dash: '3 3',
  opacity: 1,
});

export function ScalingChart({ data, ...rest }: ScalingChartProps) {
  const { x, y, marks, lines } = data;
  const drawn = useMemo(
    () => [
      ...(y.metric.id === 'speedUp' ? [evenLine(x)] : []),
      ...lines.map(({ key, level, pattern, places }) => ({
        key,
        places,
        colour: markOf(level, rest.levels).colour,
        width: 2,
        dash: dashOf(pattern),
        opacity: 0.85,
      })),
    ],
    [lines, rest.levels, x, y],
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
