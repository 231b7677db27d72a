/** How the user looks at the points: what is selected, which axes, how wide the columns are. */
import { createStore } from 'zustand/vanilla';
import type { Phase } from '../../src-main/contract/sweep.ts';

export interface View {
  /** Ids of points; the last one is shown in the inspector. Shared by every chart and the table. */
  readonly selected: readonly string[];
  /** Points of other phases are left out of the charts; undefined = all phases. */
  readonly phase: Phase | undefined;
  readonly chart: string;
  readonly tradeOff: { readonly x: string; readonly y: string; readonly size: string };
  readonly sort: { readonly column: string; readonly descending: boolean } | undefined;
  readonly layout: {
    readonly leftPixels: number;
    readonly rightPixels: number;
    readonly bottomPixels: number;
  };
}

const firstView: View = {
  selected: [],
  phase: 'decode',
  chart: 'trade-off',
  tradeOff: { x: 'multiplierVsF32Mha', y: 'relativeL2', size: 'tokensPerSecond' },
  sort: undefined,
  layout: { leftPixels: 300, rightPixels: 330, bottomPixels: 240 },
};

/** The part of `localStorage` that is needed; a window without one forgets. */
export interface Memory {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

const memoryKey = 'fastmqa.view';

export function createViewStore(memory?: Memory) {
  const store = createStore<View>(() => ({ ...firstView, ...recall(memory) }));
  store.subscribe(({ layout, tradeOff, chart }, before) => {
    if (layout === before.layout && tradeOff === before.tradeOff && chart === before.chart) return;
    memory?.setItem(memoryKey, JSON.stringify({ layout, tradeOff, chart }));
  });
  return {
    ...store,
    /** @param add keeps what is selected and toggles this point */
    select: (id: string, add = false) =>
      store.setState(({ selected }) => {
        if (!add) return { selected: [id] };
        return { selected: selected.includes(id) ? selected.filter((other) => other !== id) : [...selected, id] };
      }),
    clearSelection: () => store.setState({ selected: [] }),
    resize: (change: Partial<View['layout']>) => store.setState(({ layout }) => ({ layout: { ...layout, ...change } })),
  };
}

function recall(memory?: Memory): Partial<View> {
  try {
    const { layout, tradeOff, chart } = JSON.parse(memory?.getItem(memoryKey) ?? '{}') as Partial<View>;
    return {
      layout: { ...firstView.layout, ...layout },
      tradeOff: { ...firstView.tradeOff, ...tradeOff },
      chart: chart ?? firstView.chart,
    };
  } catch {
    return {}; // written by another version: not worth a word
  }
}
