/** Random budgets judged on the real engine: what is recommended, beside the best named level that keeps the budget. */
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Budget } from '../../src-main/contract/recommendation.ts';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { failedPoint, measuredPoint } from '../../src-main/engine/measure.ts';
import { defaultMeasuring, pointId, resolvePoint } from '../../src-main/engine/plan.ts';
import { BackendFailure, type MeasuringBackend } from '../../src-main/engine/ports.ts';
import { checkBudget, recommend } from '../../src-main/engine/recommend.ts';

export interface Judged {
  readonly budgets: readonly Budget[];
  readonly chosen: Point | undefined;
  /** The smallest named level that keeps the budgets. */
  readonly named: Point | undefined;
}

/** mulberry32: the same budgets everywhere. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Bounds spread over what the levels reach, from harmless to destroyed. */
const ranges: readonly (readonly [metric: string, from: number, to: number])[] = [
  ['logitKl', 1e-8, 3],
  ['relativeL2', 3e-4, 1],
  ['perplexityChangePercent', 1e-4, 100],
  ['top1Agreement', 1, 0.7],
  ['retrieved', 1, 0.4],
];

/** One bound each, or bounds on two metrics. */
export function randomBudgets(count: number, seed: number): Budget[][] {
  const next = random(seed);
  const draw = (): Budget => {
    const [metric, from, to] = ranges[Math.floor(next() * ranges.length)] as (typeof ranges)[number];
    const bound = from < to ? from * (to / from) ** next() : from + (to - from) * next();
    return { metric, bound };
  };
  return Array.from({ length: count }, () => {
    const [first, second] = [draw(), draw()];
    return next() < 0.5 || first.metric === second.metric ? [first] : [first, second];
  });
}

/** Measures a point once, however many budgets ask for it. */
export function measureOnce(backend: MeasuringBackend): (config: PointConfig) => Promise<Point> {
  const points = new Map<string, Promise<Point>>();
  const measure = async (config: PointConfig): Promise<Point> => {
    const planned = { id: pointId(config), config };
    try {
      const prepared = await backend.prepare(config, 600);
      const samples = await backend.sample(prepared, 0, 1, 600);
      await backend.release(prepared);
      return measuredPoint(planned, prepared, samples, defaultMeasuring);
    } catch (error) {
      if (error instanceof BackendFailure) return failedPoint(planned, error.message);
      throw error;
    }
  };
  return (config) => {
    const id = pointId(config);
    const known = points.get(id) ?? measure(config);
    points.set(id, known);
    return known;
  };
}

const bytesOf = (point: Point): number => point.memory?.kvAllocatedBytes as number;

const keeps = (point: Point, budgets: readonly Budget[]): boolean =>
  budgets.every((budget) => {
    const { metric, bound } = checkBudget(budget);
    const value = metric.read(point) as number;
    return metric.better === 'lower' ? value <= bound : value >= bound;
  });

export async function judge(
  base: Readonly<Record<string, string | number>>,
  budgets: readonly Budget[],
  measure: (config: PointConfig) => Promise<Point>,
): Promise<Judged> {
  const { chosen } = await recommend({ base, budgets, measure });
  const named: Point[] = [];
  for (const level of levelNames) {
    const { config, refused } = resolvePoint({ ...base, level });
    if (level === 'custom' || refused !== undefined) continue;
    const point = await measure(config);
    if (point.outcome === 'measured' && keeps(point, budgets)) named.push(point);
  }
  return { budgets, chosen, named: named.sort((a, b) => bytesOf(a) - bytesOf(b))[0] };
}
