import { beforeAll, describe, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { compareSessions } from '../../src-main/engine/compare.ts';
import {
  comparedPoints,
  comparisonCsv,
  countVerdicts,
  ratioAxis,
  ratioInWords,
  rowsOf,
  type Side,
  shareOfRatio,
  sortCompared,
} from '../../src-renderer/series/comparison.ts';
import { levelBarsOf } from '../../src-renderer/series/levels.ts';
import { tradeOffOf } from '../../src-renderer/series/trade-off.ts';
import { environment, measured, planOf } from '../fakes/points.ts';
import { timed } from '../fakes/session-files.ts';

const levels = ['baseline', 'near-lossless', 'four-bit'];
let points: Point[];

beforeAll(async () => {
  points = await Promise.all(planOf(...levels).map(measured));
});

const side = (name: string, factor: (point: Point) => number): Side => ({
  baseline: { id: name, name, colour: 'red' },
  comparison: compareSessions({ environment, points }, { environment, points: timed(points, factor) }),
});
const all = (...sides: Side[]) => comparedPoints(sides, new Set(points.map(({ id }) => id)));
const mixed = () =>
  side('a', ({ config }) => (config.level === 'four-bit' ? 1.5 : config.level === 'baseline' ? 0.5 : 1));

describe('compared points', () => {
  test('every point against every baseline, only those that the charts show', () => {
    const sides = [mixed(), side('b', () => 1)];
    expect(all(...sides)).toHaveLength(6);
    expect(comparedPoints(sides, new Set([points[0].id])).map(({ key }) => key)).toEqual([
      `a ${points[0].id}`,
      `b ${points[0].id}`,
    ]);
    expect(countVerdicts(all(...sides))).toEqual({ SLOWER: 1, FASTER: 1, SAME: 4, UNSURE: 0 });
  });

  test('the gravest first, or by a column, what does not apply last', () => {
    const found = all(mixed());
    expect(sortCompared(found, undefined, false).map(({ verdict }) => verdict)).toEqual(['SLOWER', 'FASTER', 'SAME']);
    const column = { id: 'time', read: (point: { timeRatio?: number }) => point.timeRatio };
    const lost = { ...found[0], key: 'x' };
    delete (lost as { timeRatio?: number }).timeRatio;
    for (const descending of [false, true]) {
      const ratios = sortCompared([lost, ...found], column, descending).map(({ timeRatio }) => timeRatio);
      expect(ratios.at(-1)).toBeUndefined();
      expect(ratios[0]).toBeCloseTo(descending ? 1.5 : 0.5);
    }
  });

  test('one row a point, named by what tells the points apart', () => {
    const rows = rowsOf(
      all(
        mixed(),
        side('b', () => 1),
      ),
    );
    expect(rows.map(({ label, entries }) => [label, entries.length])).toEqual(levels.map((level) => [level, 2]));
  });

  test('the CSV holds exact figures, one line a verdict', () => {
    const found = all(mixed());
    const [head, ...lines] = comparisonCsv(found).trim().split('\r\n');
    expect(lines).toHaveLength(3);
    const at = head.split(',').indexOf('timeRatio');
    expect(lines.map((line) => Number(line.split(',')[at]))).toEqual(found.map(({ timeRatio }) => timeRatio));
  });
});

describe('axis of ratios', () => {
  const axisOf = (factor: number) => ratioAxis(all(side('a', () => factor)));

  test.each([1, 1.01, 1.2, 1.6, 3, 40, 5000])('1 stands in the middle, and a factor of %s within', (factor) => {
    for (const ratio of [factor, 1 / factor]) {
      const axis = axisOf(ratio);
      expect(shareOfRatio(axis, 1)).toBeCloseTo(0.5);
      expect(shareOfRatio(axis, ratio)).toBeGreaterThan(0);
      expect(shareOfRatio(axis, ratio)).toBeLessThan(1);
      expect(axis.ticks).toContain(1);
      expect(axis.ticks.length).toBeGreaterThanOrEqual(3);
      expect(axis.ticks.length).toBeLessThanOrEqual(13);
    }
  });

  test.each([
    [1, '0 %'],
    [1.0004, '0 %'],
    [1.031, '+3.1 %'],
    [0.88, '−12 %'],
    [2.4, '2.4x'],
    [0.25, '1/4x'],
  ])('%s is read as %s', (ratio, words) => expect(ratioInWords(ratio)).toBe(words));
});

test('a session beside the current one moves the ends of axes, not the marks or the frontier', () => {
  const ids = { x: 'medianSeconds', y: 'relativeL2', size: 'tokensPerSecond' };
  const slow = timed(points, () => 100);
  const alone = tradeOffOf(points, ids, levels);
  const beside = tradeOffOf(points, ids, levels, {}, [slow]);
  expect(beside.groups.flatMap(({ marks }) => marks.map(({ id, x, y }) => [id, x, y]))).toEqual(
    alone.groups.flatMap(({ marks }) => marks.map(({ id, x, y }) => [id, x, y])),
  );
  expect(beside.frontiers.flat().map(({ id }) => id)).toEqual(alone.frontiers.flat().map(({ id }) => id));
  expect(beside.beside[0].map(({ x }) => x)).toEqual(slow.map(({ throughput }) => throughput?.medianSeconds));
  expect(beside.x.domain[1]).toBeGreaterThan(alone.x.domain[1] * 50);
  const bars = levelBarsOf(points, ['medianSeconds'], levels, {
    beside: [levelBarsOf(slow, ['medianSeconds'], levels)],
  });
  expect(bars[0].axis.domain[1]).toBeGreaterThan(levelBarsOf(points, ['medianSeconds'], levels)[0].axis.domain[1] * 50);
});
