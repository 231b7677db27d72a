/** Points as filters leave them: the free filter and hidden levels hold for charts and table, the phase for charts only. */
import { useMemo } from 'react';
import { useShallow } from 'zustand/react/shallow';
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Phase, phases, unsaid } from '../../src-main/contract/sweep.ts';
import { parseFilter } from '../series/filter.ts';
import { useDraft, useRun, useView } from './use-app.ts';
import { usePricedPoints } from './use-devices.ts';

/** Hidden levels and the free filter. */
function useKeeps(): ((point: Point) => boolean) | undefined {
  const hidden = useView((view) => view.hiddenLevels);
  const text = useView((view) => view.filter);
  return useMemo(() => {
    if (hidden.length === 0 && text === '') return undefined;
    const { keeps } = parseFilter(text);
    return (point) => !hidden.includes(point.config.level) && keeps(point);
  }, [hidden, text]);
}

/** What every chart leaves of any points. */
export function usePointFilter(): (point: Point) => boolean {
  const keeps = useKeeps();
  const phase = usePhase();
  return useMemo(
    () => (point) => (phase === undefined || point.config.phase === phase) && (keeps?.(point) ?? true),
    [keeps, phase],
  );
}

function useFilteredPoints(): readonly Point[] {
  const points = usePricedPoints(useRun((run) => run.points));
  const keeps = useKeeps();
  return useMemo(() => (keeps ? points.filter(keeps) : points), [points, keeps]);
}

export function useChartPoints(): readonly Point[] {
  const points = useFilteredPoints();
  const phase = usePhase();
  return useMemo(
    () => (phase === undefined ? points : points.filter((point) => point.config.phase === phase)),
    [points, phase],
  );
}

/** What the table shows: of the filtered points those that were brushed. */
export function useTablePoints(): readonly Point[] {
  const points = useFilteredPoints();
  const brushed = useView((view) => view.brushed);
  return useMemo(() => (brushed ? points.filter(({ id }) => brushed.has(id)) : points), [points, brushed]);
}

/** From what was asked for, not from what has arrived: nothing may change while points come in. */
export function usePlannedPhases(): readonly Phase[] {
  const drafted = useDraft().phases;
  const planned = useRun(
    useShallow(({ sweep }) =>
      sweep ? [sweep, ...(sweep.also ?? [])].flatMap(({ axes }) => axes.phase ?? [unsaid.phase]) : drafted,
    ),
  );
  return phases.filter((phase) => planned.includes(phase));
}

/** The phase shown; a filter that would hide every point is none. */
export function usePhase(): Phase | undefined {
  const planned = usePlannedPhases();
  const phase = useView((view) => view.phase);
  return phase !== undefined && planned.includes(phase) ? phase : undefined;
}
