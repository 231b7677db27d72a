/** One point, whole: what it cost in memory, how far off it is, how fast it ran, and what to make of that. */
import { Alert, Badge, Text, Title } from '@mantine/core';
import type { ReactNode } from 'react';
import { formatBytes, formatMetric, formatNumber, formatSeconds } from '../../src-main/contract/format.ts';
import type { Controls, LayerError, Memory, Point, Throughput } from '../../src-main/contract/metrics.ts';
import { gradeMeaning, warningsOf } from '../../src-main/contract/warnings.ts';
import { Swatch } from '../charts/mark.tsx';
import { markOf } from '../series/marks.ts';
import classes from './inspector.module.css';
import { useLevelNames, useRun, useView } from './use-app.ts';

export function Inspector() {
  const id = useView((view) => view.selected.at(-1));
  const point = useRun((run) => (id === undefined ? undefined : run.points.find((candidate) => candidate.id === id)));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    <aside className={classes.inspector} aria-label="Inspector" tabIndex={0}>
      {point ? <Details point={point} /> : <NothingSelected />}
    </aside>
  );
}

const NothingSelected = () => (
  <div className={classes.empty}>
    <Text fw={600} c="var(--app-text)" size="sm">
      No point selected
    </Text>
    <Text size="sm">
      Click a mark in the chart or a row in the table to see its memory, its error and its timing in full.
    </Text>
  </div>
);

function Details({ point }: { readonly point: Point }) {
  const levels = useLevelNames();
  const { config, memory, error, throughput, controls, outcome, reason } = point;
  return (
    <>
      <header className={classes.head}>
        <Title order={2} size="sm" className={classes.name}>
          <Swatch mark={markOf(config.level, levels)} hollow={config.phase === 'prefill'} />
          {config.level}
        </Title>
        <Text size="xs" c="var(--app-quiet)">
          {config.phase} · d {config.hiddenDim} · {config.heads} heads of {config.headDim} · {config.seqLen} tokens ·
          batch {config.batch}
        </Text>
      </header>
      {outcome !== 'measured' && (
        <Alert color={outcome === 'failed' ? 'red' : 'gray'} title={outcome} className={classes.alert}>
          {reason}
        </Alert>
      )}
      {memory && error && throughput && <Headline memory={memory} error={error} throughput={throughput} />}
      {warningsOf(point)
        .filter(({ kind }) => kind === 'destroyed' || kind === 'converted')
        .map(({ kind, text }) => (
          <Alert key={kind} color={kind === 'destroyed' ? 'red' : 'orange'} className={classes.alert}>
            {text}
          </Alert>
        ))}
      {memory && <MemorySection memory={memory} />}
      {error && <ErrorSection error={error} controls={controls} />}
      {throughput && <ThroughputSection point={point} throughput={throughput} />}
      <Section title="Configuration">
        <Facts
          facts={Object.entries(config)
            .filter(([, value]) => value !== undefined)
            .map(([name, value]) => [name, String(value)])}
        />
      </Section>
    </>
  );
}

interface HeadlineProps {
  readonly memory: Memory;
  readonly error: LayerError;
  readonly throughput: Throughput;
}

/** The three numbers of every point. */
const Headline = ({ memory, error, throughput }: HeadlineProps) => (
  <dl className={classes.headline}>
    <dt>vs f32 MHA</dt>
    <dd>{formatMetric(memory.multiplierVsF32Mha, 'x')}</dd>
    <dt>relative L2</dt>
    <dd>{formatNumber(error.relativeL2)}</dd>
    <dt>median step</dt>
    <dd>{formatSeconds(throughput.medianSeconds)}</dd>
  </dl>
);

function MemorySection({ memory }: { readonly memory: Memory }) {
  const figures = [
    ['cache by formula', memory.kvLogicalBytes],
    ['cache allocated', memory.kvAllocatedBytes],
    ['peak of everything', memory.peakBytes],
  ] as const;
  return (
    <Section title="Memory">
      <Facts facts={figures.map(([name, bytes]) => [name, formatBytes(bytes)])} />
      <Text size="xs" c="var(--app-quiet)">
        {memory.differenceExplained}
      </Text>
      <Facts
        facts={[
          ['vs f32 MHA', `${formatMetric(memory.multiplierVsF32Mha, 'x')}, ${saved(memory.reductionVsF32MhaPercent)}`],
          [
            'vs own 16 bit',
            `${formatMetric(memory.multiplierVsOwn16Bit, 'x')}, ${saved(memory.reductionVsOwn16BitPercent)}`,
          ],
          ['per token', formatBytes(memory.bytesPerToken)],
          ['extra weights', formatBytes(memory.extraWeightBytes)],
        ]}
      />
    </Section>
  );
}

const saved = (percent: number): string =>
  percent >= 0 ? `${formatMetric(percent, '%')} saved` : `${formatMetric(-percent, '%')} more`;

interface ErrorSectionProps {
  readonly error: LayerError;
  readonly controls: Controls | undefined;
}

const gradeColour = {
  exact: 'teal',
  'near-lossless': 'teal',
  mild: 'green',
  moderate: 'yellow',
  heavy: 'orange',
  destroyed: 'red',
} as const;

const ErrorSection = ({ error, controls }: ErrorSectionProps) => (
  <Section
    title="Error against fp64"
    aside={
      <Badge variant="dot" color={gradeColour[error.grade]} tt="none">
        {error.grade}
      </Badge>
    }
  >
    <Text size="xs" c="var(--app-quiet)">
      {gradeMeaning[error.grade]}
    </Text>
    <Facts
      facts={[
        ['relative L2', formatNumber(error.relativeL2)],
        ['cosine', error.cosine.toFixed(6)],
        ['RMS of reference RMS', `${formatNumber(error.rms)} of ${formatNumber(error.referenceRms)}`],
        ['max abs', formatNumber(error.maxAbs)],
        ['token median, p95', `${formatNumber(error.tokenMedian)}, ${formatNumber(error.tokenP95)}`],
      ]}
    />
    {controls && (
      <>
        <Text size="xs" fw={600}>
          Controls: what no method should resemble
        </Text>
        <Facts
          facts={[
            ['all-zero output', formatNumber(controls.zeroOutput)],
            ['uniform attention', formatNumber(controls.uniformAttention)],
            ['an independent layer', formatNumber(controls.independentLayer)],
          ]}
        />
      </>
    )}
  </Section>
);

interface ThroughputSectionProps {
  readonly point: Point;
  readonly throughput: Throughput;
}

const ThroughputSection = ({ point, throughput }: ThroughputSectionProps) => (
  <Section title="Throughput">
    <Facts
      facts={[
        ['median step', formatSeconds(throughput.medianSeconds)],
        ['p05 to p95', `${formatSeconds(throughput.p05Seconds)} to ${formatSeconds(throughput.p95Seconds)}`],
        ['inter-quartile range', formatSeconds(throughput.iqrSeconds)],
        ['samples', String(throughput.samples)],
        ['rate', formatMetric(throughput.tokensPerSecond, 'tokens/s')],
        ['arithmetic', formatMetric(throughput.flopsPerSecond, 'FLOP/s')],
        ['memory traffic', formatMetric(throughput.bytesPerSecond, 'bytes/s')],
        ...(throughput.rooflineFraction === undefined
          ? []
          : [['of the roofline', formatMetric(100 * throughput.rooflineFraction, '%')] as const]),
      ]}
    />
    {warningsOf(point)
      .filter(({ kind }) => kind !== 'destroyed' && kind !== 'converted')
      .map(({ kind, text }) => (
        <Text size="xs" key={kind} c="var(--app-quiet)">
          <strong className={classes.flag}>{kind}</strong> {text}
        </Text>
      ))}
  </Section>
);

interface SectionProps {
  readonly title: string;
  readonly aside?: ReactNode;
  readonly children: ReactNode;
}

const Section = ({ title, aside, children }: SectionProps) => (
  <section className={classes.section} aria-label={title}>
    <div className={classes.sectionHead}>
      <Title order={3} size="xs">
        {title}
      </Title>
      {aside}
    </div>
    {children}
  </section>
);

const Facts = ({ facts }: { readonly facts: readonly (readonly [name: string, value: string])[] }) => (
  <dl className={classes.facts}>
    {facts.map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ))}
  </dl>
);
