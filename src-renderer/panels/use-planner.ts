import { useMemo } from 'react';
import { useStore } from 'zustand';
import { plannerOf } from '../series/planner.ts';
import type { PlannerStore } from '../store/planner.ts';
import { useApp, useView } from './use-app.ts';

export const usePlanner = <Slice>(select: (state: PlannerStore) => Slice): Slice => useStore(useApp().planner, select);

/** The plan as the chart shows it; undefined until there is one. */
export function usePlannerSeries() {
  const plan = usePlanner((state) => state.plan);
  const proofs = usePlanner((state) => state.proofs);
  const hidden = useView((view) => view.hiddenLevels);
  return useMemo(() => plan && { plan, data: plannerOf(plan, proofs, hidden) }, [plan, proofs, hidden]);
}
