import { Text } from '@mantine/core';
import { useMemo } from 'react';
import { formatSeconds } from '../../src-main/contract/format.ts';
import { ChartCard } from '../charts/chart-card.tsx';
import { DistributionChart } from '../charts/distribution-chart.tsx';
import { toCsv } from '../series/csv.ts';
import { type Distribution, distributionOf } from '../series/distribution.ts';
import { markOf } from '../series/marks.ts';
import { Hint, NothingToDraw } from './chart-hints.tsx';
import type { ChartPanelProps } from './chart-list.ts';
import classes from './charts-panel.module.css';
import { focusTable } from './data-grid.tsx';
import { useLevelNames, useRun, useView } from './use-app.ts';
import { useSamples } from './use-samples.ts';

export function DistributionPanel({ points }: ChartPanelProps) {
  const levels = useLevelNames();
  const selected = useView((view) => view.selected.at(-1));
  const point = useRun((run) => run.points.find(({ id }) => id === selected));
  const samples = useSamples(point?.throughput ? point.id : undefined);
  const seconds = samples?.state === 'known' ? samples.seconds : undefined;
  const data = useMemo(() => seconds && distributionOf(seconds), [seconds]);
  const name =
    point && `${point.config.level} · ${point.config.phase} · ${point.config.seqLen} tokens x ${point.config.batch}`;
  const mark = point && markOf(point.config.level, levels);
  return (
    <ChartCard
      title={name ? `Latency of ${name}` : 'Latency of the selected point'}
      fileName={`latency-${point?.id ?? 'none'}`}
      description={`${name ?? 'No point selected'}: ${data ? inWords(data) : 'no samples'}. The table lists the same point.`}
      legend={point && mark ? [{ label: point.config.level, mark }] : []}
      footer={<div className={classes.missing}>{data && inWords(data)}</div>}
      toCsv={() =>
        toCsv(
          ['order', 'secondsPerStep'],
          (seconds ?? []).map((value, i) => [i + 1, value]),
        )
      }
      onShowTable={focusTable}
      empty={data ? undefined : whyEmpty()}
    >
      {(size) => data && mark && <DistributionChart data={data} colour={mark.colour} {...size} />}
    </ChartCard>
  );

  function whyEmpty() {
    if (points.length === 0) return <NothingToDraw />;
    if (!point)
      return (
        <Hint title="No point selected">
          Click a mark in another chart or a row of the table to see every sample of its time.
        </Hint>
      );
    if (!point.throughput)
      return <Hint title={`This point was ${point.outcome}`}>{point.reason ?? 'It has no samples.'}</Hint>;
    if (samples?.state === 'refused') return <Hint title="Its samples could not be read">{samples.reason}</Hint>;
    if (samples?.state === 'known')
      return <Hint title="No samples">The session holds the summary of this point but not its raw samples.</Hint>;
    return <Text size="sm" />; // about one frame: a word would only flash
  }
}

function inWords({ count, median, p05, p95, quartiles, beyond }: Distribution): string {
  const far = beyond > 0 ? ` · ${beyond} outside` : '';
  return `${count} samples · median ${formatSeconds(median)} · p05–p95 ${formatSeconds(p05)}–${formatSeconds(p95)} (dashed) · IQR ${formatSeconds(quartiles[1] - quartiles[0])} (band)${far}`;
}
