/** The sessions that the current one is seen against, as the charts show them: same filters, own colours. */
import { useMemo } from 'react';
import { useStore } from 'zustand';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { LegendItem } from '../charts/chart-card.tsx';
import { ringOf } from '../charts/mark.tsx';
import { baselineColour } from '../series/marks.ts';
import { useApp, useRun, useView } from './use-app.ts';
import { usePointFilter } from './use-points.ts';

export interface SeenBaseline {
  readonly id: string;
  readonly name: string;
  readonly colour: string;
  /** Filtered as the points of the charts. */
  readonly points: readonly Point[];
}

/** All that were picked, but the current session itself: it would only cover its own marks. */
export function useBaselines(): readonly SeenBaseline[] {
  const app = useApp();
  const picked = useView((view) => view.baselines);
  const current = useRun((run) => run.session?.id);
  const points = useStore(app.baselines, (store) => store.points);
  const sessions = useStore(app.library, ({ library }) => library?.sessions);
  const keeps = usePointFilter();
  return useMemo(
    () =>
      picked
        .filter(({ id }) => id !== current)
        .map(({ id, colour }) => ({
          id,
          name: sessions?.find((session) => session.id === id)?.name ?? points[id]?.name ?? '…',
          colour: baselineColour(colour),
          points: points[id]?.points.filter(keeps) ?? [],
        })),
    [picked, current, points, sessions, keeps],
  );
}

/** Each baseline as a legend names it. */
export function useBaselineLegend(): LegendItem[] {
  return useBaselines().map(({ name, colour }) => ({ label: name, glyph: ringOf(colour) }));
}
