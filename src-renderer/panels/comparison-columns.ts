/** Columns of the table of a comparison. */
import { changesInWords } from '../../src-main/contract/comparison-words.ts';
import { type ComparedPoint, ratioInWords } from '../series/comparison.ts';
import type { Kind } from '../series/kind.ts';
import type { ShownColumn } from '../series/table.ts';

type ComparisonColumn = ShownColumn<ComparedPoint>;

const column = (
  id: string,
  label: string,
  pixels: number,
  read: ComparisonColumn['read'],
  isFigure = false,
): ComparisonColumn => ({
  id,
  label,
  title: label,
  group: 'Comparison',
  pixels,
  read,
  isFigure,
  show: (point) => String(read(point) ?? ''),
});

export const comparisonColumns: readonly ComparisonColumn[] = [
  column('verdict', 'verdict', 96, ({ verdict }) => verdict),
  {
    ...column('timeRatio', 'time', 72, ({ timeRatio }) => timeRatio, true),
    show: ({ timeRatio }) => (timeRatio === undefined ? '' : ratioInWords(timeRatio)),
  },
  {
    ...column('range', 'if timed again', 150, ({ timeRatioRange }) => timeRatioRange?.[0], true),
    show: ({ timeRatioRange: range }) => (range ? `${ratioInWords(range[0])} to ${ratioInWords(range[1])}` : ''),
  },
  column('level', 'level', 168, ({ config }) => config.level),
  column('model', 'model', 104, ({ config }) => config.model),
  column('phase', 'phase', 68, ({ config }) => config.phase),
  column('hiddenDim', 'd', 56, ({ config }) => config.hiddenDim, true),
  column('seqLen', 'tokens', 64, ({ config }) => config.seqLen, true),
  column('batch', 'batch', 64, ({ config }) => config.batch, true),
  column('baseline', 'against', 170, ({ baseline }) => baseline.name),
  column('changes', 'memory and error', 250, (point) => changesInWords(point)),
  column('reason', 'reason', 520, ({ reason }) => reason),
];

export const usualComparisonColumns = (kind: Kind): readonly string[] =>
  comparisonColumns.map(({ id }) => id).filter((id) => id !== (kind === 'layer' ? 'model' : 'hiddenDim'));
