import { useMemo } from 'react';
import { ChartCard } from '../charts/chart-card.tsx';
import { LevelBarsChart } from '../charts/level-bars-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { headlineMetrics, type LevelBars, levelBarsOf } from '../series/levels.ts';
import { NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './point-table.tsx';
import { useApp, useLevelNames, useView } from './use-app.ts';

export function LevelsPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const selected = useView((view) => view.selected);
  const columns = useMemo(() => levelBarsOf(points, headlineMetrics, levels), [points, levels]);
  const isEmpty = columns.every(({ bars }) => bars.every(({ value }) => value === undefined));
  return (
    <ChartCard
      title="Memory, throughput and error of each level, medians over its points"
      fileName="levels"
      description={`${columns[0]?.bars.length ?? 0} levels by ${columns.map(({ metric }) => metric.label).join(', ')}. The table lists the same points.`}
      legend={[]}
      toCsv={() => csvOf(columns)}
      onShowTable={focusTable}
      empty={isEmpty ? <NothingToDraw /> : undefined}
    >
      {(size) => (
        <LevelBarsChart columns={columns} {...size} levels={levels} selected={selected} onSelect={app.view.select} />
      )}
    </ChartCard>
  );
}

function csvOf(columns: readonly LevelBars[]): string {
  const rows = (columns[0]?.bars ?? []).map(({ level }, row) => [level, ...columns.map(({ bars }) => bars[row].value)]);
  return toCsv(['level', ...columns.map(({ metric }) => metric.id)], rows);
}
