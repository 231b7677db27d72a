import { expect, test } from 'vitest';
import { cacheFormula } from '../../src-main/contract/cache-formula.ts';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { logicalCacheBytes } from '../../src-main/engine/estimate.ts';
import { expandSweep, resolvePoint } from '../../src-main/engine/plan.ts';
import { sweeps } from '../../src-main/engine/sweeps.ts';

const isAdaptive = (config: PointConfig): boolean => 'adaptiveBudgetBytes' in config || 'adaptiveEnergy' in config;

test.each(Object.values(sweeps))('every point of $name: the formula shown is the formula planned with', (sweep) => {
  for (const { config, refused } of expandSweep(sweep)) {
    if (refused !== undefined) continue;
    const formula = cacheFormula(config);
    if (isAdaptive(config)) expect(formula).toBeUndefined();
    else expect(formula?.bytes).toBeCloseTo(logicalCacheBytes(config), 6);
  }
});

test('the terms carry the figures of the point', () => {
  const { config } = resolvePoint({ level: 'baseline', hiddenDim: 512, heads: 8, seqLen: 512, batch: 2 });
  expect(cacheFormula(config)).toEqual({
    bytes: 2 * 512 * 2 * 512 * 4,
    lines: [
      '2 x 512 tokens x 4096 B',
      '2048 B a token: keys, 8 KV heads x 64 x 32 bit',
      '2048 B a token: values, 8 KV heads x 64 x 32 bit',
    ],
  });
});
