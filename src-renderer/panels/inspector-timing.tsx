/** How fast a point ran, its samples, and on which machine. */
import { Text } from '@mantine/core';
import { formatBytes, formatMetric, formatNumber, formatSeconds } from '../../src-main/contract/format.ts';
import type { Point, Throughput } from '../../src-main/contract/metrics.ts';
import { warningsOf } from '../../src-main/contract/warnings.ts';
import { SampleStrip } from '../charts/sample-strip.tsx';
import { markOf } from '../series/marks.ts';
import classes from './inspector.module.css';
import { Facts, Section } from './inspector-section.tsx';
import { useLevelNames, useRun } from './use-app.ts';
import { useSamples } from './use-samples.ts';

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

export const ThroughputSection = ({ point, throughput }: ThroughputSectionProps) => (
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
          : [['of the roofline', formatMetric(throughput.rooflineFraction, 'share')] as const]),
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

/** The machine that the point was measured on: its own where it has one, or else that of the session. */
export function EnvironmentSection({ device }: Pick<Point, 'device'>) {
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
