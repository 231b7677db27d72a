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

test('two of one process, and many processes at once, on locks that a dead one left: one each gets it', async () => {
  await lockBy(2 ** 22 + 1); // more than any process has
  const both = await Promise.allSettled([holdSession(path), holdSession(path)]);
  expect(both.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  const [processes, rounds] = [4, 40];
  for (let i = 0; i < rounds; i += 1) await writeFile(lockOf(`${path}-${i}`), `${2 ** 22 + 1} ${os.hostname()}\n`);
  const hold = new URL('../../dist/src-main/sessions/hold.js', import.meta.url);
  const script = `import { holdSession } from '${hold}';
    process.stdout.write('ready ');
    process.stdin.once('data', async () => {
      for (let i = 0; i < ${rounds}; i += 1) await holdSession('${path}-' + i).then(() => process.stdout.write(i + ' '), () => 0);
      process.stdout.write('done');
    });`;
  const children = Array.from({ length: processes }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }),
  );
  const said = children.map(() => '');
  try {
    for (const [i, { stdout }] of children.entries()) stdout.on('data', (text) => (said[i] += text));
    await expect.poll(() => said.every((text) => text.startsWith('ready')), { timeout: 60_000 }).toBe(true);
    for (const { stdin } of children) stdin.write('go');
    await expect.poll(() => said.every((text) => text.endsWith('done')), { timeout: 60_000 }).toBe(true);
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
  const got = said.flatMap((text) => text.split(' ').slice(1, -1).map(Number)).sort((a, b) => a - b);
  expect(got).toEqual(Array.from({ length: rounds }, (_, i) => i));
});
