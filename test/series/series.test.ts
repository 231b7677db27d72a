import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { axisFor, axisTick, tickLabel } from '../../src-renderer/series/axis.ts';
import { toCsv } from '../../src-renderer/series/csv.ts';
import { levelBarsOf, medianOf, rowFields } from '../../src-renderer/series/levels.ts';
import { markOf } from '../../src-renderer/series/marks.ts';
import { metricOf } from '../../src-renderer/series/metric.ts';
import { type Placed, paretoFrontier } from '../../src-renderer/series/pareto.ts';
import { csvOfTable, markdownOfTable, sortRows } from '../../src-renderer/series/table.ts';
import { tradeOffOf } from '../../src-renderer/series/trade-off.ts';
import { measured, planOf } from '../fakes/points.ts';

const [baseline, fourBit, balanced] = await Promise.all(planOf('baseline', 'four-bit', 'balanced').map(measured));
const failed: Point = { id: 'f', config: balanced.config, outcome: 'failed', reason: 'out of memory' };
const axes = { x: 'multiplierVsF32Mha', y: 'relativeL2', size: 'tokensPerSecond' };

const places = fc.array(fc.record({ x: fc.integer({ min: 0, max: 20 }), y: fc.integer({ min: 0, max: 20 }) }));
const directions = fc.constantFrom('lower' as const, 'higher' as const);

test('the frontier holds exactly the places that nothing beats, each once, in the order of x', () => {
  fc.assert(
    fc.property(places, directions, directions, (marks, betterX, betterY) => {
      const atLeast = (a: number, b: number, better: string): boolean => (better === 'higher' ? a >= b : a <= b);
      const beats = (a: Placed, b: Placed): boolean =>
        atLeast(a.x, b.x, betterX) && atLeast(a.y, b.y, betterY) && (a.x !== b.x || a.y !== b.y);
      const unbeaten = marks.filter((mark) => !marks.some((other) => beats(other, mark)));
      const found = paretoFrontier(marks, betterX, betterY);
      const text = (list: readonly Placed[]) => new Set(list.map(({ x, y }) => `${x},${y}`));
      expect(text(found)).toEqual(text(unbeaten));
      expect(found).toHaveLength(text(unbeaten).size);
      expect(found.map(({ x }) => x)).toEqual(found.map(({ x }) => x).sort((a, b) => a - b));
    }),
  );
});

test.each([
  'relativeL2',
  'multiplierVsF32Mha',
  'kvAllocatedBytes',
  'cosine',
  'reductionVsF32MhaPercent',
  'medianSeconds',
])('an axis of %s has its values inside, few ticks, all of them inside, none twice', (id) => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 1e-9, max: 1e12, noNaN: true }), { minLength: 1, maxLength: 40 }),
      (values) => {
        const { domain, ticks } = axisFor(metricOf(id), values);
        expect(domain[0]).toBeLessThan(domain[1]);
        for (const value of values) {
          expect(value).toBeGreaterThanOrEqual(domain[0]);
          expect(value).toBeLessThanOrEqual(domain[1]);
        }
        expect(ticks.length).toBeLessThanOrEqual(14);
        expect(new Set(ticks).size).toBe(ticks.length);
        expect(ticks.every((tick) => tick >= domain[0] * (1 - 1e-9) && tick <= domain[1] * (1 + 1e-9))).toBe(true);
      },
    ),
  );
});

test('an axis without values is still one', () => {
  expect(axisFor(metricOf('relativeL2'), []).domain).toEqual([1, 10]);
  expect(axisFor(metricOf('cosine'), []).domain).toEqual([0, 1]);
});

test.each([
  [64, 'x', '64x'],
  [4096, 'bytes', '4 KiB'],
  [1e-7, 'ratio', '1e-7'],
  [0.05, 'ratio', '0.05'],
  [0, 'ratio', '0'],
  [99.2, '%', '99.2 %'],
  [0.07, 'share', '7 %'],
] as const)('a tick of %s %s reads %s', (value, unit, text) => expect(tickLabel(value, unit)).toBe(text));

test('the trade-off places what was measured and lists the rest with its reason', () => {
  const { groups, missing, frontiers } = tradeOffOf([fourBit, failed, baseline], axes, levelNames);
  expect(groups.map(({ level }) => level)).toEqual(['baseline', 'four-bit']);
  expect(missing).toEqual([{ point: failed, reason: 'out of memory' }]);
  expect(frontiers.flat().length).toBeGreaterThan(0);
});

test('an error of exactly zero stands below all others on a log scale, and its tick says 0', () => {
  const error = baseline.error as NonNullable<Point['error']>;
  const exact: Point = { ...baseline, id: 'exact', error: { ...error, relativeL2: 0 } };
  const { y, groups } = tradeOffOf([exact, fourBit], axes, levelNames);
  const placeOf = (id: string) => groups.flatMap(({ marks }) => marks).find((mark) => mark.id === id)?.y as number;
  expect(placeOf('exact')).toBe(y.zero);
  expect(placeOf('exact')).toBeLessThan(placeOf(fourBit.id) / 3);
  expect(placeOf('exact')).toBeGreaterThan(placeOf(fourBit.id) / 100);
  expect(y.ticks.map((tick) => axisTick(y, tick))[0]).toBe('0');
  const alone = tradeOffOf([exact], axes, levelNames);
  expect(alone.y.domain.every(Number.isFinite)).toBe(true);
  expect(alone.groups[0].marks[0].y).toBe(alone.y.zero);
});

test('levels side by side: one bar a level and metric, medians over points', () => {
  const columns = levelBarsOf([fourBit, failed, baseline], ['relativeL2', 'tokensPerSecond'], levelNames);
  expect(columns.map(({ bars }) => bars.map(({ level }) => level))).toEqual([
    ['baseline', 'balanced', 'four-bit'],
    ['baseline', 'balanced', 'four-bit'],
  ]);
  expect(columns[0].bars[1]).toMatchObject({ value: undefined, ids: [] });
  expect(columns[0].bars[0].ids).toEqual([baseline.id]);
  expect([medianOf([]), medianOf([3, 1, 2]), medianOf([4, 1, 2, 3])]).toEqual([undefined, 2, 2.5]);
});

test('models are not mixed: each has its frontier, and a level its row for each of them', () => {
  const of = (point: Point, id: string, model: string, relativeL2: number): Point => ({
    ...point,
    id,
    config: { ...point.config, model },
    error: { ...(point.error as NonNullable<Point['error']>), relativeL2 },
  });
  const points = [of(fourBit, 'a', 'one', 0.1), of(fourBit, 'b', 'two', 0.01)];
  const { frontiers } = tradeOffOf(points, axes, levelNames);
  expect(frontiers.map((marks) => marks.map(({ id, name }) => [id, name]))).toEqual([
    [['a', 'four-bit · one']],
    [['b', 'four-bit · two']],
  ]);
  const [column] = levelBarsOf(points, ['relativeL2'], levelNames, { fields: rowFields(points) });
  expect(column.bars.map(({ label, value }) => [label, value])).toEqual([
    ['four-bit · one', 0.1],
    ['four-bit · two', 0.01],
  ]);
});

test('too many rows become one a level, but for models and phases: no median is of several', () => {
  const many = Array.from({ length: 30 }, (_, i) => ({
    ...fourBit,
    id: String(i),
    config: { ...fourBit.config, batch: i + 1, phase: i < 20 ? ('decode' as const) : ('prefill' as const) },
  }));
  const rowsOf = (points: readonly Point[]) =>
    levelBarsOf(points, ['relativeL2'], levelNames, { fields: rowFields(points) })[0].bars.map(({ ids }) => ids.length);
  expect(rowsOf(many)).toEqual([20, 10]);
  expect(rowsOf(many.slice(0, 20))).toHaveLength(20);
  const models = many.map((point, i) => ({ ...point, config: { ...point.config, model: `model ${i % 2}` } }));
  expect(rowsOf(models)).toEqual([10, 5, 10, 5]);
});

test('a table is copied raw as CSV, as it is shown as Markdown', () => {
  const columns = [
    {
      id: 'level',
      label: 'level',
      read: ({ config }: Point) => config.level,
      show: ({ config }: Point) => config.level,
    },
    {
      id: 'kvAllocatedBytes',
      label: 'cache | allocated',
      read: ({ memory }: Point) => memory?.kvAllocatedBytes,
      show: ({ memory }: Point) => (memory ? '1.5 KiB' : ''),
    },
  ].map((column, i) => ({ ...column, title: '', group: '', pixels: 1, isFigure: i === 1 }));
  const row: Point = {
    ...fourBit,
    memory: { ...(fourBit.memory as NonNullable<Point['memory']>), kvAllocatedBytes: 1536 },
  };
  expect(csvOfTable([row, failed], columns)).toBe('level,kvAllocatedBytes\r\nfour-bit,1536\r\nbalanced,\r\n');
  expect(markdownOfTable([row, failed], columns)).toBe(
    '| level | cache \\| allocated |\n| --- | --: |\n| four-bit | 1.5 KiB |\n| balanced |  |\n',
  );
});

test('no two levels look the same', () => {
  const looks = levelNames.map((level) => JSON.stringify(markOf(level, levelNames)));
  expect(new Set(looks).size).toBe(levelNames.length);
});

test('rows sort by number or by word; what does not apply stands last in either direction', () => {
  const read = (point: Point) => point.error?.relativeL2;
  const other: Point = { ...fourBit, error: { ...(fourBit.error as NonNullable<Point['error']>), relativeL2: 0.5 } };
  const ids = (descending: boolean) =>
    sortRows([failed, other, baseline], { id: 'e', read }, descending).map(({ id }) => id);
  expect(ids(false)).toEqual([baseline.id, other.id, 'f']);
  expect(ids(true)).toEqual([other.id, baseline.id, 'f']);
});

test('CSV quotes what must be quoted', () => {
  expect(
    toCsv(
      ['a', 'b'],
      [
        ['x,y', 'say "hi"'],
        [undefined, 1],
      ],
    ),
  ).toBe('a,b\r\n"x,y","say ""hi"""\r\n,1\r\n');
});
