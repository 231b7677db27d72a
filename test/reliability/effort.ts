/**
 * How hard the promises of the README are tried. `npm test` tries a part, `.ci/run` what is promised, `npm run soak` as much as
 * fits its time. Each test says at the end of the run what it reached.
 */
import type { TestContext } from 'vitest';

declare module 'vitest' {
  interface TaskMeta {
    /** What the test reached, for the last lines of the run. */
    figures?: string[];
  }
}

type Effort = 'part' | 'promised' | 'soak';
const given = process.env.FASTMQA_EFFORT ?? 'part';
if (!['part', 'promised', 'soak'].includes(given)) throw new Error(`FASTMQA_EFFORT is ${given}`);
export const effort = given as Effort;

/** Of the long figures each ends after this, whatever it has reached: about an hour for all. */
const soakSeconds = Number(process.env.FASTMQA_SOAK_SECONDS ?? 300);
export const longestTest = (soakSeconds + 600) * 1000;

/** The count to reach: a part of what is promised, the promise, or the long figure. */
export const tries = (promised: number, soak: number, part = Math.ceil(promised / 10)): number =>
  effort === 'soak' ? soak : effort === 'promised' ? promised : part;

/** Counts up to `most`; a soak stops earlier when its time is over. */
export function* counted(most: number): Generator<number> {
  const end = effort === 'soak' ? performance.now() + soakSeconds * 1000 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < most && performance.now() < end; i += 1) yield i;
}

export function reached({ task }: TestContext, figure: string): void {
  task.meta.figures = [...(task.meta.figures ?? []), figure];
}

export const grouped = (count: number): string => count.toLocaleString('en-GB');

/** A sequence that is the same in every run: mulberry32. A failing case is its seed. */
export class Chance {
  private state: number;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }
  /** In [0, 1). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
  one<T>(of: readonly T[]): T {
    return of[this.below(of.length)];
  }
  isTrue(share = 0.5): boolean {
    return this.next() < share;
  }
}
