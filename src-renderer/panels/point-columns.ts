/** Every column that the table of points can have: the configuration, the outcome, and the contract's metrics. */
import { formatMetric } from '../../src-main/contract/format.ts';
import { type Metric, metrics, type Point } from '../../src-main/contract/metrics.ts';
import { pointConfigSchema } from '../../src-main/contract/sweep.ts';
import { fieldTitle, fieldValue, readField } from '../series/fields.ts';
import type { Kind } from '../series/kind.ts';
import type { ShownColumn } from '../series/table.ts';

type PointColumn = ShownColumn<Point>;

/** Heads of fields whose titles are too long for one. */
const shortLabels: Readonly<Record<string, string>> = {
  hiddenDim: 'd',
  seqLen: 'tokens',
  referenceKvHeads: 'model KV heads',
};
const widths: Readonly<Record<string, number>> = {
  level: 166,
  model: 104,
  phase: 78,
  hiddenDim: 56,
  seqLen: 70,
  batch: 60,
};
const character = 7.2;
const leastWidth = 64;
/** Wide enough for the head and its arrow. */
const widthFor = (label: string, least = leastWidth): number =>
  Math.max(least, Math.ceil(label.length * character) + 24);

const fieldColumn = (field: string, isFigure: boolean): PointColumn => {
  const label = shortLabels[field] ?? fieldTitle(field);
  const read = (point: Point) => {
    const value = readField(point, field);
    return typeof value === 'boolean' ? String(value) : value;
  };
  return {
    id: field,
    label,
    title: fieldTitle(field),
    group: 'Configuration',
    pixels: widths[field] ?? widthFor(label),
    isFigure,
    read,
    show: (point) => {
      const value = read(point);
      return value === undefined ? '' : fieldValue(value, field);
    },
  };
};

const groupOf = (metric: Metric): string => {
  const { id, unit } = metric;
  if (speculationColumns.includes(id)) return 'Speculative decoding';
  if (capacityColumns.includes(id)) return 'Memory';
  if (['bytes', 'x'].includes(unit) || id.startsWith('reduction')) return 'Memory';
  if (id === 'relativeL2' || ['cosine', 'rms', 'maxAbs', 'referenceRms'].includes(id)) return 'Error';
  if (qualityColumns.includes(id) || ['acceptance', 'perplexityChangePercent'].includes(id))
    return 'Quality of a whole model';
  return 'Throughput';
};

const metricColumn = (metric: Metric): PointColumn => {
  const { id, label, title, unit, read } = metric;
  return {
    id,
    label,
    title,
    group: groupOf(metric),
    pixels: widthFor(label, 88),
    isFigure: true,
    read,
    show: (point) => {
      const value = read(point);
      return value === undefined ? '' : formatMetric(value, unit);
    },
  };
};

const words = (
  id: string,
  label: string,
  pixels: number,
  group: string,
  read: (point: Point) => string | undefined,
): PointColumn => ({
  id,
  label,
  title: label,
  group,
  pixels,
  isFigure: false,
  read,
  show: (point) => read(point) ?? '',
});

const qualityColumns: readonly string[] = ['logitKl', 'top1Agreement', 'perplexity', 'retrieved'];
const firstFields = ['level', 'model', 'phase', 'hiddenDim', 'seqLen', 'batch'];
const numeric = (points: readonly Point[], field: string): boolean =>
  points.some((point) => typeof readField(point, field) === 'number');

/** Fields that some point has; every metric, whether or not one has it yet. */
export function pointColumns(points: readonly Point[]): readonly PointColumn[] {
  const present = new Set<string>();
  for (const { config } of points) for (const field in config) present.add(field);
  const others = Object.keys(pointConfigSchema.shape).filter(
    (field) => present.has(field) && !firstFields.includes(field),
  );
  const grade = words('grade', 'grade', 104, 'Error', (point) => point.error?.grade);
  return [
    ...firstFields.map((field) => fieldColumn(field, !['level', 'model', 'phase'].includes(field))),
    ...metrics.flatMap((metric) =>
      metric.id === 'relativeL2' ? [metricColumn(metric), grade] : [metricColumn(metric)],
    ),
    ...others.map((field) => fieldColumn(field, numeric(points, field))),
    words('host', 'machine', 120, 'Outcome', (point) => point.device?.host),
    words('device', 'device', 168, 'Outcome', (point) => point.device?.name),
    words('outcome', 'outcome', 84, 'Outcome', (point) => point.outcome),
    words('notes', 'flags or reason', 260, 'Outcome', (point) => point.reason ?? point.throughput?.flags.join(', ')),
  ];
}

const speculationColumns: readonly string[] = [
  ...['speculativeTokens', 'speedUp', 'tokensPerRound', 'draftCost', 'verifyCost', 'draftCacheBytes'],
];

const capacityColumns: readonly string[] = ['plannedSequences', 'reachedSequences', 'sequenceBytes'];

/** What such points are judged by stands among the first. */
export const usualColumns = (kind: Kind): readonly string[] =>
  kind === 'capacity'
    ? ['level', 'model', 'seqLen', ...capacityColumns, 'cacheLimitBytes', 'outcome', 'notes']
    : usualOfMeasured(kind);

const usualOfMeasured = (kind: Kind): readonly string[] => [
  'level',
  ...(kind === 'layer' ? [] : ['model']),
  ...(kind === 'layer of a model' ? ['layer'] : []),
  'phase',
  ...(kind === 'layer' ? ['hiddenDim'] : []),
  'seqLen',
  'batch',
  ...(kind === 'speculation' ? speculationColumns : []),
  'multiplierVsF32Mha',
  'multiplierVsOwn16Bit',
  'kvAllocatedBytes',
  ...(kind === 'model' ? qualityColumns : []),
  ...(kind === 'speculation' ? [] : ['relativeL2', 'grade']),
  'medianSeconds',
  'p95Seconds',
  'tokensPerSecond',
  'rooflineFraction',
  'outcome',
  'notes',
];
