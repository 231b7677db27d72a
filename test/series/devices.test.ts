/** Points of several devices: never one figure of two, each against its own ceilings, and what an hour costs. */
import { describe, expect, test } from 'vitest';
import { deviceOf, parsePrice, summariseDevices, withDevice, withPrices } from '../../src-main/contract/devices.ts';
import { metrics, type Point } from '../../src-main/contract/metrics.ts';
import { compareSessions } from '../../src-main/engine/compare.ts';
import { devicesOf } from '../../src-renderer/series/devices.ts';
import { tellingFields, varyingFields } from '../../src-renderer/series/fields.ts';
import { levelBarsOf, rowFields } from '../../src-renderer/series/levels.ts';
import { rooflineOf } from '../../src-renderer/series/roofline.ts';
import { scalingOf } from '../../src-renderer/series/scaling.ts';
import { tradeOffOf } from '../../src-renderer/series/trade-off.ts';
import { environment } from '../fakes/points.ts';
import { pointsOf, sweepOf } from '../fakes/synthetic-sweep.ts';

const all = pointsOf(
  sweepOf({
    level: ['baseline', 'four-bit'],
    hiddenDim: [512],
    heads: [8],
    phase: ['decode'],
    seqLen: [256, 512, 1024, 2048],
  }),
);
const on = (name: string, scale: number, points: readonly Point[]): Point[] =>
  points.map((point) => ({
    ...point,
    device: {
      ...{ host: `host of ${name}`, name, memoryBytes: 1, threads: 2, instructionSet: 'x' },
      ...{ fmaFlopsPerSecond: scale * 1e11, readBytesPerSecond: scale * 1e10 },
    },
    ...(point.throughput && {
      throughput: { ...point.throughput, tokensPerSecond: scale * point.throughput.tokensPerSecond },
    }),
  }));
const read = (id: string, point: Point | undefined) => point && metrics.find((metric) => metric.id === id)?.read(point);
/** As a fleet shares them out: every point on one device or the other. */
const mixed = [
  ...on(
    'A',
    1,
    all.filter((_, i) => i % 2 === 0),
  ),
  ...on(
    'B',
    10,
    all.filter((_, i) => i % 2 === 1),
  ),
];
const levels = ['baseline', 'four-bit'];

describe('charts group by device', () => {
  test('a line is of one device, also where lines are medians', () => {
    expect(varyingFields(mixed)).toContain('device');
    expect(tellingFields(mixed, 'seqLen')).toEqual(['device']);
    const { lines } = scalingOf(mixed, { x: 'seqLen', y: 'tokensPerSecond' }, levels);
    expect(lines.map(({ rest }) => rest).sort()).toEqual(['A', 'A', 'B', 'B']);
    expect(lines.flatMap(({ places }) => places)).toHaveLength(mixed.length);
  });
  test('a bar is of one device', () => {
    const [bars] = levelBarsOf(mixed, ['tokensPerSecond'], levels, { fields: rowFields(mixed) });
    for (const { ids } of bars?.bars ?? [])
      expect(new Set(mixed.filter(({ id }) => ids.includes(id)).map(({ device }) => device?.name)).size).toBe(1);
  });
  test('marks are coloured by device if asked; each device has its own roof', () => {
    const axes = { x: 'multiplierVsF32Mha', y: 'relativeL2', size: 'tokensPerSecond' };
    const groupsOf = (isByDevice: boolean) =>
      tradeOffOf(mixed, axes, levels, {}, [], isByDevice).groups.flatMap(({ marks }) =>
        marks.map(({ group }) => group),
      );
    expect(new Set(groupsOf(true))).toEqual(new Set(['A', 'B']));
    expect(new Set(groupsOf(false))).toEqual(new Set([undefined]));
    expect(rooflineOf(mixed, environment).roofs).toEqual([
      { device: 'A', ceilings: { flopsPerSecond: 1e11, bytesPerSecond: 1e10, ridge: 10 } },
      { device: 'B', ceilings: { flopsPerSecond: 1e12, bytesPerSecond: 1e11, ridge: 10 } },
    ]);
  });
  test('points of one machine alone are told by nothing new', () => {
    expect(varyingFields(all)).toEqual(['seqLen']);
    expect(tellingFields(all, 'seqLen')).toEqual([]);
  });
});

describe('devices side by side', () => {
  const sets = [
    { session: 'one', points: on('A', 1, all), environment },
    { session: 'two', points: on('B', 10, all.slice(0, 4)), environment },
  ];
  test('medians are over what all of them measured; ceilings are each device\u2019s own', () => {
    const { rows, shared } = devicesOf(sets, {});
    expect(shared).toBe(4);
    expect(
      rows.map(({ name, session, points, fmaFlopsPerSecond }) => [name, session, points, fmaFlopsPerSecond]),
    ).toEqual([
      ['A', 'one', 8, [1e11, 1e11]],
      ['B', 'two', 4, [1e12, 1e12]],
    ]);
    const [a, b] = rows.map(({ medians }) => medians);
    expect((b?.[1] ?? 0) / (a?.[1] ?? 1)).toBeCloseTo(10, 9);
    expect(a?.[2]).toBeCloseTo(3600 * (a?.[1] ?? 0), 6);
    expect(a?.[3]).toBeUndefined();
  });
  test('with prices, money decides: ten times the speed at twenty times the price is half of it', () => {
    const [a, b] = devicesOf(sets, { A: 1, B: 20 }).rows.map(({ medians }) => medians[3] ?? Number.NaN);
    expect((b ?? 0) / (a ?? 1)).toBeCloseTo(0.5, 9);
  });
  test('where no point is shared, that is said', () => {
    expect(devicesOf([{ session: 's', points: mixed, environment }], {}).shared).toBe(0);
  });
  test('compare sets them side by side; the ceilings of two kinds of machine do not explain each other away', () => {
    const { devices } = compareSessions(
      { environment, points: on('A', 1, all) },
      { environment, points: on('B', 10, all) },
    );
    expect([devices.before, devices.after].map(([device]) => device?.name)).toEqual(['A', 'B']);
    expect(summariseDevices(all, environment)).toMatchObject([{ name: environment.cpu, hosts: [], points: 8 }]);
    expect(deviceOf(all[0] as Point, environment).name).toBe(environment.cpu);
  });
  test('a point of a GPU is under the ceilings of that GPU, not of the CPU beside it', () => {
    const gpu = {
      backend: 'cuda:0',
      name: 'a GPU',
      computeCapability: '9.0',
      driverCudaVersion: '12.8',
      memoryBytes: 8,
    };
    const gpus = [{ ...gpu, multiprocessors: 132, matrixFlopsPerSecond: 9e14, copyBytesPerSecond: 4e12 }];
    const [point] = all.map(({ config, ...rest }) => ({ ...rest, config: { ...config, backend: 'cuda:0' } }));
    const sent = withDevice(point as Point, 'h', { ...environment, gpus });
    expect(sent.device).toEqual({
      ...{ host: 'h', name: 'a GPU', memoryBytes: 8, threads: 132, instructionSet: 'sm 9.0' },
      ...{ fmaFlopsPerSecond: 9e14, readBytesPerSecond: 4e12 },
    });
    expect(
      rooflineOf([point as Point, all[0] as Point], { ...environment, gpus }).roofs.map(({ device }) => device),
    ).toEqual(['a GPU', environment.cpu]);
  });
});

test('a price is said by the user, for a device or for all of them, and is in no session', () => {
  expect(parsePrice('2.5')).toEqual(['*', 2.5]);
  expect(parsePrice('NVIDIA H100=3')).toEqual(['NVIDIA H100', 3]);
  for (const text of ['', 'x', 'H100=', 'H100=-1', '0'])
    expect(() => parsePrice(text)).toThrow(`expected PRICE or DEVICE=PRICE above 0 for --price but received ${text}`);
  const [priced] = withPrices(on('A', 1, all), { A: 4, '*': 1 }, 'here');
  expect(read('tokensPerUnitOfMoney', priced)).toBeCloseTo((read('tokensPerDeviceHour', priced) ?? 0) / 4, 9);
  expect(read('tokensPerUnitOfMoney', all[0])).toBeUndefined();
  expect(withPrices(all, {}, 'here')).toBe(all);
});
