/** The centre: one chart at a time, chosen by tab, all over the same points. */
import { SegmentedControl, Tabs } from '@mantine/core';
import { useMemo } from 'react';
import { useShallow } from 'zustand/react/shallow';
import type { Point } from '../../src-main/contract/metrics.ts';
import { type Phase, phases } from '../../src-main/contract/sweep.ts';
import { charts } from './chart-list.ts';
import classes from './charts-panel.module.css';
import { useApp, useRun, useView } from './use-app.ts';

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

/** A phase that the sweep does not have is no filter: it would hide everything. */
function useShownPoints(): readonly Point[] {
  const points = useRun((run) => run.points);
  const phase = useView((view) => view.phase);
  return useMemo(() => {
    const ofPhase = points.filter((point) => point.config.phase === phase);
    return phase === undefined || ofPhase.length === 0 ? points : ofPhase;
  }, [points, phase]);
}

function PhaseFilter() {
  const app = useApp();
  const phase = useView((view) => view.phase);
  // From what was asked for, not from what has arrived: the control must not change while points come in.
  const planned = useRun(
    useShallow((run) => phases.filter((name) => (run.sweep?.axes.phase ?? ['prefill', 'decode']).includes(name))),
  );
  return (
    <SegmentedControl
      size="xs"
      aria-label="Phase shown in the charts"
      value={phase ?? 'all'}
      onChange={(value) => app.view.setState({ phase: value === 'all' ? undefined : (value as Phase) })}
      data={[...planned.map((name) => ({ value: name, label: name })), { value: 'all', label: 'all' }]}
    />
  );
}
