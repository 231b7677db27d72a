import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { SessionRecord } from '../../src-main/contract/session.ts';
import { appendRecord, createRecording, encodeRecord } from '../../src-main/sessions/recording.ts';
import { readSession, resumeRecording } from '../../src-main/sessions/recovery.ts';
import { writeWhole } from '../../src-main/sessions/storage.ts';
import { FakeFiles } from '../fakes/files.ts';
import { environment, header, measured, planOf } from '../fakes/points.ts';

const path = '/s/a.fmqa';
let points: Point[];
let whole: Buffer;
const pointRecord = (point: Point): SessionRecord => ({ kind: 'point', point });
const join3 = (...records: SessionRecord[]): Buffer => Buffer.concat(records.map(encodeRecord));
const withFile = (bytes: Uint8Array): FakeFiles => {
  const files = new FakeFiles();
  files.put(path, bytes);
  return files;
};
const message = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  return (error as Error).message;
};

beforeAll(async () => {
  points = await Promise.all(planOf('baseline', 'near-lossless', 'four-bit').map(measured));
  whole = join3(header, ...points.map(pointRecord), { kind: 'ended', how: 'done' });
});

describe('recording on a real disk', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fastmqa-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('gives back what was recorded, and resumes', async () => {
    const file = join(folder, 'a.fmqa');
    const recording = await createRecording(file, header);
    await Promise.all(points.slice(0, 2).map((point) => recording.append(pointRecord(point))));
    await recording.close();
    const { session, recording: resumed, copy } = await resumeRecording(file, environment);
    expect(copy).toBeUndefined();
    expect([...session.points.values()]).toEqual(points.slice(0, 2));
    await resumed.append(pointRecord(points[2]));
    await resumed.append({ kind: 'ended', how: 'done' });
    await resumed.close();
    const read = await readSession(file);
    expect([...read.points.values()]).toEqual(points);
    expect(read.header).toEqual(header);
    expect(read.records.map(({ kind }) => kind)).toEqual(['header', 'point', 'point', 'resumed', 'point', 'ended']);
    expect(read.setAside).toEqual([]);
  });

  it('never writes over a session', async () => {
    const file = join(folder, 'a.fmqa');
    const before = await readFile(file);
    expect(await message(createRecording(file, header))).toBe(
      `expected a new file for session but received ${file}, which exists; --resume continues a sweep`,
    );
    expect(await readFile(file)).toEqual(before);
  });

  it('says in a sentence what is wrong with a path', async () => {
    expect(await message(createRecording(join(folder, 'no', 'a.fmqa'), header))).toMatch(
      /^cannot write .*: no such file or folder$/,
    );
    expect(await message(readSession(join(folder, 'none.fmqa')))).toMatch(/^cannot read .*: no such file or folder$/);
    expect(await message(readSession(folder))).toMatch(/^cannot read .*: it is a folder$/);
  });

  it('replaces a whole file and leaves nothing beside it', async () => {
    const file = join(folder, 'b.csv');
    await writeFile(file, 'old');
    await writeWhole(file, Buffer.from('new'));
    expect(await readFile(file, 'utf8')).toBe('new');
    expect((await readdir(folder)).sort()).toEqual(['a.fmqa', 'b.csv']);
  });
});

describe('encoding', () => {
  it('refuses what JSON would change in silence', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 1n, () => 1, [undefined]]) {
      const record = { kind: 'ended', how: 'done', value } as unknown as SessionRecord;
      expect(() => encodeRecord(record)).toThrow(/^expected a value that JSON can hold for /);
    }
  });

  it('keeps every double', async () => {
    const [point] = points;
    const odd = { ...point, samplesSeconds: [Number.MIN_VALUE, Number.MAX_VALUE, 0.1 + 0.2, 2 ** 53 + 2] };
    const { points: read } = await readSession(path, withFile(join3(header, pointRecord(odd))));
    expect(read.get(point.id)).toEqual(odd);
  });
});

describe('recovery', () => {
  it('drops a damaged record in the middle, says so, and keeps the later ones', async () => {
    const damaged = Buffer.from(whole);
    damaged[encodeRecord(header).length + 40] ^= 1;
    const files = withFile(damaged);
    const session = await readSession(path, files);
    expect(session.setAside).toEqual([2]);
    expect([...session.points.values()]).toEqual(points.slice(1));
    expect((await resumeRecording(path, environment, files)).copy).toBeUndefined();
    expect(files.seen.get(path)?.subarray(0, damaged.length).equals(damaged)).toBe(true);
    expect((await readSession(path, files)).setAside).toEqual([2]);
  });

  it('lacks what was damaged until a run that resumed after it has measured all', async () => {
    const damaged = Buffer.from(whole);
    damaged[encodeRecord(header).length + 40] ^= 1;
    const resumed = encodeRecord({ kind: 'resumed', environment });
    const ended = (how: 'done' | 'stopped'): Uint8Array => encodeRecord({ kind: 'ended', how });
    const lacks = async (...parts: Uint8Array[]): Promise<boolean> =>
      (await readSession(path, withFile(Buffer.concat(parts)))).isLacking;
    expect(await lacks(whole, ended('done'))).toBe(false);
    expect(await lacks(damaged)).toBe(true);
    expect(await lacks(damaged, ended('done'))).toBe(true); // said of what was there before the damage
    expect(await lacks(damaged, resumed, ended('stopped'))).toBe(true);
    expect(await lacks(damaged, resumed, ended('done'))).toBe(false);
    const broken = resumed.slice();
    broken[20] ^= 1;
    expect(await lacks(damaged, resumed, broken, ended('done'))).toBe(true);
    expect(await lacks(damaged, resumed, ended('done'), broken)).toBe(true);
  });

  it('never writes over a copy that it set aside', async () => {
    const files = withFile(whole.subarray(0, -20));
    expect((await resumeRecording(path, environment, files)).copy).toBe(`${path}.damaged-1`);
    files.put(path, whole.subarray(0, -30));
    expect((await resumeRecording(path, environment, files)).copy).toBe(`${path}.damaged-2`);
    expect(files.durable.get(`${path}.damaged-1`)?.equals(whole.subarray(0, -20))).toBe(true);
  });

  it('lets the first of two records of one point count', async () => {
    const second = { ...points[0], reason: 'again' };
    const session = await readSession(path, withFile(join3(header, pointRecord(points[0]), pointRecord(second))));
    expect([...session.points.values()]).toEqual([points[0]]);
  });

  it('keeps fields that it does not know, at every depth', async () => {
    const [point] = points;
    const later = {
      ...point,
      hue: 1,
      config: { ...point.config, spin: 'up' },
      memory: { ...point.memory, kvParts: { ...point.memory?.kvParts, padBytes: 0 }, swapBytes: 5 },
    };
    const laterHeader = { ...header, tags: ['x'], environment: { ...environment, fans: 2 } };
    const records = [laterHeader, { kind: 'point', point: later, extra: true }] as SessionRecord[];
    const session = await readSession(path, withFile(join3(...records)));
    expect(session.records).toEqual(records);
    expect(join3(...session.records).toString().length).toBe(join3(...records).toString().length);
  });

  it('takes the last name and the last tags that were written beside the measurements', async () => {
    const labels: SessionRecord[] = [
      { kind: 'labelled', name: 'first' },
      { kind: 'labelled', tags: ['a', 'b'] },
      { kind: 'labelled', name: 'second' },
      { kind: 'labelled', tags: [] },
    ];
    const read = (count: number) =>
      readSession(path, withFile(Buffer.concat([whole, join3(...labels.slice(0, count))])));
    expect(await read(0)).toMatchObject({ name: 'test', tags: [], how: 'done' });
    expect(await read(2)).toMatchObject({ name: 'first', tags: ['a', 'b'], how: 'done' });
    expect(await read(4)).toMatchObject({ name: 'second', tags: [], how: 'done' });
  });

  it('adds a record to a torn session and changes nothing that stands there', async () => {
    for (const cut of [1, 20, 400]) {
      const torn = whole.subarray(0, whole.length - cut);
      const files = withFile(torn);
      await appendRecord(path, { kind: 'labelled', name: 'mine' }, files);
      const after = files.durable.get(path);
      expect(after?.subarray(0, torn.length).equals(torn)).toBe(true);
      const before = await readSession(path, withFile(torn));
      const session = await readSession(path, files);
      expect([...session.points]).toEqual([...before.points]);
      expect(session.name).toBe('mine');
      expect(session.setAside).toEqual(before.setAside);
    }
  });

  it('refuses newer sessions and other files in one sentence', async () => {
    const open = (bytes: Uint8Array): Promise<string> => message(readSession(path, withFile(bytes)));
    expect(await open(join3({ ...header, schemaVersion: 2 }))).toBe(
      `expected a session of version 1 or older for session but received ${path} of version 2: update FastMQA`,
    );
    const other = `expected a session file (*.fmqa) for session but received ${path}, which is none`;
    expect(await open(Buffer.from('hello\nworld\n'))).toBe(other);
    expect(await open(Buffer.alloc(0))).toBe(other);
    expect(await open(Buffer.from([0, 255, 10, 32]))).toBe(other);
    expect(await open(join3({ kind: 'ended', how: 'done' }))).toBe(other);
    const damaged = Buffer.from(whole);
    damaged[50] ^= 1;
    expect(await open(damaged)).toBe(
      `expected a whole header for session but received ${path}, whose header is damaged`,
    );
  });

  it('sets aside a record nested deeper than any reader should follow', async () => {
    const deep = JSON.parse(`${'['.repeat(200)}${']'.repeat(200)}`) as unknown;
    const record = { kind: 'ended', how: 'done', deep } as unknown as SessionRecord;
    expect((await readSession(path, withFile(join3(header, record)))).setAside).toEqual([2]);
  });
});

describe('a disk that fails', () => {
  it('writes on after short writes', async () => {
    const files = new FakeFiles();
    files.fault = (operation) => (operation === 'write' ? 'short' : undefined);
    const recording = await createRecording(path, header, files);
    await recording.append(pointRecord(points[0]));
    expect(files.durable.get(path)).toEqual(join3(header, pointRecord(points[0])));
  });

  it('trusts a file no more after its sync failed once', async () => {
    const files = new FakeFiles();
    const recording = await createRecording(path, header, files);
    files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
    const sentence = `cannot write ${path}: the device reported an error`;
    expect(await message(recording.append(pointRecord(points[0])))).toBe(sentence);
    files.fault = () => undefined;
    expect(await message(recording.append(pointRecord(points[0])))).toBe(sentence);
  });
});
