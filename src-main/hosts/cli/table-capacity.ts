/** Sequences that memory held, level by level, beside what was planned. */
import { formatBytes } from '../../contract/format.ts';
import type { Point } from '../../contract/metrics.ts';
import { columns, legend } from './layout.ts';
import { customName } from './table-models.ts';

const headings = [
  'level',
  'model',
  'tokens',
  'cache a sequence',
  'planned',
  'reached',
  'bytes off by',
  'of',
  'outcome',
];

export function capacityTable(points: readonly Point[]): string {
  const cells = points.map(({ config, capacity, outcome, reason }) => [
    config.level === 'custom' ? customName(config) : config.level,
    config.model ?? `one layer, d ${config.hiddenDim}`,
    String(config.seqLen),
    ...(capacity
      ? [
          formatBytes(capacity.allocatedBytes / Math.max(1, capacity.reachedSequences)),
          String(capacity.plannedSequences),
          `${capacity.endedAtSequences === undefined ? '' : 'at least '}${capacity.reachedSequences}`,
          offBy(capacity.plannedBytes, capacity.allocatedBytes),
          formatBytes(capacity.limitBytes),
        ]
      : Array<string>(5).fill('')),
    outcome === 'measured' ? outcome : `${outcome}: ${reason}`,
  ]);
  return [
    ...columns([headings, ...cells], 'llrrrrrrl', 3),
    '',
    ...legend(
      'Caches of whole sequences, allocated and filled one after the other until memory was refused. planned: by formula, from the bytes that caches could have (of), which on a GPU is what it had free beside the weights of the model.',
    ),
  ].join('\n');
}

const offBy = (planned: number, allocated: number): string =>
  allocated === 0 ? '' : `${(100 * (planned / allocated - 1)).toFixed(2)} %`;
