/** Metrics by id, and how an axis shows one. */
import { type Metric, metrics } from '../../src-main/contract/metrics.ts';

const byId = new Map(metrics.map((metric) => [metric.id, metric]));

/** @throws Error for an id that no table lists: ids come from the table itself. */
export function metricOf(id: string): Metric {
  const metric = byId.get(id);
  if (!metric) throw new Error(`there is no metric ${id}`);
  return metric;
}

/** Metrics that span decades; shares and similarities do not. */
export const isLogarithmic = ({ id, unit }: Metric): boolean =>
  sequenceCounts.includes(id) || (unit !== '%' && unit !== 'share' && unit !== 'count' && id !== 'cosine');
/** From one to tens of thousands. */
const sequenceCounts: readonly string[] = ['plannedSequences', 'reachedSequences'];

/** `relative L2 error · lower is better`. */
export const axisLabel = ({ title, better }: Metric): string =>
  better === 'neither' ? title : `${title} · ${better} is better`;
