import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { followsOn, type HubEvent, noRun, reduceRun } from '../../src-main/contract/run-state.ts';
import { sessionFileName } from '../../src-main/hosts/folders.ts';
import { RunHub } from '../../src-main/hosts/run-hub.ts';
import { encodeRecord } from '../../src-main/sessions/recording.ts';
import { parseSession, type Session } from '../../src-main/sessions/recovery.ts';
import { environment, header, measured, planOf } from '../fakes/points.ts';
import { FakeProfiler } from '../fakes/profiler.ts';
import { until } from '../load.ts';

const sweep = { name: 'a sweep', axes: { level: ['baseline', 'four-bit'] } };
let folder: string;
let profiler: FakeProfiler;
let hub: RunHub;
let batches: (readonly HubEvent[])[];

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] });
  folder = await mkdtemp(join(tmpdir(), 'fastmqa-hub-'));
  profiler = new FakeProfiler();
  hub = new RunHub({ profiler, folder });
  batches = [];
  hub.subscribe((events) => batches.push(events));
});

afterEach(async () => {
  vi.useRealTimers();
  await rm(folder, { recursive: true });
});

const started = { type: 'started', total: 2, done: 0, environment } as const;
const progress = { type: 'progress', pointId: 'a', step: 'sampling' } as const;

/** The last event of a run is that the library changed, once its file is closed. */
async function endOfRun(): Promise<void> {
  const before = hub.snapshot().libraryChanges;
  profiler.end('done');
  await until(() => expect(hub.snapshot().libraryChanges).toBe(before + 1));
}

test('a window that saw every event knows what the snapshot knows', async () => {
  await hub.start(sweep);
  profiler.emit(started);
  const [first, second] = await Promise.all(planOf('baseline', 'four-bit').map(measured));
  profiler.emit({ type: 'point', point: first, done: 1, total: 2, etaSeconds: 1 });
  vi.advanceTimersByTime(100);
  hub.steer('pause');
  profiler.emit({ type: 'paused' });
  profiler.emit({ type: 'continued' });
  profiler.emit({ type: 'point', point: second, done: 2, total: 2, etaSeconds: 0 });
  profiler.end('done');
  const snapshot = hub.snapshot();
  expect(batches.reduce(reduceRun, noRun)).toEqual(snapshot);
  expect(snapshot).toMatchObject({ status: 'ended', how: 'done', done: 2, total: 2 });
  expect(snapshot.points.map(({ id }) => id)).toEqual([first.id, second.id]);
});

test('numbers grow by one, across batches and sweeps', async () => {
  await hub.start(sweep);
  profiler.emit(started);
  profiler.end('done');
  vi.advanceTimersByTime(100);
  await hub.start(sweep);
  profiler.emit(started);
  hub.snapshot();
  const numbers = batches.flat().map(({ sequence }) => sequence);
  expect(numbers).toEqual(numbers.map((_, i) => i + 1));
});

test('at most thirty batches a second, and of steps in a row only the last', async () => {
  await hub.start(sweep);
  profiler.emit(started);
  vi.advanceTimersByTime(1000);
  batches.length = 0;
  for (let i = 0; i < 1000; i += 1) {
    profiler.emit({ ...progress, samples: i });
    vi.advanceTimersByTime(1);
  }
  expect(batches.length).toBeGreaterThan(20);
  expect(batches.length).toBeLessThanOrEqual(31);
  expect(batches.every((events) => events.length === 1)).toBe(true);
});

test('samples stay with the host and are asked for one point at a time', async () => {
  await hub.start(sweep);
  const [point] = await Promise.all(planOf('baseline').map(measured));
  profiler.emit({ type: 'point', point, done: 1, total: 2, etaSeconds: 1 });
  expect(hub.snapshot().points[0].samplesSeconds).toBeUndefined();
  expect(hub.samples(point.id)).toEqual(point.samplesSeconds);
  expect(hub.samples('unknown')).toEqual([]);
});

test('two windows see the same, and one that leaves disturbs nobody', async () => {
  const other: (readonly HubEvent[])[] = [];
  const leave = hub.subscribe((events) => other.push(events));
  await hub.start(sweep);
  profiler.emit(started);
  hub.snapshot();
  expect(other).toEqual(batches);
  leave();
  profiler.end('done');
  hub.snapshot();
  expect(batches.length).toBe(other.length + 1);
});

test('one sweep at a time', async () => {
  await hub.start(sweep);
  await expect(hub.start(sweep)).rejects.toThrow('a sweep is running: stop or cancel it first');
});

test('a sweep that cannot be leaves the last one in view', async () => {
  await hub.start(sweep);
  await endOfRun();
  const before = hub.snapshot();
  await expect(hub.start({ name: 'x', axes: { nothing: [1] } })).rejects.toThrow('expected one of');
  expect(hub.snapshot()).toEqual(before);
});

test('a sweep that does not start, or ends by a fault, says why and makes room for another', async () => {
  profiler.failure = new Error('no engine');
  await expect(hub.start(sweep)).rejects.toThrow('no engine');
  expect(hub.snapshot()).toMatchObject({ status: 'ended', failure: 'no engine' });
  profiler.failure = undefined;
  await hub.start(sweep);
  expect(hub.snapshot().failure).toBeUndefined();
  profiler.emit(started);
  profiler.fault(new Error('the disk is full'));
  await until(() => expect(hub.snapshot()).toMatchObject({ status: 'ended', failure: 'the disk is full' }));
});

test('what is asked for while the engine starts is done when it has started', async () => {
  let go = (): void => undefined;
  profiler.starting = new Promise((resolve) => {
    go = resolve;
  });
  const starting = hub.start(sweep);
  await until(() => expect(hub.snapshot().status).toBe('starting'));
  hub.steer('stop');
  expect(profiler.verbs).toEqual([]);
  go();
  await starting;
  expect(profiler.verbs).toEqual(['stop']);
});

test('verbs reach the run; without one they do nothing', async () => {
  hub.steer('cancel');
  expect(hub.snapshot()).toEqual(noRun);
  await hub.start(sweep);
  profiler.emit(started);
  for (const verb of ['pause', 'continue', 'stop', 'cancel'] as const) hub.steer(verb);
  expect(profiler.verbs).toEqual(['pause', 'continue', 'stop', 'cancel cancelled']);
  hub.steer('pause');
  expect(profiler.verbs).toHaveLength(4);
});

const recorded = async (...levels: string[]): Promise<Session> => {
  const points = await Promise.all(planOf(...levels).map(measured));
  const recordedSweep = { name: 'recorded', axes: { level: ['baseline', 'four-bit'] } };
  return parseSession(
    Buffer.concat(
      [
        { ...header, name: 'recorded', sweep: recordedSweep },
        ...points.map((point) => ({ kind: 'point' as const, point })),
        { kind: 'ended' as const, how: 'stopped' as const },
      ].map(encodeRecord),
    ),
    'a.fmqa',
  );
};

test('another session leaves a gap: a window that follows the numbers sees that it must ask', async () => {
  await hub.start(sweep);
  await endOfRun();
  const before = hub.snapshot();
  batches.length = 0;
  hub.open(join(folder, 'a.fmqa'), await recorded('baseline'));
  expect(batches).toHaveLength(1);
  expect(followsOn(before, batches[0])).toBe(false);
  const after = hub.snapshot();
  expect(after).toMatchObject({ status: 'ended', how: 'stopped', done: 1, total: 2, session: { name: 'recorded' } });
  expect(after.sequence).toBe(batches[0][0].sequence);
  expect(after.points[0].samplesSeconds).toBeUndefined();
  expect(hub.samples(after.points[0].id)).toHaveLength(12);
});

test('no session takes the place of a sweep that runs', async () => {
  await hub.start(sweep);
  const session = await recorded('baseline');
  expect(() => hub.open('a.fmqa', session)).toThrow('a sweep is running');
  await expect(hub.continueSession('a.fmqa', session)).rejects.toThrow('a sweep is running');
});

test('a session that is continued shows its earlier points from the start, and gains the rest', async () => {
  const [, rest] = await Promise.all(planOf('baseline', 'four-bit').map(measured));
  const file = join(folder, 'a.fmqa');
  await hub.continueSession(file, await recorded('baseline'));
  expect(profiler.options).toEqual([{ out: file, resume: true, onNotice: expect.any(Function) }]);
  profiler.options[0].onNotice?.('line 3 was left out');
  expect(hub.snapshot().notice).toBe('line 3 was left out');
  const snapshot = hub.snapshot();
  expect(snapshot).toMatchObject({ status: 'starting', done: 1, total: 2 });
  batches.length = 0;
  profiler.emit({ type: 'started', total: 2, done: 1, environment });
  profiler.emit({ type: 'point', point: rest, done: 2, total: 2, etaSeconds: 0 });
  profiler.end('done');
  const end = hub.snapshot();
  expect(batches.reduce(reduceRun, snapshot)).toEqual(end);
  expect(end.points.map(({ config }) => config.level)).toEqual(['baseline', 'four-bit']);
  expect(end).toMatchObject({ status: 'ended', how: 'done', done: 2, total: 2 });
});

test('a new name of the current session reaches its windows, one of another session does not', async () => {
  const { id } = await hub.start(sweep);
  hub.rename(id, 'better');
  expect(hub.snapshot().session?.name).toBe('better');
  hub.rename('0'.repeat(32), 'other');
  expect(hub.snapshot().session?.name).toBe('better');
  vi.advanceTimersByTime(100);
  expect(batches.reduce(reduceRun, noRun)).toEqual(hub.snapshot());
});

test('windows hear that the library changed, also across sweeps', async () => {
  hub.tellLibraryChanged();
  await hub.start(sweep);
  expect(hub.snapshot().libraryChanges).toBe(1);
  profiler.emit(started);
  expect(hub.snapshot().libraryChanges).toBe(2);
  await endOfRun();
});

test('closing interrupts the sweep', async () => {
  await hub.start(sweep);
  await hub.close();
  expect(profiler.verbs).toEqual(['cancel interrupted']);
});

test('each sweep is recorded in a file of its own', async () => {
  vi.setSystemTime(new Date('2026-01-31T14:25:01Z'));
  const { file } = await hub.start(sweep);
  expect(file).toBe(join(folder, '2026-01-31-142501-a-sweep.fmqa'));
  expect(profiler.options).toEqual([{ out: file, onNotice: expect.any(Function) }]);
});

test.each([
  ['quick look', '2026-01-31-142501-quick-look.fmqa'],
  ['../../etc/passwd', '2026-01-31-142501-etc-passwd.fmqa'],
  ['Überblick: 4 bit?', '2026-01-31-142501-u-berblick-4-bit.fmqa'],
  ['///', '2026-01-31-142501.fmqa'],
])('the file name of %s', (name, file) => {
  expect(sessionFileName(name, new Date('2026-01-31T14:25:01Z'))).toBe(file);
});
