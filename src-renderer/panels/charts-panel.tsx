/** The centre: one chart at a time, chosen by tab, all over the same points. */
import { Tabs } from '@mantine/core';
import { Boundary } from './boundary.tsx';
import { charts } from './chart-list.ts';
import classes from './charts-panel.module.css';
import { FilterBar } from './filter-bar.tsx';
import { useApp, useView } from './use-app.ts';
import { useChartPoints } from './use-points.ts';

export function ChartsPanel() {
  const app = useApp();
  const chart = useView((view) => view.chart);
  const shown = charts.find(({ id }) => id === chart) ?? charts[0];
  const points = useChartPoints();
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
      </div>
      {/* A plan has no points to filter. */}
      {shown.id !== 'planner' && <FilterBar />}
      {charts.map(({ id, title, Chart }) => (
        <Tabs.Panel key={id} value={id} className={classes.panel}>
          <Boundary of={`the chart ${title}`}>
            <Chart points={points} />
          </Boundary>
        </Tabs.Panel>
      ))}
    </Tabs>
  );
}
