import { useMemo } from 'react';
import { useStore } from 'zustand';
import type { PlanRow } from '../../src-main/contract/model.ts';
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

/**
 * Rows of the plan with what was proven of them. A proof has its own, smaller memory: of its row only what was allocated
 * counts, or why nothing could be.
 */
export function usePlanRows(): readonly PlanRow[] {
  const plan = usePlanner((state) => state.plan);
  const proofs = usePlanner((state) => state.proofs);
  return useMemo(
    () =>
      (plan?.rows ?? []).map((row) => {
        const { proof, refused } = proofs[row.level] ?? {};
        return refused === undefined ? { ...row, ...(proof && { proof }) } : { level: row.level, refused };
      }),
    [plan, proofs],
  );
}
