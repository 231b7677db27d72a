/** Fields of a configuration as axes: their names in words, and which of them vary in the points at hand. */
import { formatMetric } from '../../src-main/contract/format.ts';
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { cacheDtypes } from '../../src-main/contract/sweep.ts';

type Field = keyof Point['config'];
/** No field of the configuration, yet it tells points apart: figures of two devices are never one figure. */
export const deviceField = 'device';

const titles: Partial<Record<Field, string>> = {
  level: 'level',
  phase: 'phase',
  hiddenDim: 'hidden size d',
  heads: 'heads',
  headDim: 'head size',
  referenceKvHeads: 'KV heads of the model',
  latentDim: 'latent size of the model',
  ropeDim: 'rotary key size',
  valueDim: 'value head size',
  seqLen: 'context tokens',
  batch: 'batch',
  kvHeads: 'KV heads',
  keyDtype: 'key type',
  valueDtype: 'value type',
  latentRank: 'latent rank',
  latentRankKey: 'key latent rank',
  latentRankValue: 'value latent rank',
  window: 'window, tokens',
  residualTokens: 'residual tokens',
  sinkTokens: 'sink tokens',
  keyGroupSize: 'key group size',
  valueGroupSize: 'value group size',
  verifyTokens: 'tokens per verify step',
  speculativeTokens: 'draft tokens',
  cacheLimitBytes: 'cache limit, bytes',
  backend: 'backend',
};

/** The device and the shape first, then techniques in the order of the contract. */
const order: readonly string[] = ['level', 'device', 'phase', 'seqLen', 'batch', 'hiddenDim', 'heads', 'headDim'];
const dtypes: readonly string[] = cacheDtypes;
/** Repetitions of one measurement, not a thing to plot along. */
const repetitions: readonly string[] = ['seed', 'modelSeed', 'calibrationTokens'];

export const fieldTitle = (field: string): string =>
  titles[field as Field] ?? field.replaceAll(/([A-Z])/g, (capital) => ` ${capital.toLowerCase()}`);

/** Of a point whose figures do not matter here. */
type Described = Pick<Point, 'config' | 'device'>;

export const readField = ({ config, device }: Described, field: string): string | number | boolean | undefined =>
  field === deviceField ? device?.name : config[field as Field];

/** A numeric field in the clothes of a metric, so that one kind of axis serves both. */
export const fieldMetric = (field: string): Metric => ({
  id: field,
  label: fieldTitle(field),
  title: fieldTitle(field),
  unit: 'count',
  better: 'neither',
  read: (point) => {
    const value = readField(point, field);
    return typeof value === 'number' ? value : undefined;
  },
});

/** Fields that take several values within one level: what follows from the level is no axis. */
export function varyingFields(points: readonly Point[]): string[] {
  const first = new Map<string, Point['config']>();
  const varying = new Set<string>();
  for (const { config } of points) {
    const other = first.get(config.level);
    if (!other) first.set(config.level, config);
    else {
      for (const field in config) if (config[field as Field] !== other[field as Field]) varying.add(field);
      for (const field in other) if (!(field in config)) varying.add(field);
    }
  }
  if (new Set(points.map(({ device }) => device?.name)).size > 1) varying.add(deviceField);
  const place = (field: string): number => (order.includes(field) ? order.indexOf(field) : order.length);
  return [...varying].filter((field) => !repetitions.includes(field)).sort((a, b) => place(a) - place(b));
}

/** Those along which a line can be drawn. */
export const numericFields = (points: readonly Point[]): string[] =>
  varyingFields(points).filter((field) => points.some((point) => typeof readField(point, field) === 'number'));

/**
 * Fields that tell apart points of one level at one place of `along`; what follows from the level, from `along` or from
 * a field named before says nothing new. Devices always do: no line and no bar mixes them.
 */
export function tellingFields(points: readonly Point[], along: string): string[] {
  const telling: string[] = [];
  let keys = points.map((point) => `${point.config.level} ${readField(point, along)}`);
  for (const field of varyingFields(points)) {
    if (field === along) continue;
    if (field === deviceField) {
      telling.push(field);
      continue;
    }
    const values = new Map<string, unknown>();
    const isTold = points.every((point, i) => {
      const value = readField(point, field);
      if (!values.has(keys[i])) values.set(keys[i], value);
      return values.get(keys[i]) === value;
    });
    if (isTold) continue;
    telling.push(field);
    keys = points.map((point, i) => `${keys[i]} ${readField(point, field)}`);
  }
  return telling;
}

/** As every count is written, `131,072`; a seed is no count. */
export const fieldValue = (value: string | number | boolean, field: string): string =>
  typeof value === 'number' && !repetitions.includes(field) ? formatMetric(value, 'count') : String(value);

/** `batch 8`, `byte-mqa`: words speak for themselves, numbers need their names. */
export const valueInWords = (point: Described, field: string): string => {
  const value = readField(point, field);
  const shown = value === undefined ? 'none' : fieldValue(value, field);
  if (field === 'seqLen') return `${shown} tokens`; // told most often, and beside long names
  const [name] = fieldTitle(field).split(',');
  return typeof value === 'string' ? value : `${name} ${shown}`;
};

/** Between the parts of a name. */
export const nameSeparator = ' · ';

/** `four-bit · batch 8`: the level, and of these fields all that the point has. */
export const nameInWords = (point: Described, fields: readonly string[]): string =>
  [
    point.config.level,
    ...fields.filter((field) => readField(point, field) !== undefined).map((field) => valueInWords(point, field)),
  ].join(nameSeparator);

/** What tells a point from others of its level. */
export const restInWords = (point: Point, telling: readonly string[]): string =>
  telling.map((field) => valueInWords(point, field)).join(', ');

/** Numbers by size, levels as the catalogue has them, types from the most exact to the coarsest, other words by the alphabet. */
export function valuesOf(points: readonly Point[], field: string, levels: readonly string[]): (string | number)[] {
  const values = [...new Set(points.flatMap((point) => cellValue(readField(point, field)) ?? []))];
  return values.sort((a, b) => {
    if (typeof a === 'number' && typeof b === 'number') return a - b;
    if (field === 'level') return levels.indexOf(String(a)) - levels.indexOf(String(b));
    if (field.endsWith('Dtype')) return dtypes.indexOf(String(a)) - dtypes.indexOf(String(b));
    return String(a).localeCompare(String(b));
  });
}

export const cellValue = (value: string | number | boolean | undefined): string | number | undefined =>
  typeof value === 'boolean' ? String(value) : value;
