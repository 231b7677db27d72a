/** The twin of the planner's chart: every level at the context asked for, and the proof that the plan holds. */
import { Button, Group, TextInput } from '@mantine/core';
import { IconAlertTriangle } from '@tabler/icons-react';
import { useState } from 'react';
import { formatBytes, formatNumber } from '../../src-main/contract/format.ts';
import type { PlanRow } from '../../src-main/contract/model.ts';
import { isActive } from '../../src-main/contract/run-state.ts';
import { parseBytes } from '../../src-main/contract/sizes.ts';
import { Swatch } from '../charts/mark.tsx';
import { planError, plannerMark } from '../series/planner.ts';
import classes from './planner.module.css';
import { useApp, useLevelNames, useRun } from './use-app.ts';
import { usePlanner, usePlanRows } from './use-planner.ts';

export function PlannerTable() {
  const rows = usePlanRows();
  const isProving = usePlanner((state) => state.proving !== undefined);
  const isProof = isProving || rows.some(({ proof }) => proof);
  return (
    <div className={classes.frame}>
      <Prove levels={rows.filter(({ refused }) => refused === undefined).map(({ level }) => level)} />
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls */}
      <section id="points" className={classes.scroll} tabIndex={0} aria-label="Plan by level">
        <table className={classes.table}>
          <thead>
            <tr>
              <th scope="col">level</th>
              <th scope="col">per token</th>
              <th scope="col">per sequence</th>
              <th scope="col">x own 16 bit</th>
              <th scope="col">largest batch</th>
              <th
                scope="col"
                title="The average user has used half of the context; a window may lie over one page more there than at its end"
              >
                users at half
              </th>
              <th scope="col" title="Of one sequence alone, at most as long as the model can">
                longest context
              </th>
              {isProof && (
                <>
                  <th scope="col" title="Sequences that the plan says fit in the limit of the proof">
                    planned
                  </th>
                  <th scope="col" title="Sequences that were allocated and filled">
                    reached
                  </th>
                  <th scope="col" title="Bytes planned against bytes allocated">
                    off by
                  </th>
                </>
              )}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <Row key={row.level} row={row} isProof={isProof} />
            ))}
          </tbody>
        </table>
      </section>
    </div>
  );
}

function Row({ row, isProof }: { readonly row: PlanRow; readonly isProof: boolean }) {
  const { planner } = useApp();
  const levels = useLevelNames();
  const isLit = usePlanner((state) => state.level === row.level);
  const isProving = usePlanner((state) => state.proving === row.level);
  const { bytesPerToken, bytesPerSequence, multiplierVsOwn16Bit, proof } = row;
  const off = planError(row);
  return (
    <tr data-lit={isLit || undefined}>
      <th scope="row">
        <button type="button" aria-pressed={isLit} onClick={() => planner.highlight(row.level)}>
          <Swatch mark={plannerMark(row.level, levels)} />
          {row.level}
          {row.caution !== undefined && (
            <span className={classes.caution} title={row.caution}>
              <IconAlertTriangle size={14} role="img" aria-label={row.caution} />
            </span>
          )}
        </button>
      </th>
      {row.refused === undefined ? (
        <>
          <td>{formatBytes(bytesPerToken ?? 0)}</td>
          <td>{formatBytes(bytesPerSequence ?? 0)}</td>
          <td>{formatNumber(multiplierVsOwn16Bit ?? 1)}x</td>
          <td>{row.largestBatch?.toLocaleString('en-US')}</td>
          <td>{row.concurrentUsers?.toLocaleString('en-US')}</td>
          <td>
            {row.longestContext?.toLocaleString('en-US')}
            {row.endsAtModel && ' (max)'}
          </td>
          {isProof && (
            <>
              <td>{proof?.plannedSequences.toLocaleString('en-US')}</td>
              <td>{isProving ? 'allocating…' : proof?.reachedSequences.toLocaleString('en-US')}</td>
              <td>
                {off !== undefined
                  ? `${(100 * off).toFixed(2)} %`
                  : proof && <span title="Not even one sequence fits: raise the limit">limit too small</span>}
              </td>
            </>
          )}
        </>
      ) : (
        <td colSpan={isProof ? 9 : 6} className={classes.refused}>
          {row.refused}
        </td>
      )}
    </tr>
  );
}

/** Caches of whole sequences, filled in every layer, until a limit on this machine refuses the next one. */
function Prove({ levels }: { readonly levels: readonly string[] }) {
  const { planner } = useApp();
  const [limit, setLimit] = useState('256 MiB');
  const proving = usePlanner((state) => state.proving);
  const active = useRun(isActive);
  const bytes = parseBytes(limit);
  return (
    <Group gap={8} className={classes.prove} wrap="nowrap">
      <span>Prove it: allocate caches on this machine until</span>
      <TextInput
        size="xs"
        w={84}
        aria-label="Limit of the proof"
        value={limit}
        error={bytes === undefined}
        title={bytes === undefined ? 'expected a size like 256 MiB' : 'Bytes that the proof may allocate'}
        onChange={(event) => setLimit(event.currentTarget.value)}
      />
      <span>refuse the next sequence</span>
      {proving ? (
        <Button size="compact-xs" variant="default" onClick={planner.stopProving}>
          Stop after {proving}
        </Button>
      ) : (
        <Button
          size="compact-xs"
          variant="default"
          disabled={bytes === undefined || active || levels.length === 0}
          title={active ? 'A sweep is running: a proof would disturb its samples' : undefined}
          onClick={() => bytes !== undefined && void planner.prove(levels, bytes)}
        >
          Prove
        </Button>
      )}
    </Group>
  );
}
