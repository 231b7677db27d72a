import { Group } from '@mantine/core';
import { useMemo } from 'react';
import { ChartCard } from '../charts/chart-card.tsx';
import { ScalingChart } from '../charts/scaling-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { fieldTitle, tellingFields } from '../series/fields.ts';
import { dashOf } from '../series/marks.ts';
import { type Scaling, scalingFields, scalingOf } from '../series/scaling.ts';
import { AxisChoice, fieldChoices, metricChoices } from './axis-choice.tsx';
import { Hint, MissingPoints, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import { focusTable } from './data-grid.tsx';
import { useApp, useLevelNames, useView } from './use-app.ts';
import { useLevelLegend, useLinked, usePlane, useZoomed } from './use-linked.ts';

/** More line patterns than this are not told apart by a legend either. */
const mostPatterns = 6;

export function ScalingPanel({ points }: ChartPanelProps) {
  const app = useApp();
  const levels = useLevelNames();
  const linked = useLinked();
  const wanted = useView((view) => view.scaling);
  const fields = useMemo(() => scalingFields(points), [points]);
  const x = fields.includes(wanted.x) ? wanted.x : (fields[0] ?? wanted.x);
  const axes = useMemo(() => ({ x, y: wanted.y }), [x, wanted.y]);
  const { scales, zoom, onZoom, onScale } = usePlane('scaling', axes);
  const telling = useMemo(() => tellingFields(points, x), [points, x]);
  const whole = useMemo(
    () => scalingOf(points, axes, levels, { ...scales, telling }),
    [points, axes, levels, scales, telling],
  );
  const data = useZoomed(whole, zoom);
  const levelLegend = useLevelLegend();
  const rests = data.rests.filter((rest) => rest !== '');
  const patterns =
    rests.length <= mostPatterns ? rests.map((label) => ({ label, dash: dashOf(data.rests.indexOf(label)) })) : [];
  const medians =
    data.medianOver.length > 0
      ? [{ label: `medians over ${data.medianOver.map(fieldTitle).join(', ')}`, dash: undefined }]
      : [];
  const choose = (change: Partial<typeof wanted>): void => app.view.setState({ scaling: { ...axes, ...change } });
  return (
    <ChartCard
      title={`${data.y.metric.title} along ${data.x.metric.title}`}
      fileName={`scaling-${axes.y}-${axes.x}`}
      description={`${data.lines.length} lines, ${data.y.metric.title} along ${data.x.metric.title}. The table lists the same points.`}
      legend={[...levelLegend, ...patterns, ...medians]}
      heading={
        <Group gap={6} wrap="nowrap" flex={1} miw={0}>
          <AxisChoice
            sign="y"
            label="Metric"
            pixels={262}
            data={metricChoices}
            value={axes.y}
            onChange={(y) => choose({ y })}
          />
          <AxisChoice
            sign="along"
            label="Axis to scale along"
            pixels={240}
            data={fieldChoices(fields.length > 0 ? fields : [x])}
            value={x}
            onChange={(field) => choose({ x: field })}
          />
        </Group>
      }
      footer={<MissingPoints missing={data.missing} />}
      toCsv={() => csvOf(data)}
      onShowTable={focusTable}
      empty={emptyOf(points.length, fields.length, data.marks.length)}
    >
      {(size) => (
        <ScalingChart data={data} {...size} levels={levels} linked={linked} onZoom={onZoom} onScale={onScale} />
      )}
    </ChartCard>
  );
}

function emptyOf(points: number, fields: number, marks: number) {
  if (points > 0 && fields === 0)
    return (
      <Hint title="Nothing to scale along yet">
        No level has two points that differ in one number alone. Give tokens, batch, hidden size or any other field of
        the sweep several values, such as 256,1024,4096.
      </Hint>
    );
  return marks === 0 ? <NothingToDraw /> : undefined;
}

function csvOf({ x, y, marks }: Scaling): string {
  return toCsv(
    ['id', 'level', 'phase', x.metric.id, y.metric.id],
    marks.map(({ id, level, phase, point }) => [id, level, phase, x.metric.read(point), y.metric.read(point)]),
  );
}
