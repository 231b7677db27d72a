/** Two sessions, point by point. Pure: what may be called a difference is decided here and nowhere else. */

import type { Comparison, EnvironmentChange, FigureChange, PointComparison, Verdict } from '../contract/comparison.ts';
import { deviceOf, type MeasuredDevice, summariseDevices } from '../contract/devices.ts';
import { formatMetric, formatNumber } from '../contract/format.ts';
import { type Metric, metrics, type Point } from '../contract/metrics.ts';
import type { Environment } from '../contract/session.ts';
import { exactRankTest, interquartileRange, median, sum } from './statistics.ts';

/**
 * Differences below this share are never called one. Two sessions of one version on an idle machine differ by about 0.6 %
 * (standard deviation: where memory fell, how the clock stood, and ten samples a median); this is three times that, and leaves
 * a slow-down of 3 % two of them above.
 */
const noiseFloor = 0.018;

/** With noise the floor rises to this many standard errors of the ratio: samples of one run agree more than runs do. */
const floorInStandardErrors = 3;

/** Where the floor has risen beyond this, "no difference seen" says nothing: the verdict is UNSURE. */
const usefulFloor = 0.05;

/** Chance of one wrong FASTER or SLOWER anywhere in a comparison of equal versions, before the floor takes its share (Holm). */
const familyChance = 0.05;

/** Below this a rank test of two samples cannot reach any useful chance, however far apart they are. */
const leastSamples = 5;

/** Where the floor is that high something else was running: only differences of so many floors are believed. */
const floorsWhenDisturbed = 4;

/**
 * Samples in a row resemble each other: from this many on, the error of their median is also taken from the medians of so many
 * stretches, which sees what changes more slowly than one sample.
 */
const leastForStretches = 50;
const stretches = 10;

/** Flags that say a series is not of this program alone. */
const disturbing = ['foreign-load', 'throttled', 'drift'] as const;

/**
 * Figures compared by value, and by how much two runs of one version may differ: cache bytes not at all; the peak by a page
 * or two of other buffers; errors by the order of additions, which depends on threads and instruction set.
 */
const tolerances: readonly { readonly id: string; readonly share: number; readonly absolute: number }[] = [
  { id: 'kvAllocatedBytes', share: 0, absolute: 0 },
  { id: 'extraWeightBytes', share: 0, absolute: 0 },
  { id: 'peakBytes', share: 0.01, absolute: 64 * 1024 },
  { id: 'relativeL2', share: 0.01, absolute: 1e-6 },
];

export interface Comparable {
  readonly environment: Environment;
  readonly points: readonly Point[];
}

/** Points are matched by id: equal ids mean equal configurations. */
export function compareSessions(before: Comparable, after: Comparable): Comparison {
  const earlier = new Map(before.points.map((point) => [point.id, point]));
  const later = new Set(after.points.map(({ id }) => id));
  const pairs = after.points.flatMap((point) => {
    const old = earlier.get(point.id);
    return old ? [{ before: old, after: point, timing: timingOf(old, point) }] : [];
  });
  const tested = pairs.flatMap(({ timing }) => (typeof timing === 'string' ? [] : [timing]));
  const chances = new Map(holm(tested.map(({ chance }) => chance)).map((chance, i) => [tested[i], chance]));
  const points = pairs.map((pair) => {
    const corrected = typeof pair.timing === 'string' ? 1 : (chances.get(pair.timing) ?? 1);
    const movement = movementOf(deviceOf(pair.before, before.environment), deviceOf(pair.after, after.environment));
    return judge(pair.before, pair.after, pair.timing, corrected, movement);
  });
  const count = (verdict: Verdict): number => points.filter((point) => point.verdict === verdict).length;
  return {
    points,
    counts: { SAME: count('SAME'), FASTER: count('FASTER'), SLOWER: count('SLOWER'), UNSURE: count('UNSURE') },
    regressions: points.filter(({ isRegression }) => isRegression).length,
    onlyBefore: before.points.filter(({ id }) => !later.has(id)).map(({ config }) => config),
    onlyAfter: after.points.filter(({ id }) => !earlier.has(id)).map(({ config }) => config),
    environment: environmentChanges(before.environment, after.environment),
    devices: {
      before: summariseDevices(before.points, before.environment),
      after: summariseDevices(after.points, after.environment),
    },
  };
}

interface Timing {
  readonly ratio: number;
  /** Of the ratio, relative. */
  readonly standardError: number;
  readonly chance: number;
  readonly samples: readonly [number, number];
}

/** @returns why not, where the two cannot be compared. */
function timingOf(before: Point, after: Point): Timing | string {
  if (after.outcome !== 'measured') return `${after.outcome} now: ${after.reason ?? 'no reason recorded'}`;
  if (before.outcome !== 'measured') return `${before.outcome} before: ${before.reason ?? 'no reason recorded'}`;
  const [a, b] = [before.samplesSeconds ?? [], after.samplesSeconds ?? []];
  if (a.length < leastSamples || b.length < leastSamples)
    return `${a.length} and ${b.length} samples: at least ${leastSamples} of each are needed; raise maxSeconds`;
  return {
    ratio: median(b) / median(a),
    standardError: Math.hypot(medianError(a), medianError(b)),
    chance: exactRankTest(b, a).p,
    samples: [a.length, b.length],
  };
}

/**
 * Relative standard error of a median: 1.2533 σ/√n with σ = IQR / 1.349, so that outliers do not count; or that of the mean of
 * the medians of its stretches, where that is larger.
 */
function medianError(samples: readonly number[]): number {
  const alone = (0.929 * interquartileRange(samples)) / median(samples) / Math.sqrt(samples.length);
  if (samples.length < leastForStretches) return alone;
  const length = samples.length / stretches;
  const medians = Array.from({ length: stretches }, (_, i) =>
    median(samples.slice(Math.round(i * length), Math.round((i + 1) * length))),
  );
  const mean = sum(medians) / stretches;
  const variance = sum(medians.map((value) => (value - mean) ** 2)) / (stretches - 1);
  return Math.max(alone, Math.sqrt(variance / stretches) / mean);
}

function judge(
  before: Point,
  after: Point,
  timing: Timing | string,
  chance: number,
  movement: number,
): PointComparison {
  const changes = changesOf(before, after);
  const common = { id: after.id, config: after.config, changes };
  const isLarger = changes.some(({ isWorse }) => isWorse);
  if (typeof timing === 'string') {
    const isLost = before.outcome === 'measured' && after.outcome !== 'measured';
    return { ...common, verdict: 'UNSURE', reason: timing, isRegression: isLost || isLarger };
  }
  const { verdict, reason } = verdictOf(timing, chance, movement, before, after);
  const { ratio, standardError } = timing;
  const reach = Math.max(2 * standardError, noiseFloor);
  return {
    ...common,
    verdict,
    reason,
    timeRatio: ratio,
    timeRatioRange: [ratio * (1 - reach), ratio * (1 + reach)],
    chance,
    isRegression: verdict === 'SLOWER' || isLarger,
  };
}

function verdictOf(
  { ratio, standardError, samples }: Timing,
  chance: number,
  movement: number,
  before: Point,
  after: Point,
) {
  const floor = Math.max(noiseFloor, floorInStandardErrors * standardError);
  // The same in both directions: twice the time and half the time are equally far from 1.
  const size = Math.max(ratio, 1 / ratio) - 1;
  // Of the time, as the ratio beside it says.
  const said = `${percent(Math.abs(ratio - 1))} ${ratio > 1 ? 'more' : 'less'} time`;
  const tested = `${samples[0]} and ${samples[1]} samples`;
  const believed = floor > usefulFloor ? floorsWhenDisturbed * floor : floor;
  if (size > believed && chance < familyChance) {
    // A machine that moved so much between two runs may well move as much again within one.
    if (movement > 1 + ceilingTolerance && size < movement ** 2 - 1)
      return {
        verdict: 'UNSURE',
        reason: `${said}, but the ceilings of the machine itself moved by ${percent(movement - 1)}: run both again with nothing else running`,
      } as const;
    const disturbed = disturbing.filter((flag) =>
      [before, after].some(({ throughput }) => throughput?.flags.includes(flag)),
    );
    // A disturbance explains differences of its own size, not those that stand far above it.
    if (disturbed.length > 0 && size < 2 * usefulFloor)
      return {
        verdict: 'UNSURE',
        reason: `${said}, but the samples are marked ${disturbed.join(', ')}: run again`,
      } as const;
    const reason = `${said}, beyond the noise of ${percent(floor)}; chance ${chanceInWords(chance)} (${tested})`;
    return { verdict: isWorse(timeMetric, 1, ratio) ? 'SLOWER' : 'FASTER', reason } as const;
  }
  if (floor > usefulFloor)
    return {
      verdict: 'UNSURE',
      reason: `${size < noiseFloor ? 'no difference seen' : said}, but the samples spread so far that ${percent(believed)} could hide: run longer, with nothing else running`,
    } as const;
  if (size > floor)
    return {
      verdict: 'UNSURE',
      reason: `${said}, but ${tested} do not settle it (chance ${chanceInWords(chance)})`,
    } as const;
  return { verdict: 'SAME', reason: `${said}, within the noise of ${percent(floor)} (${tested})` } as const;
}

/** Smaller ones are beyond what the samples could ever tell. */
const leastChance = 1e-9;
const chanceInWords = (chance: number): string =>
  chance < leastChance ? `below ${leastChance}` : formatNumber(chance);

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

const metricOf = (id: string): Metric => {
  const metric = metrics.find((candidate) => candidate.id === id);
  if (!metric) throw new Error(`there is no metric ${id}`);
  return metric;
};
const timeMetric = metricOf('medianSeconds');

/** The direction is the metric's own; one without a direction never gets worse. */
const isWorse = ({ better }: Metric, before: number, after: number): boolean =>
  better === 'lower' ? after > before : better === 'higher' && after < before;

function changesOf(before: Point, after: Point): FigureChange[] {
  return tolerances.flatMap(({ id, share, absolute }) => {
    const metric = metricOf(id);
    const [a, b] = [metric.read(before), metric.read(after)];
    if (a === undefined || b === undefined) return [];
    // Written so that NaN counts as a change.
    if (Math.abs(b - a) <= Math.max(absolute, share * Math.abs(a))) return [];
    return [{ metric: id, before: a, after: b, isWorse: isWorse(metric, a, b) || Number.isNaN(b) }];
  });
}

/**
 * Holm's step-down correction: the chance of any false alarm in the family stays what it was for one test.
 * @returns corrected chances in the order given.
 */
export function holm(chances: readonly number[]): number[] {
  const corrected = new Array<number>(chances.length);
  let largest = 0;
  const order = chances.map((_, i) => i).sort((a, b) => chances[a] - chances[b]);
  for (const [rank, i] of order.entries()) {
    largest = Math.max(largest, Math.min(1, chances[i] * (chances.length - rank)));
    corrected[i] = largest;
  }
  return corrected;
}

/** What differs between any two runs and explains nothing. */
const incidental = ['startedAt', 'loadAverage1m', 'fmaFlopsPerSecond', 'readBytesPerSecond'];
/** Measured afresh in every run: a difference below this is the measurement's. */
const ceilingTolerance = 0.1;

function environmentChanges(before: Environment, after: Environment): EnvironmentChange[] {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return fields.flatMap((field) => {
    const [a, b] = [before[field], after[field]];
    const differs = incidental.includes(field) ? ceilingMoved(field, a, b) : String(a) !== String(b);
    return differs ? [{ field, before: said(field, a), after: said(field, b) }] : [];
  });
}

const sameMachine = ['name', 'threads', 'instructionSet'] as const;

/**
 * The factor by which the speed of one and the same machine changed between two runs, as its measured ceilings tell; 1 for two
 * different machines, whose difference is what the user asks about.
 */
function movementOf(before: MeasuredDevice, after: MeasuredDevice): number {
  if (sameMachine.some((field) => before[field] !== after[field])) return 1;
  const factors = (['fmaFlopsPerSecond', 'readBytesPerSecond'] as const).map((field) => {
    const [a, b] = [before[field], after[field]];
    return a && b ? Math.max(a / b, b / a) : 1;
  });
  return Math.max(...factors);
}

const ceilingMoved = (field: string, a: unknown, b: unknown): boolean =>
  field.endsWith('PerSecond') &&
  typeof a === 'number' &&
  typeof b === 'number' &&
  Math.abs(b / a - 1) > ceilingTolerance;

const unitOf = (field: string): Metric['unit'] =>
  field.endsWith('FlopsPerSecond')
    ? 'FLOP/s'
    : field.endsWith('BytesPerSecond')
      ? 'bytes/s'
      : field.endsWith('Bytes')
        ? 'bytes'
        : 'ratio';

const said = (field: string, value: unknown): string =>
  value === undefined ? 'not recorded' : typeof value === 'number' ? formatMetric(value, unitOf(field)) : String(value);
