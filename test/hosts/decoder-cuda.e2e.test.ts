/** Whole models under every level on a GPU, its kernels run on the CPU, beside the same points of the CPU. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ModelFiles } from '../../src-main/contract/model.ts';
import type { PointConfig } from '../../src-main/contract/sweep.ts';
import { fullHeadLevelNames, sharedLevelNames } from '../../src-main/engine/levels.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import type { Prepared } from '../../src-main/engine/ports.ts';
import { openCheckpoint } from '../../src-main/models/checkpoint.ts';
import { readModelConfig } from '../../src-main/models/config.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { tinyWeights, writeCheckpoint } from '../fakes/tiny-checkpoint.ts';
import { buildTools, emulatedCudaLibrary } from '../native/tools.ts';

process.env.FASTMQA_CUDA_LIBRARY = emulatedCudaLibrary;
const root = mkdtempSync(join(tmpdir(), 'fastmqa-decoder-cuda-'));
const backend = new Supervisor({ spawn: forkWorker(workerScript) });
beforeAll(buildTools);
afterAll(async () => {
  await backend.close();
  rmSync(root, { recursive: true });
});

const [vocabulary, seqLen, layers] = [32, 72, 2];
const raw = {
  model_type: 'llama',
  ...{ hidden_size: 64, intermediate_size: 72, num_attention_heads: 2, head_dim: 32, num_hidden_layers: layers },
  ...{ vocab_size: vocabulary, max_position_embeddings: 2048, rms_norm_eps: 1e-5, torch_dtype: 'float32' },
};

const tokens = (count: number, seed: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => ((i + seed) * (i + seed) * 7 + 3 * i + (i >> 3)) % vocabulary);
const text = {
  key: root,
  prompt: 32,
  documents: [tokens(seqLen, 1), tokens(seqLen, 50)],
  haystacks: [tokens(40, 9)],
  probes: [[{ depth: 0.5, question: tokens(3, 4), answer: tokens(2, 5) }]],
  calibration: [tokens(1024, 7)],
};

interface Measured extends Omit<Prepared, 'handle' | 'generation'> {
  readonly samples: readonly number[];
}

type Opened = { readonly point: PointConfig; readonly files: ModelFiles };

/** The same model with two KV heads or one. */
async function opened(kvHeads: number, axes: Record<string, string | number>): Promise<Opened> {
  const folder = join(root, `heads-${kvHeads}`);
  const config = { ...raw, num_key_value_heads: kvHeads };
  writeCheckpoint(folder, config, tinyWeights(config, 11));
  const model = await readModelConfig(join(folder, 'config.json'));
  const shape = { hiddenDim: model.hiddenDim, heads: model.heads, headDim: model.headDim, referenceKvHeads: kvHeads };
  const asked = { model: folder, layers, seqLen, batch: 2, calibrationTokens: 1024, phase: 'decode', ...axes };
  const { config: point } = resolvePoint({ ...shape, ropeTheta: model.layers[0]?.rope?.theta ?? 0, ...asked });
  return { point, files: await openCheckpoint(folder, model) };
}

async function measure(kvHeads: number, axes: Record<string, string | number>): Promise<Measured> {
  const { point, files } = await opened(kvHeads, axes);
  const prepared = await backend.prepareModel(point, files, text, 120);
  try {
    return { ...prepared, samples: await backend.sample(prepared, 0.001, 2, 240) };
  } finally {
    await backend.release(prepared);
  }
}

test('speculating says what the target alone says, and keeps all where draft and target are the same', async () => {
  for (const draftLevel of ['same', 'four-bit']) {
    const { files, point: target } = await opened(2, { level: 'custom', cacheDtype: 'f16', backend: 'cuda:0' });
    const draft =
      draftLevel === 'same' ? target : (await opened(2, { level: draftLevel, backend: 'cuda:0', seqLen: 72 })).point;
    const prompts = [tokens(40, 3)];
    const request = { target, draft, draftTokens: 3, tokens: 12, temperature: 0, seed: 1, plain: true, prompts };
    const result = await backend.speculate(files, text, request, 120);
    expect(result.output).toEqual(result.plainOutput);
    expect(result.output.map((list) => list.length)).toEqual([12]);
    if (draftLevel === 'same') expect(result.accepted).toEqual(result.offered);
    expect(result.draftCacheBytes).toBeGreaterThan(0);
    expect(result.seconds).toBeGreaterThan(0);
  }
});

/** What weights and activations of 16 bits cost by themselves, as relative L2 of the last hidden state. */
const halfPrecision = 4e-3;

interface Case {
  readonly level: string;
  readonly kvHeads: number;
  readonly axes: Readonly<Record<string, string | number>>;
}

const cases: readonly Case[] = [
  ...fullHeadLevelNames.map((level) => ({ level, kvHeads: 2, axes: {} })),
  ...sharedLevelNames.map((level) => ({ level, kvHeads: 1, axes: {} })),
  { level: 'shared-512x', kvHeads: 1, axes: { window: 40 } },
  { level: 'near-lossless', kvHeads: 2, axes: { phase: 'verify', verifyTokens: 3 } },
  { level: 'four-bit', kvHeads: 2, axes: { phase: 'prefill', batch: 3 } },
  { level: 'custom', kvHeads: 2, axes: { cacheDtype: 'bf16' } },
];

test.each(cases)('$level $axes', async ({ level, kvHeads, axes }) => {
  const cpu = await measure(kvHeads, { level, ...axes });
  const gpu = await measure(kvHeads, { level, ...axes, backend: 'cuda:0' });
  const [expected, got] = [cpu.error?.relativeL2 as number, gpu.error?.relativeL2 as number];
  const floor = level === 'baseline' ? 1e-5 : axes.cacheDtype === 'bf16' ? 8 * halfPrecision : halfPrecision;
  expect(Math.abs(got - expected)).toBeLessThan(0.1 * expected + floor);
  expect(gpu.quality?.positions).toBe(cpu.quality?.positions);
  expect(gpu.quality?.layerErrors).toHaveLength(layers);
  const [klOnCpu, klOnGpu] = [cpu.quality?.logitKl as number, gpu.quality?.logitKl as number];
  expect(Math.abs(klOnGpu - klOnCpu)).toBeLessThan(0.25 * klOnCpu + floor);
  // The cache is the same cache: by formula, and as it was allocated.
  expect(gpu.memory.kvLogicalBytes).toBe(cpu.memory.kvLogicalBytes);
  expect(gpu.memory.kvAllocatedBytes).toBeGreaterThanOrEqual(gpu.memory.kvLogicalBytes);
  expect(gpu.memory.kvAllocatedBytes).toBeLessThan(1.05 * cpu.memory.kvAllocatedBytes + 8192);
  expect(gpu.memory.peakBytes).toBeGreaterThan(gpu.memory.kvAllocatedBytes);
  expect(gpu.samples.length).toBeGreaterThan(0);
  expect(Math.min(...gpu.samples)).toBeGreaterThan(0);
});
