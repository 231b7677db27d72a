/** For a model and a device: what one sequence's cache takes and how many sequences fit, per level, along the context. */
import { Autocomplete, Group, TextInput } from '@mantine/core';
import { formatBytes, formatMetric } from '../../src-main/contract/format.ts';
import type { MemoryPlan } from '../../src-main/contract/model.ts';
import { ChartCard, type LegendItem } from '../charts/chart-card.tsx';
import { PlannerChart } from '../charts/planner-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { plannerMark } from '../series/planner.ts';
import { Hint } from './chart-hints.tsx';
import classes from './charts-panel.module.css';
import { useApp, useLevelNames, useView } from './use-app.ts';
import { usePlanner, usePlannerSeries } from './use-planner.ts';

export function PlannerPanel() {
  const levels = useLevelNames();
  const error = usePlanner((state) => state.errors.model);
  const level = usePlanner((state) => state.level);
  const series = usePlannerSeries();
  const legend = useLegend(series?.plan);
  const plan = series?.plan;
  return (
    <ChartCard
      title={plan ? `Memory plan of ${plan.model}, ${formatBytes(plan.memoryBytes)}` : 'Memory plan'}
      fileName={`plan-${plan?.model.replaceAll(/[^\w.-]+/g, '-') ?? 'none'}`}
      description={plan ? describe(plan) : 'No plan yet.'}
      legend={legend}
      heading={<Fields />}
      footer={<div className={classes.missing}>{plan && inWords(plan)}</div>}
      toCsv={() => (plan ? csvOf(plan) : '')}
      onShowTable={() => document.getElementById('points')?.focus()}
      empty={
        error ? (
          <Hint title="No plan for this model">{error}</Hint>
        ) : series ? undefined : (
          <Hint title="Planning">The host is asked.</Hint>
        )
      }
    >
      {(size) =>
        series && (
          <PlannerChart data={series.data} asked={series.plan.context} level={level} levels={levels} {...size} />
        )
      }
    </ChartCard>
  );
}

function Fields() {
  const { view } = useApp();
  const fields = useView((state) => state.planner);
  const models = usePlanner((state) => state.models);
  const errors = usePlanner((state) => state.errors);
  const edit = (change: Partial<typeof fields>): void => view.setState({ planner: { ...fields, ...change } });
  return (
    <Group gap={6} wrap="nowrap" flex={1} miw={0}>
      <Autocomplete
        size="xs"
        flex="0 1 196px"
        miw={60}
        aria-label="Model to plan for"
        placeholder="model, folder or config.json"
        data={[...models]}
        value={fields.model}
        error={Boolean(errors.model)}
        onChange={(model) => edit({ model })}
      />
      <TextInput
        size="xs"
        flex="0 1 132px"
        miw={112}
        aria-label="Memory of the device"
        leftSection="device"
        leftSectionWidth={58}
        value={fields.memory}
        error={Boolean(errors.memory)}
        title={errors.memory ?? 'Memory of the device, weights included'}
        onChange={(event) => edit({ memory: event.currentTarget.value })}
      />
      <TextInput
        size="xs"
        flex="0 1 140px"
        miw={118}
        aria-label="Context in tokens"
        leftSection="context"
        leftSectionWidth={64}
        value={fields.context}
        error={Boolean(errors.context)}
        title={errors.context ?? 'Tokens of a sequence'}
        onChange={(event) => edit({ context: event.currentTarget.value })}
      />
    </Group>
  );
}

function useLegend(plan: MemoryPlan | undefined): LegendItem[] {
  const { view } = useApp();
  const levels = useLevelNames();
  const hidden = useView((state) => state.hiddenLevels);
  return (plan?.curves ?? []).map(({ level }) => ({
    label: level,
    mark: plannerMark(level, levels),
    isHidden: hidden.includes(level),
    onToggle: () => view.toggleLevel(level),
  }));
}

const describe = ({ model, curves, context }: MemoryPlan): string =>
  `Cache of one sequence and sequences that fit along the context, ${model}, ${curves.length} levels. The table lists the figures at ${context} tokens.`;

function inWords({ weightBytes, memoryBytes, context, maxPositions }: MemoryPlan): string {
  if (weightBytes > memoryBytes) return `the weights alone take ${formatBytes(weightBytes)}: nothing fits beside them`;
  if (context > maxPositions) return `the model itself ends at ${formatMetric(maxPositions, 'count')} tokens`;
  return `weights ${formatBytes(weightBytes)}, ${formatBytes(Math.max(0, memoryBytes - weightBytes))} left for caches · by formula, with the engine’s pages, without workspace`;
}

function csvOf({ curves }: MemoryPlan): string {
  return toCsv(
    ['level', 'context', 'bytesPerSequence', 'largestBatch'],
    curves.flatMap(({ level, places }) =>
      places.map(({ context, bytesPerSequence, largestBatch }) => [level, context, bytesPerSequence, largestBatch]),
    ),
  );
}
