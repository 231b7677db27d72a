/** Columns of the table of a comparison. */
import { changesInWords } from '../../src-main/contract/comparison-words.ts';
import { type ComparedPoint, type ComparisonColumn, ratioInWords } from '../series/comparison.ts';

export interface ShownColumn extends ComparisonColumn {
  readonly label: string;
  readonly pixels: number;
  readonly isFigure?: boolean;
  readonly show: (point: ComparedPoint) => string;
}

const words = (
  id: string,
  label: string,
  pixels: number,
  read: (point: ComparedPoint) => string | number | undefined,
  isFigure = false,
): ShownColumn => ({ id, label, pixels, read, isFigure, show: (point) => String(read(point) ?? '') });

export const comparisonColumns: readonly ShownColumn[] = [
  words('verdict', 'verdict', 96, ({ verdict }) => verdict),
  {
    ...words('timeRatio', 'time', 72, ({ timeRatio }) => timeRatio, true),
    show: ({ timeRatio }) => (timeRatio === undefined ? '' : ratioInWords(timeRatio)),
  },
  {
    ...words('range', 'if timed again', 150, ({ timeRatioRange }) => timeRatioRange?.[0], true),
    show: ({ timeRatioRange: range }) => (range ? `${ratioInWords(range[0])} to ${ratioInWords(range[1])}` : ''),
  },
  words('level', 'level', 168, ({ config }) => config.level),
  words('phase', 'phase', 68, ({ config }) => config.phase),
  words('hiddenDim', 'd', 56, ({ config }) => config.hiddenDim, true),
  words('seqLen', 'tokens', 64, ({ config }) => config.seqLen, true),
  words('batch', 'batch', 56, ({ config }) => config.batch, true),
  words('baseline', 'against', 170, ({ baseline }) => baseline.name),
  words('changes', 'memory and error', 250, (point) => changesInWords(point)),
  words('reason', 'reason', 520, ({ reason }) => reason),
];
