/** How a component reads the stores: each hook takes the slice it needs and paints again only when that changes. */
import { createContext, useContext } from 'react';
import { useStore } from 'zustand';
import { useShallow } from 'zustand/react/shallow';
import type { RunState } from '../../src-main/contract/run-state.ts';
import { type Kind, kindOf, kindOfSweep } from '../series/kind.ts';
import type { App } from '../store/app.ts';
import type { View } from '../store/view.ts';

export const AppContext = createContext<App | undefined>(undefined);

export function useApp(): App {
  const app = useContext(AppContext);
  if (!app) throw new Error('there is no AppContext above this component');
  return app;
}

export const useRun = <Slice>(select: (run: RunState) => Slice): Slice =>
  useStore(useApp().run, ({ run }) => select(run));

export const useConnection = () => useStore(useApp().run, ({ connection }) => connection);

export const useView = <Slice>(select: (view: View) => Slice): Slice => useStore(useApp().view, select);

export const useDraft = () => useStore(useApp().draft, ({ draft }) => draft);

export const useLevels = () => useStore(useApp().catalogue, ({ levels }) => levels);

/** Levels of the sweep in the order of the catalogue: what a legend names before the points are there, so that it never grows. */
export function usePlannedLevels(): readonly string[] {
  const names = useLevelNames();
  const planned = useRun(
    useShallow(({ sweep }) => (sweep ? [sweep, ...(sweep.also ?? [])].flatMap(({ axes }) => axes.level ?? []) : [])),
  );
  return names.filter((name) => planned.includes(name));
}

/** What is measured, or would be by the form. */
export function useKind(): Kind {
  const { axes, phases } = useDraft();
  const given = (axis: string) => (axes[axis] ? [axes[axis]] : []);
  const drafted = kindOf([{ model: given('model'), layer: given('layer'), phase: phases }]);
  return useRun(({ sweep }) => (sweep ? kindOfSweep(sweep) : drafted));
}

export const useLevelNames = (): readonly string[] =>
  useStore(
    useApp().catalogue,
    useShallow(({ levels }) => levels.map(({ name }) => name)),
  );
