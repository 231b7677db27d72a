/** The whole program on the CUDA backend, whose kernels run on the CPU here: command line, worker, addon, library. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { MemoryPlan } from '../../src-main/contract/model.ts';
import { buildTools, emulatedCudaLibrary } from '../native/tools.ts';
import { runCli } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-stand-in-'));
const config = join(folder, 'config.json');

beforeAll(async () => {
  await buildTools();
  writeFileSync(
    config,
    JSON.stringify({
      ...{
        model_type: 'gemma2',
        hidden_size: 64,
        intermediate_size: 128,
        num_attention_heads: 2,
        num_key_value_heads: 2,
      },
      ...{ head_dim: 32, num_hidden_layers: 3, sliding_window: 100, max_position_embeddings: 4096, vocab_size: 256 },
    }),
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

const cli = async (...args: readonly string[]) => {
  const { code, stdout, stderr } = await runCli(args, {
    FASTMQA_CUDA_LIBRARY: emulatedCudaLibrary,
    FASTMQA_HOME: folder,
  });
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as unknown;
};

test('sequences of a whole model, its layers with a window and without, until a limit refuses: as planned', async () => {
  const axes = [
    `model=${config}`,
    'phase=capacity',
    'seqLen=300',
    'cacheLimitBytes=500000',
    'level=near-lossless,conservative',
  ];
  const { points } = (await cli(
    ...['sweep', '--backend', 'cuda:0', '--format', 'json'],
    ...axes.flatMap((axis) => ['--set', axis]),
  )) as { points: Point[] };
  expect(points.map(({ outcome }) => outcome)).toEqual(['measured', 'measured']);
  for (const { capacity } of points) {
    const { plannedSequences, reachedSequences, allocatedBytes, plannedBytes, limitBytes } = capacity as NonNullable<
      Point['capacity']
    >;
    expect(reachedSequences).toBeGreaterThan(3);
    expect(reachedSequences).toBe(plannedSequences);
    expect(limitBytes).toBe(500_000);
    expect(allocatedBytes).toBeLessThanOrEqual(limitBytes);
    expect(plannedBytes).toBe(allocatedBytes);
  }
});

test('a plan is proven there too', async () => {
  const { rows } = (await cli(
    ...['plan', '--model', config, '--context', '200', '--prove', '200KB', '--backend', 'cuda:0', '--format', 'json'],
  )) as MemoryPlan;
  const proven = rows.flatMap(({ proof }) => (proof ? [proof] : []));
  expect(proven.length).toBeGreaterThan(10);
  for (const { plannedSequences, reachedSequences, plannedBytes, allocatedBytes } of proven) {
    expect(reachedSequences).toBe(plannedSequences);
    expect(plannedBytes).toBe(allocatedBytes);
  }
});

test('the CPU has no end of its own', async () => {
  const { code, stderr } = await runCli(['plan', '--model', config, '--prove', 'device']);
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'expected a size like 1GiB where the CPU is asked for --prove but received device\n',
  });
});
