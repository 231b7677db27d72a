/** One point, whole: what it cost in memory, how far off it is, how fast it ran, and what to make of that. */
import { Alert, Button, Group, Text, Title, Tooltip } from '@mantine/core';
import { formatMetric, formatNumber, formatSeconds } from '../../src-main/contract/format.ts';
import type { LayerError, Memory, Point, Quality, Throughput } from '../../src-main/contract/metrics.ts';
import { isActive } from '../../src-main/contract/run-state.ts';
import { warningsOf } from '../../src-main/contract/warnings.ts';
import { Swatch } from '../charts/mark.tsx';
import { markOf } from '../series/marks.ts';
import { sweepOfPoint } from '../store/command.ts';
import classes from './inspector.module.css';
import { ErrorSection, QualitySection, SpeculationSection } from './inspector-error.tsx';
import { CapacitySection, MemorySection } from './inspector-memory.tsx';
import { Facts, Section } from './inspector-section.tsx';
import { EnvironmentSection, ThroughputSection } from './inspector-timing.tsx';
import { PlanDetails } from './plan-details.tsx';
import { useCopyCommand } from './sweep-menu.tsx';
import { useApp, useLevelNames, useRun, useView } from './use-app.ts';

const inspectorId = 'inspector';

export const focusInspector = (): void => document.getElementById(inspectorId)?.focus();

export function Inspector() {
  const id = useView((view) => view.selected.at(-1));
  const isPlanning = useView((view) => view.chart === 'planner');
  const point = useRun((run) => (id === undefined ? undefined : run.points.find((candidate) => candidate.id === id)));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard
    <aside id={inspectorId} className={classes.inspector} aria-label="Inspector" tabIndex={0}>
      {isPlanning ? <PlanDetails /> : point ? <Details point={point} /> : <NothingSelected />}
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
  const { config, memory, error, quality, speculation, capacity, throughput, controls, outcome, reason } = point;
  return (
    <>
      <header className={classes.head}>
        <Title order={2} size="sm" className={classes.name}>
          <Swatch mark={markOf(config.level, levels)} hollow={config.phase === 'prefill'} />
          {config.level}
        </Title>
        <Text size="xs" c="var(--app-quiet)">
          {whatWasMeasured(config)} · {config.heads} heads of {config.headDim} · {config.phase} ·{' '}
          {formatMetric(config.seqLen, 'count')} tokens · batch {config.batch}
        </Text>
        <PointVerbs point={point} />
      </header>
      {outcome !== 'measured' && (
        <Alert color={outcome === 'failed' ? 'red' : 'gray'} title={outcome} className={classes.alert}>
          {reason}
        </Alert>
      )}
      {memory && error && throughput && (
        <Headline memory={memory} error={error} quality={quality} throughput={throughput} />
      )}
      {warningsOf(point)
        .filter(({ kind }) => kind === 'destroyed' || kind === 'converted')
        .map(({ kind, text }) => (
          <Alert key={kind} color={kind === 'destroyed' ? 'red' : 'orange'} className={classes.alert}>
            {text}
          </Alert>
        ))}
      {memory && <MemorySection memory={memory} config={config} />}
      {quality && <QualitySection quality={quality} />}
      {speculation && <SpeculationSection speculation={speculation} />}
      {capacity && <CapacitySection capacity={capacity} tokens={config.seqLen} />}
      {error && <ErrorSection error={error} controls={controls} isOfModel={quality !== undefined} />}
      {throughput && <ThroughputSection point={point} throughput={throughput} />}
      <Section title="Configuration">
        <Facts
          facts={Object.entries(config)
            .filter(([, value]) => value !== undefined)
            .map(([name, value]) => [name, String(value)])}
        />
      </Section>
      <EnvironmentSection {...(point.device && { device: point.device })} />
    </>
  );
}

/** The same point once more, here or from a command line. */
function PointVerbs({ point }: { readonly point: Point }) {
  const app = useApp();
  const active = useRun(isActive);
  const measuring = useRun((run) => run.sweep?.measuring);
  const sweep = sweepOfPoint(point, measuring);
  const [copied, copy] = useCopyCommand(sweep);
  return (
    <Group gap={6} mt={8}>
      <Tooltip label="Measure this point alone, as a session of its own" openDelay={400}>
        <Button size="compact-xs" variant="default" disabled={active} onClick={() => void app.startRun(sweep)}>
          Run again
        </Button>
      </Tooltip>
      <Button size="compact-xs" variant="default" onClick={copy}>
        {copied ? 'Copied' : 'Copy command'}
      </Button>
      <Tooltip label="Open it in the form of the sweep" openDelay={400}>
        <Button size="compact-xs" variant="default" onClick={() => app.sweeps.open(sweep)}>
          Edit
        </Button>
      </Tooltip>
    </Group>
  );
}

interface HeadlineProps {
  readonly memory: Memory;
  readonly error: LayerError;
  readonly quality: Quality | undefined;
  readonly throughput: Throughput;
}

/** The three numbers of every point. */
const Headline = ({ memory, error, quality, throughput }: HeadlineProps) => (
  <dl className={classes.headline}>
    <dt>vs f32 MHA</dt>
    <dd>{formatMetric(memory.multiplierVsF32Mha, 'x')}</dd>
    <dt>{quality ? 'logit KL' : 'relative L2'}</dt>
    <dd>{formatNumber(quality ? quality.logitKl : error.relativeL2)}</dd>
    <dt>median step</dt>
    <dd>{formatSeconds(throughput.medianSeconds)}</dd>
  </dl>
);

const whatWasMeasured = ({ model, layer, hiddenDim }: Point['config']): string =>
  model === undefined ? `one layer, d ${hiddenDim}` : layer === undefined ? model : `${model}, layer ${layer}`;
