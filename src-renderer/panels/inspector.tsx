/** One point, whole: what it cost in memory, how far off it is, how fast it ran, and what to make of that. */
import { Alert, Badge, Button, Group, Text, Title, Tooltip } from '@mantine/core';
import { cacheFormula } from '../../src-main/contract/cache-formula.ts';
import { formatBytes, formatMetric, formatNumber, formatSeconds } from '../../src-main/contract/format.ts';
import type {
  Capacity,
  Controls,
  LayerError,
  Memory,
  Point,
  Quality,
  Speculation,
  Throughput,
} from '../../src-main/contract/metrics.ts';
import { isActive } from '../../src-main/contract/run-state.ts';
import { gradeMeaning, warningsOf } from '../../src-main/contract/warnings.ts';
import { Swatch } from '../charts/mark.tsx';
import { SampleStrip } from '../charts/sample-strip.tsx';
import { markOf } from '../series/marks.ts';
import { sweepOfPoint } from '../store/command.ts';
import classes from './inspector.module.css';
import { Facts, Section } from './inspector-section.tsx';
import { PlanDetails } from './plan-details.tsx';
import { useCopyCommand } from './sweep-menu.tsx';
import { useApp, useLevelNames, useRun, useView } from './use-app.ts';
import { useSamples } from './use-samples.ts';

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
          {whatWasMeasured(config)} · {config.heads} heads of {config.headDim} · {config.phase} · {config.seqLen} tokens
          · batch {config.batch}
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

/** The machine that the point was measured on: its own where it has one, or else that of the session. */
function EnvironmentSection({ device }: Pick<Point, 'device'>) {
  const environment = useRun((run) => run.environment);
  const facts: [string, string][] = device
    ? [
        ['host', device.host],
        ['device', device.name],
        ['memory', formatBytes(device.memoryBytes)],
        ['threads', String(device.threads)],
        ['instructions', device.instructionSet],
        ...ceilingFacts(device),
      ]
    : environment
      ? [
          ['processor', environment.cpu],
          ['cores, threads', `${environment.logicalCores}, ${environment.threads}`],
          ['instructions', environment.instructionSet],
          ['memory', formatBytes(environment.memoryBytes)],
          ['system', environment.os],
          ...(environment.governor ? [['governor', environment.governor] satisfies [string, string]] : []),
          ['load at start', formatNumber(environment.loadAverage1m)],
          ...ceilingFacts(environment),
          ['built with', environment.buildFlags],
          ['FastMQA', [environment.fastmqaVersion, environment.gitCommit?.slice(0, 12)].filter(Boolean).join(', ')],
          ['Node', environment.nodeVersion],
          ['begun', environment.startedAt.slice(0, 19).replace('T', ' ')],
        ]
      : [];
  if (facts.length === 0) return null;
  return (
    <Section title="Environment">
      <Facts facts={facts} />
    </Section>
  );
}

const ceilingFacts = (of: { readonly fmaFlopsPerSecond?: number; readonly readBytesPerSecond?: number }) => [
  ...(of.fmaFlopsPerSecond ? [['FMA ceiling', formatMetric(of.fmaFlopsPerSecond, 'FLOP/s')] as [string, string]] : []),
  ...(of.readBytesPerSecond
    ? [['read ceiling', formatMetric(of.readBytesPerSecond, 'bytes/s')] as [string, string]]
    : []),
];

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

const partsOf = ({ kvParts }: Memory): string =>
  [
    ['payload', kvParts.payloadBytes] as const,
    ['scales', kvParts.scaleBytes] as const,
    ['sinks', kvParts.sinkBytes] as const,
    ['residual', kvParts.residualBytes] as const,
  ]
    .filter(([, bytes]) => bytes > 0)
    .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`)
    .join(' + ');

interface MemorySectionProps {
  readonly memory: Memory;
  readonly config: Point['config'];
}

function MemorySection({ memory, config }: MemorySectionProps) {
  const figures = [
    ['cache by formula', memory.kvLogicalBytes],
    ['cache allocated', memory.kvAllocatedBytes],
    ['peak of everything', memory.peakBytes],
  ] as const;
  const formula = cacheFormula(config);
  const isFormula = formula !== undefined && Math.round(formula.bytes) === memory.kvLogicalBytes;
  const lines = isFormula ? formula.lines : [partsOf(memory)];
  return (
    <Section title="Memory">
      <Facts facts={figures.map(([name, bytes]) => [name, formatBytes(bytes)])} />
      <Text size="xs" c="var(--app-quiet)" component="div">
        {isFormula ? 'Formula: ' : 'By parts, as the cache was filled: '}
        {lines.map((line) => (
          <div key={line}>{line}</div>
        ))}
      </Text>
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

const whatWasMeasured = ({ model, layer, hiddenDim }: Point['config']): string =>
  model === undefined ? `one layer, d ${hiddenDim}` : layer === undefined ? model : `${model}, layer ${layer}`;

const saved = (percent: number): string =>
  percent >= 0 ? `${formatMetric(percent, '%')} saved` : `${formatMetric(-percent, '%')} more`;

/** What a user of the model would notice, against the same model with an exact cache. */
const qualityInWords = ({ logitKl, top1Agreement, perplexity, exactPerplexity, positions }: Quality): string =>
  [
    `At ${formatMetric(100 * top1Agreement, '%')} of ${positions} positions the likeliest next token is the same.`,
    perplexity > 2 * exactPerplexity
      ? 'It is far more surprised by the text: what it would write has changed.'
      : `Each token costs it ${formatNumber(logitKl)} nats on average (KL), where 0 is no difference.`,
  ].join(' ');

const shareInWords = (share: number): string => formatMetric(100 * share, '%');

/** The level as the draft of the same model, which verifies what it proposes. */
const SpeculationSection = ({ speculation }: { readonly speculation: Speculation }) => {
  const { speedUp, tokensPerRound, acceptedByPlace, draftCost, verifyCost, draftCacheBytes, differing } = speculation;
  return (
    <Section title="Speculative decoding">
      <Facts
        facts={[
          ['speed-up', formatMetric(speedUp, 'x')],
          ['tokens a round', formatNumber(tokensPerRound)],
          ['a draft token costs', `${formatNumber(draftCost)} plain tokens`],
          ['a verification costs', `${formatNumber(verifyCost)} plain tokens`],
          ['cache of the draft, extra', formatBytes(draftCacheBytes)],
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {speedUp > 1
          ? 'It pays: what a round makes is worth more than its drafts and the verification cost.'
          : 'It does not pay: drafts and verification cost more than the tokens of a round are worth.'}{' '}
        {differing
          ? `${differing} tokens differ from what the model alone says, by rounding.`
          : 'Every token is the one that the model alone says.'}
      </Text>
      <Steps
        title="Proposals kept, by place in the round"
        ends={['first', 'last']}
        values={acceptedByPlace}
        most={1}
        show={shareInWords}
      />
    </Section>
  );
};

/** Planned beforehand, then allocated and filled for real. */
const CapacitySection = ({ capacity, tokens }: { readonly capacity: Capacity; readonly tokens: number }) => {
  const { plannedSequences, reachedSequences, allocatedBytes, plannedBytes, limitBytes, reservedBytes } = capacity;
  const { endedAtSequences } = capacity;
  return (
    <Section title="Sequences that fit">
      <Facts
        facts={[
          ['planned', String(plannedSequences)],
          ['allocated and filled', `${endedAtSequences === undefined ? '' : 'at least '}${reachedSequences}`],
          ['cache of one', formatBytes(allocatedBytes / Math.max(1, reachedSequences))],
          ['allocated, planned', `${formatBytes(allocatedBytes)}, ${formatBytes(plannedBytes)}`],
          ['room for caches', formatBytes(limitBytes)],
          ...(reservedBytes > 0 ? [['taken for the weights', formatBytes(reservedBytes)] as const] : []),
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {endedAtSequences === undefined
          ? `Whole sequences of ${tokens} tokens in every layer, one after the other, until memory was refused.`
          : `It ended after ${endedAtSequences} sequences of ${tokens} tokens: more may fit.`}
      </Text>
    </Section>
  );
};

const QualitySection = ({ quality }: { readonly quality: Quality }) => {
  const { retrieved, exactRetrieved, retrievalDepths, retrievedByDepth, layerErrors } = quality;
  return (
    <Section title="Quality of the whole model">
      <Facts
        facts={[
          ['logit KL, p95, nats', `${formatNumber(quality.logitKl)}, ${formatNumber(quality.logitKlP95)}`],
          ['top-1 agreement', shareInWords(quality.top1Agreement)],
          ['acceptance as a draft', shareInWords(quality.acceptance)],
          ['perplexity', `${formatNumber(quality.perplexity)}, exact ${formatNumber(quality.exactPerplexity)}`],
          ...(retrieved === undefined
            ? []
            : [
                [
                  'facts found again',
                  `${shareInWords(retrieved)}${exactRetrieved === undefined ? '' : `, exact ${shareInWords(exactRetrieved)}`}`,
                ] as const,
              ]),
        ]}
      />
      <Text size="xs" c="var(--app-quiet)">
        {qualityInWords(quality)}
      </Text>
      {retrievalDepths && retrievedByDepth && (
        <Steps
          title="Facts found, by depth in the text"
          ends={['beginning', 'end']}
          values={retrievedByDepth}
          most={1}
          show={shareInWords}
        />
      )}
      {layerErrors.length > 1 && (
        <Steps
          title="Relative L2 after each layer"
          ends={['first', 'last']}
          values={layerErrors}
          most={Math.max(...layerErrors)}
          show={formatNumber}
        />
      )}
    </Section>
  );
};

interface StepsProps {
  readonly title: string;
  readonly ends: readonly [string, string];
  readonly values: readonly number[];
  readonly most: number;
  readonly show: (value: number) => string;
}

/** A row of small bars, each with its figure as a title; all of them in words for those who do not see it. */
const Steps = ({ title, ends, values, most, show }: StepsProps) => (
  <div className={classes.steps}>
    <Text size="xs" fw={600}>
      {title}
    </Text>
    <div role="img" aria-label={`${title}: ${values.map(show).join(', ')}`}>
      {values.map((value, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a bar is its place
        <span key={i} title={show(value)}>
          <i style={{ height: `${most > 0 ? (100 * value) / most : 0}%` }} />
        </span>
      ))}
    </div>
    <p>
      <span>{ends[0]}</span>
      <span>{ends[1]}</span>
    </p>
  </div>
);

interface ErrorSectionProps {
  readonly error: LayerError;
  readonly controls: Controls | undefined;
  readonly isOfModel: boolean;
}

const gradeColour = {
  exact: 'teal',
  'near-lossless': 'teal',
  mild: 'green',
  moderate: 'yellow',
  heavy: 'orange',
  destroyed: 'red',
} as const;

/** What the figures say, for someone who does not read them every day. */
const errorInWords = ({ relativeL2, cosine, maxAbs, referenceRms, positions }: LayerError): string =>
  [
    `The output is off by ${formatNumber(100 * relativeL2)} % of its length; an all-zero output is off by 100 %.`,
    `It points ${formatNumber((Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI)}° away from the reference (cosine).`,
    `The worst single value is off by ${formatNumber(maxAbs / referenceRms)} times a typical value (max abs).`,
    `Compared at ${positions.length} query ${positions.length === 1 ? 'position' : 'positions'} a sequence.`,
  ].join(' ');

const ErrorSection = ({ error, controls, isOfModel }: ErrorSectionProps) => (
  <Section
    title={isOfModel ? 'Last hidden state against an exact cache' : 'Error against fp64'}
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
    <Text size="xs" c="var(--app-quiet)">
      {errorInWords(error)}
    </Text>
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

function Samples({ point, throughput }: ThroughputSectionProps) {
  const levels = useLevelNames();
  const samples = useSamples(point.id);
  if (samples?.state !== 'known' || samples.seconds.length === 0) return null;
  const { colour } = markOf(point.config.level, levels);
  return <SampleStrip seconds={samples.seconds} median={throughput.medianSeconds} colour={colour} />;
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
    <Samples point={point} throughput={throughput} />
    {warningsOf(point)
      .filter(({ kind }) => kind !== 'destroyed' && kind !== 'converted')
      .map(({ kind, text }) => (
        <Text size="xs" key={kind} c="var(--app-quiet)">
          <strong className={classes.flag}>{kind}</strong> {text}
        </Text>
      ))}
  </Section>
);
