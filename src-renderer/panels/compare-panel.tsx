import { Popover, SegmentedControl, Select, Text } from '@mantine/core';
import { useStore } from 'zustand';
import { type Verdict, verdicts } from '../../src-main/contract/comparison.ts';
import { environmentInWords } from '../../src-main/contract/comparison-words.ts';
import { isSampling } from '../../src-main/contract/run-state.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { ComparisonChart, rowsThatFit, verdictGlyph } from '../charts/comparison-chart.tsx';
import { comparisonCsv, countVerdicts, ratioAxis, rowsOf, type Side } from '../series/comparison.ts';
import { Hint } from './chart-hints.tsx';
import classes from './charts-panel.module.css';
import own from './comparison.module.css';
import { focusTable } from './data-grid.tsx';
import { dateOf } from './session-words.ts';
import { useApp, useLevelNames, useRun, useView } from './use-app.ts';
import { useBaselineLegend, useBaselines } from './use-baselines.ts';
import { type SeenComparison, useCompared } from './use-compared.ts';
import { useLinked } from './use-linked.ts';

export function ComparePanel() {
  const levels = useLevelNames();
  const linked = useLinked();
  const baselines = useBaselines();
  const compared = useCompared();
  const { sides, shown } = compared;
  const rows = rowsOf(shown);
  const empty = useWhyEmpty(compared);
  const names = baselines.map(({ name }) => name).join(', ');
  return (
    <ChartCard
      title={names ? `Time against ${names}` : 'Time against a baseline'}
      fileName="compare"
      description={describe(compared)}
      legend={[...useBaselineLegend(), ...(compared.all.length > 0 ? verdictLegend : [])]}
      heading={compared.all.length > 0 ? <VerdictChoice compared={compared} /> : undefined}
      footer={<Differences sides={sides} />}
      toCsv={() => comparisonCsv(shown)}
      onShowTable={focusTable}
      empty={empty}
    >
      {(size) => {
        const fitting = rows.slice(0, rowsThatFit(size.height, sides.length));
        return (
          <ComparisonChart
            rows={fitting}
            axis={ratioAxis(fitting.flatMap(({ entries }) => entries))}
            {...size}
            levels={levels}
            linked={linked}
          />
        );
      }}
    </ChartCard>
  );
}

const verdictLegend = [
  ...(['FASTER', 'SLOWER', 'SAME', 'UNSURE'] as const).map((verdict) => ({
    label: verdict,
    glyph: verdictGlyph(verdict, 'var(--app-quiet)'),
  })),
  { label: 'range if timed again', dash: undefined },
];

function describe({ all }: SeenComparison): string {
  const counts = countVerdicts(all);
  return `${verdicts.map((verdict) => `${counts[verdict]} ${verdict}`).join(', ')}. The table lists the same points.`;
}

function VerdictChoice({ compared: { all } }: { readonly compared: SeenComparison }) {
  const app = useApp();
  const verdict = useView((view) => view.verdict);
  const counts = countVerdicts(all);
  return (
    <SegmentedControl
      size="xs"
      aria-label="Verdicts shown"
      value={verdict ?? 'all'}
      onChange={(value) => app.view.setState({ verdict: value === 'all' ? undefined : (value as Verdict) })}
      data={[
        { value: 'all', label: `all ${all.length}` },
        ...(['SLOWER', 'FASTER', 'UNSURE', 'SAME'] as const).map((value) => ({
          value,
          label: `${value} ${counts[value]}`,
        })),
      ]}
    />
  );
}

function useWhyEmpty({ sides, all, shown, refused }: SeenComparison) {
  const session = useRun((run) => run.session);
  const isQuiet = useRun(isSampling);
  const baselines = useBaselines();
  if (!session)
    return <Hint title="Nothing to compare yet">Run a sweep, or open a session from the library on the left.</Hint>;
  if (baselines.length === 0) return <PickBaseline />;
  if (isQuiet)
    return (
      <Hint title="Compared when the sweep rests">
        Reading sessions now would disturb the samples. Pause or wait for the end: verdicts then appear here.
      </Hint>
    );
  if (refused.length > 0) return <Hint title={`${refused[0].name} cannot be compared`}>{refused[0].reason}</Hint>;
  if (sides.length === 0) return <Text size="sm" />; // a moment: a word would only flash
  if (all.length === 0)
    return (
      <Hint title="No point in common">
        Points are matched by their whole configuration; the filter and the phase above hold here too.
      </Hint>
    );
  if (shown.length === 0) return <Hint title="No point has this verdict">Choose another one above.</Hint>;
  return undefined;
}

function PickBaseline() {
  const app = useApp();
  const current = useRun((run) => run.session?.id);
  const sessions = useStore(app.library, ({ library }) => library?.sessions);
  const others = (sessions ?? []).filter(({ id }) => id !== current);
  if (others.length === 0)
    return (
      <Hint title="No other session to compare with">
        Run the sweep again after a change, or drop a session file on this window.
      </Hint>
    );
  return (
    <div className={classes.empty}>
      <Text fw={600} c="var(--app-text)">
        Compare with which session?
      </Text>
      <div className={own.pick}>
        <Select
          size="xs"
          aria-label="Baseline"
          placeholder="Choose a baseline"
          searchable
          data={others.map((session) => ({ value: session.id, label: `${session.name} · ${dateOf(session)}` }))}
          value={null}
          onChange={(id) => id && app.view.toggleBaseline(id)}
        />
      </div>
      <Text size="sm">Or mark several with their rings under Sessions: each gets a colour.</Text>
    </div>
  );
}

/** One line, so that the chart stays where it is; everything that differs in a list of its own. */
function Differences({ sides }: { readonly sides: readonly Side[] }) {
  const told = sides.flatMap(({ baseline, comparison }) => [
    ...comparison.environment.map((change) => `${baseline.name}: ${environmentInWords(change)}`),
    ...lone(comparison.onlyBefore.length, `only in ${baseline.name}`),
    ...lone(comparison.onlyAfter.length, `not in ${baseline.name}`),
  ]);
  if (sides.length === 0) return <div className={classes.missing} />;
  if (told.length === 0) return <div className={classes.missing}>measured in the same environment</div>;
  return (
    <div className={classes.missing}>
      <Popover position="top-start" width={460} shadow="md">
        <Popover.Target>
          <button type="button">
            {told.length} {told.length === 1 ? 'difference' : 'differences'} between the sessions: {told[0]}
            {told.length > 1 && ' …'}
          </button>
        </Popover.Target>
        <Popover.Dropdown>
          <ul className={classes.missingList}>
            {told.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </Popover.Dropdown>
      </Popover>
    </div>
  );
}

const lone = (count: number, where: string): string[] =>
  count === 0 ? [] : [`${count} ${count === 1 ? 'point is' : 'points are'} ${where}`];
