/** How the user looks at the points: what is selected, which axes, how wide the columns are. */
import { createStore } from 'zustand/vanilla';
import type { Verdict } from '../../src-main/contract/comparison.ts';
import type { Prices } from '../../src-main/contract/devices.ts';
import type { Phase } from '../../src-main/contract/sweep.ts';

export const leftPanes = ['sweep', 'sessions', 'fleet'] as const;
export type LeftPane = (typeof leftPanes)[number];

export interface View {
  /** Ids of points; the last one is shown in the inspector. Shared by every chart and the table. */
  readonly selected: readonly string[];
  /** Points of other phases are left out of the charts; undefined = all phases. */
  readonly phase: Phase | undefined;
  readonly chart: string;
  /** Whether the chart keeps the figures of the selected point open. */
  readonly isPinned: boolean;
  /** Ids of points that were dragged over: all others are dimmed in the charts and left out of the table. */
  readonly brushed: ReadonlySet<string> | undefined;
  readonly hiddenLevels: readonly string[];
  /** Words and comparisons as `series/filter` reads them. */
  readonly filter: string;
  /** Ends of axes that the user moved, by chart and axes: data that arrive do not move them back. */
  readonly zoom: Readonly<Record<string, Zoom>>;
  /** Scales that differ from the usual one, by chart and axis. */
  readonly scales: Readonly<Record<string, 'log' | 'linear'>>;
  /** Vertical axis undefined: the error that the points are best judged by. */
  readonly tradeOff: { readonly x: string; readonly y: string | undefined; readonly size: string };
  /** Axes that the points do not offer fall back to one that they do. */
  readonly scaling: { readonly x: string; readonly y: string };
  readonly heatMap: { readonly x: string; readonly y: string; readonly colour: string };
  /** Fields of the planner as typed. */
  readonly planner: { readonly model: string; readonly memory: string; readonly context: string };
  /** What gives marks their colour and shape; devices only where there are several. */
  readonly colourBy: 'level' | 'device';
  /** Of an hour of a device, by its name, in the user's money. */
  readonly prices: Prices;
  readonly sort: { readonly column: string; readonly descending: boolean } | undefined;
  /** What the left column shows. */
  readonly left: LeftPane;
  /** What lies over the window and takes its keys. */
  readonly overlay: 'commands' | 'keys' | undefined;
  /** Columns of a table that the user chose, by table; others show the usual ones. */
  readonly columns: Readonly<Record<string, readonly string[]>>;
  /** Sessions that the current one is seen against. */
  readonly baselines: readonly Baseline[];
  /** Other verdicts are left out of a comparison; undefined = all are shown. */
  readonly verdict: Verdict | undefined;
  readonly comparisonSort: { readonly column: string; readonly descending: boolean } | undefined;
  readonly layout: {
    readonly leftPixels: number;
    readonly rightPixels: number;
    readonly bottomPixels: number;
  };
}

export interface Baseline {
  /** Of the session. */
  readonly id: string;
  /** 0 to `mostBaselines` - 1. */
  readonly colour: number;
}

/** As many as there are colours that can be told apart. */
export const mostBaselines = 6;

export interface Zoom {
  readonly x: readonly [number, number];
  readonly y: readonly [number, number];
}

const firstView: View = {
  selected: [],
  phase: 'decode',
  chart: 'trade-off',
  isPinned: false,
  brushed: undefined,
  hiddenLevels: [],
  filter: '',
  zoom: {},
  scales: {},
  scaling: { x: 'seqLen', y: 'medianSeconds' },
  heatMap: { x: 'seqLen', y: 'level', colour: 'tokensPerSecond' },
  planner: { model: 'Llama-3.1-8B', memory: '80 GiB', context: '8192' },
  tradeOff: { x: 'multiplierVsF32Mha', y: undefined, size: 'tokensPerSecond' },
  colourBy: 'level',
  prices: {},
  sort: undefined,
  left: 'sweep',
  overlay: undefined,
  columns: {},
  baselines: [],
  verdict: undefined,
  comparisonSort: undefined,
  layout: { leftPixels: 300, rightPixels: 330, bottomPixels: 240 },
};

/** The part of `localStorage` that is needed; a window without one forgets. */
export interface Memory {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

const memoryKey = 'fastmqa.view';
const remembered = [
  'layout',
  'tradeOff',
  'chart',
  'scaling',
  'heatMap',
  'planner',
  'scales',
  'columns',
  'baselines',
  'prices',
] as const;

export function createViewStore(memory?: Memory) {
  const store = createStore<View>(() => ({ ...firstView, ...recall(memory) }));
  store.subscribe((view, before) => {
    if (remembered.every((key) => view[key] === before[key])) return;
    memory?.setItem(memoryKey, JSON.stringify(Object.fromEntries(remembered.map((key) => [key, view[key]]))));
  });
  return {
    ...store,
    /**
     * @param add keeps what is selected and toggles this point
     * @param isPinned whether the chart opens its figures: the table has them in the row itself
     */
    select: (id: string, add = false, isPinned = true) =>
      store.setState(({ selected }) => {
        if (!add) return { selected: [id], isPinned };
        return {
          isPinned,
          selected: selected.includes(id) ? selected.filter((other) => other !== id) : [...selected, id],
        };
      }),
    /** For a new sweep: nothing of this outlives the points it is about. */
    clearSelection: () => store.setState({ selected: [], isPinned: false, brushed: undefined, zoom: {} }),
    brush: (ids: readonly string[] | undefined) =>
      store.setState({ brushed: ids && ids.length > 0 ? new Set(ids) : undefined }),
    toggleLevel: (level: string) =>
      store.setState(({ hiddenLevels }) => ({
        hiddenLevels: hiddenLevels.includes(level)
          ? hiddenLevels.filter((other) => other !== level)
          : [...hiddenLevels, level],
      })),
    /** A baseline keeps its colour until it is let go. */
    toggleBaseline: (id: string) =>
      store.setState(({ baselines }) => {
        if (baselines.some((baseline) => baseline.id === id))
          return { baselines: baselines.filter((baseline) => baseline.id !== id) };
        const free = Array.from({ length: mostBaselines }, (_, colour) => colour).find((colour) =>
          baselines.every((baseline) => baseline.colour !== colour),
        );
        return free === undefined ? {} : { baselines: [...baselines, { id, colour: free }] };
      }),
    /** @param columns undefined: the usual ones */
    setColumns: (table: string, columns: readonly string[] | undefined) =>
      store.setState(({ columns: { [table]: _, ...others } }) => ({
        columns: columns ? { ...others, [table]: columns } : others,
      })),
    setScale: (key: string, scale: 'log' | 'linear') =>
      store.setState(({ scales }) => ({ scales: { ...scales, [key]: scale } })),
    setZoom: (key: string, ends: Zoom | undefined) =>
      store.setState(({ zoom: { [key]: _, ...others } }) => ({ zoom: ends ? { ...others, [key]: ends } : others })),
    /** Escape: takes back the last thing that stands in the way. */
    stepBack: () =>
      store.setState(({ isPinned, brushed }) =>
        isPinned ? { isPinned: false } : brushed ? { brushed: undefined } : {},
      ),
    /** @param pricePerHour undefined = none is known */
    setPrice: (device: string, pricePerHour: number | undefined) =>
      store.setState(({ prices: { [device]: _, ...others } }) => ({
        prices: pricePerHour === undefined ? others : { ...others, [device]: pricePerHour },
      })),
    resize: (change: Partial<View['layout']>) => store.setState(({ layout }) => ({ layout: { ...layout, ...change } })),
  };
}

function recall(memory?: Memory): Partial<View> {
  try {
    const stored = JSON.parse(memory?.getItem(memoryKey) ?? '{}') as Partial<View>;
    return {
      layout: { ...firstView.layout, ...stored.layout },
      tradeOff: { ...firstView.tradeOff, ...stored.tradeOff },
      scaling: { ...firstView.scaling, ...stored.scaling },
      heatMap: { ...firstView.heatMap, ...stored.heatMap },
      planner: { ...firstView.planner, ...stored.planner },
      scales: { ...stored.scales },
      columns: { ...stored.columns },
      baselines: (stored.baselines ?? []).slice(0, mostBaselines),
      prices: { ...stored.prices },
      chart: stored.chart ?? firstView.chart,
    };
  } catch {
    return {}; // written by another version: not worth a word
  }
}
