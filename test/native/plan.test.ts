/** Planned bytes are the bytes that the allocator hands out, whatever the data: every level on models of every kind. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ModelConfig, own16Bit } from '../../src-main/contract/model.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { levelOnModel, pagedCacheBytes, sequenceBytes } from '../../src-main/engine/memory-plan.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { withModels } from '../../src-main/hosts/model-backend.ts';
import { parseModelConfig } from '../../src-main/models/config.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { buildTools, emulatedCudaLibrary } from './tools.ts';

process.env.FASTMQA_CUDA_LIBRARY = emulatedCudaLibrary;
beforeAll(buildTools, 600_000);
const backend = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(() => backend.close());

const levels = levelNames.filter((level) => level !== 'custom');
const planned = [own16Bit, ...levels];

const llama = {
  model_type: 'llama',
  hidden_size: 128,
  intermediate_size: 256,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 32,
  num_hidden_layers: 2,
  max_position_embeddings: 4096,
  vocab_size: 256,
};
const models: Readonly<Record<string, object>> = {
  'full heads': llama,
  'full heads of a size that is no multiple of eight': { ...llama, head_dim: 20 },
  'small heads': { ...llama, hidden_size: 64, num_attention_heads: 8, num_key_value_heads: 8, head_dim: 8 },
  'large heads': { ...llama, hidden_size: 256, num_attention_heads: 2, num_key_value_heads: 2, head_dim: 256 },
  'grouped heads': { ...llama, num_attention_heads: 8, num_key_value_heads: 2 },
  'one shared head': { ...llama, num_key_value_heads: 1, head_dim: 64 },
  'a latent of its own': {
    ...llama,
    model_type: 'deepseek_v2',
    kv_lora_rank: 64,
    q_lora_rank: null,
    qk_rope_head_dim: 16,
    qk_nope_head_dim: 32,
    v_head_dim: 24,
  },
  'layers with and without a window': { ...llama, model_type: 'gemma2', sliding_window: 100, num_hidden_layers: 3 },
};

const configOf = (fields: object): ModelConfig =>
  parseModelConfig(new TextEncoder().encode(JSON.stringify(fields)), 'config.json');

describe.each(Object.entries(models))('a model with %s', (_, fields) => {
  const model = configOf(fields);
  /** A GPU's caches too, where it takes such heads; its kernels run on the CPU, which takes long for large ones. */
  const onGpu = model.headDim % 8 !== 0 ? [] : model.headDim > 128 ? [65] : [1, 700];
  const lengths = [
    ...[1, 65, 700].map((tokens) => ({ tokens, where: 'cpu' })),
    ...onGpu.map((tokens) => ({ tokens, where: 'cuda:0' })),
  ];
  test.each(lengths)(
    '$tokens tokens on $where',
    async ({ tokens, where }) => {
      let proven = 0;
      for (const level of planned) {
        const cpu = levelOnModel(model, level, tokens);
        if (typeof cpu === 'string') continue;
        const kinds = cpu.map((kind) => ({ ...kind, config: { ...kind.config, backend: where } }));
        const bytes = sequenceBytes(kinds, tokens);
        const { allocatedBytes } = await backend.reach(
          kinds,
          { tokens, limitBytes: 2 ** 24, mostSequences: 1, reservedBytes: 0 },
          60,
        );
        expect({ level, allocatedBytes }).toEqual({ level, allocatedBytes: bytes });
        proven += 1;
      }
      expect(proven).toBeGreaterThanOrEqual(model.mla ? 4 : 12);
    },
    60_000,
  );
});

/** Behind the embedding a layer meets no more directions than tokens differ: bytes must not follow that. */
test.each(['byte-mha', 'byte-mqa'])(
  'the first layer of a trained model, its own calibration: %s',
  async (model) => {
    const real = withModels(backend);
    for (const level of levels) {
      const { config, refused } = resolvePoint({ model, level, layer: 0, seqLen: 80, phase: 'decode' });
      if (refused !== undefined) continue;
      const prepared = await real.prepare(config, 60);
      const allocated = { level, bytes: prepared.memory.kvAllocatedBytes };
      expect(allocated).toEqual({ level, bytes: pagedCacheBytes(config, config.seqLen) });
      await real.release(prepared);
    }
  },
  60_000,
);
