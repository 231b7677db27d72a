import { useMemo } from 'react';
import { ChartCard } from '../charts/chart-card.tsx';
import { RooflineChart } from '../charts/roofline-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { type Roofline, roofAt, rooflineOf } from '../series/roofline.ts';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useLevelNames, useRun } from './use-app.ts';
import { useLevelLegend, useLinked, usePlane, useZoomed } from './use-linked.ts';

const axes = { x: 'flopsPerByte', y: 'flopsPerSecond' };

export function RooflinePanel({ points }: ChartPanelProps) {
  const levels = useLevelNames();
  const linked = useLinked();
  const legend = useLevelLegend();
  const environment = useRun((run) => run.environment);
  const { scales, zoom, onZoom, onScale } = usePlane('roofline', axes);
  const whole = useMemo(() => rooflineOf(points, environment, scales), [points, environment, scales]);
  const data = useZoomed(whole, zoom);
  const roof = data.ceilings ? 'under the measured ceilings' : '· no ceilings were measured in this session';
  return (
    <ChartCard
      title={`Work per second against work per byte, ${roof}`}
      fileName="roofline"
      description={`${data.marks.length} points, work per second against work per byte, ${roof}. The table lists the same points.`}
      legend={legend}
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={data.marks.length === 0 ? <NothingToDraw /> : undefined}
    >
      {(size) => (
        <RooflineChart data={data} {...size} levels={levels} linked={linked} onZoom={onZoom} onScale={onScale} />
      )}
    </ChartCard>
  );
}

const csvOf = ({ x, y, marks, ceilings }: Roofline): string =>
  toCsv(
    ['id', 'level', 'phase', x.metric.id, y.metric.id, 'ceilingFlopsPerSecond'],
    marks.map((mark) => [mark.id, mark.level, mark.phase, mark.x, mark.y, ceilings && roofAt(ceilings, mark.x)]),
  );
