/** The engine's decoder against an independent one in fp64, for a small checkpoint of every family. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import type { ModelConfig } from '../../src-main/contract/model.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { openCheckpoint } from '../../src-main/models/checkpoint.ts';
import { readModelConfig } from '../../src-main/models/config.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { decodeInF64, type RawConfig } from '../fakes/decoder-f64.ts';
import { blockScaled, tinyWeights, writeCheckpoint } from '../fakes/tiny-checkpoint.ts';
import { buildTools, emulatedCudaLibrary } from '../native/tools.ts';

process.env.FASTMQA_CUDA_LIBRARY = emulatedCudaLibrary;
beforeAll(buildTools);
const root = mkdtempSync(join(tmpdir(), 'fastmqa-decoder-'));
const backend = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(async () => {
  await backend.close();
  rmSync(root, { recursive: true });
});

const llama = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 40,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_hidden_layers: 3,
  vocab_size: 29,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  torch_dtype: 'float32',
};
const scaled = {
  rope_theta: 500000,
  rope_scaling: {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  },
};
const falcon = {
  model_type: 'falcon',
  hidden_size: 32,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  vocab_size: 29,
  multi_query: true,
  parallel_attn: true,
  new_decoder_architecture: false,
  layer_norm_epsilon: 1e-5,
};
const gemma = { ...llama, head_dim: 16, query_pre_attn_scalar: 12, sliding_window: 6, num_hidden_layers: 4 };

const deepSeek = {
  ...llama,
  model_type: 'deepseek_v2',
  num_key_value_heads: 4,
  ...{ q_lora_rank: null, kv_lora_rank: 24, qk_nope_head_dim: 12, qk_rope_head_dim: 8, v_head_dim: 10 },
  ...{ n_routed_experts: 8, num_experts_per_tok: 3, n_shared_experts: 2, moe_intermediate_size: 12 },
  ...{ first_k_dense_replace: 1, topk_method: 'greedy', norm_topk_prob: false, routed_scaling_factor: 1 },
};
const yarn = {
  type: 'yarn',
  ...{
    factor: 40,
    original_max_position_embeddings: 16,
    beta_fast: 32,
    beta_slow: 1,
    mscale: 0.5,
    mscale_all_dim: 1.2,
  },
};

const families: Record<string, RawConfig> = {
  'Llama 2': llama,
  'Llama 3.1: scaled rotary frequencies': { ...llama, ...scaled },
  'Llama 3.2: tied embeddings': { ...llama, ...scaled, tie_word_embeddings: true },
  'Mistral v0.1: a window': { ...llama, model_type: 'mistral', sliding_window: 7 },
  'Qwen2.5: biases': {
    ...llama,
    model_type: 'qwen2',
    use_sliding_window: false,
    sliding_window: 5,
    max_window_layers: 1,
  },
  'Qwen2 with a window in its upper layers': {
    ...llama,
    model_type: 'qwen2',
    use_sliding_window: true,
    sliding_window: 5,
    max_window_layers: 1,
  },
  'Qwen3: normalised queries and keys': { ...llama, model_type: 'qwen3', head_dim: 16 },
  'Qwen3-MoE: experts weighted by a softmax over all': {
    ...{ ...llama, model_type: 'qwen3_moe', head_dim: 16, norm_topk_prob: false },
    ...{
      num_experts: 6,
      num_experts_per_tok: 2,
      moe_intermediate_size: 20,
      mlp_only_layers: [],
      decoder_sparse_step: 1,
    },
  },
  'Mixtral: experts weighted by a softmax over those chosen': {
    ...{ ...llama, model_type: 'mixtral', sliding_window: null, num_local_experts: 5, num_experts_per_tok: 2 },
  },
  'Gemma 2: soft-caps, four norms': {
    ...gemma,
    model_type: 'gemma2',
    attn_logit_softcapping: 5,
    final_logit_softcapping: 3,
  },
  'Gemma 3: local and global layers': {
    ...gemma,
    model_type: 'gemma3_text',
    sliding_window_pattern: 3,
    rope_theta: 1e6,
    rope_local_base_freq: 10000,
    rope_scaling: { rope_type: 'linear', factor: 8 },
  },
  'Phi-3: fused projections': { ...llama, model_type: 'phi3', num_key_value_heads: 4, sliding_window: 9 },
  'Phi-4-mini: long rotary factors on a part of the head': {
    ...llama,
    model_type: 'phi3',
    head_dim: 16,
    partial_rotary_factor: 0.75,
    original_max_position_embeddings: 48,
    rope_scaling: { type: 'longrope', short_factor: [1, 1.2, 1.5, 2, 3, 4], long_factor: [2, 3, 4, 5, 6, 7] },
  },
  'GPT-NeoX: parallel residual, a quarter rotates': {
    ...{ ...llama, model_type: 'gpt_neox', rotary_pct: 0.25, layer_norm_eps: 1e-5, use_parallel_residual: true },
    num_key_value_heads: undefined,
  },
  'GPT-NeoX in sequence': {
    ...{ ...llama, model_type: 'gpt_neox', rotary_pct: 0.5, layer_norm_eps: 1e-5, use_parallel_residual: false },
    num_key_value_heads: undefined,
  },
  'Falcon-7B: one KV head': falcon,
  'Falcon-40B: KV groups, two norms': { ...falcon, new_decoder_architecture: true, num_kv_heads: 2 },
  'DeepSeek-V2-Lite: a latent, YaRN, experts after one dense layer': { ...deepSeek, rope_scaling: yarn },
  'DeepSeek-V2: queries out of a latent, groups of experts': {
    ...deepSeek,
    ...{ q_lora_rank: 14, topk_method: 'group_limited_greedy', n_group: 4, topk_group: 2, routed_scaling_factor: 1.6 },
  },
  'DeepSeek-V3: sigmoids and a bias that only chooses': {
    ...{ ...deepSeek, model_type: 'deepseek_v3', q_lora_rank: 14, rope_scaling: yarn, topk_method: 'noaux_tc' },
    ...{ n_group: 2, topk_group: 1, norm_topk_prob: true, routed_scaling_factor: 2.5 },
  },
  'GPT-BigCode: learned positions': {
    model_type: 'gpt_bigcode',
    ...{
      n_embd: 32,
      n_head: 4,
      n_layer: 2,
      n_positions: 64,
      vocab_size: 29,
      layer_norm_epsilon: 1e-5,
      multi_query: true,
    },
  },
};

const tokens = Array.from({ length: 24 }, (_, i) => (i * i * 7 + 3 * i) % 29);

/** Every case with the seed of its weights, and a folder, of its own: the same whichever of them run. */
const seeded = (cases: readonly (readonly [string, RawConfig])[], after: number): [string, RawConfig, number][] =>
  cases.map(([name, config], i) => [name, config, after + i + 1]);
const familyCases = Object.entries(families);
/** DeepSeek's attention with an MLP in every layer. */
const dense = {
  ...deepSeek,
  ...{ qk_nope_head_dim: 16, v_head_dim: 8, n_routed_experts: null, first_k_dense_replace: 9, rope_scaling: yarn },
};
const gpuCases: readonly [string, RawConfig][] = [
  ...familyCases.filter(([, config]) => !/^(deepseek|mixtral|qwen3_moe)/.test(config.model_type)),
  ['DeepSeek-V2 without experts', dense],
  ['DeepSeek-V3 without experts: queries out of a latent', { ...dense, model_type: 'deepseek_v3', q_lora_rank: 14 }],
];

const latentShape = ({ mla }: ModelConfig) =>
  mla && { latentDim: mla.rank, ropeDim: mla.ropeDim, valueDim: mla.valueDim };

async function logitsOf(folder: string, level: Record<string, string | number>, prompt: number): Promise<Float32Array> {
  const config = await readModelConfig(join(folder, 'config.json'));
  const files = await openCheckpoint(folder, config);
  const { config: point } = resolvePoint({
    ...{ hiddenDim: config.hiddenDim, heads: config.heads, headDim: config.headDim, referenceKvHeads: config.kvHeads },
    ...latentShape(config),
    ropeTheta: config.layers[0]?.rope?.theta ?? 0,
    model: folder,
    layers: config.layers.length,
    ...level,
  });
  return backend.logits(files, point, { shape: [1, tokens.length], data: Int32Array.from(tokens) }, prompt, 240);
}

/** Largest relative L2 error of a token's logits. */
function worst(logits: Float32Array, reference: readonly (readonly number[])[]): number {
  const width = reference[0]?.length ?? 0;
  return Math.max(
    ...reference.map((row, t) => {
      let [difference, norm] = [0, 0];
      row.forEach((value, i) => {
        difference += ((logits[t * width + i] as number) - value) ** 2;
        norm += value * value;
      });
      return Math.sqrt(difference / norm);
    }),
  );
}

describe('logits agree with the definition to 1e-4', () => {
  test.each(seeded(familyCases, 0))('%s', async (_, config, seed) => {
    const folder = join(root, `model-${seed}`);
    const weights = tinyWeights(config, seed);
    writeCheckpoint(folder, config, weights, { shards: seed % 3 === 0 ? 2 : 1 });
    const reference = decodeInF64(config, weights, tokens);
    const error = async (level: Record<string, string | number>, prompt: number): Promise<number> =>
      worst(await logitsOf(folder, level, prompt), reference);
    expect(await error({ level: 'baseline' }, tokens.length)).toBeLessThan(1e-4);
    // The same through the cache: half a prompt, then token by token.
    expect(await error({ level: 'baseline' }, 12)).toBeLessThan(1e-4);
    // And what is cached matters: two bits are not exact, and neither is the sum of all heads.
    expect(await error({ level: 'custom', cacheDtype: 'int2', keyGroupSize: 8, valueGroupSize: 8 }, 0)).toBeGreaterThan(
      1e-2,
    );
  });

  test.each(['F64', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'] as const)('weights in %s', async (stored) => {
    const folder = join(root, stored);
    const weights = tinyWeights(llama, 77, stored);
    writeCheckpoint(folder, llama, weights, { stored });
    expect(worst(await logitsOf(folder, {}, 10), decodeInF64(llama, weights, tokens))).toBeLessThan(1e-4);
  });

  test('weights in 8 bits with a scale for every block, as DeepSeek-V3 is published', async () => {
    const folder = join(root, 'block-scaled');
    const block = [5, 12] as const;
    const config = families['DeepSeek-V3: sigmoids and a bias that only chooses'] as RawConfig;
    const { stored, meant } = blockScaled(tinyWeights(config, 78, 'F8_E4M3'), block);
    const isScaled = (name: string): boolean => stored.has(`${name}_scale_inv`);
    const quantization = { quant_method: 'fp8', fmt: 'e4m3', activation_scheme: 'dynamic', weight_block_size: block };
    const write = (quantization_config: object) =>
      writeCheckpoint(folder, { ...config, quantization_config }, stored, {
        stored: (name) => (isScaled(name) ? 'F8_E4M3' : 'F32'),
        shards: 2,
      });
    write(quantization);
    expect(worst(await logitsOf(folder, {}, 10), decodeInF64(config, meant, tokens))).toBeLessThan(1e-4);
    write({ ...quantization, weight_block_size: [8, 12] });
    await expect(logitsOf(folder, {}, 10)).rejects.toThrow(
      /^expected \[\d+, 3\] for shape of tensor "model.layers.0.self_attn.q_a_proj.weight_scale_inv" in .* but received/,
    );
    write({});
    await expect(logitsOf(folder, {}, 10)).rejects.toThrow(
      /^expected weight_block_size in quantization_config for tensor ".*_scale_inv" in .* but received none$/,
    );
  });

  test('multimodal wrappers: the language model stands one level down', async () => {
    const folder = join(root, 'wrapped');
    const config = families['Gemma 3: local and global layers'] as RawConfig;
    const weights = tinyWeights(config, 5);
    const renamed = new Map([...weights].map(([name, tensor]) => [`language_model.${name}`, tensor]));
    writeCheckpoint(folder, { model_type: 'gemma3', text_config: config }, renamed);
    expect(worst(await logitsOf(folder, {}, 8), decodeInF64(config, weights, tokens))).toBeLessThan(1e-4);
  });
});

describe('on a GPU, its kernels run on the CPU: logits agree with the definition', () => {
  const onGpu = { backend: 'cuda:0' };
  test.each([
    ['experts', families['Mixtral: experts weighted by a softmax over those chosen'], 'mixtures of experts run on'],
  ] as [string, RawConfig, string][])('but not %s', async (name, config, message) => {
    const folder = join(root, name);
    writeCheckpoint(folder, config, tinyWeights(config, 1));
    await expect(logitsOf(folder, onGpu, 16)).rejects.toThrow(message);
  });

  test.each(seeded(gpuCases, familyCases.length))('%s', async (_, config, seed) => {
    const folder = join(root, `model-${seed}`);
    const weights = tinyWeights(config, seed);
    writeCheckpoint(folder, config, weights);
    const reference = decodeInF64(config, weights, tokens);
    const error = async (level: Record<string, string | number>): Promise<number> =>
      worst(await logitsOf(folder, level, 20), reference);
    expect(await error({ level: 'baseline', ...onGpu })).toBeLessThan(1e-4);
    // Weights and activations of 16 bits, by their own error; the rest of a coarse cache's error is the cache's, as on the CPU.
    const half = await error({ level: 'custom', cacheDtype: 'f16', ...onGpu });
    expect(half).toBeGreaterThan(1e-4);
    expect(half).toBeLessThan(2e-2);
    const coarse = { level: 'custom', cacheDtype: 'int4', keyGroupSize: 8, valueGroupSize: 8 };
    expect((await error({ ...coarse, ...onGpu })) / (await error(coarse))).toBeCloseTo(1, 0);
  });
});

/** Root mean square of what leaves a layer's attention, at some tokens. */
const rmsOf = (rows: readonly (readonly number[])[], positions: readonly number[]): number => {
  const values = positions.flatMap((position) => rows[position] ?? []);
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
};

describe('one layer of a model, on what it meets when the model reads', () => {
  test.each(seeded(familyCases, familyCases.length + gpuCases.length))('%s', async (_, config, seed) => {
    const folder = join(root, `model-${seed}`);
    const weights = tinyWeights(config, seed);
    writeCheckpoint(folder, config, weights);
    const attended: number[][][] = [];
    decodeInF64(config, weights, tokens, (layer, rows) => {
      attended[layer] = rows;
    });
    const model = await readModelConfig(join(folder, 'config.json'));
    const files = await openCheckpoint(folder, model);
    const text = { key: folder, prompt: 12, haystacks: [], probes: [], calibration: [] };
    for (const layer of attended.keys()) {
      const under = async (axes: Record<string, string | number>) => {
        const shape = { hiddenDim: model.hiddenDim, heads: model.heads, headDim: model.headDim };
        const asked = { model: folder, layers: attended.length, layer, seqLen: tokens.length };
        const kept = {
          referenceKvHeads: model.kvHeads,
          ...latentShape(model),
          ropeTheta: model.layers[0]?.rope?.theta ?? 0,
        };
        const { config: point } = resolvePoint({ ...shape, ...kept, ...asked, ...axes });
        const prepared = await backend.prepareModel(
          point,
          files,
          { ...text, documents: [Int32Array.from(tokens)] },
          60,
        );
        await backend.release(prepared);
        return prepared;
      };
      for (const phase of ['prefill', 'decode', 'verify'] as const) {
        const { error, controls, quality } = await under({ phase });
        // The engine's fp64 reference is the right layer on the right inputs, and an exact cache agrees with it.
        expect(
          (error?.referenceRms as number) / rmsOf(attended[layer] as number[][], error?.positions ?? []),
        ).toBeCloseTo(1, 4);
        expect(error?.relativeL2).toBeLessThan(1e-5);
        expect(quality).toBeUndefined();
        expect(controls?.independentLayer).toBeGreaterThan(0.3);
      }
      const { error } = await under({ level: 'custom', cacheDtype: 'int2', keyGroupSize: 8, valueGroupSize: 8 });
      expect(error?.relativeL2).toBeGreaterThan(1e-2);
    }
  });
});

test('of a model that is too large for a machine, one layer is measured: nothing behind it is read', async () => {
  const folder = join(root, 'large');
  const config = { ...llama, num_hidden_layers: 4 };
  const weights = tinyWeights(config, 9);
  const behind = /layers\.(1\.mlp|1\.post|2\.mlp|3)|model\.norm|lm_head/; // attention of layer 2 is one to compare with
  for (const [name, { data }] of weights) if (behind.test(name)) data.fill(Number.NaN);
  writeCheckpoint(folder, config, weights);
  const point = (layer: Record<string, number>) =>
    resolvePoint({
      ...{ model: folder, layers: 4, hiddenDim: 32, heads: 4, headDim: 8, referenceKvHeads: 2, seqLen: tokens.length },
      ...layer,
    }).config;
  const files = await openCheckpoint(folder, await readModelConfig(join(folder, 'config.json')));
  const text = { key: folder, prompt: 12, haystacks: [], probes: [], calibration: [] };
  const measured = async (layer: Record<string, number>) => {
    const prepared = await backend.prepareModel(
      point(layer),
      files,
      { ...text, documents: [Int32Array.from(tokens)] },
      60,
    );
    await backend.release(prepared);
    return prepared.error?.relativeL2;
  };
  expect(await measured({ layer: 1 })).toBeLessThan(1e-5);
  await expect(measured({ layer: 2 })).rejects.toThrow('expected finite weights for layers.1.');
  await expect(measured({})).rejects.toThrow('expected finite weights for layers.1.');
});

describe('a folder that is not what it says', () => {
  const folder = join(root, 'hostile');
  const open = async (): Promise<unknown> => openCheckpoint(folder, await readModelConfig(join(folder, 'config.json')));
  const fresh = (): Map<string, { shape: readonly number[]; data: Float64Array }> => {
    rmSync(folder, { recursive: true, force: true });
    const weights = tinyWeights(llama, 3);
    writeCheckpoint(folder, llama, weights);
    return weights;
  };
  const refuses = async (message: string | RegExp): Promise<void> => {
    const error = await open().then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toMatch(message);
  };

  test('names what is missing, and what does not fit', async () => {
    const weights = fresh();
    weights.delete('model.layers.1.self_attn.k_proj.weight');
    writeCheckpoint(folder, llama, weights);
    await refuses(/^expected weights for tensor "model.layers.1.self_attn.k_proj.weight" in .* but received nothing$/);
    writeCheckpoint(folder, { ...llama, num_key_value_heads: 4 }, tinyWeights(llama, 3));
    await refuses(
      /^expected \[32, 32\] for shape of tensor "model.layers.0.self_attn.k_proj.weight" in .* but received \[16, 32\]$/,
    );
  });

  test.each(['../other.safetensors', '/etc/passwd', 'a/b.safetensors', '.safetensors', 'model.bin', 'a\0.safetensors'])(
    'weight_map cannot lead to %j',
    async (name) => {
      fresh();
      writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { x: name } }));
      await refuses(/^expected names like model-00001-of-00002.safetensors for weight_map/);
    },
  );

  test('a link out of the folder is not followed', async () => {
    fresh();
    rmSync(join(folder, 'model.safetensors'));
    writeFileSync(join(root, 'elsewhere.safetensors'), 'x');
    symlinkSync(join(root, 'elsewhere.safetensors'), join(folder, 'model.safetensors'));
    await refuses(/^expected a file inside .* but received .*, which leads elsewhere$/);
  });

  test('the cache of Hugging Face, whose files are links to blobs beside them, is read', async () => {
    const revision = join(root, 'models--x/snapshots/abc');
    mkdirSync(join(root, 'models--x/blobs'), { recursive: true });
    const weights = tinyWeights(llama, 3);
    writeCheckpoint(join(root, 'plain'), llama, weights);
    mkdirSync(revision, { recursive: true });
    writeCheckpoint(join(root, 'models--x/blobs'), llama, weights);
    for (const name of ['config.json', 'model.safetensors'])
      symlinkSync(join('../../blobs', name), join(revision, name));
    expect(worst(await logitsOf(revision, {}, 8), decodeInF64(llama, weights, tokens))).toBeLessThan(1e-4);
  });

  test('weights that are no numbers are refused by name', async () => {
    const weights = fresh();
    (weights.get('model.norm.weight') as { data: Float64Array }).data[3] = Number.NaN;
    writeCheckpoint(folder, llama, weights);
    await expect(logitsOf(folder, {}, 8)).rejects.toThrow(
      'expected finite weights for finalNorm but received an infinity or NaN',
    );
  });
});
