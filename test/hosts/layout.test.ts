/** Tables in the width of a terminal: nothing is lost, nothing wraps, and each row still says what it is about. */
import { expect, test } from 'vitest';
import { type Table, tableLines } from '../../src-main/hosts/cli/layout.ts';

const table: Table = {
  headings: [
    ['', '', 'vs f32', '', ''],
    ['level', 'layer', 'saved', 'x', 'outcome'],
  ],
  align: 'llrRl',
  titleColumn: 1,
  sections: [
    {
      rows: [
        ['baseline', '64/2', '0.0 %', '1x', 'measured'],
        ['four-bit', '64/2', '84.0 %', '6.24x', 'failed: the backend crashed: worker ended by SIGSEGV'],
        ['(all-zero output)', '64/2', '1.00', '', ''],
      ],
    },
    { rows: [['baseline', '128/4', '0.0 %', '1x', 'measured']] },
  ],
};

test('with room enough a row is one line', () => {
  const lines = tableLines(table, Number.POSITIVE_INFINITY);
  expect(lines).toHaveLength(2 + 3 + 4);
  expect(lines[4]).toBe(
    'four-bit           64/2   84.0 %  6.24x  failed: the backend crashed: worker ended by SIGSEGV',
  );
  expect(lines[2]).toBe('─'.repeat(lines[4].length));
});

test('in a terminal that is too narrow texts are broken, and the same in all rows becomes a title', () => {
  expect(tableLines(table, 60)).toEqual([
    '                   vs f32',
    'level               saved      x  outcome',
    '── 64/2 ──────────────────────────────────────────────────',
    'baseline            0.0 %     1x  measured',
    'four-bit           84.0 %  6.24x  failed: the backend',
    '                                  crashed: worker ended by',
    '                                  SIGSEGV',
    '(all-zero output)    1.00',
    '── 128/4 ─────────────────────────────────────────────────',
    'baseline            0.0 %     1x  measured',
    '──────────────────────────────────────────────────────────',
  ]);
});

test('what still does not fit stands below, bound columns together, without rows that say nothing there', () => {
  expect(tableLines(table, 40)).toEqual([
    '                   vs f32',
    'level               saved      x',
    '── 64/2 ────────────────────────',
    'baseline            0.0 %     1x',
    'four-bit           84.0 %  6.24x',
    '(all-zero output)    1.00',
    '── 128/4 ───────────────────────',
    'baseline            0.0 %     1x',
    '────────────────────────────────',
    '',
    'level              outcome',
    '── 64/2 ────────────────────────────────',
    'baseline           measured',
    'four-bit           failed: the backend',
    '                   crashed: worker ended',
    '                   by SIGSEGV',
    '── 128/4 ───────────────────────────────',
    'baseline           measured',
    '────────────────────────────────────────',
  ]);
});

test.each([10, 24, 33, 80])('every figure is there at %i columns, in lines that fit where a part can', (width) => {
  const lines = tableLines(table, width);
  for (const figure of ['84.0 %', '6.24x', '1.00']) expect(lines.join('\n')).toContain(figure);
  if (width >= 33) expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(Math.max(width, 39));
});

test('keys that take most of the width share one column', () => {
  const row = ['UNSURE', 'near-lossless', 'byte-mha', 'int8', 'decode', '1.000x', 'the samples spread so far'];
  const words = {
    headings: [['verdict', 'level', 'model', 'keyDtype', 'phase', 'time', 'reason']],
    sections: [{ rows: [row] }],
    align: 'lllllll',
    keys: 5,
  };
  expect(tableLines(words, 64)).toEqual([
    '         level model keyDtype',
    'verdict  phase                      time    reason',
    'UNSURE   near-lossless byte-mha     1.000x  the samples spread',
    '         int8 decode                        so far',
  ]);
  expect(tableLines(words, 100)[1]).toBe(row.join('  ').replace('UNSURE', 'UNSURE ').replace('int8', 'int8    '));
});
