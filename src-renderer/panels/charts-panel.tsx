/** The centre: one chart at a time, chosen by tab, all over the same points. */
import { SegmentedControl, Tabs } from '@mantine/core';
import { useMemo } from 'react';
import { useShallow } from 'zustand/react/shallow';
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Phase, phases } from '../../src-main/contract/sweep.ts';
import { charts } from './chart-list.ts';
import classes from './charts-panel.module.css';
import { useApp, useDraft, useRun, useView } from './use-app.ts';

export function ChartsPanel() {
  const app = useApp();
  const chart = useView((view) => view.chart);
  const shown = charts.find(({ id }) => id === chart) ?? charts[0];
  const points = useShownPoints();
  return (
    <Tabs
      value={shown.id}
      onChange={(id) => id && app.view.setState({ chart: id })}
      className={classes.tabs}
      keepMounted={false}
    >
      <div className={classes.bar}>
        <Tabs.List>
          {charts.map(({ id, title }) => (
            <Tabs.Tab key={id} value={id}>
              {title}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <PhaseFilter />
      </div>
      {charts.map(({ id, Chart }) => (
        <Tabs.Panel key={id} value={id} className={classes.panel}>
          <Chart points={points} />
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}

/** From what was asked for, not from what has arrived: nothing may change while points come in. */
function usePlannedPhases(): readonly Phase[] {
  const drafted = useDraft().phases;
  const planned = useRun(
    useShallow(({ sweep }) =>
      sweep ? [sweep, ...(sweep.also ?? [])].flatMap(({ axes }) => axes.phase ?? []) : drafted,
    ),
  );
  return planned.length === 0 ? phases : phases.filter((phase) => planned.includes(phase));
}

/** The phase shown; a filter that would hide every point is none. */
function usePhase(): Phase | undefined {
  const planned = usePlannedPhases();
  const phase = useView((view) => view.phase);
  return phase !== undefined && planned.includes(phase) ? phase : undefined;
}

function useShownPoints(): readonly Point[] {
  const points = useRun((run) => run.points);
  const phase = usePhase();
  return useMemo(
    () => (phase === undefined ? points : points.filter((point) => point.config.phase === phase)),
    [points, phase],
  );
}

function PhaseFilter() {
  const app = useApp();
  return (
    <SegmentedControl
      size="xs"
      aria-label="Phase shown in the charts"
      value={usePhase() ?? 'all'}
      onChange={(value) => app.view.setState({ phase: value === 'all' ? undefined : (value as Phase) })}
      data={[...usePlannedPhases().map((name) => ({ value: name, label: name })), { value: 'all', label: 'all' }]}
    />
  );
}
