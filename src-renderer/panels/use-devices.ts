/** Points of several devices: what tells them apart, and what an hour of each costs. */
import { useMemo } from 'react';
import { useShallow } from 'zustand/react/shallow';
import { deviceOf, withPrices } from '../../src-main/contract/devices.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { LegendItem } from '../charts/chart-card.tsx';
import { markOf } from '../series/marks.ts';
import { useRun, useView } from './use-app.ts';
import { useLevelLegend } from './use-linked.ts';

/** Names of the devices of the current session; none where its own machine measured it. */
export const useDeviceNames = (): readonly string[] =>
  useRun(useShallow(({ points }) => [...new Set(points.flatMap(({ device }) => device?.name ?? []))].sort()));

/** What measured the session in view, which need not be this machine; undefined before its first point. */
export function useDeviceInWords(): string | undefined {
  const names = useDeviceNames();
  const own = useRun(({ points: [point], environment }) => point && environment && deviceOf(point, environment).name);
  return names.length > 1 ? `${names.length} devices` : own;
}

/** Devices as what marks are told apart by, where the user asked for it and there are several. */
export function useDeviceGroups(): readonly string[] | undefined {
  const names = useDeviceNames();
  const isByDevice = useView(({ colourBy }) => colourBy === 'device');
  return isByDevice && names.length > 1 ? names : undefined;
}

export function useGroupLegend(): LegendItem[] {
  const levels = useLevelLegend();
  const groups = useDeviceGroups();
  return groups ? groups.map((name) => ({ label: name, mark: markOf(name, groups) })) : levels;
}

/** With the price of an hour where the user gave one, so that metrics of money apply. */
export function usePricedPoints(points: readonly Point[]): readonly Point[] {
  const prices = useView((view) => view.prices);
  const here = useRun(({ environment }) => environment?.cpu ?? '');
  return useMemo(() => withPrices(points, prices, here), [points, prices, here]);
}
