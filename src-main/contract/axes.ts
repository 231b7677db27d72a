/** Axes as a user writes them: their names and their values. */
import { z } from 'zod';
import { expected } from './input-error.ts';
import { withNearest } from './nearest.ts';
import { type AxisValue, pointConfigSchema } from './sweep.ts';

const { level, ...fields } = pointConfigSchema.shape;
const schemas: Readonly<Record<string, z.ZodType>> = {
  level,
  cacheDtype: fields.keyDtype,
  ...fields,
  kvHeads: z.union([fields.kvHeads, z.string().regex(/^(MHA|MQA|GQA-([1-9]\d?|1\d\d|2[0-4]\d|25[0-6]))$/)]),
};
export const axisNames: readonly string[] = Object.keys(schemas);

const inWords: Readonly<Record<string, string>> = {
  level: 'the name of a level',
  kvHeads: 'an integer from 1 to 256, MHA, MQA or GQA-n',
  latentBands: 'bands like 256x8+768x4',
  backend: 'cpu or cuda:N',
  model: 'the name or folder of a model',
  tokenFile: 'the name of a file',
};
const dtypeAxes = ['cacheDtype', 'keyDtype', 'valueDtype'];

/** The value `default` leaves an axis to its level. */
export const leaveToLevel = 'default';

/** What a schema accepts, in words. */
function accepts(name: string, schema: z.ZodType): string {
  const inner = schema instanceof z.ZodOptional ? schema.unwrap() : schema;
  if (inWords[name]) return inWords[name];
  if (inner instanceof z.ZodEnum) return `one of ${inner.options.join(', ')}`;
  if (inner instanceof z.ZodNumber) {
    const [least, most] = [inner.minValue ?? 0, inner.maxValue ?? Number.MAX_SAFE_INTEGER];
    const from = inner.safeParse(least).success ? `from ${least}` : `above ${least}`;
    // Without an upper bound zod reports the largest safe integer, or infinity.
    const to = most >= Number.MAX_SAFE_INTEGER ? '' : ` to ${most}`;
    return `${inner.format === 'safeint' ? 'an integer' : 'a number'} ${from}${to}`;
  }
  return 'true or false';
}

/**
 * Checks one value of one axis and resolves aliases. Of `level` only that it is a name: which there are, the engine knows.
 * @returns undefined where the value leaves the axis to its level.
 * @throws InputError `expected <what> for <axis> but received <value>`
 */
export function checkAxisValue(name: string, value: AxisValue): AxisValue | undefined {
  const schema = Object.hasOwn(schemas, name) ? schemas[name] : undefined;
  if (!schema) throw expected(`one of ${axisNames.join(', ')}`, 'axis', withNearest(axisNames, name));
  if (value === leaveToLevel) return undefined;
  const resolved = value === 'fp8' && dtypeAxes.includes(name) ? 'fp8-e4m3' : value;
  if (!schema.safeParse(resolved).success) throw expected(accepts(name, schema), name, value);
  return resolved;
}
