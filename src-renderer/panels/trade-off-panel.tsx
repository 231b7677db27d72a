import { Group } from '@mantine/core';
import { useMemo } from 'react';
import { ChartCard } from '../charts/chart-card.tsx';
import { frontierDash, TradeOffChart } from '../charts/trade-off-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { judgedBy } from '../series/kind.ts';
import { metricOf } from '../series/metric.ts';
import { type TradeOff, tradeOffOf } from '../series/trade-off.ts';
import { AxisChoice, metricChoices } from './axis-choice.tsx';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useApp, useKind, useLevelNames, useView } from './use-app.ts';
import { useBaselineLegend, useBaselines } from './use-baselines.ts';
import { useDeviceGroups, useGroupLegend } from './use-devices.ts';
import { useLinked, usePlane, useZoomed } from './use-linked.ts';

export function TradeOffPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const chosen = useView((view) => view.tradeOff);
  const kind = useKind();
  const axes = useMemo(() => ({ ...chosen, y: chosen.y ?? judgedBy[kind] }), [chosen, kind]);
  const linked = useLinked();
  const { scales, zoom, onZoom, onScale } = usePlane('trade-off', axes);
  const baselines = useBaselines();
  const groups = useDeviceGroups();
  const besideColours = useMemo(() => baselines.map(({ colour }) => colour), [baselines]);
  const whole = useMemo(() => {
    const beside = baselines.map((baseline) => baseline.points);
    return tradeOffOf(points, axes, levels, scales, beside, groups !== undefined);
  }, [points, axes, levels, scales, baselines, groups]);
  const data = useZoomed(whole, zoom);
  const marked = [...useGroupLegend(), ...useBaselineLegend()];
  // From the first moment on: a legend that grows with the points would move the chart.
  const legend = marked.length > 0 ? [...marked, frontierLegend] : marked;
  const choose = (axis: 'x' | 'y' | 'size', label: string, pixels: number) => (
    <AxisChoice
      sign={axis}
      label={label}
      pixels={pixels}
      data={metricChoices}
      value={axes[axis]}
      onChange={(id) => app.view.setState({ tradeOff: { ...chosen, [axis]: id } })}
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
        <Group gap={4} wrap="nowrap" flex={1} miw={0}>
          {choose('x', 'Horizontal axis', 216)}
          {choose('y', 'Vertical axis', 160)}
          {choose('size', 'Size of a mark', 180)}
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
          groups={groups}
          linked={linked}
          onZoom={onZoom}
          onScale={onScale}
        />
      )}
    </ChartCard>
  );
}

const frontierLegend = { label: 'Pareto frontier', dash: frontierDash };

function describe({ x, y, groups, frontiers }: TradeOff): string {
  const count = groups.reduce((sum, { marks }) => sum + marks.length, 0);
  const best =
    frontiers
      .flat()
      .map(({ level, name }) => name ?? level)
      .join(', ') || 'none';
  return `${count} points, ${x.metric.title} against ${y.metric.title}; on the frontier: ${best}. The table lists the same points.`;
}

function csvOf({ x, y, size, groups, frontiers }: TradeOff): string {
  const onFrontier = new Set(frontiers.flat().map(({ id }) => id));
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
