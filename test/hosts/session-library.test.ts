import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { SessionRecord } from '../../src-main/contract/session.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { SessionLibrary } from '../../src-main/hosts/session-library.ts';
import { holdSession } from '../../src-main/sessions/hold.ts';
import { encodeRecord } from '../../src-main/sessions/recording.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { environment, header, measured, planOf } from '../fakes/points.ts';

const profiler = createProfiler();
const sweep = { name: 'test', axes: { level: ['baseline', 'four-bit'] } };
let folder: string;
let library: SessionLibrary;
let changes: number;

beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'fastmqa-library-')), 'sessions');
  changes = 0;
  library = new SessionLibrary({ profiler, folder, onChange: () => (changes += 1) });
});
afterEach(() => rm(join(folder, '..'), { recursive: true }));

const ended: SessionRecord = { kind: 'ended', how: 'done' };

async function bytesOf(levels: readonly string[], more: readonly SessionRecord[] = [ended], startedAt?: string) {
  const points: Point[] = await Promise.all(planOf(...levels).map(measured));
  const first = { ...header, sweep, environment: startedAt ? { ...environment, startedAt } : environment };
  const rows = points.map((point): SessionRecord => ({ kind: 'point', point }));
  return Buffer.concat([first, ...rows, ...more].map(encodeRecord));
}

async function put(name: string, ...content: Parameters<typeof bytesOf>): Promise<string> {
  await mkdir(folder, { recursive: true });
  const file = join(folder, name);
  await writeFile(file, await bytesOf(...content));
  return file;
}

const only = async () => (await library.list()).sessions[0];

test('an empty library is no error', async () => {
  expect(await library.list()).toEqual({ folder, sessions: [], trash: [], unreadable: [] });
});

test('what each session is, newest first', async () => {
  await put('old.fmqa', ['baseline', 'four-bit'], [ended], '2026-01-01T00:00:00Z');
  await put('new.fmqa', ['baseline'], [{ kind: 'ended', how: 'stopped' }], '2026-02-01T00:00:00Z');
  await put('torn.fmqa', ['four-bit'], [], '2026-03-01T00:00:00Z');
  const { sessions } = await library.list();
  expect(sessions.map(({ status, measured: count, total }) => [status, count, total])).toEqual([
    ['crashed', 1, 2],
    ['stopped', 1, 2],
    ['complete', 2, 2],
  ]);
  expect(sessions[2]).toMatchObject({
    name: 'test',
    tags: [],
    levels: ['baseline', 'four-bit'],
    backends: ['cpu'],
    cpu: 'Test CPU',
    damagedLines: 0,
    isOutside: false,
  });
  expect(new Set(sessions.map(({ id }) => id)).size).toBe(3);
});

test('a session that a process records is neither crashed nor to be thrown away', async () => {
  const file = await put('a.fmqa', ['baseline'], []);
  const release = await holdSession(file);
  const { id, status, isUnattended } = await only();
  expect([status, isUnattended]).toEqual(['measuring', false]);
  await expect(library.throwAway(id)).rejects.toThrow('a.fmqa is being recorded by process');
  await expect(library.label(id, { name: 'x' })).rejects.toThrow('is being recorded by process');
  await release();
  expect((await only()).status).toBe('crashed');
});

test('names and tags are added behind the measurements, which stay as they are', async () => {
  const file = await put('a.fmqa', ['baseline', 'four-bit']);
  const before = await readFile(file);
  const { id } = await only();
  await library.label(id, { name: 'with tiles', tags: ['cpu', 'avx512'] });
  await library.label(id, { tags: ['cpu'] });
  expect(await only()).toMatchObject({ id, name: 'with tiles', tags: ['cpu'], status: 'complete' });
  expect((await readFile(file)).subarray(0, before.length).equals(before)).toBe(true);
  expect((await readSession(file)).setAside).toEqual([]);
  expect(changes).toBe(2);
});

test('what was thrown away comes back byte for byte, under another name where its own is taken', async () => {
  const file = await put('a.fmqa', ['baseline']);
  const before = await readFile(file);
  const { id } = await only();
  const inTrash = await library.throwAway(id);
  expect(existsSync(file)).toBe(false);
  expect(await library.list()).toMatchObject({ sessions: [], trash: [{ id: inTrash, name: 'test' }] });
  await expect(library.read(id)).rejects.toThrow('there is no such session');
  await put('a.fmqa', ['four-bit']);
  const restored = await library.restore(inTrash);
  const { sessions, trash } = await library.list();
  expect(trash).toEqual([]);
  expect(sessions.find((session) => session.id === restored)?.file).toBe(join(folder, 'a-2.fmqa'));
  expect((await readFile(join(folder, 'a-2.fmqa'))).equals(before)).toBe(true);
});

test('undo gives back the same session, id and all; the trash is emptied only when asked', async () => {
  await put('a.fmqa', ['baseline']);
  const { id } = await only();
  expect(await library.restore(await library.throwAway(id))).toBe(id);
  await library.throwAway(id);
  expect(await library.emptyTrash()).toBe(1);
  expect(await library.list()).toMatchObject({ sessions: [], trash: [] });
  expect(await readdir(join(folder, 'trash'))).toEqual([]);
});

test('a crash is told until somebody has decided', async () => {
  const file = await put('a.fmqa', ['baseline'], []);
  const { id, isUnattended } = await only();
  expect(isUnattended).toBe(true);
  await library.acceptCrash(id);
  expect(await only()).toMatchObject({ status: 'crashed', isUnattended: false });
  const { size } = { size: (await readFile(file)).length };
  await library.acceptCrash(id);
  expect((await readFile(file)).length).toBe(size);
});

test('files that are no sessions are told with their reason; links and folders are not followed', async () => {
  await put('a.fmqa', ['baseline']);
  await writeFile(join(folder, 'b.fmqa'), 'hello\n');
  await writeFile(join(folder, 'notes.txt'), 'hello\n');
  await mkdir(join(folder, 'c.fmqa'));
  const outside = join(folder, '..', 'secret.fmqa');
  await writeFile(outside, await bytesOf(['baseline']));
  await symlink(outside, join(folder, 'd.fmqa'));
  const { sessions, unreadable } = await library.list();
  expect(sessions.map(({ file }) => file)).toEqual([join(folder, 'a.fmqa')]);
  expect(unreadable).toEqual([
    { file: join(folder, 'b.fmqa'), reason: expect.stringMatching(/^expected a session file .*, which is none$/) },
  ]);
});

test('a file is kept once it is seen to be a session, and once only', async () => {
  const bytes = await bytesOf(['baseline']);
  const first = await library.import('../../my run!.fmqa', bytes.toString('base64'));
  expect(first).toMatchObject({ name: 'test', measured: 1, file: join(folder, 'my-run-.fmqa') });
  expect((await readFile(first.file)).equals(bytes)).toBe(true);
  expect(await library.import('again.fmqa', bytes.toString('base64'))).toEqual(first);
  expect(await readdir(folder)).toEqual(['my-run-.fmqa']);
});

test.each([
  ['no session', Buffer.from('hello')],
  ['nothing', Buffer.alloc(0)],
  ['a newer version', encodeRecord({ ...header, schemaVersion: 99 })],
])('%s is refused and not kept', async (_, bytes) => {
  await expect(library.import('a.fmqa', Buffer.from(bytes).toString('base64'))).rejects.toThrow(/^expected a session/);
  expect(existsSync(folder)).toBe(false);
});

test('a trusted host opens a session anywhere; it can be compared and labelled, not thrown away', async () => {
  const outside = join(folder, '..', 'elsewhere.fmqa');
  await writeFile(outside, await bytesOf(['baseline']));
  const id = await library.admit(outside);
  expect(await only()).toMatchObject({ id, isOutside: true, file: outside });
  await library.label(id, { name: 'from a server' });
  expect((await library.read(id)).session.name).toBe('from a server');
  expect((await library.compare(id, id)).counts).toEqual({ SAME: 1, FASTER: 0, SLOWER: 0, UNSURE: 0 });
  await expect(library.throwAway(id)).rejects.toThrow('is not in the library');
  const inside = await put('a.fmqa', ['baseline'], [ended], '2027-01-01T00:00:00Z');
  expect(await library.admit(inside)).toBe((await only()).id);
  await expect(library.admit(join(folder, 'none.fmqa'))).rejects.toThrow('no such file');
});

test('exports hold the points, and the file itself is given as it is', async () => {
  const file = await put('a.fmqa', ['baseline', 'four-bit']);
  const { id } = await only();
  await library.label(id, { name: 'a name' });
  const content = async (format: Parameters<typeof library.export>[1]) => {
    const { fileName, base64 } = await library.export(id, format);
    expect(fileName).toBe(`a.${format}`);
    return Buffer.from(base64, 'base64');
  };
  expect((await content('fmqa')).equals(await readFile(file))).toBe(true);
  expect((await content('csv')).toString().trim().split('\r\n')).toHaveLength(3);
  expect(JSON.parse((await content('json')).toString()).points).toHaveLength(2);
  expect((await content('html')).toString()).toContain('<h1>a name</h1>');
  expect((await content('parquet')).subarray(0, 4).toString()).toBe('PAR1');
  expect((await content('md')).toString()).toContain('| four-bit |');
});

test('points of another session come without their samples', async () => {
  await put('a.fmqa', ['baseline']);
  const { points, name } = await library.points((await only()).id);
  expect(name).toBe('test');
  expect(points).toHaveLength(1);
  expect(points[0].samplesSeconds).toBeUndefined();
});
