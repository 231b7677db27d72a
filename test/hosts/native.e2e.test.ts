/** The command line and the library over the real addon. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import { type Point, pointSchema } from '../../src-main/contract/metrics.ts';
import { estimatePeakBytes } from '../../src-main/engine/estimate.ts';
import { FastMQA } from '../../src-main/index.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { takesLessThan } from '../load.ts';
import { mainScript, runCli, startCli } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-native-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string): string => join(folder, name);
const small = [
  '--set',
  'hiddenDim=128',
  '--set',
  'heads=4',
  '--set',
  'seqLen=96',
  '--set',
  'calibrationTokens=512',
  '--set',
  'phase=decode',
];
const quickly = [...small, '--min-time', '0.02', '--max-noise', '1'];

const pointsOf = (stdout: string): Point[] =>
  JSON.parse(stdout).points.map((point: unknown) => pointSchema.parse(point));

describe('sweeps', () => {
  test('every level on a small layer: measured, accounted for, and as wrong as it should be', async () => {
    const levels =
      'baseline,conservative,balanced,aggressive,near-lossless,near-lossless-input,four-bit,four-bit-input,mixed-latent';
    const { code, stdout } = await runCli(['sweep', '--set', `level=${levels}`, ...quickly, '--format', 'json']);
    const points = pointsOf(stdout);
    expect({ code, count: points.length }).toEqual({ code: 0, count: 9 });
    for (const { outcome, reason, memory, config } of points) {
      expect({ level: config.level, outcome, reason }).toEqual({
        level: config.level,
        outcome: 'measured',
        reason: undefined,
      });
      expect(memory?.kvAllocatedBytes).toBeGreaterThanOrEqual(memory?.kvLogicalBytes as number);
      expect(memory?.differenceExplained).not.toBe('');
    }
    const errorOf = (level: string): number =>
      points.find(({ config }) => config.level === level)?.error?.relativeL2 as number;
    expect(errorOf('baseline')).toBeLessThan(1e-5);
    expect(errorOf('near-lossless')).toBeLessThan(0.02);
    expect(errorOf('near-lossless-input')).toBeLessThan(0.02);
    expect(errorOf('four-bit')).toBeLessThan(0.15);
    expect(errorOf('conservative')).toBeGreaterThan(0.5);
  });

  test('quick: a trained model under every kind of level, in the expected order', async () => {
    const run = startCli(['sweep', 'quick', '--format', 'json']);
    await takesLessThan(60_000, () => run.ended);
    const { code, stdout } = await run.ended;
    const points = pointsOf(stdout);
    expect({ code, outcomes: new Set(points.map(({ outcome }) => outcome)) }).toEqual({
      code: 0,
      outcomes: new Set(['measured']),
    });
    const of = (
      model: string,
      level: string,
      key: 'keyDtype' | 'window' = 'keyDtype',
      value?: string | number,
    ): Point => {
      const found = points.find(
        ({ config }) =>
          config.model === model && config.level === level && (value === undefined || config[key] === value),
      );
      return found as Point;
    };
    const [exact, int8, int4, latent] = ['baseline', 'near-lossless', 'four-bit', 'mixed-latent'].map((level) =>
      of('byte-mha', level),
    );
    const [int2, window] = [of('byte-mha', 'custom', 'keyDtype', 'int2'), of('byte-mha', 'custom', 'window', 128)];
    const [converted, native] = [of('byte-mha', 'conservative'), of('byte-mqa', 'shared-64x')];
    expect(exact?.quality).toMatchObject({ logitKl: 0, top1Agreement: 1, perplexityChangePercent: 0 });
    const kl = (point: Point | undefined): number => point?.quality?.logitKl as number;
    const rising = [exact, int8, int4, latent, int2, converted].map(kl);
    expect(rising).toEqual([...rising].sort((a, b) => a - b));
    expect(new Set(rising).size).toBe(rising.length);
    // A model trained with one head keeps what averaging eight of them destroys.
    expect(converted.quality?.retrieved).toBe(0);
    expect(native.quality?.retrieved).toBe(1);
    expect(converted.error?.grade).toBe('destroyed');
    // A window forgets what lies before it, and nothing else.
    expect(window.quality?.retrievedByDepth?.slice(0, 5)).toEqual([0, 0, 0, 0, 0]);
    expect(window.quality?.retrievedByDepth?.at(-1)).toBe(1);
    // "At most about so much memory" was said before: no point takes more, and not far less.
    const ratios = points.map(({ config, memory }) => estimatePeakBytes(config) / (memory?.peakBytes as number));
    expect(Math.min(...ratios)).toBeGreaterThan(1);
    expect(Math.min(...ratios)).toBeLessThan(2);
  });

  test('the same seed gives the same errors and bytes, whatever was measured before', async () => {
    const run = async (...axes: string[]) =>
      pointsOf((await runCli(['sweep', 'four-bit', ...quickly, ...axes, '--format', 'json'])).stdout);
    const figures = (points: Point[]) => new Map(points.map(({ id, error, memory }) => [id, { error, memory }]));
    const alone = figures(await run());
    const last = figures(await run('--set', 'hiddenDim=512,128'));
    for (const [id, figure] of alone) expect(last.get(id)).toEqual(figure);
  });

  test('Ctrl+C, then --resume: every point once', async () => {
    const session = path('stopped.fmqa');
    const axes = ['--set', 'level=baseline,near-lossless,four-bit', '--set', 'seqLen=64,96,128'];
    const run = startCli(['sweep', ...quickly, ...axes, '--min-time', '0.3', '--out', session, '--verbose']);
    await run.heard(/^1\/9 /m);
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
    const before = (await readSession(session)).points;
    expect(before.size).toBeLessThan(9);
    const resumed = await runCli(['sweep', '--resume', '--out', session, '--format', 'json']);
    expect(resumed.code).toBe(0);
    expect(pointsOf(resumed.stdout)).toHaveLength(9);
    const after = await readSession(session);
    expect(after.records.filter(({ kind }) => kind === 'point')).toHaveLength(9);
    for (const [id, point] of before) expect(after.points.get(id)).toEqual(point);
  });
});

/** Process ids of the workers below a process. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

describe.runIf(existsSync(`/proc/${process.pid}/task/${process.pid}/children`))('a worker that is killed', () => {
  test.each(['SIGKILL', 'SIGSEGV'] as const)('by %s costs one row, and the sweep goes on', async (signal) => {
    const axes = ['--set', 'level=baseline', '--set', 'seqLen=64,80,96,112'];
    const run = startCli(['sweep', ...quickly, ...axes, '--min-time', '1', '--format', 'json', '--verbose']);
    await run.heard(/^1\/4 /m);
    await new Promise((resolve) => setTimeout(resolve, 500)); // into the samples of the second point
    const [worker] = childrenOf(run.child.pid as number);
    process.kill(worker, signal);
    const { code, stdout } = await run.ended;
    const points = pointsOf(stdout);
    expect(points.map(({ outcome }) => outcome).sort()).toEqual(['failed', 'measured', 'measured', 'measured']);
    expect(points.find(({ outcome }) => outcome === 'failed')?.reason).toContain(signal);
    expect(code).toBe(1);
  });

  test('a killed command line leaves no worker behind', async () => {
    const run = startCli(['sweep', ...quickly, '--min-time', '5', '--set', 'seqLen=64,80', '--verbose']);
    await vi.waitUntil(() => childrenOf(run.child.pid as number).length > 0, { timeout: 120_000 });
    const [worker] = childrenOf(run.child.pid as number);
    run.child.kill('SIGKILL');
    await run.ended;
    await expect.poll(() => isGone(worker)).toBe(true);
  });
});

function isGone(pid: number): boolean {
  try {
    return /^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return true;
  }
}

describe('the library', () => {
  const [batch, tokens, hiddenDim] = [2, 40, 128];
  const x = (length: number, seed = 1) => ({
    shape: [batch, length, hiddenDim],
    data: Float32Array.from({ length: batch * length * hiddenDim }, (_, i) => Math.sin(i * 12.9898 + seed) * 2),
  });

  test('a cache filled step by step gives what one pass gives', async () => {
    const layer = new FastMQA({ hiddenDim, numHeads: 4, level: 'baseline' });
    try {
      expect([layer.cacheMultiplier, layer.memoryReductionPercent]).toEqual([undefined, undefined]);
      const all = x(tokens);
      const whole = await layer.forward(all);
      expect(whole.shape).toEqual([batch, tokens, hiddenDim]);
      expect(whole.data.every(Number.isFinite)).toBe(true);

      const part = (from: number, to: number) => ({
        shape: [batch, to - from, hiddenDim],
        data: Float32Array.from({ length: batch * (to - from) * hiddenDim }, (_, i) => {
          const [b, rest] = [Math.floor(i / ((to - from) * hiddenDim)), i % ((to - from) * hiddenDim)];
          return all.data[b * tokens * hiddenDim + from * hiddenDim + rest];
        }),
      });
      const first = await layer.forward(part(0, tokens - 1));
      expect(first.shape).toEqual([batch, tokens - 1, hiddenDim]);
      const last = await layer.forward(part(tokens - 1, tokens), { useCache: true });
      for (let b = 0; b < batch; b += 1) {
        for (let c = 0; c < hiddenDim; c += 1) {
          const wanted = whole.data[(b * tokens + tokens - 1) * hiddenDim + c];
          expect(Math.abs(last.data[b * hiddenDim + c] - wanted)).toBeLessThan(1e-4);
        }
      }
      expect(layer.cacheMultiplier).toBeGreaterThan(0.5);
      expect(layer.cacheMultiplier).toBeLessThanOrEqual(1);
    } finally {
      await layer.close();
    }
  });

  test('the quick start: a level, a cache, and what it saves', async () => {
    const layer = new FastMQA({ hiddenDim: 256, numHeads: 8, level: 'balanced' });
    const data = new Float32Array(512 * 256).map((_, i) => Math.cos(i));
    const y = await layer.forward({ shape: [1, 512, 256], data }, { useCache: true });
    expect(y.shape).toEqual([1, 512, 256]);
    expect(layer.cacheMultiplier).toBeGreaterThan(4);
    expect(layer.memoryReductionPercent).toBeCloseTo(100 * (1 - 1 / (layer.cacheMultiplier as number)));
    await layer.close();
  });

  test('bad input is one sentence', async () => {
    expect(() => new FastMQA({ hiddenDim: 128, numHeads: 4, level: 'best' })).toThrow(InputError);
    // @ts-expect-error as JavaScript may call it
    expect(() => new FastMQA()).toThrow(/^expected an object of options for FastMQA but received undefined$/);
    expect(() => new FastMQA({ hiddenDim: 100, numHeads: 3 })).toThrow(/^expected a layer that can exist for FastMQA/);
    const layer = new FastMQA({ hiddenDim, numHeads: 4, level: 'baseline' });
    await expect(layer.forward({ shape: [1, 2, 64], data: new Float32Array(128) })).rejects.toThrow(
      /^expected \[batch, tokens, 128\] for shape of x but received \[1, 2, 64\]$/,
    );
    await expect(layer.forward({ shape: [1, 2, 128], data: new Float32Array(7) })).rejects.toThrow(
      /^expected 256 values for x but received 7$/,
    );
    await expect(layer.forward({ shape: [1, 1, 128], data: new Float32Array(128).fill(Number.NaN) })).rejects.toThrow(
      /^expected finite values for x but received NaN$/,
    );
    await layer.forward(x(3), { useCache: true });
    await expect(
      layer.forward({ shape: [1, 1, 128], data: new Float32Array(128) }, { useCache: true }),
    ).rejects.toThrow(/^expected the batch of what is cached, 2, for x but received 1$/);
    await expect(layer.forward(x(1022), { useCache: true })).rejects.toThrow(
      /^expected at most 1024 tokens, as contextTokens says, for the sequence but received 1025$/,
    );
    expect((await layer.forward(x(1), { useCache: true })).shape).toEqual([2, 1, 128]);
    await layer.close();
  });

  test('a program that forgets to close it still ends', () => {
    const index = join(mainScript, '../../../index.js');
    const program = `
      const { FastMQA } = await import(${JSON.stringify(index)});
      const layer = new FastMQA({ hiddenDim: 64, numHeads: 2, level: 'baseline' });
      const y = await layer.forward({ shape: [1, 4, 64], data: new Float32Array(256).fill(1) }, { useCache: true });
      console.log(y.shape.join());`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 240_000,
    });
    expect(output).toBe('1,4,64\n');
  });
});
