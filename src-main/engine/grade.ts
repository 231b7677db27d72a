/** How far an output may be from the reference, in words. */
import type { Grade } from '../contract/metrics.ts';
import type { CacheDtype } from '../contract/sweep.ts';

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
