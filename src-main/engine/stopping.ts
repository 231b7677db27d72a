/** When a point has been sampled enough, and what to say about the samples. Pure. */
import type { Flag } from '../contract/metrics.ts';
import type { Measuring } from '../contract/sweep.ts';
import { drifts, median, noise, outlierShare, sum } from './statistics.ts';

/** A step that takes more than this share of `maxSeconds` gets by with {@link fewestSamples}. */
const slowShare = 1 / 3;
/** Fewer have no quartiles. */
const fewestSamples = 3;
/** More far-out samples than this say that the machine was disturbed, not that a tail was met. */
const tolerableOutliers = 0.01;

/**
 * Enough: `minSamples` and `minSeconds`, and then either quiet (`maxNoise`) or out of time (`maxSeconds`, `maxSamples`).
 * Steps so slow that ten of them would never fit are measured three times.
 * @param seconds that taking the samples took: more than their sum where a sample is the mean of many short steps
 */
export function isEnough(samples: readonly number[], measuring: Measuring, seconds = sum(samples)): boolean {
  const count = samples.length;
  if (count >= measuring.maxSamples) return true;
  if (count < Math.min(fewestSamples, measuring.minSamples)) return false;
  if (seconds >= measuring.maxSeconds || isSlow(samples, measuring)) return true;
  return count >= measuring.minSamples && seconds >= measuring.minSeconds && noise(samples) <= measuring.maxNoise;
}

/** Steps so slow that the usual number of them would never fit. */
export function isSlow(samples: readonly number[], measuring: Measuring): boolean {
  return samples.length > 0 && median(samples) > measuring.maxSeconds * slowShare;
}

export function flagsOf(samples: readonly number[], measuring: Measuring): Flag[] {
  const flags: Flag[] = [];
  if (samples.length < measuring.minSamples) flags.push('few-samples');
  if (!(noise(samples) <= measuring.maxNoise)) flags.push('noisy');
  if (outlierShare(samples) > tolerableOutliers) flags.push('outliers');
  if (drifts(samples, measuring.maxNoise)) flags.push('drift');
  return flags;
}
