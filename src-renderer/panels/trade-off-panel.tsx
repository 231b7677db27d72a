import { Select } from '@mantine/core';
import { useMemo } from 'react';
import { metrics } from '../../src-main/contract/metrics.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { TradeOffChart } from '../charts/trade-off-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { markOf } from '../series/marks.ts';
import { metricOf } from '../series/metric.ts';
import { type TradeOff, tradeOffOf } from '../series/trade-off.ts';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './point-table.tsx';
import { useApp, useLevelNames, useView } from './use-app.ts';

const choices = metrics.map(({ id, label }) => ({ value: id, label }));

export function TradeOffPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const axes = useView((view) => view.tradeOff);
  const selected = useView((view) => view.selected);
  const data = useMemo(() => tradeOffOf(points, axes, levels), [points, axes, levels]);
  const choose = (axis: 'x' | 'y' | 'size', label: string, before: string) => (
    <Select
      size="xs"
      w={152}
      aria-label={label}
      leftSection={before}
      leftSectionWidth={before.length > 1 ? 38 : 24}
      allowDeselect={false}
      data={choices}
      value={axes[axis]}
      comboboxProps={{ width: 210, position: 'bottom-end' }}
      onChange={(id) => id && app.view.setState({ tradeOff: { ...axes, [axis]: id } })}
    />
  );
  const [x, y] = [metricOf(axes.x), metricOf(axes.y)];
  return (
    <ChartCard
      title={`${x.label} against ${y.label}`}
      fileName={`trade-off-${axes.x}-${axes.y}`}
      description={describe(data)}
      legend={data.groups.map(({ level }) => ({ label: level, mark: markOf(level, levels) }))}
      controls={[
        choose('x', 'Horizontal axis', 'x'),
        choose('y', 'Vertical axis', 'y'),
        choose('size', 'Size of a mark', 'size'),
      ].map((control, i) => <span key={['x', 'y', 'size'][i]}>{control}</span>)}
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={data.groups.length === 0 ? <NothingToDraw /> : undefined}
    >
      {(size) => <TradeOffChart data={data} {...size} levels={levels} selected={selected} onSelect={app.view.select} />}
    </ChartCard>
  );
}

function describe({ x, y, groups, frontier }: TradeOff): string {
  const count = groups.reduce((sum, { marks }) => sum + marks.length, 0);
  const best = frontier.map(({ level }) => level).join(', ') || 'none';
  return `${count} points, ${x.metric.label} against ${y.metric.label}; on the frontier: ${best}. The table lists the same points.`;
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
