/** The part of the view that every chart shares, in the form that charts take. */
import { useCallback, useMemo } from 'react';
import type { LegendItem } from '../charts/chart-card.tsx';
import type { Ends, Linked } from '../charts/linked.ts';
import { type Axis, type Scale, zoomedAxis } from '../series/axis.ts';
import { markOf } from '../series/marks.ts';
import { useApp, useLevelNames, usePlannedLevels, useView } from './use-app.ts';

export function useLinked(): Linked {
  const { view } = useApp();
  const selected = useView((state) => state.selected);
  const isPinned = useView((state) => state.isPinned);
  const brushed = useView((state) => state.brushed);
  return useMemo(
    () => ({ selected, isPinned, brushed, onSelect: view.select, onBrush: view.brush }),
    [view, selected, isPinned, brushed],
  );
}

/** Scales and zoom of a chart with two axes, kept for each pair of axes. */
export function usePlane(chart: string, ids: { readonly x: string; readonly y: string }) {
  const { view } = useApp();
  const keys = { x: `${chart} x ${ids.x}`, y: `${chart} y ${ids.y}` };
  const x: Scale | undefined = useView(({ scales }) => scales[keys.x]);
  const y: Scale | undefined = useView(({ scales }) => scales[keys.y]);
  // Ends that suit one scale may be impossible on the other.
  const zoomKey = [chart, ids.x, ids.y, x, y].join(' ');
  const zoom = useView((state) => state.zoom[zoomKey]);
  return {
    scales: useMemo(() => ({ x, y }), [x, y]),
    zoom,
    onZoom: useCallback((ends: Ends | undefined) => view.setZoom(zoomKey, ends), [view, zoomKey]),
    onScale: (axis: 'x' | 'y', scale: Scale) => view.setScale(keys[axis], scale),
  };
}

/** Any series over two axes, between the ends the user chose. */
export const useZoomed = <Data extends { readonly x: Axis; readonly y: Axis }>(
  data: Data,
  zoom: Ends | undefined,
): Data =>
  useMemo(
    () => (zoom ? { ...data, x: zoomedAxis(data.x, zoom.x), y: zoomedAxis(data.y, zoom.y) } : data),
    [data, zoom],
  );

/** Levels of the sweep, each of which a click shows or hides. */
export function useLevelLegend(): LegendItem[] {
  const { view } = useApp();
  const levels = useLevelNames();
  const planned = usePlannedLevels();
  const hidden = useView((state) => state.hiddenLevels);
  return planned.map((level) => ({
    label: level,
    mark: markOf(level, levels),
    isHidden: hidden.includes(level),
    onToggle: () => view.toggleLevel(level),
  }));
}
