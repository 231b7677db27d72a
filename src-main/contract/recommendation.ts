/** The level for an error budget. */
import type { Point } from './metrics.ts';

/** A bound on one metric of {@link Point}: at most it where lower is better, at least it where higher is. */
export interface Budget {
  readonly metric: string;
  readonly bound: number;
}

export interface MemoryLimits {
  /** Of the device: weights, workspace and the cache of the whole batch together, as measured at the peak of a step. */
  readonly memoryBytes?: number;
  /** For the cache of the whole batch alone. */
  readonly cacheBytes?: number;
}

export interface Recommendation {
  readonly budgets: readonly Budget[];
  readonly limits: MemoryLimits;
  /** The smallest cache that keeps every budget and every limit; absent where none does. */
  readonly chosen?: Point;
  /** The next ones, and why they lost. */
  readonly others: readonly { readonly point: Point; readonly why: string }[];
  /** Candidates of every round of the search: context they were judged at, how many went in, how many went on. */
  readonly rounds: readonly { readonly seqLen: number; readonly judged: number; readonly kept: number }[];
  /** Everything measured on the way, in order. */
  readonly trace: readonly Point[];
}
