import { describe, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Environment } from '../../src-main/contract/session.ts';
import { compareSessions, holm } from '../../src-main/engine/compare.ts';
import { exactRankTest } from '../../src-main/engine/statistics.ts';
import { environment, measured, planOf } from '../fakes/points.ts';

/** mulberry32: the same numbers on every machine. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
const normal = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** What an idle machine shows: inter-quartile noise of 1 %, now and then a step that was interrupted, and runs that differ. */
const stepNoise = 0.01 / 1.349;
const runNoise = 0.003;
const interruptedShare = 0.03;

function samplesOf(random: () => number, seconds: number, count: number): number[] {
  const ofRun = seconds * Math.exp(runNoise * normal(random));
  return Array.from({ length: count }, () => {
    const interrupted = random() < interruptedShare ? 0.5 * random() : 0;
    return ofRun * Math.exp(stepNoise * normal(random)) * (1 + interrupted);
  });
}

const [base] = await Promise.all(planOf('baseline').map(measured));
const withSamples = (samplesSeconds: readonly number[], id = base.id): Point => ({
  ...base,
  id,
  samplesSeconds: [...samplesSeconds],
});
const session = (...points: Point[]) => ({ environment, points });

describe('a thousand simulated comparisons', () => {
  const trials = 1000;
  const judged = (seed: number, slowDown: number, count: number, points = 1) => {
    const random = randomFrom(seed);
    return Array.from({ length: trials }, () => {
      const pairs = Array.from({ length: points }, (_, i) => [
        withSamples(samplesOf(random, 0.01, count), `p${i}`),
        withSamples(samplesOf(random, 0.01 * (i === 0 ? 1 + slowDown : 1), count), `p${i}`),
      ]);
      return compareSessions(session(...pairs.map(([a]) => a)), session(...pairs.map(([, b]) => b))).points;
    });
  };
  const share = (count: number): number => count / trials;

  test.each([10, 12, 30, 300])('one version timed twice, %i samples: SAME at least 99 times of 100', (count) => {
    const same = judged(1, 0, count).filter(([{ verdict }]) => verdict === 'SAME').length;
    expect(share(same)).toBeGreaterThanOrEqual(0.99);
  });

  test.each([10, 12, 30, 300])('a slow-down of three percent, %i samples: SLOWER at least 95 times of 100', (count) => {
    const slower = judged(2, 0.03, count).filter(([{ verdict }]) => verdict === 'SLOWER').length;
    expect(share(slower)).toBeGreaterThanOrEqual(0.95);
  });

  test('a slow-down of 5 % among fifty points is found, and nothing beside it', () => {
    const all = judged(3, 0.05, 12, 50);
    const found = all.filter(([first]) => first.verdict === 'SLOWER').length;
    const wrong = all.filter((points) => points.slice(1).some(({ isRegression }) => isRegression)).length;
    expect(share(found)).toBeGreaterThanOrEqual(0.95);
    expect(share(wrong)).toBeLessThanOrEqual(0.05);
  });
});

describe('verdicts and their reasons', () => {
  const steady = (seconds: number, count = 12): number[] =>
    Array.from({ length: count }, (_, i) => seconds * (1 + (i - count / 2) * 1e-4));
  const verdictOf = (before: Point, after: Point) => compareSessions(session(before), session(after)).points[0];

  test('faster and slower, with the ratio and its noise', () => {
    const slower = verdictOf(withSamples(steady(0.01)), withSamples(steady(0.011)));
    expect(slower).toMatchObject({ verdict: 'SLOWER', isRegression: true });
    expect(slower.timeRatio).toBeCloseTo(1.1, 9);
    expect(slower.reason).toMatch(/^10 % more time, beyond the noise of 1\.8 %; chance .* \(12 and 12 samples\)$/);
    expect(slower.timeRatioRange?.[0]).toBeGreaterThan(1);
    expect(verdictOf(withSamples(steady(0.011)), withSamples(steady(0.01)))).toMatchObject({
      verdict: 'FASTER',
      isRegression: false,
    });
  });

  test('too few samples, or too wide a spread, settle nothing', () => {
    expect(verdictOf(withSamples([1, 1, 1]), withSamples(steady(2)))).toMatchObject({
      verdict: 'UNSURE',
      reason: '3 and 12 samples: at least 5 of each are needed; raise maxSeconds',
    });
    const wide = Array.from({ length: 12 }, (_, i) => 0.01 * (1 + i / 12));
    expect(verdictOf(withSamples(wide), withSamples(wide.map((s) => s * 1.001)))).toMatchObject({ verdict: 'UNSURE' });
  });

  test('where samples spread far, only a difference of several times that is believed', () => {
    const spread = Array.from({ length: 30 }, (_, i) => 0.01 * (1 + ((i * 7) % 30) / 60));
    const slower = (factor: number) => verdictOf(withSamples(spread), withSamples(spread.map((s) => s * factor)));
    expect(slower(1.4)).toMatchObject({ verdict: 'UNSURE' });
    expect(slower(1.4).reason).toMatch(
      /^40 % more time, but the samples spread so far that \d+ % could hide: run longer/,
    );
    expect(slower(4)).toMatchObject({ verdict: 'SLOWER' });
  });

  test('a difference between disturbed samples is not believed', () => {
    const disturbed = withSamples(steady(0.0104));
    const throughput = disturbed.throughput && { ...disturbed.throughput, flags: ['foreign-load' as const] };
    const { verdict, reason } = verdictOf(withSamples(steady(0.01)), { ...disturbed, throughput });
    expect([verdict, reason]).toEqual([
      'UNSURE',
      '4.0 % more time, but the samples are marked foreign-load: run again',
    ]);
  });

  test('a machine whose own ceilings moved explains as much and a little more, other machines explain nothing', () => {
    const points = (seconds: number) => [withSamples(steady(seconds))];
    const verdictOn = (seconds: number, change: Partial<Environment>) =>
      compareSessions(
        { environment, points: points(0.01) },
        { environment: { ...environment, ...change }, points: points(seconds) },
      ).points[0];
    const half = { fmaFlopsPerSecond: 0.8e11 };
    expect(verdictOn(0.014, half)).toMatchObject({ verdict: 'UNSURE' });
    expect(verdictOn(0.014, half).reason).toMatch(
      /^40 % more time, but the ceilings of the machine itself moved by 25 %: /,
    );
    expect(verdictOn(0.017, half)).toMatchObject({ verdict: 'SLOWER' });
    expect(verdictOn(0.014, { fmaFlopsPerSecond: 0.95e11 })).toMatchObject({ verdict: 'SLOWER' });
    expect(verdictOn(0.014, { ...half, cpu: 'Another CPU' })).toMatchObject({ verdict: 'SLOWER' });
    expect(verdictOn(0.01, half)).toMatchObject({ verdict: 'SAME' });
  });

  test('samples that change slowly say less than their number: the same many, shuffled, say more', () => {
    // Ten stretches of a hundred, each at its own speed: the middle of such a run is known no better than ten samples know it.
    const levels = [0, 4, 1, 9, 3, 8, 2, 7, 5, 6].map((level) => 0.01 * (1 + level * 0.01));
    const slow = (factor: number) => withSamples(levels.flatMap((level) => steady(level * factor, 100)));
    const mixed = (factor: number) =>
      withSamples(Array.from({ length: 1000 }, (_, i) => steady(levels[i % 10] * factor, 100)[Math.floor(i / 10)]));
    expect(verdictOf(slow(1), slow(1.035))).not.toMatchObject({ verdict: 'SLOWER' });
    expect(verdictOf(mixed(1), mixed(1.035))).toMatchObject({ verdict: 'SLOWER' });
  });

  test('a point that fails now is a regression; one that failed before is none', () => {
    const failed: Point = { id: base.id, config: base.config, outcome: 'failed', reason: 'out of memory' };
    expect(verdictOf(base, failed)).toMatchObject({
      verdict: 'UNSURE',
      reason: 'failed now: out of memory',
      isRegression: true,
    });
    expect(verdictOf(failed, base)).toMatchObject({ verdict: 'UNSURE', isRegression: false });
  });

  test('memory is compared exactly, errors beyond rounding', () => {
    const changed = (kvBytes: number, errorFactor: number): Point => ({
      ...base,
      ...(base.memory && { memory: { ...base.memory, kvAllocatedBytes: base.memory.kvAllocatedBytes + kvBytes } }),
      ...(base.error && { error: { ...base.error, relativeL2: base.error.relativeL2 * errorFactor + 1e-7 } }),
    });
    const coarse: Point = { ...base, ...(base.error && { error: { ...base.error, relativeL2: 0.05 } }) };
    expect(verdictOf(base, changed(0, 1)).changes).toEqual([]);
    expect(verdictOf(base, changed(64, 1))).toMatchObject({ verdict: 'SAME', isRegression: true });
    expect(verdictOf(base, changed(-64, 1))).toMatchObject({
      isRegression: false,
      changes: [{ metric: 'kvAllocatedBytes', isWorse: false }],
    });
    const worse = { ...coarse, ...(coarse.error && { error: { ...coarse.error, relativeL2: 0.052 } }) };
    expect(verdictOf(coarse, worse)).toMatchObject({
      isRegression: true,
      changes: [{ metric: 'relativeL2', before: 0.05, after: 0.052, isWorse: true }],
    });
  });

  test('points of one session only, and other machines, are told', () => {
    const other = withSamples(steady(1), 'other');
    const elsewhere = {
      ...environment,
      cpu: 'Another CPU',
      startedAt: 'later',
      loadAverage1m: 3,
      readBytesPerSecond: 2e10,
    };
    const result = compareSessions(session(base, other), { environment: elsewhere, points: [base] });
    expect(result.onlyBefore).toEqual([other.config]);
    expect(result.onlyAfter).toEqual([]);
    expect(result.environment).toEqual([
      { field: 'cpu', before: 'Test CPU', after: 'Another CPU' },
      { field: 'readBytesPerSecond', before: '10 GB/s', after: '20 GB/s' },
    ]);
    expect(result.counts).toEqual({ SAME: 1, FASTER: 0, SLOWER: 0, UNSURE: 0 });
  });
});

test('Holm: the smallest chance pays for all, the largest for itself, and order is kept', () => {
  const corrected = holm([0.04, 0.01, 0.03]);
  expect(corrected.map((chance) => Number(chance.toFixed(4)))).toEqual([0.06, 0.03, 0.06]);
  expect(holm([])).toEqual([]);
});

test('the exact rank test agrees with published tail areas', () => {
  // Two times ten samples, fully apart: 2 / C(20, 10).
  const low = Array.from({ length: 10 }, (_, i) => i);
  const high = low.map((i) => i + 100);
  expect(exactRankTest(low, high).p).toBeCloseTo(2 / 184756, 12);
  // n = 5, m = 5, U = 2: two-sided 0.0317 (Mann and Whitney 1947, table I: 0.016 one-sided).
  expect(exactRankTest([1, 2, 3, 4, 7], [5, 6, 8, 9, 10]).p).toBeCloseTo(0.0317, 4);
});
