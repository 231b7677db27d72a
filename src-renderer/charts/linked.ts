/** What every chart of points shares with every other view: one selection, one brush. */
import type { Axis } from '../series/axis.ts';

export interface Linked {
  /** Ids; the last one is the point looked at. */
  readonly selected: readonly string[];
  readonly isPinned: boolean;
  /** All other points are dimmed. */
  readonly brushed: ReadonlySet<string> | undefined;
  /** @param isPinned whether the charts keep its figures open; by default they do */
  readonly onSelect: (id: string, add: boolean, isPinned?: boolean) => void;
  readonly onBrush: (ids: readonly string[] | undefined) => void;
}

export interface Ends {
  readonly x: Axis['domain'];
  readonly y: Axis['domain'];
}

/** Keys that add a point to the selection instead of replacing it. */
export const isAdding = (event: { shiftKey: boolean; ctrlKey: boolean; metaKey: boolean }): boolean =>
  event.shiftKey || event.ctrlKey || event.metaKey;
