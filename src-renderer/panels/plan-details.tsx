/** One level of the plan, whole: where its bytes are, what follows from them, and what a proof showed. */
import { Alert, Text, Title } from '@mantine/core';
import { cacheFormula } from '../../src-main/contract/cache-formula.ts';
import { formatBytes, formatMetric, formatNumber } from '../../src-main/contract/format.ts';
import { type MemoryPlan, own16Bit, type PlanProof, type PlanRow } from '../../src-main/contract/model.ts';
import { Swatch } from '../charts/mark.tsx';
import { plannerMark } from '../series/planner.ts';
import classes from './inspector.module.css';
import { Facts, Section } from './inspector-section.tsx';
import { useLevelNames, useLevels } from './use-app.ts';
import { usePlanner, usePlanRows } from './use-planner.ts';

export function PlanDetails() {
  const plan = usePlanner((state) => state.plan);
  const level = usePlanner((state) => state.level);
  const row = usePlanRows().find((candidate) => candidate.level === level);
  if (plan && row) return <Details plan={plan} row={row} />;
  return (
    <div className={classes.empty}>
      <Text fw={600} c="var(--app-text)" size="sm">
        No level selected
      </Text>
      <Text size="sm">Click a level in the table to see where its bytes are, and what a proof showed.</Text>
    </div>
  );
}

function Details({ plan, row }: { readonly plan: MemoryPlan; readonly row: PlanRow }) {
  const names = useLevelNames();
  const about = useLevels().find(({ name }) => name === row.level);
  return (
    <>
      <header className={classes.head}>
        <Title order={2} size="sm" className={classes.name}>
          <Swatch mark={plannerMark(row.level, names)} />
          {row.level}
        </Title>
        <Text size="xs" c="var(--app-quiet)">
          {row.level === own16Bit ? 'what the model itself would cache, in 16 bit' : about?.summary}
        </Text>
        <Text size="xs" c="var(--app-quiet)">
          {plan.model} · {formatMetric(plan.context, 'count')} tokens · {formatBytes(plan.memoryBytes)}
        </Text>
      </header>
      {row.caution !== undefined && (
        <Alert color="orange" className={classes.alert}>
          {row.caution}
        </Alert>
      )}
      {row.refused === undefined ? <Figures plan={plan} row={row} /> : <Text size="sm">{row.refused}</Text>}
      {row.proof && <Proof proof={row.proof} />}
    </>
  );
}

function Figures({ plan, row }: { readonly plan: MemoryPlan; readonly row: PlanRow }) {
  const { kinds = [], bytesPerSequence = 0, largestBatch = 0, concurrentUsers = 0 } = row;
  return (
    <>
      <dl className={classes.headline}>
        <dt>per sequence</dt>
        <dd>{formatBytes(bytesPerSequence)}</dd>
        <dt>vs own 16 bit</dt>
        <dd>{formatNumber(row.multiplierVsOwn16Bit ?? 1)}x</dd>
        <dt>largest batch</dt>
        <dd>{formatMetric(largestBatch, 'count')}</dd>
      </dl>
      <Section title="Cache of one sequence">
        {kinds.map(({ config, layers, bytesPerSequence: bytes }) => (
          <div key={config.window ?? 0}>
            <Facts
              facts={[
                [
                  `${layers} ${layers === 1 ? 'layer' : 'layers'}${config.window ? `, window ${config.window}` : ''}`,
                  formatBytes(bytes),
                ],
              ]}
            />
            <Text size="xs" c="var(--app-quiet)" component="div">
              {config.adaptiveBudgetBytes === undefined ? (
                cacheFormula({ ...config, seqLen: plan.context })?.lines.map((line, i) => (
                  <div key={line}>
                    {i === 0 && layers > 1 && 'each '}
                    {line}
                  </div>
                ))
              ) : (
                <div>
                  {config.adaptiveBudgetBytes} B a token, which calibration shares out between keys and values: every
                  split costs the same
                </div>
              )}
            </Text>
          </div>
        ))}
        <Text size="xs" c="var(--app-quiet)">
          Above the formula: pages of 64 tokens, of which the last may not be full, and their table.
        </Text>
      </Section>
      <Section title="What the device holds">
        <Facts
          facts={[
            ['device', formatBytes(plan.memoryBytes)],
            ['weights', formatBytes(plan.weightBytes)],
            ['left for caches', formatBytes(Math.max(0, plan.memoryBytes - plan.weightBytes))],
            ['sequences of the whole context', formatMetric(largestBatch, 'count')],
            ['users who have used half of it', formatMetric(concurrentUsers, 'count')],
            [
              'longest sequence, alone',
              `${formatMetric(row.longestContext ?? 0, 'count')} tokens${row.endsAtModel ? ' (model’s limit)' : ''}`,
            ],
          ]}
        />
      </Section>
    </>
  );
}

const Proof = ({ proof }: { readonly proof: PlanProof }) => {
  const { limitBytes, plannedSequences, reachedSequences, allocatedBytes, plannedBytes } = proof;
  return (
    <Section title="Proven on this machine">
      <Facts
        facts={[
          ['limit', formatBytes(limitBytes)],
          ['sequences planned', formatMetric(plannedSequences, 'count')],
          ['sequences reached', formatMetric(reachedSequences, 'count')],
          ...(reachedSequences === 0
            ? []
            : ([
                ['bytes planned for as many', formatMetric(plannedBytes, 'count')],
                ['bytes allocated', formatMetric(allocatedBytes, 'count')],
              ] as const)),
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {reachedSequences === 0
          ? 'Not even one sequence fits within the limit: raise it to prove this level.'
          : plannedSequences > reachedSequences
            ? 'The last sequence failed on the room it needs while it grows.'
            : 'Caches of whole sequences were allocated and filled in every layer until the limit refused the next one.'}
      </Text>
    </Section>
  );
};
