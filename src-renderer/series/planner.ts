/** A plan for a device's memory as two sets of lines along the context: bytes of one sequence, and sequences that fit. */
import type { Metric } from '../../src-main/contract/metrics.ts';
import { type MemoryPlan, own16Bit, type PlanRow } from '../../src-main/contract/model.ts';
import { type Axis, axisFor, placeOn } from './axis.ts';
import { type LevelMark, markOf } from './marks.ts';

const quantity = (id: string, title: string, unit: Metric['unit'], better: Metric['better'] = 'neither'): Metric => ({
  id,
  label: title,
  title,
  unit,
  better,
  read: () => undefined,
});

const plannerMetrics = {
  context: quantity('context', 'context, tokens', 'count'),
  bytes: quantity('bytesPerSequence', 'cache of one sequence', 'bytes', 'lower'),
  fits: quantity('largestBatch', 'sequences that fit', 'count', 'higher'),
} as const;

export interface PlannerPlace {
  readonly context: number;
  /** By level, as the axis shows them. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly fits: Readonly<Record<string, number>>;
}

export interface Planner {
  /** Of the lines, in the order of the plan. */
  readonly levels: readonly string[];
  readonly context: Axis;
  readonly bytes: Axis;
  readonly fits: Axis;
  readonly places: readonly PlannerPlace[];
  /** Bytes of a whole sequence as allocated for real, at the context of the plan. */
  readonly proven: readonly { readonly level: string; readonly context: number; readonly bytes: number }[];
  /** What the weights leave. */
  readonly freeBytes: number;
}

/** What a serving stack runs stands beside the levels: it is none of them. */
export const plannerMark = (level: string, levels: readonly string[]): LevelMark =>
  level === own16Bit ? { colour: 'var(--app-text)', shape: 'circle' } : markOf(level, levels);

export function plannerOf(
  plan: MemoryPlan,
  proofs: Readonly<Record<string, PlanRow>>,
  hidden: readonly string[] = [],
): Planner {
  const curves = plan.curves.filter(({ level }) => !hidden.includes(level));
  const contexts = plan.curves[0]?.places.map(({ context }) => context) ?? [];
  const proven = curves.flatMap(({ level }) => {
    const proof = proofs[level]?.proof;
    return proof && proof.reachedSequences > 0
      ? [{ level, context: proof.context, bytes: proof.allocatedBytes / proof.reachedSequences }]
      : [];
  });
  const all = (read: (place: (typeof curves)[number]['places'][number]) => number): number[] =>
    curves.flatMap(({ places }) => places.map(read));
  const bytes = axisFor(
    plannerMetrics.bytes,
    all((place) => place.bytesPerSequence),
    'log',
  );
  const fits = axisFor(
    plannerMetrics.fits,
    all((place) => place.largestBatch),
    'log',
  );
  return {
    levels: curves.map(({ level }) => level),
    context: axisFor(plannerMetrics.context, contexts, 'log'),
    bytes,
    fits,
    places: contexts.map((context, i) => ({
      context,
      bytes: Object.fromEntries(curves.map(({ level, places }) => [level, places[i]?.bytesPerSequence as number])),
      fits: Object.fromEntries(
        curves.map(({ level, places }) => [level, placeOn(fits, places[i]?.largestBatch as number)]),
      ),
    })),
    proven,
    freeBytes: Math.max(0, plan.memoryBytes - plan.weightBytes),
  };
}

/** How far allocated bytes are from planned ones, as a share: 0.01 = one percent more was planned. */
export function planError({ proof }: PlanRow): number | undefined {
  return proof && proof.allocatedBytes > 0 ? proof.plannedBytes / proof.allocatedBytes - 1 : undefined;
}
