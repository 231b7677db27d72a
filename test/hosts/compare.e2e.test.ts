/** The compiled command line compares and exports recorded sessions; no kernel is needed. */

import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { encodeRecord } from '../../src-main/sessions/recording.ts';
import { header, measured, planOf } from '../fakes/points.ts';
import { mainScript, runCli } from './run-cli.ts';

let folder: string;
let points: Point[];
const at = (name: string): string => join(folder, name);

async function write(name: string, change: (point: Point) => Point = (point) => point): Promise<string> {
  const records = [header, ...points.map((point) => ({ kind: 'point' as const, point: change(point) }))];
  await writeFile(at(name), Buffer.concat(records.map(encodeRecord)));
  return at(name);
}

const slower =
  (factor: number) =>
  (point: Point): Point =>
    point.config.level === 'four-bit'
      ? { ...point, ...(point.samplesSeconds && { samplesSeconds: point.samplesSeconds.map((s) => s * factor) }) }
      : point;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fastmqa-compare-'));
  points = await Promise.all(planOf('baseline', 'four-bit').map(measured));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('compare', () => {
  test('equal sessions: SAME, exit code 0', async () => {
    const { code, stdout, stderr } = await runCli(['compare', await write('a.fmqa'), await write('b.fmqa')]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^verdict +level +phase +time +memory and error +reason\n/);
    expect(stdout).toMatch(/^2 SAME, 0 FASTER, 0 SLOWER, 0 UNSURE; no regression\.$/m);
  });

  test('a slower level: told, exit code 1; the other way round it is no regression', async () => {
    const [a, b] = [await write('a.fmqa'), await write('slow.fmqa', slower(1.06))];
    const worse = await runCli(['compare', a, b]);
    expect(worse.code).toBe(1);
    expect(worse.stdout).toMatch(/^SLOWER ! +four-bit +decode +1\.060x +equal +6\.0 % more time, beyond the noise/m);
    const better = await runCli(['compare', b, a, '--format', 'json']);
    expect(better.code).toBe(0);
    expect(JSON.parse(better.stdout)).toMatchObject({ counts: { FASTER: 1, SAME: 1 }, regressions: 0 });
  });

  test('a larger cache or a larger error is a regression too', async () => {
    const a = await write('a.fmqa');
    const larger = await write('larger.fmqa', (point) => ({
      ...point,
      ...(point.memory && { memory: { ...point.memory, kvAllocatedBytes: point.memory.kvAllocatedBytes + 4096 } }),
    }));
    const result = await runCli(['compare', a, larger]);
    expect(result.code).toBe(1);
    expect(result.stdout).toMatch(/^SAME ! .*cache allocated .* → .* \(worse\)/m);
  });

  test('bad input: one sentence, exit code 2', async () => {
    const a = await write('a.fmqa');
    await writeFile(at('no.fmqa'), 'hello\n');
    for (const [args, says] of [
      [[a, at('missing.fmqa')], /^cannot read .*missing\.fmqa: no such file or folder\n$/],
      [
        [a, at('no.fmqa')],
        /^expected a session file \(\*\.fmqa\) for session but received .*no\.fmqa, which is none\n$/,
      ],
      [[a], /^missing required argument 'after'\n$/],
      [[a, a, '--format', 'xml'], /^expected one of table, json for --format but received xml\n$/],
    ] as const) {
      const { code, stdout, stderr } = await runCli(['compare', ...args]);
      expect([code, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(says);
    }
  });
});

describe('a damaged session', () => {
  const says = (path: string): string => `${path}: damaged and left out: line 2\n`;

  /** One bit of the first point is another one. */
  async function damage(path: string): Promise<string> {
    const bytes = await readFile(path);
    bytes[bytes.indexOf('\n') + 40] ^= 1;
    await writeFile(path, bytes);
    return path;
  }

  test.each(['csv', 'json', 'html', 'parquet'])('export as %s: what is whole, and exit code 3', async (format) => {
    const path = await damage(await write('damaged.fmqa'));
    const { code, stdout, stderr } = await runCli(['export', path, '--format', format]);
    expect({ code, stderr }).toEqual({ code: 3, stderr: says(path) });
    expect(stdout).toContain(points[1].id);
    expect(stdout).not.toContain(points[0].id);
  });

  test('compare: exit code 3, unless a regression is found in what is whole', async () => {
    const whole = await write('a.fmqa');
    const damaged = await damage(await write('damaged.fmqa'));
    const same = await runCli(['compare', whole, damaged]);
    expect([same.code, same.stderr]).toEqual([3, says(damaged)]);
    const slow = await damage(await write('slow.fmqa', slower(1.06)));
    const worse = await runCli(['compare', damaged, slow]);
    expect([worse.code, worse.stderr]).toEqual([1, says(damaged) + says(slow)]);
  });
});

describe('export', () => {
  test('parquet on stdout is the file, byte for byte', async () => {
    const path = await write('a.fmqa');
    const { status, stdout } = spawnSync(process.execPath, [mainScript, 'export', path, '--format', 'parquet']);
    expect(status).toBe(0);
    const rows = await parquetReadObjects({ file: new Uint8Array(stdout).buffer });
    expect(rows.map(({ id }) => id)).toEqual(points.map(({ id }) => id));
    expect(rows.map(({ medianSeconds }) => medianSeconds)).toEqual(points.map((p) => p.throughput?.medianSeconds));
  });

  test('html is one page', async () => {
    const { code, stdout } = await runCli(['export', await write('a.fmqa'), '--format', 'html']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^<!doctype html>[\s\S]*<\/html>\n$/);
  });
});
