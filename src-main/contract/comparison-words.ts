/** A comparison in words, the same on the command line and in the window. */
import type { EnvironmentChange, FigureChange, PointComparison } from './comparison.ts';
import { formatMetric } from './format.ts';
import { metrics } from './metrics.ts';
import { type PointConfig, pointConfigSchema } from './sweep.ts';

type Field = keyof PointConfig;
/** What readers look for first. */
const shape: readonly Field[] = ['model', 'layer', 'hiddenDim', 'heads', 'referenceKvHeads', 'seqLen', 'batch'];

/** Level and phase, and as few other fields as tell the points apart: the shape before techniques. */
export function tellingFieldsOf(configs: readonly PointConfig[]): Field[] {
  const told: Field[] = ['level'];
  const kindsBy = (fields: readonly Field[]): number =>
    new Set(configs.map((config) => fields.map((field) => config[field]).join())).size;
  for (const field of [...shape, ...(Object.keys(pointConfigSchema.shape) as Field[])])
    if (field !== 'phase' && kindsBy([...told, field]) > kindsBy(told)) told.push(field);
  return [...told, 'phase'];
}

export const changesInWords = ({ changes }: Pick<PointComparison, 'changes'>): string =>
  changes.map(changeInWords).join(', ') || 'equal';

const ceilings: Readonly<Record<string, string>> = {
  fmaFlopsPerSecond: 'FMA ceiling',
  readBytesPerSecond: 'read ceiling',
};

/** `FMA ceiling was 65.1 GFLOP/s, is 79.9 GFLOP/s`. */
export const environmentInWords = ({ field, before, after }: EnvironmentChange): string =>
  `${ceilings[field] ?? field} was ${before}, is ${after}`;

function changeInWords({ metric: id, before, after, isWorse }: FigureChange): string {
  const metric = metrics.find((candidate) => candidate.id === id);
  const said = (value: number): string => formatMetric(value, metric?.unit ?? 'ratio');
  return `${metric?.label ?? id} ${said(before)} → ${said(after)}${isWorse ? ' (worse)' : ''}`;
}
