/** Robust statistics of timing samples. Pure; samples in seconds, in the order taken. */

const ascending = (samples: readonly number[]): number[] => [...samples].sort((a, b) => a - b);

/** Quantile of type 7 (linear interpolation, as in NumPy and R): `share` from 0 to 1. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = ascending(samples);
  const position = (sorted.length - 1) * share;
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);
export const interquartileRange = (samples: readonly number[]): number =>
  quantile(samples, 0.75) - quantile(samples, 0.25);
export const sum = (samples: readonly number[]): number => samples.reduce((total, sample) => total + sample, 0);

/** Relative noise: inter-quartile range over median. */
export const noise = (samples: readonly number[]): number => interquartileRange(samples) / median(samples);

/** Share of samples further than three inter-quartile ranges outside the quartiles (Tukey's far-out fence). */
export function outlierShare(samples: readonly number[]): number {
  const fence = 3 * interquartileRange(samples);
  const [low, high] = [quantile(samples, 0.25) - fence, quantile(samples, 0.75) + fence];
  return samples.filter((sample) => sample < low || sample > high).length / samples.length;
}

/** Error function after Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7. */
function erf(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

/**
 * Mann-Whitney rank test: do `a` and `b` come from the same distribution?
 * @returns two-sided p by the normal approximation with tie and continuity correction, and the share of pairs in which
 * `a` is the larger one (0.5 = neither).
 */
export function rankTest(a: readonly number[], b: readonly number[]): { p: number; shareLarger: number } {
  const pooled = [...a.map((value) => ({ value, ofA: true })), ...b.map((value) => ({ value, ofA: false }))];
  pooled.sort((x, y) => x.value - y.value);
  let rankSumA = 0;
  let ties = 0;
  for (let first = 0; first < pooled.length; ) {
    let next = first;
    while (next < pooled.length && pooled[next].value === pooled[first].value) next += 1;
    const sharedRank = (first + 1 + next) / 2;
    for (let i = first; i < next; i += 1) if (pooled[i].ofA) rankSumA += sharedRank;
    ties += (next - first) ** 3 - (next - first);
    first = next;
  }
  const pairs = a.length * b.length;
  const total = pooled.length;
  const u = rankSumA - (a.length * (a.length + 1)) / 2;
  const variance = (pairs / 12) * (total + 1 - ties / (total * (total - 1)));
  if (!(variance > 0)) return { p: 1, shareLarger: 0.5 };
  const distance = Math.max(0, Math.abs(u - pairs / 2) - 0.5) / Math.sqrt(variance);
  return { p: 1 - erf(distance / Math.SQRT2), shareLarger: u / pairs };
}

/** Up to this many samples on either side the distribution of U is counted out; beyond, the normal approximation is exact enough. */
const mostCounted = 20;

/**
 * {@link rankTest}, exact for small samples without ties. The approximation cannot go below 1.8e-4 for two times ten samples,
 * where the truth is 1.1e-5: too little to survive a correction for a hundred comparisons.
 */
export function exactRankTest(a: readonly number[], b: readonly number[]): { p: number; shareLarger: number } {
  const approximate = rankTest(a, b);
  const small = Math.max(a.length, b.length) <= mostCounted && Math.min(a.length, b.length) > 0;
  if (!small || new Set([...a, ...b]).size < a.length + b.length) return approximate;
  const pairs = a.length * b.length;
  const u = Math.round(approximate.shareLarger * pairs);
  const ways = waysOfU(a.length, b.length);
  const tail = sum(ways.slice(0, Math.min(u, pairs - u) + 1)) / sum(ways);
  return { ...approximate, p: Math.min(1, 2 * tail) };
}

/** In how many orders of `n` and `m` samples each value of U comes about: the coefficients of the Gaussian binomial. */
function waysOfU(n: number, m: number): number[] {
  const ways = new Array<number>(n * m + 1).fill(0);
  ways[0] = 1;
  for (let i = 1; i <= n; i += 1) {
    for (let u = n * m; u >= m + i; u -= 1) ways[u] -= ways[u - m - i];
    for (let u = i; u <= n * m; u += 1) ways[u] += ways[u - i];
  }
  return ways;
}

/** Chance at which a difference between the two halves of a series is called drift. */
const driftChance = 1e-3;

/** Whether the second half of the series differs from the first, by rank and by more than `least` of the median. */
export function drifts(samples: readonly number[], least: number): boolean {
  const half = Math.floor(samples.length / 2);
  if (half < 3) return false;
  const [first, second] = [samples.slice(0, half), samples.slice(-half)];
  const moved = Math.abs(median(second) - median(first)) / median(samples);
  return moved > least && rankTest(first, second).p < driftChance;
}
