import { useMemo } from 'react';
import type { Point } from '../../src-main/contract/metrics.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { LevelBarsChart } from '../charts/level-bars-chart.tsx';
import { toCsv } from '../series/csv.ts';
import type { Kind } from '../series/kind.ts';
import { headlineMetrics, type LevelBars, levelBarsOf, rowFields } from '../series/levels.ts';
import { type Missing, whyMissing } from '../series/missing.ts';
import { MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useApp, useKind, useLevelNames, useView } from './use-app.ts';
import { useBaselineLegend, useBaselines } from './use-baselines.ts';
import { useLevelLegend, useLinked } from './use-linked.ts';

export function LevelsPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const linked = useLinked();
  const legend = [...useLevelLegend(), ...useBaselineLegend()];
  const scales = useView((view) => view.scales);
  const baselines = useBaselines();
  const kind = useKind();
  const metrics = useMemo(() => headlineMetrics(kind), [kind]);
  const fields = useMemo(() => rowFields(points), [points]);
  const beside = useMemo(
    () =>
      baselines.map(({ colour, points: others }) => ({
        colour,
        columns: levelBarsOf(others, metrics, levels, { fields }),
      })),
    [baselines, metrics, levels, fields],
  );
  const columns = useMemo(() => {
    const scaleOf = (metric: string) => scales[scaleKey(metric)];
    return levelBarsOf(points, metrics, levels, { scaleOf, beside: beside.map((other) => other.columns), fields });
  }, [points, metrics, levels, scales, beside, fields]);
  const isMedian = columns.some(({ bars }) => bars.some(({ ids }) => ids.length > 1));
  const missing = useMemo(() => missingOf(points), [points]);
  const isEmpty = columns.every(({ bars }) => bars.every(({ value }) => value === undefined));
  return (
    <ChartCard
      title={`${titles[kind] ?? 'Memory, throughput and error of each level'}${isMedian ? ', medians over its points' : ''}`}
      fileName="levels"
      description={`${columns[0]?.bars.length ?? 0} rows of levels by ${columns.map(({ metric }) => metric.label).join(', ')}. The table lists the same points.`}
      legend={legend}
      footer={<MissingPoints missing={missing} />}
      toCsv={() => csvOf(columns)}
      onShowTable={focusTable}
      empty={isEmpty ? <NothingToDraw /> : undefined}
    >
      {(size) => (
        <LevelBarsChart
          columns={columns}
          beside={beside}
          {...size}
          levels={levels}
          linked={linked}
          onScale={(metric, scale) => app.view.setScale(scaleKey(metric), scale)}
        />
      )}
    </ChartCard>
  );
}

/** Of a kind that has other headlines than memory, throughput and error. */
const titles: Partial<Record<Kind, string>> = { capacity: 'Sequences planned, and allocated until memory was refused' };

const scaleKey = (metric: string): string => `levels ${metric}`;

const missingOf = (points: readonly Point[]): Missing[] =>
  points.flatMap((point) => {
    const reason = whyMissing(point);
    return reason === undefined ? [] : [{ point, reason }];
  });

function csvOf(columns: readonly LevelBars[]): string {
  const rows = (columns[0]?.bars ?? []).map(({ label }, row) => [label, ...columns.map(({ bars }) => bars[row].value)]);
  return toCsv(['level', ...columns.map(({ metric }) => metric.id)], rows);
}
