/** What a reader must know about a point's figures: each warning carries its cause and ends in advice. */
import type { Flag, Grade, Point } from '../contract/metrics.ts';
import type { CacheDtype } from '../contract/sweep.ts';

export const flagAdvice: Readonly<Record<Flag, string>> = {
  noisy:
    'the samples spread more than the noise target: close other programs or allow more time with --timeout and --max-noise',
  outliers: 'single steps took far longer than the rest: look at p95, and run again on an idle machine',
  'few-samples':
    'the step is too slow for ten samples in the time allowed: raise maxSeconds, or reduce batch or seqLen',
  'foreign-load': 'other programs used the machine meanwhile: stop them and run again',
  throttled: 'the machine lowered its clock while measuring: let it cool, or fix the clock',
  drift: 'the second half of the samples differs from the first: the machine had not settled; run again',
};

/** Upper bounds of relative L2: attention-spec C. */
const gradeBounds: readonly (readonly [Grade, number])[] = [
  ['near-lossless', 0.01],
  ['mild', 0.05],
  ['moderate', 0.15],
  ['heavy', 0.5],
];
/** What rounding alone costs when the cache is stored in this type: attention-spec C. */
const roundingBound: Partial<Record<CacheDtype, number>> = { f32: 1e-5, f16: 5e-4, bf16: 5e-3 };

/** The error in words. NaN counts as destroyed. */
export function grade(relativeL2: number, stored: CacheDtype = 'f32'): Grade {
  if (relativeL2 <= (roundingBound[stored] ?? 1e-5)) return 'exact';
  return gradeBounds.find(([, most]) => relativeL2 <= most)?.[0] ?? 'destroyed';
}

export interface Warning {
  readonly kind: Flag | 'destroyed' | 'converted';
  readonly text: string;
}

export function warningsOf(point: Point): Warning[] {
  const warnings: Warning[] = (point.throughput?.flags ?? []).map((kind) => ({ kind, text: flagAdvice[kind] }));
  if (point.error?.grade === 'destroyed') {
    const text = `the output has relative error ${point.error.relativeL2.toFixed(2)}, where all zeros have 1.00: do not use this level on this model`;
    warnings.push({ kind: 'destroyed', text });
  }
  if (point.config.kvHeads < point.config.referenceKvHeads) {
    const text = `${point.config.referenceKvHeads} KV heads were merged into ${point.config.kvHeads} without further training: train the model with them instead`;
    warnings.push({ kind: 'converted', text });
  }
  return warnings;
}
