/** What a reader must know about a point's figures: each warning carries its cause and ends in advice. */
import type { Flag, Grade, Point } from './metrics.ts';

const flagAdvice: Readonly<Record<Flag, string>> = {
  noisy:
    'the samples spread more than the noise target: close other programs or allow more time with --timeout and --max-noise',
  outliers: 'single steps took far longer than the rest: look at p95, and run again on an idle machine',
  'few-samples':
    'the step is too slow for ten samples in the time allowed: raise maxSeconds, or reduce batch or seqLen',
  'foreign-load': 'other programs used the machine meanwhile: stop them and run again',
  throttled: 'the machine lowered its clock while measuring: let it cool, or fix the clock',
  drift: 'the second half of the samples differs from the first: the machine had not settled; run again',
};

/** What a grade means for someone who would use the level. */
export const gradeMeaning: Readonly<Record<Grade, string>> = {
  exact: 'nothing beyond rounding',
  'near-lossless': 'no difference a user would notice: 1 % or less',
  mild: 'small: between 1 % and 5 %; check it on your own task',
  moderate: 'the 4-bit class: between 5 % and 15 %; often usable, always to be checked',
  heavy: 'between 15 % and 50 %: a draft under exact verification, not an answer',
  destroyed: 'the output has little to do with the reference: above 50 %',
};

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
