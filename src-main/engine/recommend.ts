/**
 * Finds the smallest cache that keeps an error budget. Named levels are all measured; beside them a search over stacks of
 * techniques runs by successive halving: many candidates judged on short contexts, fewer on longer ones, the last few in full.
 * Their bytes are known by formula before; what is recommended has been measured.
 */
import { formatBytes, formatMetric } from '../contract/format.ts';
import { expected } from '../contract/input-error.ts';
import { type Metric, metrics, type Point } from '../contract/metrics.ts';
import { withNearest } from '../contract/nearest.ts';
import type { Budget, MemoryLimits, Recommendation } from '../contract/recommendation.ts';
import type { AxisValue, PointConfig } from '../contract/sweep.ts';
import { layersOf } from './estimate.ts';
import { levelNames } from './levels.ts';
import { pagedCacheBytes } from './memory-plan.ts';
import { pointId, resolvePoint } from './plan.ts';
import { BackendFailure } from './ports.ts';

type Axes = Readonly<Record<string, AxisValue>>;

export interface SearchProgress {
  readonly judged: number;
  readonly of: number;
  readonly seqLen: number;
}

export interface RecommendRequest {
  /** Model or layer, context, batch: what every candidate shares. */
  readonly base: Axes;
  readonly budgets: readonly Budget[];
  readonly limits?: MemoryLimits;
  /** Told before each candidate: how many of its round are judged, at what context. */
  readonly onProgress?: (progress: SearchProgress) => void;
  /** A measured, skipped or failed row. */
  readonly measure: (config: PointConfig) => Promise<Point>;
}

/** Candidates that go into the second and the last round. */
const kept = [10, 5] as const;
/** Share of the context that the first rounds judge at. */
const shares = [1 / 4, 1 / 2] as const;
const shortest = 64;
/** A short context may flatter or wrong a candidate: what misses the budget by less than this factor goes on. */
const leniency = 4;
const mostOthers = 5;

/** @throws InputError for a metric that does not exist or has no better side. */
export function checkBudget({ metric, bound }: Budget): { readonly metric: Metric; readonly bound: number } {
  const bounded = metrics.filter(({ better }) => better !== 'neither');
  const found = bounded.find(({ id }) => id === metric);
  if (!found) {
    const names = bounded.map(({ id }) => id);
    throw expected(`one of ${names.join(', ')}`, 'budget', withNearest(names, metric));
  }
  return { metric: found, bound };
}

type Checked = ReturnType<typeof checkBudget>;

/** By what factor a value misses its bound; 0 = it keeps it. */
function excess({ metric, bound }: Checked, point: Point): number {
  const value = metric.read(point);
  if (value === undefined || Number.isNaN(value)) return Number.POSITIVE_INFINITY;
  if (metric.better === 'lower') return value <= bound ? 0 : bound > 0 ? value / bound : Number.POSITIVE_INFINITY;
  // Shares are judged by what is missing to 1: 0.98 misses 0.99 by a factor of two.
  if (value >= bound) return 0;
  return bound < 1 ? (1 - value) / (1 - bound) : Number.POSITIVE_INFINITY;
}

const keeps = (budgets: readonly Checked[], point: Point): boolean =>
  point.outcome === 'measured' && budgets.every((budget) => excess(budget, point) === 0);

const bytesByFormula = (c: PointConfig): number => pagedCacheBytes(c, c.seqLen) * c.batch * layersOf(c);

export async function recommend({
  base,
  budgets,
  limits = {},
  onProgress,
  measure,
}: RecommendRequest): Promise<Recommendation> {
  const checked = budgets.map(checkBudget);
  const trace: Point[] = [];
  const seen = new Map<string, Point>();
  const judged = async (config: PointConfig): Promise<Point> => {
    const id = pointId(config);
    const known = seen.get(id);
    if (known) return known;
    const point = await measure(config);
    seen.set(id, point);
    trace.push(point);
    return point;
  };
  const resolve = (axes: Axes, seqLen: number): PointConfig[] => {
    const { config, refused } = resolvePoint({ ...base, ...axes, seqLen });
    return refused === undefined ? [config] : [];
  };
  const context = Number(base.seqLen);

  let candidates = distinct(stacks(resolvePoint(base).config), (axes) => resolve(axes, context));
  const rounds: { seqLen: number; judged: number; kept: number }[] = [];
  for (const [i, share] of shares.entries()) {
    const seqLen = Math.max(shortest, Math.floor(context * share));
    if (seqLen >= context) continue;
    const before = trace.length;
    const hopeful: { axes: Axes; bytes: number }[] = [];
    for (const [at, axes] of candidates.entries()) {
      onProgress?.({ judged: at, of: candidates.length, seqLen });
      const [full] = resolve(axes, context);
      const [short] = resolve(axes, seqLen);
      if (!full || !short) continue;
      const point = await judged(short);
      const near = point.outcome === 'measured' && checked.every((budget) => excess(budget, point) <= leniency);
      // What is too large on a short context does not shrink on a longer one.
      if (near && overflow(point, limits) === undefined) hopeful.push({ axes, bytes: bytesByFormula(full) });
    }
    refuseUnmeasured(trace.slice(before));
    const next = hopeful.sort((a, b) => a.bytes - b.bytes).slice(0, kept[i]);
    rounds.push({ seqLen, judged: candidates.length, kept: next.length });
    candidates = next.map(({ axes }) => axes);
  }

  const named = levelNames.filter((level) => level !== 'custom').map((level): Axes => ({ level }));
  const finals: Point[] = [];
  const last = distinct([...named, ...candidates], (axes) => resolve(axes, context));
  for (const [at, axes] of last.entries()) {
    onProgress?.({ judged: at, of: last.length, seqLen: context });
    for (const config of resolve(axes, context)) finals.push(await judged(config));
  }
  refuseUnmeasured(finals);
  rounds.push({ seqLen: context, judged: last.length, kept: 1 });
  return { budgets, limits, ...verdict(finals, checked, limits), rounds, trace };
}

/** Where no candidate could be measured there is nothing to recommend, and one reason for all of them. */
function refuseUnmeasured(points: readonly Point[]): void {
  const [first] = points;
  if (!first || points.some(({ outcome }) => outcome === 'measured')) return;
  const message = `nothing could be measured: ${first.reason}`;
  throw new BackendFailure(first.outcome === 'skipped' ? 'refused' : 'failed', message, false);
}

/** The first of those that come to the same point. */
function distinct(all: readonly Axes[], resolve: (axes: Axes) => PointConfig[]): Axes[] {
  const ids = new Set<string>();
  return all.filter((axes) => {
    const [config] = resolve(axes);
    if (!config) return false;
    const { level: _, ...techniques } = config;
    const id = JSON.stringify(techniques);
    return ids.has(id) ? false : Boolean(ids.add(id));
  });
}

const cacheOf = ({ memory }: Point): number => memory?.kvAllocatedBytes ?? Number.POSITIVE_INFINITY;

/** What a limit is about, what the point takes of it, and how much there is: of the first limit that is too small. */
function overflow({ memory }: Point, { memoryBytes, cacheBytes }: MemoryLimits): string | undefined {
  if (cacheBytes !== undefined && (memory?.kvAllocatedBytes ?? 0) > cacheBytes)
    return `cache ${formatBytes(memory?.kvAllocatedBytes ?? 0)}, more than ${formatBytes(cacheBytes)}`;
  if (memoryBytes !== undefined && (memory?.peakBytes ?? 0) > memoryBytes)
    return `needs ${formatBytes(memory?.peakBytes ?? 0)} with weights and workspace, more than ${formatBytes(memoryBytes)}`;
  return undefined;
}

function verdict(
  finals: readonly Point[],
  budgets: readonly Checked[],
  limits: MemoryLimits,
): Pick<Recommendation, 'chosen' | 'others'> {
  const speed = ({ throughput }: Point): number => throughput?.tokensPerSecond ?? 0;
  const ranked = finals
    .filter(({ outcome }) => outcome === 'measured')
    .sort((a, b) => cacheOf(a) - cacheOf(b) || speed(b) - speed(a));
  const chosen = ranked.find((point) => keeps(budgets, point) && overflow(point, limits) === undefined);
  const others = ranked
    .filter((point) => point !== chosen)
    // What is next best: first those that keep the budget, then those that miss it by least.
    .map((point) => ({ point, missed: Math.max(...budgets.map((budget) => excess(budget, point))) }))
    .sort((a, b) => a.missed - b.missed || cacheOf(a.point) - cacheOf(b.point))
    .slice(0, mostOthers)
    .map(({ point }) => ({ point, why: whyNot(point, chosen, budgets, limits) }));
  return { ...(chosen && { chosen }), others };
}

function whyNot(point: Point, chosen: Point | undefined, budgets: readonly Checked[], limits: MemoryLimits): string {
  const missed = budgets.find((budget) => excess(budget, point) > 0);
  if (missed) {
    const { metric, bound } = missed;
    const value = metric.read(point);
    const shown = (x: number): string => formatMetric(x, metric.unit);
    return `${metric.label} ${value === undefined ? 'unknown' : shown(value)}, ${metric.better === 'lower' ? 'above' : 'below'} ${shown(bound)}`;
  }
  return (
    overflow(point, limits) ??
    `${(cacheOf(point) / (chosen ? cacheOf(chosen) : cacheOf(point))).toFixed(2)} times as large`
  );
}

/** Stacks that no level has a name for. */
function stacks({ hiddenDim, referenceKvHeads, headDim, seqLen }: PointConfig): Axes[] {
  const found: Axes[] = [];
  for (const keyDtype of ['int8', 'int4', 'int3'])
    for (const valueDtype of ['int8', 'int4', 'int3', 'int2']) found.push({ level: 'four-bit', keyDtype, valueDtype });
  for (const cacheDtype of ['f16', 'int8', 'int4', 'int3', 'int2']) {
    found.push({ level: 'custom', cacheDtype, keyRope: 'pre', sinkTokens: 4 });
    found.push({ level: 'four-bit-input', cacheDtype });
  }
  const width = Math.min(hiddenDim, 2 * referenceKvHeads * headDim);
  const groups = Math.floor(width / 32);
  const coordinates = (share: number): number => Math.max(1, Math.round(groups * share)) * 32;
  for (const [many, few] of [
    [8, 4],
    [8, 3],
    [4, 3],
    [4, 2],
    [3, 2],
  ] as const)
    for (const total of [1, 0.75, 0.5]) {
      const all = coordinates(total);
      const loud = Math.min(all - 32, coordinates(total / 4));
      if (loud > 0) found.push({ level: 'mixed-latent', latentBands: `${loud}x${many}+${all - loud}x${few}` });
    }
  for (const share of [0.6, 0.45, 0.35, 0.25, 0.18])
    found.push({ level: 'mixed-latent', adaptiveBudgetBytes: Math.round(width * share) });
  for (const cacheDtype of ['int8', 'int4'])
    found.push({ level: 'near-lossless', cacheDtype, window: Math.max(16, Math.floor(seqLen / 2)), sinkTokens: 4 });
  return found;
}
