import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os, { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdSession, lockOf, ownerOf } from '../../src-main/sessions/hold.ts';

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fastmqa-hold-'));
  path = join(folder, 'a.fmqa');
});
afterEach(() => rm(folder, { recursive: true }));

const lockBy = (pid: number, host = os.hostname()): Promise<void> => writeFile(lockOf(path), `${pid} ${host}\n`);

test('one at a time; let go, another may', async () => {
  const release = await holdSession(path);
  expect(await ownerOf(path)).toBe(`process ${process.pid} of ${os.hostname()}`);
  await expect(holdSession(path)).rejects.toThrow(
    /is being recorded by process \d+ of .*; if it is not, delete .*\.lock$/,
  );
  await release();
  expect(existsSync(lockOf(path))).toBe(false);
  await (await holdSession(path))();
});

test('a process that lives holds it, one that died does not', async () => {
  const other = spawn(process.execPath, ['-e', 'setInterval(() => 0, 1000)']);
  await lockBy(other.pid as number);
  expect(await ownerOf(path)).toBe(`process ${other.pid} of ${os.hostname()}`);
  other.kill('SIGKILL');
  await once(other, 'exit');
  expect(await ownerOf(path)).toBeUndefined();
  await (await holdSession(path))();
});

test('a lock of another machine is believed; one of an earlier process of our number is not', async () => {
  await lockBy(1, 'elsewhere');
  expect(await ownerOf(path)).toBe('process 1 of elsewhere');
  await lockBy(process.pid);
  expect(await ownerOf(path)).toBeUndefined();
});

test('a lock that was never finished holds nothing', async () => {
  await writeFile(lockOf(path), '');
  expect(await ownerOf(path)).toBeUndefined();
});
