/** A comparison in words, the same on the command line and in the window. */
import type { FigureChange, PointComparison } from './comparison.ts';
import { formatMetric } from './format.ts';
import { metrics } from './metrics.ts';
import type { PointConfig } from './sweep.ts';

/** Level and phase, and whatever else tells the points apart. */
export function tellingFieldsOf(configs: readonly PointConfig[]): (keyof PointConfig)[] {
  const fields = [...new Set(configs.flatMap((config) => Object.keys(config) as (keyof PointConfig)[]))];
  const shape = ['hiddenDim', 'heads', 'referenceKvHeads', 'seqLen', 'batch', 'backend', 'seed'];
  return fields.filter(
    (field) =>
      field === 'level' ||
      field === 'phase' ||
      (shape.includes(field) && new Set(configs.map((config) => config[field])).size > 1),
  );
}

export const changesInWords = ({ changes }: Pick<PointComparison, 'changes'>): string =>
  changes.map(changeInWords).join(', ') || 'equal';

function changeInWords({ metric: id, before, after, isWorse }: FigureChange): string {
  const metric = metrics.find((candidate) => candidate.id === id);
  const said = (value: number): string => formatMetric(value, metric?.unit ?? 'ratio');
  return `${metric?.label ?? id} ${said(before)} → ${said(after)}${isWorse ? ' (worse)' : ''}`;
}
