/** From a sweep as written to the points it stands for. Pure. */
import type { SweepPreview } from '../contract/api.ts';
import { cachedChannels } from '../contract/cached-channels.ts';
import { expected } from '../contract/input-error.ts';
import {
  type AxisValue,
  type CacheDtype,
  type Grid,
  type Measuring,
  type ModelShape,
  type PointConfig,
  pointConfigSchema,
  type Sweep,
  type Technique,
  techniqueSchema,
  unsaid,
} from '../contract/sweep.ts';
import { type Axes, checkAxes, checkAxisValue } from './axes.ts';
import { builtinModelShapes } from './builtin-models.ts';
import { estimatePeakBytes, estimateSeconds } from './estimate.ts';
import { isLatent, latentFields, rankPair, wholeSizes, whyImpossible } from './impossible.ts';
import { type LevelName, levels } from './levels.ts';

export interface PlannedPoint {
  readonly id: string;
  readonly config: PointConfig;
  /** Why this combination cannot exist; the point is then skipped. */
  readonly refused?: string;
}

const mostPoints = 100_000;

/** Impossible points, one entry for each reason: a sweep may have thousands that share one. */
export function byReason(
  skipped: readonly { readonly config: PointConfig; readonly reason: string }[],
): { readonly reason: string; readonly levels: readonly string[]; readonly points: number }[] {
  const found = new Map<string, { levels: Set<string>; points: number }>();
  for (const { config, reason } of skipped) {
    const entry = found.get(reason) ?? { levels: new Set(), points: 0 };
    entry.levels.add(config.level);
    entry.points += 1;
    found.set(reason, entry);
  }
  return [...found].map(([reason, { levels, points }]) => ({ reason, levels: [...levels], points }));
}

export const defaultMeasuring: Measuring = {
  minSeconds: 0.5,
  maxSeconds: 5,
  maxNoise: 0.02,
  minSamples: 10,
  maxSamples: 2000,
  timeoutSeconds: 300,
};

/** The sweep's own settings over the defaults. */
export function resolveMeasuring(sweep: Sweep): Measuring {
  const own = Object.entries(sweep.measuring ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaultMeasuring, ...Object.fromEntries(own) };
}

/**
 * All points of a sweep in the order written, each once; impossible ones carry the reason.
 * @throws InputError for an unknown axis, level or value, and for zipped axes of different length.
 */
export function expandSweep(sweep: Sweep): PlannedPoint[] {
  const points = new Map<string, PlannedPoint>();
  for (const grid of [sweep, ...(sweep.also ?? [])]) {
    for (const values of expandGrid(grid)) {
      const { config, refused } = resolvePoint(values);
      const id = pointId(config);
      if (!points.has(id)) points.set(id, refused === undefined ? { id, config } : { id, config, refused });
    }
  }
  return [...points.values()];
}

/** What a sweep would run, and about how much time and memory it would take. Same errors as {@link expandSweep}. */
export function previewSweep(sweep: Sweep): SweepPreview {
  const planned = expandSweep(sweep);
  const points = planned.filter((point) => point.refused === undefined).map((point) => point.config);
  const skipped = planned.flatMap(({ config, refused }) =>
    refused === undefined ? [] : [{ config, reason: refused }],
  );
  const measuring = resolveMeasuring(sweep);
  return {
    points,
    skipped,
    estimatedSeconds: points.reduce((sum, config) => sum + estimateSeconds(config, measuring), 0),
    estimatedPeakBytes: points.reduce((most, config) => Math.max(most, estimatePeakBytes(config)), 0),
  };
}

/** Crosses axes in the order written, the last one fastest; a zip group advances where its first axis stands. */
function expandGrid(grid: Grid): Record<string, AxisValue>[] {
  const names = Object.keys(grid.axes);
  for (const name of names) for (const value of grid.axes[name]) checkAxisValue(name, value);
  const zips = grid.zip ?? [];
  for (const zip of zips) checkZip(grid, zip);

  let points: Record<string, AxisValue>[] = [{}];
  for (const name of names) {
    const zip = zips.find((group) => group.includes(name)) ?? [name];
    if (name !== names.find((candidate) => zip.includes(candidate))) continue;
    const steps = grid.axes[name].map((_, i) => Object.fromEntries(zip.map((axis) => [axis, grid.axes[axis][i]])));
    if (points.length * steps.length > mostPoints) {
      throw expected(`at most ${mostPoints} points`, 'sweep', points.length * steps.length);
    }
    points = points.flatMap((point) => steps.map((step) => ({ ...point, ...step })));
  }
  return points;
}

function checkZip(grid: Grid, zip: readonly string[]): void {
  const missing = zip.find((name) => !Object.hasOwn(grid.axes, name));
  if (missing !== undefined) throw expected('an axis of the sweep', 'zip', missing);
  const repeated = (grid.zip ?? []).flat().find((name, i, all) => all.indexOf(name) !== i);
  if (repeated !== undefined) throw expected('each axis at most once', 'zip', repeated);
  const lengths = zip.map((name) => grid.axes[name].length);
  if (new Set(lengths).size > 1)
    throw expected('axes of equal length', `zip of ${zip.join(', ')}`, lengths.join(' and '));
}

/**
 * One point, complete, from the axes that were set.
 * @returns `refused` where the combination is well formed but cannot exist.
 * @throws InputError for an unknown axis, level or value.
 */
export function resolvePoint(values: Readonly<Record<string, AxisValue>>): { config: PointConfig; refused?: string } {
  const axes = checkAxes(values);
  const level = axes.level ?? unsaid.level;
  const known = axes.model === undefined ? undefined : builtinModelShapes[axes.model];
  const hiddenDim = axes.hiddenDim ?? known?.hiddenDim ?? 1024;
  const heads = axes.heads ?? known?.heads ?? 16;
  const shape: ModelShape = {
    hiddenDim,
    heads,
    headDim: axes.headDim ?? known?.headDim ?? Math.min(512, Math.max(1, Math.floor(hiddenDim / heads))),
    referenceKvHeads: axes.referenceKvHeads ?? known?.referenceKvHeads ?? heads,
    latentDim: axes.latentDim,
    ropeDim: axes.ropeDim,
    valueDim: axes.valueDim,
    ropeTheta: axes.ropeTheta ?? known?.ropeTheta ?? 10000,
    modelSeed: axes.modelSeed ?? 1,
  };
  const technique = applyAxes(levels[level as LevelName].resolve(shape), axes, shape);
  const phase = axes.phase ?? unsaid.phase;
  if (phase === 'speculate') technique.speculativeTokens ??= 4;
  const backend = axes.backend ?? 'cpu';
  const config: PointConfig = {
    level,
    model: axes.model,
    layers: axes.layers ?? known?.layers,
    layer: axes.layer,
    tokenFile: axes.tokenFile,
    ...shape,
    ...technique,
    batch: axes.batch ?? 1,
    seqLen: axes.seqLen ?? 512,
    phase,
    verifyTokens: phase === 'verify' ? (axes.verifyTokens ?? (technique.speculativeTokens ?? 4) + 1) : undefined,
    cacheLimitBytes: phase === 'capacity' ? (axes.cacheLimitBytes ?? usualCacheLimit(backend)) : undefined,
    backend,
    seed: axes.seed ?? 100,
    calibrationTokens: axes.calibrationTokens ?? 4096,
  };
  const refused = whyImpossible(config, axes, known);
  const ordered = inSchemaOrder(config);
  return refused === undefined ? { config: ordered } : { config: ordered, refused };
}

/** A system gives more memory than there is, so that only a limit can refuse; a GPU refuses by itself. */
const usualCacheLimit = (backend: string): number | undefined => (backend === 'cpu' ? 2 ** 30 : undefined);

/** Fields in the order of the contract, without the absent ones. */
const inSchemaOrder = (config: PointConfig): PointConfig =>
  Object.fromEntries(
    Object.keys(pointConfigSchema.shape)
      .map((name) => [name, config[name as keyof PointConfig]])
      .filter(([, value]) => value !== undefined),
  ) as PointConfig;

const integerBits: Partial<Record<CacheDtype, number>> = { int8: 8, int4: 4, int3: 3, int2: 2 };
const isInteger = (dtype: CacheDtype): boolean => dtype in integerBits;

/** The level's techniques with the axes laid over them; what then no longer applies is left out. */
function applyAxes(preset: Technique, axes: Axes, shape: ModelShape): Technique {
  const technique: Technique = { ...preset };
  const given = (names: readonly (keyof Axes)[]): boolean => names.some((name) => axes[name] !== undefined);
  if (given([...wholeSizes, ...rankPair])) for (const name of wholeSizes) delete technique[name];
  if (given(wholeSizes)) for (const name of rankPair) delete technique[name];

  if (axes.cacheDtype) Object.assign(technique, { keyDtype: axes.cacheDtype, valueDtype: axes.cacheDtype });
  for (const name of Object.keys(techniqueSchema.shape) as (keyof Technique)[]) {
    if (name !== 'kvHeads' && axes[name] !== undefined) Object.assign(technique, { [name]: axes[name] });
  }
  technique.kvHeads = axes.kvHeads === undefined ? technique.kvHeads : kvHeadsOf(axes.kvHeads, shape.heads);
  if (technique.kvHeads >= shape.referenceKvHeads) delete technique.kvConversion;
  else technique.kvConversion ??= 'mean';

  if (!isLatent(technique.cacheKind)) for (const name of latentFields) delete technique[name];
  else Object.assign(technique, { latentBasis: 'activation', latentCentred: true, ...technique });
  completeGrouping(technique, shape);
  return technique;
}

function kvHeadsOf(value: number | string, heads: number): number {
  if (typeof value === 'number') return value;
  if (value === 'MHA') return heads;
  return value === 'MQA' ? 1 : Number(value.slice('GQA-'.length));
}

/** Groups belong to integer types, and every integer type has them: by default 32 channels of a token, asymmetric. */
function completeGrouping(technique: Technique, shape: ModelShape): void {
  const { keyDim, valueDim } = cachedChannels(shape, 1);
  const direct = technique.cacheKind === 'direct';
  // Bands bring their own rule: groups of 32, 8 bits symmetric, fewer asymmetric (attention-spec G.7).
  const banded = technique.latentBands !== undefined;
  for (const side of ['key', 'value'] as const) {
    const [grouping, size] = [`${side}Grouping`, `${side}GroupSize`] as const;
    if (!isInteger(technique[`${side}Dtype`]) || banded) {
      delete technique[grouping];
      delete technique[size];
    } else {
      technique[grouping] ??= 'token';
      technique[size] ??= Math.min(32, direct ? (side === 'key' ? keyDim : valueDim) : shape.hiddenDim);
    }
  }
  if (banded || !(isInteger(technique.keyDtype) || isInteger(technique.valueDtype))) delete technique.symmetric;
  else technique.symmetric ??= false;
}

/** Stable name of a point: FNV-1a, 64 bits, over its fields in alphabetical order. */
export function pointId(config: PointConfig): string {
  const text = JSON.stringify(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  let hash = 0xcbf29ce484222325n;
  for (let i = 0; i < text.length; i += 1) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(text.charCodeAt(i))) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, '0');
}
