import { describe, expect, it } from 'vitest';
import type { Measuring } from '../../src-main/contract/sweep.ts';
import { warningsOf } from '../../src-main/contract/warnings.ts';
import { grade } from '../../src-main/engine/grade.ts';
import { defaultMeasuring } from '../../src-main/engine/plan.ts';
import {
  drifts,
  interquartileRange,
  median,
  outlierShare,
  quantile,
  rankTest,
} from '../../src-main/engine/statistics.ts';
import { flagsOf, isEnough } from '../../src-main/engine/stopping.ts';
import { measured, planOf } from '../fakes/points.ts';

/** Repeatable numbers in [0, 1): mulberry32. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const close = (value: number, wanted: number, tolerance = 1e-12): void =>
  expect(!(Math.abs(value - wanted) <= tolerance), `${value} is not ${wanted}`).toBe(false);

describe('statistics', () => {
  it('takes quantiles of type 7', () => {
    const samples = [4, 1, 3, 2];
    close(median(samples), 2.5);
    close(quantile(samples, 0.25), 1.75);
    close(quantile(samples, 0.95), 3.85);
    close(interquartileRange(samples), 1.5);
    close(median([7]), 7);
    expect(median([])).toBeNaN();
    expect(samples).toEqual([4, 1, 3, 2]);
  });

  it('agrees with a rank test worked by hand, ties included', () => {
    const { p, shareLarger } = rankTest([1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 9, 10, 11, 12]);
    // 6 pairs larger and 4 tied: U = 8 of 64; variance 64/12 * (17 - 24/240) = 90.13; z = (32 - 8 - 0.5) / 9.494 = 2.475.
    close(shareLarger, 8 / 64);
    close(p, 0.01332, 1e-5);
    expect(rankTest([1, 1, 1], [1, 1, 1]).p).toBe(1);
  });

  it('calls two samples of one distribution the same in about 99 % of trials at p = 0.01', () => {
    const next = random(1);
    const draw = (scale: number): number[] => Array.from({ length: 30 }, () => scale * (1 + 0.02 * next()));
    let rejected = 0;
    let found = 0;
    for (let trial = 0; trial < 1000; trial += 1) {
      if (rankTest(draw(1), draw(1)).p < 0.01) rejected += 1;
      if (rankTest(draw(1.03), draw(1)).p < 0.01) found += 1;
    }
    expect(rejected).toBeLessThan(25);
    expect(found).toBeGreaterThan(990);
  });

  it('finds outliers and drift, and neither in noise', () => {
    const next = random(2);
    const quiet = Array.from({ length: 100 }, () => 1 + 0.01 * next());
    expect(outlierShare(quiet)).toBe(0);
    close(outlierShare([...quiet.slice(0, 95), 2, 2, 2, 2, 2]), 0.05);
    expect(drifts(quiet, 0.02)).toBe(false);
    expect(
      drifts(
        quiet.map((value, i) => value + i * 1e-3),
        0.02,
      ),
    ).toBe(true);
    expect(drifts([1, 2], 0.02)).toBe(false);
  });
});

describe('stopping rule', () => {
  const rule = (changes: Partial<Measuring> = {}): Measuring => ({ ...defaultMeasuring, ...changes });
  const times = (count: number, seconds: number): number[] => Array.from({ length: count }, () => seconds);

  it('needs ten samples and half a second when quiet', () => {
    expect(isEnough(times(9, 0.1), rule())).toBe(false);
    expect(isEnough(times(10, 0.01), rule())).toBe(false);
    expect(isEnough(times(10, 0.0625), rule())).toBe(true);
    expect(isEnough(times(10, 0.01), rule(), 0.5)).toBe(true); // each the mean of several steps
    expect(isEnough([], rule({ maxSeconds: 0.001, minSamples: 1 }))).toBe(false);
  });

  it('goes on while noisy, until the time or the number of samples is used up', () => {
    const noisy = (count: number): number[] => Array.from({ length: count }, (_, i) => 0.01 * (1 + (i % 2)));
    expect(isEnough(noisy(100), rule())).toBe(false);
    expect(isEnough(noisy(334), rule())).toBe(true);
    expect(isEnough(noisy(100), rule({ maxSamples: 100 }))).toBe(true);
    expect(flagsOf(noisy(334), rule())).toEqual(['noisy']);
  });

  it('accepts three samples of a slow step, and says so', () => {
    expect(isEnough(times(2, 4), rule())).toBe(false);
    expect(isEnough(times(3, 4), rule())).toBe(true);
    expect(flagsOf(times(3, 4), rule())).toEqual(['few-samples']);
    expect(isEnough(times(1, 4), rule({ minSamples: 1 }))).toBe(true);
  });
});

describe('grades and warnings', () => {
  it('puts the error in the words of attention-spec C', () => {
    const words = [1e-6, 1e-4, 0.01, 0.02, 0.1, 0.4, 0.51, 1, Number.NaN].map((error) => grade(error));
    expect(words.join(' ')).toBe('exact near-lossless near-lossless mild moderate heavy destroyed destroyed destroyed');
    expect([grade(4e-4, 'f16'), grade(4e-3, 'bf16'), grade(4e-4, 'int8')].join(' ')).toBe('exact exact near-lossless');
  });

  it('warns of merged heads and of destroyed output', async () => {
    const [planned] = planOf('balanced');
    const point = await measured(planned);
    const destroyed = { ...point, error: point.error && { ...point.error, relativeL2: 0.97, grade: grade(0.97) } };
    expect(warningsOf(destroyed).map(({ kind }) => kind)).toEqual(['destroyed', 'converted']);
    expect(warningsOf(destroyed)[0].text).toContain('0.97');
  });
});
