import { describe, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { pagedCacheBytes } from '../../src-main/engine/memory-plan.ts';
import { pointId, resolvePoint } from '../../src-main/engine/plan.ts';
import { checkBudget, recommend, type SearchProgress } from '../../src-main/engine/recommend.ts';
import { measured } from '../fakes/points.ts';

/** A landscape with a will of its own: error falls with bytes on the whole, but never smoothly, and short contexts flatter. */
function landscape(seed: number): (config: PointConfig) => Promise<Point> {
  return async (config) => {
    const bytes = pagedCacheBytes(config, config.seqLen) * config.batch * (config.layers ?? 1);
    const { seqLen: _, ...rest } = config;
    const chance = (Number.parseInt(pointId({ ...rest, seqLen: 1 }).slice(0, 8), 16) ^ (seed * 2654435761)) >>> 0;
    const luck = Math.exp(4 * (chance / 2 ** 32 - 0.5));
    const relativeL2 = luck * (config.seqLen / bytes) ** 2 * 1e4 * (1 + config.seqLen / 512);
    const point = await measured({ id: pointId(config), config });
    const { error, memory } = point as Required<Pick<Point, 'error' | 'memory'>>;
    return {
      ...point,
      error: { ...error, relativeL2 },
      memory: { ...memory, kvAllocatedBytes: bytes, peakBytes: 2 * bytes + 1e6 },
    };
  };
}

const base = { model: 'byte-mha', seqLen: 512, phase: 'decode' };

describe('recommend', () => {
  test('beats or equals every named level on 20 random budgets', async () => {
    let beaten = 0;
    for (let i = 0; i < 20; i += 1) {
      const bound = 10 ** (-4 + (4 * ((i * 7919) % 20)) / 20);
      const measure = landscape(i);
      const { chosen, trace } = await recommend({ base, budgets: [{ metric: 'relativeL2', bound }], measure });
      const named = await Promise.all(
        levelNames
          .filter((level) => level !== 'custom')
          .map((level) => measure(resolvePoint({ ...base, level }).config)),
      );
      const fitting = named.filter((point) => (point.error?.relativeL2 as number) <= bound);
      const least = Math.min(...fitting.map(({ memory }) => memory?.kvAllocatedBytes as number));
      if (fitting.length > 0) {
        expect(chosen?.error?.relativeL2).toBeLessThanOrEqual(bound);
        expect(chosen?.memory?.kvAllocatedBytes).toBeLessThanOrEqual(least);
        if ((chosen?.memory?.kvAllocatedBytes as number) < least) beaten += 1;
      }
      // Halving: far fewer full measurements than candidates.
      const full = trace.filter(({ config }) => config.seqLen === 512).length;
      expect(full).toBeLessThan(levelNames.length + 6);
      expect(trace.length).toBeGreaterThan(30);
    }
    expect(beaten).toBeGreaterThan(5);
  });

  test('says why the others lost, and admits when nothing fits', async () => {
    const measure = landscape(3);
    const budgets = [{ metric: 'relativeL2', bound: 0.01 }];
    const told: SearchProgress[] = [];
    const found = await recommend({ base, budgets, measure, onProgress: (progress) => told.push(progress) });
    for (const { seqLen, judged } of found.rounds)
      expect(told.filter((progress) => progress.seqLen === seqLen)).toEqual(
        Array.from({ length: judged }, (_, i) => ({ judged: i, of: judged, seqLen })),
      );
    expect(found.others).toHaveLength(5);
    for (const { point, why } of found.others)
      expect(why).toMatch(
        (point.error?.relativeL2 as number) > 0.01 ? /^relative L2 .*, above 0\.01$/ : /times as large$/,
      );
    const small = await recommend({ base, budgets, measure, limits: { cacheBytes: 1000 } });
    expect(small.chosen).toBeUndefined();
    expect(small.others.some(({ why }) => /more than 1000 B$/.test(why))).toBe(true);
    const { chosen } = found;
    // The device's memory is about all that a point holds, the cache's about the cache alone.
    const peak = chosen?.memory?.peakBytes as number;
    const roomy = await recommend({ base, budgets, measure, limits: { memoryBytes: peak } });
    expect(roomy.chosen?.id).toBe(chosen?.id);
    const tight = await recommend({ base, budgets, measure, limits: { memoryBytes: peak - 1 } });
    expect(tight.chosen?.id).not.toBe(chosen?.id);
    expect(tight.others.some(({ why }) => /^needs .* with weights and workspace, more than /.test(why))).toBe(true);
    const none = await recommend({ base, budgets: [{ metric: 'relativeL2', bound: 0 }], measure });
    expect(none.chosen).toBeUndefined();
  });

  test('a budget names a metric that has a better side', () => {
    expect(() => checkBudget({ metric: 'beauty', bound: 1 })).toThrow(
      /^expected one of .*relativeL2.* for budget but received beauty$/,
    );
    expect(() => checkBudget({ metric: 'samples', bound: 1 })).toThrow(/for budget but received samples$/);
  });
});
