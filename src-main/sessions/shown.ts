/** Which columns a document for people has: what tells its points apart, and the metrics that they have. */
import { tellingFieldsOf } from '../contract/comparison-words.ts';
import { type Metric, metrics, type Point } from '../contract/metrics.ts';

/** What a reader compares; the rest is in the CSV. */
const compared: readonly string[] = [
  ...['kvAllocatedBytes', 'reductionVsF32MhaPercent', 'multiplierVsF32Mha'],
  ...['reductionVsOwn16BitPercent', 'multiplierVsOwn16Bit', 'relativeL2'],
  ...['logitKl', 'top1Agreement', 'perplexity', 'perplexityChangePercent', 'retrieved'],
  ...['speedUp', 'tokensPerRound', 'draftCacheBytes', 'plannedSequences', 'reachedSequences'],
  ...['medianSeconds', 'p95Seconds', 'tokensPerSecond', 'rooflineFraction'],
];

/** In the order of the contract; none that would be an empty column. */
export const shownMetrics = (points: readonly Point[]): Metric[] =>
  metrics.filter(({ id, read }) => compared.includes(id) && points.some((point) => read(point) !== undefined));

export interface Field {
  readonly name: string;
  readonly read: (point: Point) => string | number | boolean | undefined;
}

/** Level, phase, and as little else as tells the points apart; the machine where several measured. */
export function shownFields(points: readonly Point[]): Field[] {
  const machine: Field = { name: 'machine', read: ({ device }) => device && `${device.host}: ${device.name}` };
  const several = new Set(points.map(machine.read)).size > 1;
  const told = tellingFieldsOf(points.map(({ config }) => config));
  return [...told.map((name): Field => ({ name, read: ({ config }) => config[name] })), ...(several ? [machine] : [])];
}
