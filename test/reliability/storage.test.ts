/** R2 power loss, R3 damaged files, R4 failing saves. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { SessionRecord } from '../../src-main/contract/session.ts';
import { appendRecord, createRecording } from '../../src-main/sessions/recording.ts';
import { readSession, resumeRecording } from '../../src-main/sessions/recovery.ts';
import { writeWhole } from '../../src-main/sessions/storage.ts';
import { FakeFiles, type Operation } from '../fakes/files.ts';
import { environment, header, measured, planOf } from '../fakes/points.ts';
import { fakeWorker, runCli } from '../hosts/run-cli.ts';
import { flipBits, wholeSession } from './damage.ts';
import { counted, grouped, longestTest, reached, tries } from './effort.ts';
import { losePower } from './power-loss.ts';

const path = '/s/a.fmqa';
let points: Point[];
let whole: Buffer;
const withFile = (bytes: Uint8Array): FakeFiles => {
  const files = new FakeFiles();
  files.put(path, bytes);
  return files;
};

beforeAll(async () => {
  points = await Promise.all(planOf('baseline', 'near-lossless', 'four-bit').map(measured));
  whole = wholeSession(points);
});

test(
  'R2: whatever of the unsynced a power loss leaves, nothing acknowledged is lost',
  async (context) => {
    const { states, broken } = await losePower(points[0], counted(tries(20_000, 1_000_000)));
    expect(broken).toEqual([]);
    reached(
      context,
      `R2  power loss: ${grouped(states)} different states of the disk, 0 with an acknowledged record lost`,
    );
  },
  longestTest,
);

test('R3: every truncation opens as far as it is whole, and the rest is set aside in a copy', async (context) => {
  const ends = [...whole.entries()].filter(([, byte]) => byte === 0x0a).map(([i]) => i + 1);
  const truth = [0, 1, 2, 3].map((count) => JSON.stringify(points.slice(0, count)));
  for (let length = 0; length < whole.length; length += 1) {
    const files = withFile(whole.subarray(0, length));
    if (length < ends[0] - 1) {
      await expect(readSession(path, files)).rejects.toThrow(/^expected a (session file|whole header)/);
      continue;
    }
    const { session, recording, copy } = await resumeRecording(path, environment, files);
    const wholeLines = ends.filter((end) => end - 1 <= length).length;
    expect(session.records).toHaveLength(wholeLines);
    expect(JSON.stringify([...session.points.values()])).toBe(truth[Math.min(3, wholeLines - 1)]);
    const isTorn = !ends.some((end) => end === length || end - 1 === length);
    expect(copy).toBe(isTorn ? `${path}.damaged-1` : undefined);
    expect(session.setAside).toHaveLength(isTorn ? 1 : 0);
    if (copy) expect(files.durable.get(copy)?.equals(whole.subarray(0, length))).toBe(true);
    await recording.append({ kind: 'point', point: points[2] });
    const again = await readSession(path, files);
    expect(again.setAside).toEqual([]);
    expect(again.points.has(points[2].id)).toBe(true);
  }
  reached(
    context,
    `R3  truncation: all ${grouped(whole.length)} lengths opened as far as whole, the rest copied aside`,
  );
});

test(
  'R3: no bit that flips is believed',
  (context) => {
    const { flips, silent, refused } = flipBits(points, counted(tries(100_000, 2_000_000)));
    expect(silent).toBe(0);
    expect(refused).toBeGreaterThan(0);
    reached(context, `R3  damage: ${grouped(flips)} single bits flipped, 0 silent`);
  },
  longestTest,
);

const codes = ['ENOSPC', 'EDQUOT', 'EIO', 'EPERM', 'EROFS', 'short', 'short, then ENOSPC'];

/** Fails call number `failing`; a short write may be followed by a full disk. */
function failAt(files: FakeFiles, failing: number, code: string): { hit?: Operation } {
  const was: { hit?: Operation } = {};
  files.fault = (operation, _path, count) => {
    if (code === 'short, then ENOSPC' && was.hit === 'write' && count === failing + 1) return 'ENOSPC';
    if (count !== failing || (code.startsWith('short') && operation !== 'write')) return undefined;
    was.hit = operation;
    return code.startsWith('short') ? 'short' : code;
  };
  return was;
}

test('R4: whichever call fails, however: the old file stays, the error is shown, nothing acknowledged is lost', async (context) => {
  const row = (point: Point): SessionRecord => ({ kind: 'point', point });
  const torn = whole.subarray(0, -20);
  const old = Buffer.from('a good file');
  const jobs: Record<
    string,
    { start: Buffer; work: (files: FakeFiles, acknowledge: (record: SessionRecord) => void) => Promise<void> }
  > = {
    record: {
      start: Buffer.alloc(0),
      work: async (files, acknowledge) => {
        await files.remove(path);
        const recording = await createRecording(path, header, files);
        for (const point of points) {
          await recording.append(row(point));
          acknowledge(row(point));
        }
        await recording.close();
      },
    },
    resume: {
      start: torn,
      work: async (files, acknowledge) => {
        const { recording } = await resumeRecording(path, environment, files);
        await recording.append({ kind: 'ended', how: 'done' });
        acknowledge({ kind: 'ended', how: 'done' });
        await recording.close();
      },
    },
    label: {
      start: torn,
      work: async (files, acknowledge) => {
        await appendRecord(path, { kind: 'labelled', name: 'x' }, files);
        acknowledge({ kind: 'labelled', name: 'x' });
      },
    },
    save: { start: old, work: (files) => writeWhole(path, Buffer.from('new'), files) },
  };
  let faults = 0;
  const operations = new Set<Operation>();
  for (const [name, { start, work }] of Object.entries(jobs)) {
    for (const code of codes) {
      for (let failing = 1; ; failing += 1) {
        const files = withFile(start);
        const acknowledged: SessionRecord[] = [];
        const was = failAt(files, failing, code);
        const calls = files.log.length;
        const error = await work(files, (record) => acknowledged.push(record)).then(
          () => undefined,
          (cause: unknown) => cause,
        );
        if (was.hit) {
          faults += 1;
          operations.add(was.hit);
        }
        // A name removed by the test itself is no call of the product.
        const isOurs = !(name === 'record' && failing === 1);
        if (error && isOurs) expect(error, `${name} ${code} ${failing}`).toBeInstanceOf(InputError);
        if (error && isOurs) expect((error as Error).message).toMatch(/^cannot \w+ \/s\/a\.fmqa/);
        const left = files.durable.get(path) ?? Buffer.alloc(0);
        if (name === 'save') {
          const isNew = left.equals(Buffer.from('new'));
          if (error && was.hit !== 'syncFolder') expect(files.seen.get(path)).toEqual(old);
          if (error) expect(isNew || left.equals(old)).toBe(true);
          else expect(isNew).toBe(true);
          expect([...files.seen.keys()]).toEqual([path]);
        } else if (acknowledged.length > 0 || name !== 'record') {
          const read = await readSession(path, withFile(left));
          const text = read.records.map((record) => JSON.stringify(record));
          for (const record of acknowledged) expect(text).toContain(JSON.stringify(record));
          if (name !== 'record') expect(JSON.stringify([...read.points.values()])).toBe(JSON.stringify(points));
        }
        if (failing > files.log.length - calls) break;
      }
    }
  }
  expect([...operations].sort()).toEqual([
    'close',
    'open',
    'remove',
    'rename',
    'sync',
    'syncFolder',
    'truncate',
    'write',
  ]);
  reached(
    context,
    `R4  failing calls: ${faults} (every call of recording, resuming, labelling, saving x ${codes.length} ways), 0 lost, 0 old files touched`,
  );
});

const disk = mkdtempSync(join(tmpdir(), 'fastmqa-full-'));
function mountTmpfs(): boolean {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
const mounted = mountTmpfs();
afterAll(() => {
  if (mounted) execFileSync('umount', [disk]);
  rmSync(disk, { recursive: true });
});

test.skipIf(!mounted)(
  `R4: a disk that is really full${mounted ? '' : ' (not tried: this machine lets nobody mount a tmpfs)'}`,
  async (context) => {
    const old = Buffer.alloc(40_000, 'a');
    const file = join(disk, 'saved.csv');
    writeFileSync(file, old);
    await expect(writeWhole(file, Buffer.alloc(60_000, 'b'))).rejects.toThrow(/^cannot write .*: the disk is full$/);
    expect(readFileSync(file).equals(old)).toBe(true);
    mkdirSync(join(disk, 's'));
    const out = join(disk, 's', 'a.fmqa');
    const small = ['--set', 'hiddenDim=64', '--set', 'heads=2', '--min-time', '0', '--verbose'];
    const { code, stderr } = await runCli(['sweep', 'scaling', ...small, '--out', out], { FASTMQA_WORKER: fakeWorker });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/the disk is full/);
    const told = stderr.match(/^\d+\/\d+ /gm) ?? [];
    expect(told.length).toBeGreaterThan(0);
    expect((await readSession(out)).points.size).toBeGreaterThanOrEqual(told.length);
    expect(readFileSync(file).equals(old)).toBe(true);
    reached(
      context,
      `R4  a full tmpfs: save refused, old file identical; sweep ended after ${told.length} rows, all there`,
    );
  },
);
