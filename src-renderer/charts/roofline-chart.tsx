/** Work against work per byte, under the two ceilings that each device was measured to have. */
import { useMemo } from 'react';
import { formatMetric } from '../../src-main/contract/format.ts';
import { markOf } from '../series/marks.ts';
import { metricOf } from '../series/metric.ts';
import { valueAt } from '../series/plane.ts';
import { type Roofline, roofAt } from '../series/roofline.ts';
import { PlaneChart, type PlaneChartProps, type PlaneNote } from './plane-chart.tsx';

interface RooflineChartProps
  extends Omit<PlaneChartProps, 'x' | 'y' | 'marks' | 'lines' | 'named' | 'metrics' | 'name' | 'notes'> {
  readonly data: Roofline;
}

/** With one axis linear and one logarithmic the slope is a curve. */
const placesOfRoof = 48;

/** Roofs stand close: a longer name would lie across the next one. */
const shortName = (device: string): string => (device.length <= 12 ? device : `${device.slice(0, 11).trimEnd()}…`);

export function RooflineChart({ data, ...rest }: RooflineChartProps) {
  const { x, y, marks, roofs } = data;
  const { groups } = rest;
  const lines = useMemo(
    () =>
      roofs.map(({ device, ceilings }) => {
        const even = Array.from({ length: placesOfRoof + 1 }, (_, i) => valueAt(x, i / placesOfRoof));
        const inside = [...even, ceilings.ridge].filter(
          (place) => place >= x.domain[0] && place <= x.domain[1] * (1 + 1e-9),
        );
        inside.sort((a, b) => a - b);
        return {
          key: `roof ${device}`,
          places: inside.map((place) => ({ x: place, y: roofAt(ceilings, place) })),
          colour: groups?.includes(device) ? markOf(device, groups).colour : 'var(--chart-frontier)',
          width: 2,
        };
      }),
    [roofs, groups, x],
  );
  const notes = useMemo(
    (): PlaneNote[] =>
      roofs.flatMap(({ device, ceilings }) => {
        const foot =
          x.scale === 'log'
            ? Math.sqrt(Math.max(x.domain[0], y.domain[0] / ceilings.bytesPerSecond) * ceilings.ridge)
            : ceilings.ridge / 2;
        return [
          {
            text: `${roofs.length > 1 ? shortName(device) : 'arithmetic'} ${formatMetric(ceilings.flopsPerSecond, 'FLOP/s')}`,
            x: x.domain[1],
            y: ceilings.flopsPerSecond,
            anchor: 'end',
          },
          {
            text: `${roofs.length > 1 ? '' : 'memory '}${formatMetric(ceilings.bytesPerSecond, 'bytes/s')}`,
            x: foot,
            y: roofAt(ceilings, foot),
            towards: { x: ceilings.ridge, y: ceilings.flopsPerSecond },
            anchor: 'start',
          },
        ];
      }),
    [roofs, x, y],
  );
  return (
    <PlaneChart
      name="Measured work under the measured ceilings"
      x={x}
      y={y}
      marks={marks}
      lines={lines}
      notes={notes}
      metrics={[x.metric, y.metric, metricOf('bytesPerSecond'), metricOf('rooflineFraction')]}
      {...rest}
    />
  );
}
