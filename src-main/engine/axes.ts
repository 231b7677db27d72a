/** What a sweep sets of a point, checked: axes by their values, levels by the names there are. */
import { checkAxisValue as checkValue, leaveToLevel } from '../contract/axes.ts';
import { expected } from '../contract/input-error.ts';
import { withNearest } from '../contract/nearest.ts';
import type { AxisValue, PointConfig } from '../contract/sweep.ts';
import { levelNames } from './levels.ts';

export { parseValues } from '../contract/values.ts';

/** The fields of a point that axes have set; `kvHeads` may still be a word, `cacheDtype` stands for both types. */
export type Axes = Partial<Omit<PointConfig, 'kvHeads'>> & {
  readonly kvHeads?: number | string;
  readonly cacheDtype?: PointConfig['keyDtype'];
};

/**
 * Checks one value of one axis and resolves aliases.
 * @returns undefined where the value leaves the axis to its level.
 * @throws InputError `expected <what> for <axis> but received <value>`
 */
export function checkAxisValue(name: string, value: AxisValue): AxisValue | undefined {
  const isUnknown = name === 'level' && value !== leaveToLevel && !levelNames.some((known) => known === value);
  if (isUnknown) throw expected(`one of ${levelNames.join(', ')}`, name, withNearest(levelNames, String(value)));
  return checkValue(name, value);
}

/** @throws InputError for the first axis or value that does not exist. */
export function checkAxes(values: Readonly<Record<string, AxisValue>>): Axes {
  const checked = Object.entries(values).map(([name, value]) => [name, checkAxisValue(name, value)] as const);
  return Object.fromEntries(checked.filter(([, value]) => value !== undefined)) as Axes;
}
