import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { axisFor, zoomedAxis } from '../../src-renderer/series/axis.ts';
import { distributionOf, quantile } from '../../src-renderer/series/distribution.ts';
import { numericFields, tellingFields, valuesOf, varyingFields } from '../../src-renderer/series/fields.ts';
import { parseFilter } from '../../src-renderer/series/filter.ts';
import { heatMapOf } from '../../src-renderer/series/heat-map.ts';
import { levelBarsOf, rowFields } from '../../src-renderer/series/levels.ts';
import { metricOf } from '../../src-renderer/series/metric.ts';
import {
  indexOf,
  type Mark,
  nextMark,
  placeMarks,
  placeNames,
  shareOf,
  valueAt,
  within,
  zoomAbout,
} from '../../src-renderer/series/plane.ts';
import { inkOn, rampColour } from '../../src-renderer/series/ramp.ts';
import { roofAt, rooflineOf } from '../../src-renderer/series/roofline.ts';
import { scalingOf } from '../../src-renderer/series/scaling.ts';
import { environment } from '../fakes/points.ts';
import { pointsOf, sweepOf } from '../fakes/synthetic-sweep.ts';

const level = ['baseline', 'balanced', 'four-bit'];
const sweep = sweepOf({
  level,
  hiddenDim: [512],
  heads: [8],
  seqLen: [256, 1024, 4096],
  batch: [1, 8],
  phase: ['decode'],
});
const points = pointsOf(sweep).map((point): Point => point);
const measured = points.filter(({ outcome }) => outcome === 'measured');
const box = { left: 50, right: 450, top: 10, bottom: 210 };
const seconds = metricOf('medianSeconds');

test('rows of a level stand by the numbers that tell them apart, whatever the order measured', () => {
  const mixed = [...points].sort(
    (a, b) => ((a.config.seqLen * 7 + a.config.batch) % 5) - ((b.config.seqLen * 7 + b.config.batch) % 5),
  );
  const [{ bars }] = levelBarsOf(mixed, ['medianSeconds'], levelNames, { fields: rowFields(mixed) });
  const places = [256, 1024, 4096].flatMap((tokens) => [1, 8].map((batch) => `${tokens} ${batch}`));
  const of = (id: string | undefined) => points.find((point) => point.id === id)?.config;
  for (const name of level) {
    const rows = bars.filter((bar) => bar.level === name).map(({ ids: [id] }) => `${of(id)?.seqLen} ${of(id)?.batch}`);
    expect(rows).toEqual(places);
  }
  expect(bars[0].label).toBe('baseline · 256 tokens · batch 1');
  expect(bars[2].label).toBe('baseline · 1,024 tokens · batch 1');
});

test('axes offered are those that vary within a level; what follows from others is not named', () => {
  expect(varyingFields(points)).toEqual(['seqLen', 'batch']);
  expect(numericFields(points)).toEqual(['seqLen', 'batch']);
  expect(tellingFields(points, 'seqLen')).toEqual(['batch']);
  const zipped = points.map((point) => ({ ...point, config: { ...point.config, heads: point.config.seqLen / 32 } }));
  expect(tellingFields(zipped, 'seqLen')).toEqual(['batch']);
  expect(tellingFields(zipped, 'batch')).toEqual(['seqLen']);
  expect(valuesOf(points, 'level', levelNames)).toEqual(['baseline', 'balanced', 'four-bit']);
  expect(valuesOf([...points].reverse(), 'seqLen', levelNames)).toEqual([256, 1024, 4096]);
});

test('scaling: one line for each level and batch, its places in the order of x, nothing lost', () => {
  const { lines, marks, missing, rests, x } = scalingOf(points, { x: 'seqLen', y: 'medianSeconds' }, levelNames);
  expect(lines).toHaveLength(6);
  expect(rests).toEqual(['batch 1', 'batch 8']);
  expect(marks.length + missing.length).toBe(points.length);
  expect(x.scale).toBe('log');
  for (const { places } of lines)
    expect(places.map((place) => place.x)).toEqual([256, 1024, 4096].slice(0, places.length));
});

test('scaling: too many lines become one median a level', () => {
  const many = pointsOf(
    sweepOf({
      level,
      hiddenDim: [512],
      heads: [8],
      seqLen: [256, 512],
      batch: Array.from({ length: 20 }, (_, i) => i + 1),
      phase: ['decode'],
    }),
  );
  const { lines, medianOver } = scalingOf(many, { x: 'seqLen', y: 'medianSeconds' }, levelNames);
  expect(lines.map((line) => line.level)).toEqual(level);
  expect(medianOver).toEqual(['batch']);
});

test('roofline: intensity is work by bytes; the roof bends at its ridge; without ceilings there is none', () => {
  const { marks, roofs, x, y } = rooflineOf(measured, environment);
  expect(roofs).toEqual([
    { device: environment.cpu, ceilings: { flopsPerSecond: 1e11, bytesPerSecond: 1e10, ridge: 10 } },
  ]);
  const [{ ceilings } = {}] = roofs;
  for (const { x: intensity, point } of marks)
    expect(intensity).toBe((point.throughput?.flopsPerSecond ?? 0) / (point.throughput?.bytesPerSecond ?? 0));
  if (ceilings) expect([1, 10, 100].map((at) => roofAt(ceilings, at))).toEqual([1e10, 1e11, 1e11]);
  expect(x.domain[0] < 10 && x.domain[1] > 10 && y.domain[1] > 1e11).toBe(true);
  expect(rooflineOf(measured, undefined).roofs).toEqual([]);
});

test('heat map: a cell for each pair, the median of its points; numbers grow upwards', () => {
  const map = heatMapOf(measured, { x: 'seqLen', y: 'batch', colour: 'tokensPerSecond' }, levelNames);
  expect(map.x.values).toEqual([256, 1024, 4096]);
  expect(map.y.values).toEqual([8, 1]);
  expect(map.cells.reduce((sum, { ids }) => sum + ids.length, 0)).toBe(measured.length);
  for (const { share } of map.cells) expect(share >= 0 && share <= 1).toBe(true);
});

test('the ramp grows in lightness all the way, and text on it stands out', () => {
  const luminance = (colour: string): number => {
    const [red, green, blue] = [1, 3, 5]
      .map((at) => Number.parseInt(colour.slice(at, at + 2), 16) / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const shares = Array.from({ length: 101 }, (_, i) => i / 100);
  const steps = shares.map((share) => luminance(rampColour(share)));
  for (let i = 1; i < steps.length; i += 1) expect(steps[i]).toBeGreaterThan(steps[i - 1]);
  for (const share of shares) {
    const [a, b] = [luminance(inkOn(share)), luminance(rampColour(share))].sort((one, other) => other - one);
    expect((a + 0.05) / (b + 0.05), String(share)).toBeGreaterThan(4.5);
  }
});

test('distribution: every sample is in a bin or counted as beyond the axis', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 1e-7, max: 10, noNaN: true }), { minLength: 1, maxLength: 2000 }),
      (samples) => {
        const found = distributionOf(samples);
        if (!found) throw new Error('there are samples');
        expect(found.bins.reduce((sum, { count }) => sum + count, 0) + found.beyond).toBe(samples.length);
        expect(found.p05 <= found.median && found.median <= found.p95).toBe(true);
        expect(found.stretches.length).toBeLessThanOrEqual(600);
      },
    ),
  );
  expect(distributionOf([])).toBeUndefined();
  expect([0, 0.25, 0.5, 1].map((share) => quantile([1, 2, 3, 4, 5], share))).toEqual([1, 2, 3, 5]);
});

test('a long run is drawn by stretches, in the order taken', () => {
  const found = distributionOf(Array.from({ length: 6000 }, (_, i) => 1 + i / 6000));
  expect(found?.stretchLength).toBe(10);
  expect(found?.stretches[0]).toMatchObject({ at: 5.5, least: 1 });
});

const marks: Mark[] = measured.map((point) => ({
  id: point.id,
  level: point.config.level,
  phase: point.config.phase,
  x: point.config.seqLen,
  y: seconds.read(point) as number,
  size: 0.5,
  point,
}));
const x = axisFor(
  metricOf('kvLogicalBytes'),
  marks.map((mark) => mark.x),
  'log',
);
const y = axisFor(
  seconds,
  marks.map((mark) => mark.y),
);

test('a place on an axis leads to its figure and back, on either scale', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.constantFrom('log' as const, 'linear' as const),
      (share, scale) => {
        expect(shareOf({ ...x, scale }, valueAt({ ...x, scale }, share))).toBeCloseTo(share, 9);
      },
    ),
  );
});

test('the nearest mark is the nearest of all', () => {
  const placed = placeMarks(marks, x, y, box);
  const nearest = indexOf(placed);
  fc.assert(
    fc.property(fc.integer({ min: 40, max: 460 }), fc.integer({ min: 0, max: 220 }), (left, top) => {
      const distance = ({ cx, cy }: { cx: number; cy: number }): number => Math.hypot(cx - left, cy - top);
      const least = Math.min(...placed.map(distance));
      const found = nearest(left, top);
      if (least < 24) expect(found && distance(found)).toBeCloseTo(least, 9);
      else expect(found).toBeUndefined();
    }),
  );
});

test('a zoom keeps what is under the pointer, leaves out what is outside, and survives new data', () => {
  const zoomed = zoomedAxis(x, zoomAbout(x, 0.25, 0.5));
  expect(shareOf(zoomed, valueAt(x, 0.25))).toBeCloseTo(0.25, 9);
  expect(placeMarks(marks, zoomedAxis(x, [200, 500]), y, box).every(({ mark }) => mark.x === 256)).toBe(true);
  const later = axisFor(metricOf('kvLogicalBytes'), [...marks.map((mark) => mark.x), 1e9], 'log');
  expect(zoomedAxis(later, [200, 500]).domain).toEqual([200, 500]);
  expect(zoomedAxis(x, [300, 340]).ticks.length).toBeGreaterThan(1);
});

test('arrow keys visit every mark, from left to right and back; a rectangle holds what is in it', () => {
  const placed = placeMarks(marks, x, y, box);
  const seen: string[] = [];
  for (
    let at = nextMark(placed, undefined, 'Home');
    at && at.mark.id !== seen.at(-1);
    at = nextMark(placed, at.mark.id, 'ArrowRight')
  )
    seen.push(at.mark.id);
  expect(new Set(seen).size).toBe(placed.length);
  expect(nextMark(placed, seen[1], 'ArrowLeft')?.mark.id).toBe(seen[0]);
  expect(within(placed, box)).toHaveLength(placed.length);
});

test('names cover neither each other nor named marks', () => {
  const placed = placeMarks(marks, x, y, box).map((mark) => ({ ...mark, cx: 100, cy: 100 }));
  expect(placeNames(placed, box).length).toBeLessThanOrEqual(2);
});

test.each([
  ['four', ({ config }: Point) => config.level.includes('four')],
  ['batch=8 tokens>=1024', ({ config }: Point) => config.batch === 8 && config.seqLen >= 1024],
  ['relativeL2<0.001', ({ error }: Point) => error !== undefined && error.relativeL2 < 0.001],
  ['outcome=failed', ({ outcome }: Point) => outcome === 'failed'],
  ['level!=baseline', ({ config }: Point) => config.level !== 'baseline'],
])('the filter %s keeps what it says', (text, expected) => {
  const { keeps, problem } = parseFilter(text);
  expect(problem).toBeUndefined();
  expect(points.filter(keeps)).toEqual(points.filter(expected));
});

test('a filter that compares with a word says so', () => {
  expect(parseFilter('batch<four').problem).toBe('expected a number after batch< but received four');
});
