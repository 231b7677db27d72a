import { expect, test } from 'vitest';
import { sweepSchema } from '../../src-main/contract/sweep.ts';
import { expandSweep } from '../../src-main/engine/plan.ts';
import { createDraftStore, firstDraft, sweepOf } from '../../src-renderer/store/draft.ts';

test('the first draft is a sweep that can run, every point of it', () => {
  const { sweep, errors } = sweepOf(firstDraft);
  expect(errors).toEqual({});
  const points = expandSweep(sweepSchema.parse(sweep));
  expect(points).toHaveLength(12);
  expect(points.filter(({ refused }) => refused !== undefined)).toEqual([]);
});

test('fields take the syntax of the command line', () => {
  const axes = { ...firstDraft.axes, seqLen: '512-4096*2', batch: ' 1, 4 ', window: 'default,256' };
  const { sweep } = sweepOf({ ...firstDraft, axes, extraAxes: ['window'] });
  expect(sweep?.axes).toMatchObject({ seqLen: [512, 1024, 2048, 4096], batch: [1, 4], window: ['default', 256] });
});

test('levels stand last and decode first, so that neighbours are measured in turn and charts fill at once', () => {
  const { sweep } = sweepOf({ ...firstDraft, axes: { window: '256', ...firstDraft.axes }, extraAxes: ['window'] });
  expect(Object.keys(sweep?.axes ?? {}).slice(-3)).toEqual(['window', 'phase', 'level']);
  expect(sweep?.axes.phase).toEqual(['decode', 'prefill']);
});

test('an empty field leaves the axis to its default', () => {
  expect(Object.keys(sweepOf(firstDraft).sweep?.axes ?? {})).not.toContain('headDim');
});

test.each([
  ['seqLen', { axes: { seqLen: '4096-512*2' } }, 'expected a rising range'],
  ['batch', { axes: { batch: '1,,2' } }, 'expected values like'],
  ['heads', { axes: { heads: '7,x' } }, 'expected an integer from 1 to 256 for heads but received x'],
  ['name', { name: ' ' }, 'give the sweep a name'],
  ['level', { levels: [] }, 'choose at least one level'],
  ['phase', { phases: [] }, 'choose at least one phase'],
  ['minSeconds', { minSeconds: 'x' }, 'expected seconds from 0'],
  ['maxSeconds', { minSeconds: '2', maxSeconds: '1' }, 'expected seconds from 2'],
] as const)('what is wrong with %s stands at its field', (field, change, words) => {
  const { sweep, errors } = sweepOf({ ...firstDraft, ...change });
  expect(sweep).toBeUndefined();
  expect(Object.keys(errors)).toEqual([field]);
  expect(errors[field]).toContain(words);
});

test('every field that is wrong is marked, not only the first', () => {
  const axes = { ...firstDraft.axes, heads: '7,x', batch: '0', cacheDtype: 'int5' };
  const { errors } = sweepOf({ ...firstDraft, axes, extraAxes: ['cacheDtype'], levels: [] });
  expect(Object.keys(errors).sort()).toEqual(['batch', 'cacheDtype', 'heads', 'level']);
});

test('undo and redo: letters in one field are one step, everything else is its own', () => {
  const store = createDraftStore();
  for (const name of ['q', 'qu', 'qui']) store.edit({ name }, 'name');
  store.edit({ levels: ['baseline'] });
  store.edit({ levels: [] });
  store.undo();
  expect(store.getState().draft.levels).toEqual(['baseline']);
  store.undo();
  expect(store.getState().draft).toEqual({ ...firstDraft, name: 'qui' });
  store.undo();
  expect(store.getState().draft).toEqual(firstDraft);
  store.undo();
  expect(store.getState().draft).toEqual(firstDraft);
  store.redo();
  expect(store.getState().draft.name).toBe('qui');
  store.edit({ name: 'other' }, 'name');
  store.redo();
  expect(store.getState().draft.name).toBe('other');
});
