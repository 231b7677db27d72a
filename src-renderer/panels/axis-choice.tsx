/** One choice in the head of a chart: what an axis shows. */
import { Select } from '@mantine/core';
import { metrics } from '../../src-main/contract/metrics.ts';
import { fieldTitle } from '../series/fields.ts';

interface AxisChoiceProps {
  /** A word or two before the choice. */
  readonly sign: string;
  readonly label: string;
  /** Wanted; where there is less room, long choices are cut short. */
  readonly pixels: number;
  readonly data: readonly { readonly value: string; readonly label: string }[];
  readonly value: string;
  readonly onChange: (id: string) => void;
}

const signCharacter = 7;
const leastPixels = 84;

export const metricChoices = metrics.map(({ id, title }) => ({ value: id, label: title }));

export const fieldChoices = (fields: readonly string[]) =>
  fields.map((field) => ({ value: field, label: fieldTitle(field) }));

export const AxisChoice = ({ sign, label, pixels, data, value, onChange }: AxisChoiceProps) => (
  <Select
    size="xs"
    style={{ flex: `0 1 ${pixels}px`, minWidth: leastPixels }}
    aria-label={label}
    leftSection={sign}
    leftSectionWidth={sign.length * signCharacter + 12}
    rightSectionWidth={22}
    allowDeselect={false}
    data={data}
    value={value}
    comboboxProps={{ width: 240, position: 'bottom-start' }}
    onChange={(id) => id && onChange(id)}
  />
);
