import { useMemo } from 'react';
import type { Environment } from '../../src-main/contract/session.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { RooflineChart } from '../charts/roofline-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { type Roofline, roofAt, rooflineOf, roofOf } from '../series/roofline.ts';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useLevelNames, useRun } from './use-app.ts';
import { useDeviceGroups, useGroupLegend } from './use-devices.ts';
import { useLinked, usePlane, useZoomed } from './use-linked.ts';

const axes = { x: 'flopsPerByte', y: 'flopsPerSecond' };

export function RooflinePanel({ points }: ChartPanelProps) {
  const levels = useLevelNames();
  const linked = useLinked();
  const legend = useGroupLegend();
  const groups = useDeviceGroups();
  const environment = useRun((run) => run.environment);
  const { scales, zoom, onZoom, onScale } = usePlane('roofline', axes);
  const whole = useMemo(
    () => rooflineOf(points, environment, scales, groups !== undefined),
    [points, environment, scales, groups],
  );
  const data = useZoomed(whole, zoom);
  const roof = data.roofs.length > 0 ? 'under the measured ceilings' : '· no ceilings were measured in this session';
  return (
    <ChartCard
      title={`FLOP per second against arithmetic intensity, ${roof}`}
      fileName="roofline"
      description={`${data.marks.length} points, FLOP per second against arithmetic intensity, ${roof}. The table lists the same points.`}
      legend={legend}
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data, environment)}
      onShowTable={focusTable}
      empty={data.marks.length === 0 ? <NothingToDraw /> : undefined}
    >
      {(size) => (
        <RooflineChart
          data={data}
          {...size}
          levels={levels}
          groups={groups}
          linked={linked}
          onZoom={onZoom}
          onScale={onScale}
        />
      )}
    </ChartCard>
  );
}

function csvOf(data: Roofline, environment: Environment | undefined): string {
  const { x, y, marks } = data;
  return toCsv(
    ['id', 'level', 'phase', 'device', x.metric.id, y.metric.id, 'ceilingFlopsPerSecond'],
    marks.map((mark) => {
      const roof = roofOf(mark, data, environment);
      return [mark.id, mark.level, mark.phase, roof?.device, mark.x, mark.y, roof && roofAt(roof.ceilings, mark.x)];
    }),
  );
}
