import { Group, Select } from '@mantine/core';
import { useMemo } from 'react';
import { metrics } from '../../src-main/contract/metrics.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { TradeOffChart } from '../charts/trade-off-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { metricOf } from '../series/metric.ts';
import { errorMetricOf, type TradeOff, tradeOffOf } from '../series/trade-off.ts';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './point-table.tsx';
import { useApp, useLevelNames, useView } from './use-app.ts';
import { useBaselineLegend, useBaselines } from './use-baselines.ts';
import { useLevelLegend, useLinked, usePlane, useZoomed } from './use-linked.ts';

const choices = metrics.map(({ id, title }) => ({ value: id, label: title }));

export function TradeOffPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const chosen = useView((view) => view.tradeOff);
  const axes = useMemo(() => ({ ...chosen, y: chosen.y ?? errorMetricOf(points) }), [chosen, points]);
  const linked = useLinked();
  const { scales, zoom, onZoom, onScale } = usePlane('trade-off', axes);
  const baselines = useBaselines();
  const besideColours = useMemo(() => baselines.map(({ colour }) => colour), [baselines]);
  const whole = useMemo(() => {
    const beside = baselines.map((baseline) => baseline.points);
    return tradeOffOf(points, axes, levels, scales, beside);
  }, [points, axes, levels, scales, baselines]);
  const data = useZoomed(whole, zoom);
  const legend = [...useLevelLegend(), ...useBaselineLegend()];
  const choose = (axis: 'x' | 'y' | 'size', label: string, pixels: number) => (
    <Select
      size="xs"
      w={pixels}
      aria-label={label}
      leftSection={axis}
      leftSectionWidth={axis === 'size' ? 38 : 24}
      allowDeselect={false}
      data={choices}
      value={axes[axis]}
      comboboxProps={{ width: 240, position: 'bottom-start' }}
      onChange={(id) => id && app.view.setState({ tradeOff: { ...chosen, [axis]: id } })}
    />
  );
  const [x, y] = [metricOf(axes.x), metricOf(axes.y)];
  return (
    <ChartCard
      title={`${x.title} against ${y.title}`}
      fileName={`trade-off-${axes.x}-${axes.y}`}
      description={describe(data)}
      legend={legend}
      heading={
        <Group gap={6} wrap="nowrap">
          {choose('x', 'Horizontal axis', 214)}
          {choose('y', 'Vertical axis', 152)}
          {choose('size', 'Size of a mark', 176)}
        </Group>
      }
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={data.groups.length === 0 ? <NothingToDraw /> : undefined}
    >
      {(size) => (
        <TradeOffChart
          data={data}
          besideColours={besideColours}
          {...size}
          levels={levels}
          linked={linked}
          onZoom={onZoom}
          onScale={onScale}
        />
      )}
    </ChartCard>
  );
}

function describe({ x, y, groups, frontier }: TradeOff): string {
  const count = groups.reduce((sum, { marks }) => sum + marks.length, 0);
  const best = frontier.map(({ level }) => level).join(', ') || 'none';
  return `${count} points, ${x.metric.title} against ${y.metric.title}; on the frontier: ${best}. The table lists the same points.`;
}

function csvOf({ x, y, size, groups, frontier }: TradeOff): string {
  const onFrontier = new Set(frontier.map(({ id }) => id));
  const rows = groups.flatMap(({ marks }) =>
    marks.map(({ id, level, phase, point }) => [
      id,
      level,
      phase,
      x.metric.read(point),
      y.metric.read(point),
      size.read(point),
      onFrontier.has(id),
    ]),
  );
  return toCsv(['id', 'level', 'phase', x.metric.id, y.metric.id, size.id, 'onFrontier'], rows);
}
