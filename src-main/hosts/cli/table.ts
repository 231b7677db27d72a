/**
 * A sweep as people read it: prefill and decode of one level on one layer in one row, the controls under each layer, and what the
 * columns mean below. Figures in the sentences are those of the rows.
 */
import { basename } from 'node:path';
import { formatBytes, formatMetric, formatNumber } from '../../contract/format.ts';
import type { Point } from '../../contract/metrics.ts';
import { type PointConfig, pointConfigSchema } from '../../contract/sweep.ts';
import { legend, prose, tableLines } from './layout.ts';

/** A level on a layer; `decode` may be a verify step instead. */
interface Row {
  readonly prefill?: Point;
  readonly decode?: Point;
}

export interface Block {
  readonly layer: PointConfig;
  readonly rows: readonly Row[];
}

const headings = [
  [
    '',
    'hidden/heads/',
    'cache',
    'vs f32 MHA',
    '',
    'vs own 16 bit',
    '',
    'relative',
    '',
    '',
    'max abs /',
    'prefill',
    'decode',
    '',
  ],
  [
    'level',
    'tokens/batch',
    'allocated',
    'saved',
    'x',
    'saved',
    'x',
    'L2',
    'grade',
    'cosine',
    'ref. RMS',
    'tok/s',
    'tok/s',
    'outcome',
  ],
];
const align = 'llrrRrRrLrrrRL';

export function sweepTable(points: readonly Point[]): string {
  const blocks = blocksOf(points);
  const distinguishing = layerFields.filter(
    (name) =>
      !namedInLayer.includes(name) &&
      varies(
        blocks.map(({ layer }) => layer),
        name,
      ),
  );
  const sections = blocks.map((block) => ({
    rows: [...block.rows.map((row) => rowCells(row, block, distinguishing)), ...controlCells(block)],
  }));
  return [
    ...tableLines({ headings, align, sections, titleColumn: 1 }),
    ...legendOf(points),
    ...lessons(blocks).flatMap(prose),
  ].join('\n');
}

/** What makes a layer, and the stream it was measured on. */
const layerFields = [
  'model',
  'layer',
  'tokenFile',
  'hiddenDim',
  'heads',
  'headDim',
  'referenceKvHeads',
  'seqLen',
  'batch',
  'ropeTheta',
  'modelSeed',
  'seed',
  'calibrationTokens',
  'backend',
] as const satisfies readonly (keyof PointConfig)[];
const namedInLayer: readonly string[] = [
  ...['model', 'layer', 'hiddenDim', 'heads', 'headDim', 'referenceKvHeads', 'seqLen', 'batch'],
];
const keyOf = (config: PointConfig, names: readonly (keyof PointConfig)[]): string =>
  names.map((name) => config[name]).join();
const varies = (configs: readonly PointConfig[], name: keyof PointConfig): boolean =>
  new Set(configs.map((config) => config[name])).size > 1;

function groupBy<Item>(items: readonly Item[], key: (item: Item) => string): Item[][] {
  const groups = new Map<string, Item[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return [...groups.values()];
}

export function blocksOf(points: readonly Point[]): Block[] {
  return groupBy(points, ({ config }) => keyOf(config, layerFields)).map((group) => ({
    layer: group[0].config,
    rows: groupBy(group, ({ config: { phase, ...technique } }) => JSON.stringify(technique)).map((row) => {
      const prefill = row.find(({ config }) => config.phase === 'prefill');
      const decode = row.find(({ config }) => config.phase !== 'prefill');
      return { ...(prefill ? { prefill } : {}), ...(decode ? { decode } : {}) };
    }),
  }));
}

/** Memory and error are those of decoding, where there is decoding. */
export const leading = ({ prefill, decode }: Row): Point => (decode?.memory ? decode : (prefill ?? decode)) as Point;

function rowCells(row: Row, block: Block, distinguishing: readonly (keyof PointConfig)[]): string[] {
  const { config, memory, error } = leading(row);
  const extra = distinguishing.map((name) => ` ${name} ${config[name]}`).join('');
  return [
    levelName(row, block),
    layerName(block.layer) + extra,
    memory ? formatBytes(memory.kvAllocatedBytes) : '',
    ...(memory ? [percent(memory.reductionVsF32MhaPercent), times(memory.multiplierVsF32Mha)] : ['', '']),
    ...(memory ? [percent(memory.reductionVsOwn16BitPercent), times(memory.multiplierVsOwn16Bit)] : ['', '']),
    ...(error
      ? [
          figure(error.relativeL2),
          error.grade,
          error.cosine.toFixed(4),
          `${figure(error.maxAbs)} / ${figure(error.referenceRms)}`,
        ]
      : ['', '', '', '']),
    speed(row.prefill),
    speed(row.decode),
    outcome(row),
  ];
}

/** Techniques that a sweep varies within a level stand beside its name, as few as tell its rows apart. */
export function levelName(row: Row, { rows }: Block): string {
  const { config } = leading(row);
  const sameLevel = rows.map((other) => leading(other).config).filter(({ level }) => level === config.level);
  const told: (keyof PointConfig)[] = [];
  const kinds = (names: readonly (keyof PointConfig)[]): number =>
    new Set(sameLevel.map((other) => keyOf(other, names))).size;
  for (const name of Object.keys(pointConfigSchema.shape) as (keyof PointConfig)[]) {
    if (name !== 'phase' && kinds([...told, name]) > kinds(told)) told.push(name);
  }
  const shown = told
    .filter((name) => config[name] !== undefined)
    .map((name) => (name.endsWith('Dtype') ? String(config[name]) : `${name} ${config[name]}`));
  return [config.level, ...shown].join(' ');
}

function layerName(config: PointConfig): string {
  const { model, layer, hiddenDim, heads, headDim, referenceKvHeads, latentDim, ropeDim, seqLen, batch } = config;
  const of = model === undefined ? '' : `${basename(model)}[${layer}] `;
  const shape = `${of}${hiddenDim}/${heads}${headDim * heads === hiddenDim ? '' : `x${headDim}`}/${seqLen}/${batch}`;
  if (latentDim !== undefined) return `${shape} latent ${latentDim}+${ropeDim}`;
  return referenceKvHeads < heads ? `${shape} shared KV${referenceKvHeads > 1 ? ` (${referenceKvHeads})` : ''}` : shape;
}

function controlCells({ layer, rows }: Block): string[][] {
  const controls = rows.map((row) => leading(row).controls).find((found) => found);
  if (!controls) return [];
  const control = (name: string, value: number): string[] => [
    `(${name})`,
    layerName(layer),
    '',
    '',
    '',
    '',
    '',
    value.toFixed(2),
    'control',
    '',
    '',
    '',
    '',
    '',
  ];
  return [
    control('all-zero output', controls.zeroOutput),
    control('uniform attention', controls.uniformAttention),
    control('independent layer', controls.independentLayer),
  ];
}

const percent = (value: number): string => formatMetric(value, '%');
const times = (value: number): string => `${formatNumber(value)}x`;
/** Errors keep three digits, trailing zeros included: 1.00 is a statement, 1 is not. */
export const figure = (value: number): string => {
  if (value === 0) return '0';
  return Math.abs(value) < 1e-4 || Math.abs(value) >= 1000 ? value.toExponential(1) : value.toPrecision(3);
};
const tokens = (perSecond: number): string =>
  perSecond >= 1e4 ? `${formatNumber(perSecond / 1e3)}k` : formatNumber(perSecond);
export const speed = (point: Point | undefined): string =>
  point?.throughput ? tokens(point.throughput.tokensPerSecond) : '';

/** What went wrong in words; flags where it did not. */
export function outcome({ prefill, decode }: Row): string {
  const there = [prefill, decode].filter((point) => point !== undefined);
  const reasons = there.map(({ config, outcome: how, reason }) => ({
    phase: config.phase,
    text: how === 'measured' ? how : `${how}: ${reason}`,
  }));
  if (new Set(reasons.map(({ text }) => text)).size > 1)
    return reasons.map(({ phase, text }) => `${phase} ${text}`).join('; ');
  const flags = [...new Set(there.flatMap(({ throughput }) => throughput?.flags ?? []))];
  return flags.length > 0 ? `${reasons[0].text} (${flags.join(', ')})` : reasons[0].text;
}

const legendOf = (points: readonly Point[]): string[] =>
  points.some(({ memory }) => memory)
    ? legend(
        "cache allocated: bytes counted by the allocator, whole batch. vs f32 MHA: against the same layer with all heads cached in f32. vs own 16 bit: against what the reference model itself would cache in 16 bit, with its own number of KV heads. Error: the layer's output against fp64 of the same weights and inputs, decoding where there is decoding; 1.00 is as bad as all zeros. Controls: outputs that no method should resemble.",
      )
    : [];

/** What heads merged without training cost, and what heads shared by nature give: of the largest layer measured. */
function lessons(blocks: readonly Block[]): string[] {
  const rows = blocks
    .flatMap((block) => block.rows.map(leading))
    .filter(({ error, memory }) => error && memory) as Measured[];
  const largest = (found: readonly Measured[]): Measured[] => {
    const size = ({ config }: Measured): number => config.hiddenDim * config.seqLen;
    return found.filter((point) => size(point) === Math.max(...found.map(size)));
  };
  const converted = largest(rows.filter(({ config }) => config.kvHeads < config.referenceKvHeads));
  const shared = largest(
    rows.filter(({ config }) => config.referenceKvHeads < config.heads && config.kvHeads === config.referenceKvHeads),
  );
  const lines: string[] = [];
  if (converted.length > 0) {
    const errors = converted.map(({ error }) => error.relativeL2);
    const { config, controls } = converted[0];
    const verdict = Math.min(...errors) > 0.5 ? 'destroys the layer' : 'costs accuracy';
    lines.push(
      `Converted heads: averaging the ${config.referenceKvHeads} heads of a model trained with full heads ${verdict}: relative L2 ${span(errors)} (an all-zero output has ${(controls?.zeroOutput ?? 1).toFixed(2)}); train or pick a model with shared heads instead.`,
    );
  }
  if (shared.length > 0) {
    const gains = shared.map(
      ({ config, memory, error }) =>
        `${config.level} ${times(memory.multiplierVsF32Mha)} at ${figure(error.relativeL2)}`,
    );
    lines.push(
      `Natively shared heads: a model trained with ${shared[0].config.referenceKvHeads} KV head${shared[0].config.referenceKvHeads > 1 ? 's' : ''} gets ${gains.join(', ')} (x against f32 MHA at relative L2; ${layerName(shared[0].config)}).`,
    );
  }
  return lines.length > 0 ? ['', ...lines] : [];
}

type Measured = Point & Required<Pick<Point, 'memory' | 'error'>>;

function span(values: readonly number[]): string {
  const [least, most] = [Math.min(...values).toFixed(2), Math.max(...values).toFixed(2)];
  return least === most ? `about ${least}` : `${least} to ${most}`;
}
