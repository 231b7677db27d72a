/** What the host finds when it compares the current session with each baseline, as chart and table show it. */
import { useEffect, useMemo } from 'react';
import { useStore } from 'zustand';
import { isSampling } from '../../src-main/contract/run-state.ts';
import { type ComparedPoint, comparedPoints, type Side, sortCompared } from '../series/comparison.ts';
import { comparisonKey } from '../store/baselines.ts';
import { comparisonColumns } from './comparison-columns.ts';
import { useApp, useRun, useView } from './use-app.ts';
import { useBaselines } from './use-baselines.ts';
import { useChartPoints } from './use-points.ts';

export interface SeenComparison {
  readonly sides: readonly Side[];
  /** Of all verdicts. */
  readonly all: readonly ComparedPoint[];
  /** Of the chosen verdict, in order. */
  readonly shown: readonly ComparedPoint[];
  readonly refused: readonly { readonly name: string; readonly reason: string }[];
}

/** While samples are taken nothing is compared: reading two sessions would disturb them. */
export function useCompared(): SeenComparison {
  const app = useApp();
  const run = useRun((state) => state);
  const isQuiet = isSampling(run);
  const baselines = useBaselines();
  const compared = useStore(app.baselines, (store) => store.compared);
  const points = useChartPoints();
  const verdict = useView((view) => view.verdict);
  const sort = useView((view) => view.comparisonSort);
  const keys = baselines.map(({ id }) => comparisonKey(id, run)).join();
  useEffect(() => {
    if (isQuiet || keys === '') return;
    for (const key of keys.split(',')) void app.baselines.compare(key.split(' ')[0]);
  }, [app, keys, isQuiet]);

  const sides = useMemo(
    () =>
      baselines.flatMap((baseline): Side[] => {
        const found = compared[comparisonKey(baseline.id, run)];
        return found?.state === 'known' ? [{ baseline, comparison: found.comparison }] : [];
      }),
    [baselines, compared, run],
  );
  const all = useMemo(() => comparedPoints(sides, new Set(points.map(({ id }) => id))), [sides, points]);
  const shown = useMemo(() => {
    const column = comparisonColumns.find(({ id }) => id === sort?.column);
    const chosen = verdict === undefined ? all : all.filter((point) => point.verdict === verdict);
    return sortCompared(chosen, column, sort?.descending ?? false);
  }, [all, verdict, sort]);
  const refused = baselines.flatMap(({ id, name }) => {
    const found = compared[comparisonKey(id, run)];
    return found?.state === 'refused' ? [{ name, reason: found.reason }] : [];
  });
  return { sides, all, shown, refused };
}
