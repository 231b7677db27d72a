import { expect, test } from 'vitest';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { sweeps } from '../../src-main/engine/sweeps.ts';
import { judgedBy, kindOfPoints, kindOfSweep } from '../../src-renderer/series/kind.ts';
import { headlineMetrics } from '../../src-renderer/series/levels.ts';
import { metricOf } from '../../src-renderer/series/metric.ts';
import { measured } from '../fakes/points.ts';

test('a sweep is judged by what its points can show', () => {
  const ofOneLayer: Sweep = { name: 'x', axes: { model: ['byte-mha'], layer: [0, 1] } };
  expect(kindOfSweep(sweeps.levels as Sweep)).toBe('layer');
  expect(kindOfSweep(sweeps.quick as Sweep)).toBe('model');
  expect(kindOfSweep(sweeps.speculation as Sweep)).toBe('speculation');
  expect(kindOfSweep(ofOneLayer)).toBe('layer of a model');
  expect(kindOfSweep({ ...ofOneLayer, also: [{ axes: { model: ['byte-mha'] } }] })).toBe('model');
  expect(kindOfSweep({ name: 'x', axes: { model: ['byte-mha'], phase: ['capacity'] } })).toBe('capacity');
  expect(kindOfSweep({ name: 'x', axes: { phase: ['capacity', 'decode'] } })).toBe('layer');
  for (const id of Object.values(judgedBy)) expect(metricOf(id).better).not.toBe('neither');
  expect(headlineMetrics('speculation')).toEqual(['multiplierVsF32Mha', 'tokensPerSecond', 'speedUp']);
});

test('points without a sweep tell the same', async () => {
  const kindOf = async (axes: Record<string, string | number>) =>
    kindOfPoints([await measured({ id: 'a', config: resolvePoint(axes).config })]);
  expect(await kindOf({})).toBe('layer');
  expect(await kindOf({ model: 'byte-mha' })).toBe('model');
  expect(await kindOf({ model: 'byte-mha', layer: 0 })).toBe('layer of a model');
  expect(await kindOf({ model: 'byte-mha', phase: 'speculate' })).toBe('speculation');
});
