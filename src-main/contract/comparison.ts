/** What two sessions have to say about each other: one verdict a point, with its reason. `before` is the baseline. */
import type { DeviceSummary } from './devices.ts';
import type { PointConfig } from './sweep.ts';

export const verdicts = ['SAME', 'FASTER', 'SLOWER', 'UNSURE'] as const;
export type Verdict = (typeof verdicts)[number];

/** A figure that is not timed, and so is compared by value. */
export interface FigureChange {
  /** Id in the table of metrics. */
  readonly metric: string;
  readonly before: number;
  readonly after: number;
  readonly isWorse: boolean;
}

export interface PointComparison {
  readonly id: string;
  readonly config: PointConfig;
  readonly verdict: Verdict;
  /** One sentence: what the verdict rests on. */
  readonly reason: string;
  /** Time after over time before, of medians: 1.03 = 3 % slower. Absent where one side has no timing. */
  readonly timeRatio?: number;
  /** Where the ratio would fall if the same two versions were timed again, about 19 times of 20. */
  readonly timeRatioRange?: readonly [number, number];
  /** Chance of such a difference between equal versions, after the correction for many comparisons. */
  readonly chance?: number;
  /** Memory and error figures that changed by more than their tolerance. */
  readonly changes: readonly FigureChange[];
  /** Slower, larger, less exact, or no longer measured at all. */
  readonly isRegression: boolean;
}

export interface EnvironmentChange {
  readonly field: string;
  readonly before: string;
  readonly after: string;
}

export interface Comparison {
  readonly points: readonly PointComparison[];
  readonly counts: Readonly<Record<Verdict, number>>;
  readonly regressions: number;
  /** Points that only one of the two sessions has. */
  readonly onlyBefore: readonly PointConfig[];
  readonly onlyAfter: readonly PointConfig[];
  readonly environment: readonly EnvironmentChange[];
  /** What measured either side, with its ceilings. */
  readonly devices: { readonly before: readonly DeviceSummary[]; readonly after: readonly DeviceSummary[] };
}
