/** The left column: the sweep to measure, the sessions that were measured, or the machines that measure. */
import { Tabs } from '@mantine/core';
import { leftPanes } from '../store/view.ts';
import classes from './charts-panel.module.css';
import { FleetPanel } from './fleet-panel.tsx';
import { SessionsPanel } from './sessions-panel.tsx';
import { SweepForm } from './sweep-form.tsx';
import { useApp, useView } from './use-app.ts';

export function LeftPanel() {
  const app = useApp();
  const left = useView((view) => view.left);
  return (
    <Tabs
      value={left}
      onChange={(tab) => app.view.setState({ left: leftPanes.find((pane) => pane === tab) ?? 'sweep' })}
      className={classes.tabs}
      keepMounted={false}
    >
      <div className={classes.bar}>
        <Tabs.List aria-label="Left column">
          <Tabs.Tab value="sweep">Sweep</Tabs.Tab>
          <Tabs.Tab value="sessions">Sessions</Tabs.Tab>
          <Tabs.Tab value="fleet">Machines</Tabs.Tab>
        </Tabs.List>
      </div>
      <Tabs.Panel value="sweep" className={classes.column}>
        <SweepForm />
      </Tabs.Panel>
      <Tabs.Panel value="sessions" className={classes.column}>
        <SessionsPanel />
      </Tabs.Panel>
      <Tabs.Panel value="fleet" className={classes.column}>
        <FleetPanel />
      </Tabs.Panel>
    </Tabs>
  );
}
