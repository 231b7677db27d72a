/** Sessions that the current one is seen against: their points, and what the host finds when it compares them. */
import { createStore } from 'zustand/vanilla';
import type { Comparison } from '../../src-main/contract/comparison.ts';
import type { SessionPoints } from '../../src-main/contract/library.ts';
import type { RunState } from '../../src-main/contract/run-state.ts';
import type { Client } from '../client/client.ts';
import type { createRunStore } from './run.ts';
import type { createViewStore } from './view.ts';

export type Compared =
  | { readonly state: 'asked' }
  | { readonly state: 'known'; readonly comparison: Comparison }
  | { readonly state: 'refused'; readonly reason: string };

export interface BaselinesStore {
  /** By id of the session. */
  readonly points: Readonly<Record<string, SessionPoints>>;
  /** By {@link comparisonKey}. */
  readonly compared: Readonly<Record<string, Compared>>;
}

/** A comparison holds for the points there were. */
export const comparisonKey = (baseline: string, { session, done }: RunState): string =>
  `${baseline} ${session?.id} ${done}`;

export function createBaselinesStore(
  client: Client,
  run: ReturnType<typeof createRunStore>,
  view: ReturnType<typeof createViewStore>,
) {
  const store = createStore<BaselinesStore>(() => ({ points: {}, compared: {} }));
  const asked = new Set<string>();

  async function load(id: string): Promise<void> {
    if (asked.has(id)) return;
    asked.add(id);
    try {
      const points = await client.api.sessionPoints({ id });
      store.setState((state) => ({ points: { ...state.points, [id]: points } }));
    } catch {
      // It was deleted, here or in another window: a baseline that is no more is none.
      asked.delete(id);
      view.setState(({ baselines }) => ({ baselines: baselines.filter((baseline) => baseline.id !== id) }));
    }
  }

  const follow = (): void => {
    for (const { id } of view.getState().baselines) void load(id);
  };

  return {
    ...store,
    start: (): void => {
      follow();
      view.subscribe(({ baselines }, before) => {
        if (baselines === before.baselines) return;
        for (const { id } of before.baselines) if (!baselines.some((baseline) => baseline.id === id)) asked.delete(id);
        follow();
      });
    },
    /** Compares the current session, as far as it is recorded, with a baseline. */
    compare: async (baseline: string): Promise<void> => {
      const { run: now } = run.getState();
      const key = comparisonKey(baseline, now);
      if (!now.session || store.getState().compared[key]) return;
      const keep = (compared: Compared): void =>
        store.setState((state) => ({ compared: { ...withoutOlder(state.compared, baseline), [key]: compared } }));
      keep({ state: 'asked' });
      try {
        const comparison = await client.api.compareSessions({ before: baseline, after: now.session.id });
        keep({ state: 'known', comparison });
      } catch (error) {
        keep({ state: 'refused', reason: (error as Error).message });
      }
    },
  };
}

const withoutOlder = (compared: BaselinesStore['compared'], baseline: string): BaselinesStore['compared'] =>
  Object.fromEntries(Object.entries(compared).filter(([key]) => !key.startsWith(`${baseline} `)));
