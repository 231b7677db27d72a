/** The short forms in which a user writes the values of an axis: on the command line and in the window. */
import { expected } from './input-error.ts';
import type { AxisValue } from './sweep.ts';

const longestList = 10000;
const number = String.raw`\d+(?:\.\d+)?`;
const rangePattern = new RegExp(`^(${number})-(${number})([*+])(${number})$`);
const numberPattern = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;

function expandRange(text: string, [first, last, step]: readonly number[], sign: string, name: string): number[] {
  const grows = sign === '*' ? step > 1 && first > 0 : step > 0;
  if (!grows || last < first) throw expected('a rising range like 512-8192*2 or 512-2048+512', name, text);
  const values: number[] = [];
  for (let value = first; value <= last; value = sign === '*' ? value * step : value + step) {
    values.push(value);
    if (values.length > longestList) throw expected(`at most ${longestList} values`, name, text);
  }
  return values;
}

/**
 * Values of an axis from the command line: `1,2,4`, `512-8192*2` (geometric), `512-2048+512` (arithmetic), names, true, false.
 * @throws InputError
 */
export function parseValues(text: string, name = 'values'): AxisValue[] {
  return text.split(',').flatMap((part): AxisValue[] => {
    const item = part.trim();
    const range = rangePattern.exec(item);
    if (range) return expandRange(item, [Number(range[1]), Number(range[2]), Number(range[4])], range[3], name);
    if (item === '') throw expected('values like 1,2,4 or 512-8192*2', name, text);
    if (numberPattern.test(item)) return [Number(item)];
    return [item === 'true' ? true : item === 'false' ? false : item];
  });
}
