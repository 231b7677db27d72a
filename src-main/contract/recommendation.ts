/** The level for an error budget. */
import type { Point } from './metrics.ts';

/** A bound on one metric of {@link Point}: at most it where lower is better, at least it where higher is. */
export interface Budget {
  readonly metric: string;
  readonly bound: number;
}

export interface Recommendation {
  readonly budgets: readonly Budget[];
  /** The smallest cache that keeps every budget; absent where none does. */
  readonly chosen?: Point;
  /** The next ones, and why they lost. */
  readonly others: readonly { readonly point: Point; readonly why: string }[];
  /** Candidates of every round of the search: context they were judged at, how many went in, how many went on. */
  readonly rounds: readonly { readonly seqLen: number; readonly judged: number; readonly kept: number }[];
  /** Everything measured on the way, in order. */
  readonly trace: readonly Point[];
}
