import { expect, test, vi } from 'vitest';
import type { StreamListener } from '../../src-main/contract/calls.ts';
import {
  type HubEvent,
  type HubEventBody,
  noRun,
  type RunState,
  reduceRun,
} from '../../src-main/contract/run-state.ts';
import type { Client } from '../../src-renderer/client/client.ts';
import { createRunStore } from '../../src-renderer/store/run.ts';
import { environment, measured, planOf } from '../fakes/points.ts';

const session = { id: 'a', name: 'a', file: 'a.fmqa' };
const sweep = { name: 'a', axes: { level: ['baseline'] } };
const [point] = await Promise.all(planOf('baseline').map(measured));

const number = (bodies: readonly HubEventBody[], first = 1): HubEvent[] =>
  bodies.map((body, i) => ({ ...body, sequence: first + i }));

const story = number([
  { type: 'opened', session, sweep },
  { type: 'started', total: 3, done: 0, environment },
  { type: 'progress', pointId: 'a', step: 'sampling', samples: 4 },
  { type: 'point', point, done: 1, total: 3, etaSeconds: 9 },
  { type: 'asked', verb: 'pause' },
  { type: 'paused' },
  { type: 'continued' },
  { type: 'point', point: { ...point, id: 'b' }, done: 2, total: 3, etaSeconds: 4 },
  { type: 'point', point: { ...point, id: 'c' }, done: 3, total: 3, etaSeconds: 0 },
  { type: 'ended', how: 'done' },
]);

test('however events are batched, the state is the same', () => {
  const whole = reduceRun(noRun, story);
  for (let cut = 0; cut <= story.length; cut += 1)
    expect(reduceRun(reduceRun(noRun, story.slice(0, cut)), story.slice(cut))).toEqual(whole);
  expect(whole).toMatchObject({ status: 'ended', how: 'done', done: 3, sequence: 10 });
  expect(whole.points.map(({ id }) => id)).toEqual([point.id, 'b', 'c']);
});

test('reducing changes nothing in place', () => {
  const before = reduceRun(noRun, story.slice(0, 4));
  const frozen = structuredClone(before);
  reduceRun(before, story.slice(4));
  expect(before).toEqual(frozen);
});

test('a new sweep voids the old one, also within one batch', () => {
  const again = number([{ type: 'opened', session: { ...session, id: 'z' }, sweep }], 11);
  expect(reduceRun(noRun, [...story, ...again])).toEqual({
    ...noRun,
    libraryChanges: 1,
    status: 'starting',
    session: { ...session, id: 'z' },
    sweep,
    sequence: 11,
  });
});

/** A host that plays the story and answers snapshots when told to. */
function play() {
  let listener: StreamListener | undefined;
  const asked: ((state: RunState | Error) => void)[] = [];
  const client = {
    api: {
      snapshot: () =>
        new Promise((resolve, reject) => {
          asked.push((state) => (state instanceof Error ? reject(state) : resolve(state)));
        }),
    },
    subscribe: (given: StreamListener) => {
      listener = given;
      return () => undefined;
    },
  } as unknown as Client;
  const store = createRunStore(client);
  store.connect();
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return {
    store,
    asked,
    ready: (sequence: number) => listener?.onReady(sequence),
    events: (from: number, to: number) => listener?.onEvents(story.slice(from, to)),
    lost: (forGood: boolean) => listener?.onLost(forGood),
    answer: async (upTo: number | Error) => {
      asked.shift()?.(upTo instanceof Error ? upTo : reduceRun(noRun, story.slice(0, upTo)));
      await settle();
    },
  };
}

const whole = reduceRun(noRun, story);

test('a reload in the middle loses nothing', async () => {
  const { store, ready, events, answer } = play();
  ready(4);
  await answer(4);
  events(4, 10);
  expect(store.getState()).toEqual({ run: whole, connection: 'live' });
});

test('events that arrive before the snapshot are neither lost nor counted twice', async () => {
  for (let taken = 2; taken <= 8; taken += 1) {
    const { store, ready, events, answer } = play();
    ready(2);
    events(2, 5);
    events(5, 8);
    await answer(taken);
    events(8, 10);
    expect(store.getState().run).toEqual(whole);
  }
});

test('while samples are taken points are shown twice a second at most, and a change of the sweep at once', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const { store, ready, events, answer } = play();
    ready(2);
    await answer(2);
    let shown = 0;
    store.subscribe(() => {
      shown += 1;
    });
    events(2, 3);
    events(3, 4);
    expect(shown).toBe(0);
    vi.advanceTimersByTime(600);
    expect(shown).toBe(1);
    expect(store.getState().run).toEqual(reduceRun(noRun, story.slice(0, 4)));
    events(4, 7);
    expect(shown).toBe(2);
    events(7, 9);
    events(9, 10);
    expect(shown).toBe(3);
    expect(store.getState().run).toEqual(whole);
    vi.advanceTimersByTime(600);
    expect(shown).toBe(3);
  } finally {
    vi.useRealTimers();
  }
});

test('points that were held back are not lost where a gap follows', async () => {
  const { store, ready, events, answer, asked } = play();
  ready(2);
  await answer(2);
  events(2, 4);
  events(5, 7);
  expect(asked).toHaveLength(1);
  await answer(7);
  events(7, 10);
  expect(store.getState().run).toEqual(whole);
});

test('a gap asks for a snapshot', async () => {
  const { store, ready, events, answer, asked } = play();
  ready(0);
  await answer(0);
  events(0, 3);
  events(4, 6);
  expect(asked).toHaveLength(1);
  await answer(6);
  events(6, 10);
  expect(store.getState().run).toEqual(whole);
});

test('a host that was started anew counts from one again', async () => {
  const { store, ready, events, answer } = play();
  ready(10);
  await answer(10);
  ready(0);
  await answer(0);
  events(0, 10);
  expect(store.getState().run).toEqual(whole);
});

test('a lost connection is told and found again', async () => {
  const { store, ready, lost, answer } = play();
  ready(0);
  await answer(0);
  lost(false);
  expect(store.getState().connection).toBe('lost');
  ready(10);
  await answer(new Error('gone'));
  expect(store.getState().connection).toBe('lost');
  ready(10);
  await answer(10);
  expect(store.getState()).toEqual({ run: whole, connection: 'live' });
  lost(true);
  expect(store.getState().connection).toBe('refused');
});
