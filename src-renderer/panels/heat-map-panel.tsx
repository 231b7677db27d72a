import { Group } from '@mantine/core';
import { useMemo } from 'react';
import { ChartCard } from '../charts/chart-card.tsx';
import { HeatMapChart } from '../charts/heat-map-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { fieldTitle, varyingFields } from '../series/fields.ts';
import { type HeatMap, heatMapOf } from '../series/heat-map.ts';
import { AxisChoice, fieldChoices, metricChoices } from './axis-choice.tsx';
import { Hint, MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useApp, useLevelNames, useView } from './use-app.ts';
import { useLevelLegend, useLinked } from './use-linked.ts';

export function HeatMapPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const linked = useLinked();
  const legend = useLevelLegend();
  const wanted = useView((view) => view.heatMap);
  const fields = useMemo(
    () =>
      fieldsOf(
        points.map(({ config }) => config.level),
        varyingFields(points),
      ),
    [points],
  );
  const x = fields.includes(wanted.x) ? wanted.x : (fields.find((field) => field !== wanted.y) ?? wanted.x);
  const y = fields.includes(wanted.y) && wanted.y !== x ? wanted.y : (fields.find((field) => field !== x) ?? wanted.y);
  const axes = useMemo(() => ({ x, y, colour: wanted.colour }), [x, y, wanted.colour]);
  const scaleKey = `heat-map ${axes.colour}`;
  const scale = useView(({ scales }) => scales[scaleKey]);
  const data = useMemo(() => heatMapOf(points, axes, levels, scale), [points, axes, levels, scale]);
  // An axis that is asked for where the other one stands changes places with it.
  const choose = (change: Partial<typeof wanted>): void => {
    const next = { ...axes, ...change };
    app.view.setState({ heatMap: next.x === next.y ? { ...next, x: axes.y, y: axes.x } : next });
  };
  return (
    <ChartCard
      title={`${data.metric.title} over ${fieldTitle(x)} and ${fieldTitle(y)}`}
      fileName={`heat-map-${axes.colour}-${x}-${y}`}
      description={`${data.cells.length} cells, ${data.metric.title} over ${fieldTitle(x)} and ${fieldTitle(y)}. The table lists the same points.`}
      legend={legend}
      heading={
        <Group gap={6} wrap="nowrap" flex={1} miw={0}>
          <AxisChoice
            sign="colour"
            label="Metric shown as colour"
            pixels={284}
            data={metricChoices}
            value={axes.colour}
            onChange={(colour) => choose({ colour })}
          />
          <AxisChoice
            sign="x"
            label="Horizontal axis"
            pixels={200}
            data={fieldChoices(fields)}
            value={x}
            onChange={(field) => choose({ x: field })}
          />
          <AxisChoice
            sign="y"
            label="Vertical axis"
            pixels={200}
            data={fieldChoices(fields)}
            value={y}
            onChange={(field) => choose({ y: field })}
          />
        </Group>
      }
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={emptyOf(points.length, fields.length, data.cells.length)}
    >
      {(size) => (
        <HeatMapChart
          data={data}
          {...size}
          levels={levels}
          linked={linked}
          onScale={(next) => app.view.setScale(scaleKey, next)}
        />
      )}
    </ChartCard>
  );
}

/** Of several levels, the level itself is an axis too. */
const fieldsOf = (levels: readonly string[], varying: readonly string[]): string[] =>
  new Set(levels).size > 1 ? ['level', ...varying] : [...varying];

function emptyOf(points: number, fields: number, cells: number) {
  if (points > 0 && fields < 2)
    return (
      <Hint title="A heat map needs two things that vary">
        Give tokens, batch, hidden size or any other field of the sweep several values, such as 256,1024,4096, or show
        all phases.
      </Hint>
    );
  return cells === 0 ? <NothingToDraw /> : undefined;
}

const csvOf = ({ x, y, metric, cells }: HeatMap): string =>
  toCsv(
    [x.field, y.field, `median ${metric.id}`, 'points'],
    cells.map(({ column, row, value, ids }) => [x.values[column], y.values[row], value, ids.length]),
  );
