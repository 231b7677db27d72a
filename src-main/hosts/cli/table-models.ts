/** Whole models as people read them: what a level does to a model's answers, beside its memory and speed. */
import { formatBytes, formatMetric, formatNumber } from '../../contract/format.ts';
import type { Point, Quality } from '../../contract/metrics.ts';
import type { PointConfig } from '../../contract/sweep.ts';
import { columns, legend, prose, tableLines } from './layout.ts';
import { type Block, blocksOf, figure, leading, levelName, outcome, speed } from './table.ts';

const headings = [
  [
    '',
    'model/',
    'cache',
    'x own',
    'logit',
    'same',
    'perplexity',
    '',
    'facts',
    'depth',
    'hidden',
    '',
    'prefill',
    'decode',
    '',
  ],
  [
    'level',
    'tokens/batch',
    'allocated',
    '16 bit',
    'KL',
    'top-1',
    '',
    'change',
    'found',
    '0 … 1',
    'L2',
    'grade',
    'tok/s',
    'tok/s',
    'outcome',
  ],
];
const align = 'llrrrrrRrLrLrRL';

export function modelTable(points: readonly Point[]): string {
  const sections = blocksOf(points).map((block) => ({ rows: block.rows.map((row) => rowCells(row, block)) }));
  return [
    ...tableLines({ headings, align, sections, titleColumn: 1 }),
    ...legend(meaning),
    ...lessons(points).flatMap(prose),
  ].join('\n');
}

function rowCells(row: Block['rows'][number], block: Block): string[] {
  const { config, memory, error, quality } = leading(row);
  return [
    config.level === 'custom' ? customName(config) : levelName(row, block),
    `${config.model}/${config.seqLen}/${config.batch}`,
    memory ? formatBytes(memory.kvAllocatedBytes) : '',
    memory ? `${formatNumber(memory.multiplierVsOwn16Bit)}x` : '',
    ...(quality ? qualityCells(quality) : Array<string>(6).fill('')),
    error ? figure(error.relativeL2) : '',
    error?.grade ?? '',
    speed(row.prefill),
    speed(row.decode),
    outcome(row),
  ];
}

/** A stack without a name is called by what tells it from the baseline. */
export const customName = ({ keyDtype, valueDtype, window }: PointConfig): string =>
  ['custom', keyDtype, ...(valueDtype === keyDtype ? [] : [valueDtype]), ...(window ? [`window ${window}`] : [])].join(
    ' ',
  );

const qualityCells = (q: Quality): string[] => [
  q.logitKl > 0 && q.logitKl < 1e-3 ? q.logitKl.toExponential(1) : formatNumber(q.logitKl),
  percent(q.top1Agreement),
  formatNumber(q.perplexity),
  change(q.perplexityChangePercent),
  q.retrieved === undefined ? '' : percent(q.retrieved),
  (q.retrievedByDepth ?? []).map(bar).join(''),
];

const percent = (share: number): string => formatMetric(share, 'share');
const change = (value: number): string =>
  Math.abs(value) < 0.005
    ? '0.00 %'
    : `${value > 0 ? '+' : ''}${value >= 1000 ? value.toFixed(0) : value.toFixed(2)} %`;
/** One character a depth: how many of the facts that stand there are found. */
const bar = (share: number): string => '·▁▂▃▄▅▆▇█'[Math.round(8 * share)] as string;

const meaning =
  'Each level against the same model with an exact (f32) cache, on the same text: half of every document is read at once, the rest is decoded token by token from the cache. KL: mean over positions, nats. same top-1: positions whose likeliest token stays. facts found: questions about facts hidden in a haystack as long as the context, answered in full; the bars show it by depth, · = none. hidden L2: last hidden state, all layers’ errors included.';

/** What averaging trained heads does, and what a model trained with one head does instead, side by side. */
function lessons(points: readonly Point[]): string[] {
  const judged = points.filter((point): point is Point & Required<Pick<Point, 'quality' | 'memory'>> =>
    Boolean(point.quality && point.memory),
  );
  const isConverted = ({ kvHeads, referenceKvHeads }: PointConfig): boolean => kvHeads < referenceKvHeads;
  const converted = judged.find(({ config }) => isConverted(config));
  const native = judged.find(
    ({ config }) => config.referenceKvHeads === 1 && config.heads > 1 && config.level !== 'baseline',
  );
  const told = (point: (typeof judged)[number]): string => {
    const { quality, memory, config } = point;
    const facts = quality.retrieved === undefined ? '' : `, ${percent(quality.retrieved)} of the facts`;
    return `${config.model} \`${config.level}\` at ${formatBytes(memory.kvAllocatedBytes)}: perplexity ${formatNumber(quality.perplexity)}${facts}`;
  };
  if (!converted || !native) return [];
  return [
    '',
    `Converted against native: averaging the ${converted.config.referenceKvHeads} heads of a trained model gives ${told(converted)} (exact: ${formatNumber(converted.quality.exactPerplexity)}). Trained with one shared head on the same text: ${told(native)} (exact: ${formatNumber(native.quality.exactPerplexity)}).`,
  ];
}

const speculationHeadings = [
  [
    'draft',
    'tokens',
    'drafted',
    'a round',
    'kept by place, %',
    'draft',
    'verify',
    'speed-up',
    'extra cache',
    'outcome',
  ],
];

/** A level as the draft of the same model with an exact cache. */
export function speculationTable(points: readonly Point[]): string {
  const shared = points.filter(isSpeculation);
  const cells = shared.map(({ config, speculation, outcome, reason }) => [
    config.level === 'custom' ? customName(config) : config.level,
    String(config.seqLen),
    String(config.speculativeTokens ?? ''),
    ...(speculation
      ? [
          speculation.tokensPerRound.toFixed(2),
          speculation.acceptedByPlace.map((share) => Math.round(100 * share)).join(' '),
          speculation.draftCost.toFixed(2),
          speculation.verifyCost.toFixed(2),
          `${speculation.speedUp.toFixed(2)}x`,
          formatBytes(speculation.draftCacheBytes),
        ]
      : Array<string>(6).fill('')),
    outcome === 'measured' ? outcome : `${outcome}: ${reason}`,
  ]);
  return [
    ...columns([...speculationHeadings, ...cells], 'lrrrlrrrrl', 3),
    '',
    ...legend(
      'drafted: tokens proposed in a round. draft, verify: time of a draft token and of a verification, in tokens of the model alone. speed-up: against the model alone in the same run, greedy; every token is the one that it would say. The draft’s cache comes on top: speculation never saves memory.',
    ),
  ].join('\n');
}

export const isCapacity = ({ config }: Point): boolean => config.phase === 'capacity';
export const isSpeculation = ({ config }: Point): boolean => config.phase === 'speculate';
export const isModelPoint = ({ config }: Point): boolean => config.model !== undefined && config.layer === undefined;
