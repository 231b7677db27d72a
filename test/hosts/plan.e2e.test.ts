/** A plan against the allocator: caches of whole models, filled until a limit refuses. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { MemoryPlan } from '../../src-main/contract/model.ts';
import { runCli } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-plan-'));
afterAll(() => rmSync(folder, { recursive: true }));

const mixed = {
  model_type: 'gemma2',
  hidden_size: 128,
  intermediate_size: 256,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 32,
  num_hidden_layers: 3,
  sliding_window: 100,
  max_position_embeddings: 4096,
  vocab_size: 256,
};
const shared = { ...mixed, model_type: 'llama', num_key_value_heads: 1, num_hidden_layers: 2 };

test.each([
  ['layers with and without a window', mixed, 12],
  ['one shared head', shared, 15],
])(
  'what is reached is what was planned, byte for byte: %s',
  async (_, config, levels) => {
    const path = join(folder, 'config.json');
    writeFileSync(path, JSON.stringify(config));
    const args = [
      'plan',
      '--model',
      path,
      '--memory',
      '1GiB',
      '--context',
      '700',
      '--prove',
      '3MiB',
      '--format',
      'json',
    ];
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const proven = (JSON.parse(stdout) as MemoryPlan).rows.flatMap(({ level, proof }) =>
      proof ? [{ level, ...proof }] : [],
    );
    expect(proven.length).toBe(levels);
    for (const { level, plannedSequences, reachedSequences, plannedBytes, allocatedBytes, limitBytes } of proven) {
      expect(reachedSequences).toBeGreaterThan(0);
      expect(allocatedBytes).toBeLessThanOrEqual(limitBytes);
      expect({ level, plannedBytes }).toEqual({ level, plannedBytes: allocatedBytes });
      // The last one may fail on what it needs while it grows.
      expect({ level, close: plannedSequences - reachedSequences <= 1 }).toEqual({ level, close: true });
      expect(reachedSequences).toBeLessThanOrEqual(plannedSequences);
    }
  },
  60_000,
);

test('a model that does not exist, and a size that is none', async () => {
  const missing = await runCli(['plan', '--model', 'nothing-of-the-kind']);
  expect(missing.code).toBe(2);
  expect(missing.stderr).toMatch(/^expected one of .* for model but received nothing-of-the-kind\n$/);
  const odd = await runCli(['plan', '--model', 'byte-mha', '--memory', '80 bananas']);
  expect(odd).toMatchObject({
    code: 2,
    stderr: 'expected a size like 80GiB or 24GB for --memory but received 80 bananas\n',
  });
});

test('a memory without its unit, and more than this machine has', async () => {
  const bare = await runCli(['plan', '--model', 'byte-mha', '--memory', '80']);
  expect(bare).toMatchObject({ code: 2, stderr: 'expected a size like 80GiB or 24GB for --memory but received 80\n' });
  const more = await runCli(['plan', '--model', 'byte-mha', '--prove', '900TiB']);
  expect(more.code).toBe(2);
  expect(more.stderr).toMatch(/^expected at most .* which is what this machine has free now, .* received 900 TiB\n$/);
});

test('a plan says which levels destroy the model, and where nothing fits', async () => {
  const { code, stdout } = await runCli([
    'plan',
    '--model',
    'Llama-3.1-70B',
    '--memory',
    '80GB',
    '--context',
    '200000',
  ]);
  expect(code).toBe(0);
  expect(stdout).toMatch(
    /^conservative, balanced, aggressive: the 8 KV heads of the model are merged into 1; .*destroys/m,
  );
  expect(stdout).toMatch(/^shared-64x, shared-128x, shared-512x: for models trained with one shared KV head$/m);
  expect(stdout).toMatch(/^The weights alone do not fit/m);
  expect(stdout).toMatch(/^The model itself ends at 131,072 tokens\.$/m);
});

test('a sweep of which nothing is possible keeps its rows and ends as bad input', async () => {
  const { code, stdout, stderr } = await runCli(['sweep', 'custom', '--set', 'heads=3', '--format', 'json']);
  expect(code).toBe(2);
  expect(stderr).toMatch(/^nothing was measured: hiddenDim 1024 does not divide into 3 heads: give headDim$/m);
  expect(JSON.parse(stdout).points.map(({ outcome }: { outcome: string }) => outcome)).toEqual(['skipped', 'skipped']);
});
