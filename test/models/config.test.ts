import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import type { ModelConfig } from '../../src-main/contract/model.ts';
import { own16Bit } from '../../src-main/contract/model.ts';
import { logicalCacheBytes } from '../../src-main/engine/estimate.ts';
import { levelOnModel, planMemory } from '../../src-main/engine/memory-plan.ts';
import { parseModelConfig } from '../../src-main/models/config.ts';

const parse = (fields: object | string): ModelConfig =>
  parseModelConfig(Buffer.from(typeof fields === 'string' ? fields : JSON.stringify(fields)), 'config.json');

/** Bytes by formula that the model's own cache needs for `tokens` tokens in 16 bit. */
function ownBytes(model: ModelConfig, tokens: number): number {
  const kinds = levelOnModel(model, own16Bit, tokens);
  if (typeof kinds === 'string') throw new Error(kinds);
  return kinds.reduce((sum, { config, layers }) => sum + layers * logicalCacheBytes({ ...config, seqLen: tokens }), 0);
}

const llama2 = {
  model_type: 'llama',
  hidden_size: 4096,
  intermediate_size: 11008,
  num_attention_heads: 32,
  num_hidden_layers: 32,
  max_position_embeddings: 4096,
  vocab_size: 32000,
  rms_norm_eps: 1e-5,
  torch_dtype: 'float16',
};
const gemma2 = {
  ...llama2,
  model_type: 'gemma2',
  hidden_size: 2304,
  intermediate_size: 9216,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  num_hidden_layers: 26,
  sliding_window: 4096,
  max_position_embeddings: 8192,
};
const gemma3 = {
  model_type: 'gemma3',
  text_config: {
    model_type: 'gemma3_text',
    hidden_size: 5376,
    intermediate_size: 21504,
    num_attention_heads: 32,
    num_key_value_heads: 16,
    head_dim: 128,
    num_hidden_layers: 62,
    sliding_window: 1024,
    max_position_embeddings: 131072,
    query_pre_attn_scalar: 168,
    rope_scaling: { factor: 8.0, rope_type: 'linear' },
  },
  torch_dtype: 'bfloat16',
};
const falcon7b = {
  model_type: 'falcon',
  hidden_size: 4544,
  num_attention_heads: 71,
  num_kv_heads: 71,
  multi_query: true,
  new_decoder_architecture: false,
  num_hidden_layers: 32,
  vocab_size: 65024,
};
const deepSeekLite = {
  model_type: 'deepseek_v2',
  hidden_size: 2048,
  intermediate_size: 10944,
  num_attention_heads: 16,
  num_hidden_layers: 27,
  vocab_size: 102400,
  kv_lora_rank: 512,
  q_lora_rank: null,
  qk_rope_head_dim: 64,
  qk_nope_head_dim: 128,
  v_head_dim: 128,
  max_position_embeddings: 163840,
};

describe('configurations of real models: bytes of attention-spec E', () => {
  test.each([
    ['Llama-2-7B', llama2, 1, 524288],
    [
      'Mistral-7B-v0.1 at its end',
      { ...llama2, model_type: 'mistral', num_key_value_heads: 8, sliding_window: 4096 },
      32768,
      2 ** 29,
    ],
    ['Gemma-2-2B at its end', gemma2, 8192, 0.609375 * 2 ** 30],
    ['Gemma-3-27B', gemma3, 1, 507904],
    ['Falcon-7B', falcon7b, 1, 8192],
    ['DeepSeek-V2-Lite', deepSeekLite, 1, 31104],
    ['Phi-3-mini', { ...llama2, model_type: 'phi3', hidden_size: 3072 }, 1, 393216],
    [
      'GPT-NeoX-20B',
      { ...llama2, model_type: 'gpt_neox', hidden_size: 6144, num_attention_heads: 64, num_hidden_layers: 44 },
      1,
      1081344,
    ],
    [
      'StarCoder',
      {
        model_type: 'gpt_bigcode',
        n_embd: 6144,
        n_head: 48,
        n_layer: 40,
        vocab_size: 49152,
        n_positions: 8192,
        n_inner: 24576,
      },
      1,
      20480,
    ],
    [
      'Qwen2.5-7B',
      {
        ...llama2,
        model_type: 'qwen2',
        hidden_size: 3584,
        num_attention_heads: 28,
        num_key_value_heads: 4,
        num_hidden_layers: 28,
        sliding_window: 131072,
        use_sliding_window: false,
      },
      1,
      57344,
    ],
    [
      'Qwen3-0.6B',
      {
        ...llama2,
        model_type: 'qwen3',
        hidden_size: 1024,
        num_attention_heads: 16,
        num_key_value_heads: 8,
        head_dim: 128,
        num_hidden_layers: 28,
      },
      1,
      114688,
    ],
  ] as const)('%s', (_, fields, tokens, bytes) => {
    expect(ownBytes(parse(fields), tokens)).toBe(bytes);
  });

  test('what layers do is read, not guessed', () => {
    const three = parse(gemma3);
    expect(three.layers.map(({ window }) => window ?? 0).slice(0, 7)).toEqual([1024, 1024, 1024, 1024, 1024, 0, 1024]);
    expect(three.layers[0]?.rope?.theta).toBe(10000);
    expect(three.layers[5]?.rope).toMatchObject({ theta: 1e6, scaling: { kind: 'linear', factor: 8 } });
    expect(three.attentionScale).toBeCloseTo(1 / Math.sqrt(168), 12);
    expect(
      parse(gemma2)
        .layers.map(({ window }) => window !== undefined)
        .slice(0, 4),
    ).toEqual([true, false, true, false]);
    const neox = parse({ ...llama2, model_type: 'gpt_neox', hidden_size: 6144, num_attention_heads: 64 });
    expect(neox.layers[0]?.rope?.rotaryDim).toBe(24);
    const scaled = {
      rope_scaling: {
        rope_type: 'llama3',
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
      },
    };
    expect(parse({ ...llama2, ...scaled, rope_theta: 500000.0 }).layers[0]?.rope).toMatchObject({
      theta: 500000,
      scaling: { kind: 'llama3', factor: 8, originalMaxPositions: 8192, lowFrequencyFactor: 1, highFrequencyFactor: 4 },
    });
    expect(parse(deepSeekLite).mla).toEqual({ rank: 512, ropeDim: 64, nopeDim: 128, valueDim: 128 });
  });

  test('Mixtral and Qwen3-MoE: experts in every layer', () => {
    const mixtral = parse({ ...llama2, model_type: 'mixtral', num_local_experts: 8, num_experts_per_tok: 2 });
    expect(mixtral.experts).toMatchObject({ count: 8, chosen: 2, mlpDim: mixtral.mlpDim, normalises: true, groups: 1 });
    const moe = { num_experts: 128, num_experts_per_tok: 8, moe_intermediate_size: 768, norm_topk_prob: true };
    const qwen = { ...llama2, ...moe, model_type: 'qwen3_moe', mlp_only_layers: [], decoder_sparse_step: 1 };
    expect(parse(qwen).experts).toMatchObject({ count: 128, chosen: 8, mlpDim: 768, normalises: true });
    expect(parse(qwen).planOnly).toBeUndefined();
    // As transformers 5 writes it.
    expect(parse({ ...qwen, num_experts: undefined, num_local_experts: 64 }).experts?.count).toBe(64);
    expect(parse({ ...qwen, mlp_only_layers: [0] }).planOnly).toMatch('some layers');
    expect(parse({ ...qwen, decoder_sparse_step: 2 }).planOnly).toMatch('some layers');
  });

  test('DeepSeek: experts, YaRN in the scale of the scores, and what no version has', () => {
    const experts = { n_routed_experts: 64, n_shared_experts: 2, moe_intermediate_size: 1408, num_experts_per_tok: 6 };
    const yarn = { type: 'yarn', factor: 40, mscale: 0.7, mscale_all_dim: 0.7 };
    const lite = { ...deepSeekLite, ...experts, first_k_dense_replace: 1, rope_scaling: yarn };
    expect(parse(lite).experts).toEqual({
      ...{ count: 64, chosen: 6, mlpDim: 1408, sharedMlpDim: 2816, firstLayer: 1, everyLayers: 1 },
      ...{ sigmoid: false, groups: 1, chosenGroups: 1, normalises: false, scaling: 1 },
    });
    // 192^-1/2 times (0.1 * 0.7 * ln 40 + 1)^2
    expect(parse(lite).attentionScale).toBeCloseTo(0.114252, 6);
    expect(parse({ ...lite, attention_bias: true }).planOnly).toMatch('biases');
    const v3 = { ...lite, model_type: 'deepseek_v3', n_group: 8, topk_group: 4, routed_scaling_factor: 2.5 };
    expect(parse(v3).experts).toMatchObject({ sigmoid: true, groups: 8, chosenGroups: 4, normalises: true });
    expect(() => parse({ ...lite, topk_method: 'noaux_tc' })).toThrow(
      /^expected one of greedy, group_limited_greedy for topk_method in .* but received "noaux_tc"$/,
    );
    expect(() => parse({ ...v3, n_group: 7 })).toThrow(/^expected a divisor of 64 experts for n_group/);
    expect(() => parse({ ...v3, num_experts_per_tok: 33 })).toThrow(
      /^expected a whole number from 1 to 32 for num_experts/,
    );
  });

  test('parameters by formula lie within 1 % of the real counts', () => {
    const millions = (fields: object): number => parse(fields).parameters / 1e6;
    expect(millions(llama2) / 6738).toBeCloseTo(1, 2);
    expect(millions({ ...falcon7b }) / 6922).toBeCloseTo(1, 2);
    expect(millions({ ...gemma2, vocab_size: 256000 }) / 2614).toBeCloseTo(1, 2);
  });
});

describe('a plan', () => {
  test('sums layers with and without a window, and never promises more than memory', () => {
    const model = parse(gemma2);
    const plan = planMemory({ name: 'gemma', config: model, memoryBytes: 24 * 2 ** 30, context: 8192 });
    const own = plan.rows.find(({ level }) => level === own16Bit);
    // Pages: 13 layers of 4096 + 64 tokens at the most, 13 of 8192.
    expect(own?.bytesPerSequence).toBeGreaterThanOrEqual(0.609375 * 2 ** 30);
    expect(own?.bytesPerSequence).toBeLessThan(0.609375 * 2 ** 30 * 1.01);
    for (const row of plan.rows) {
      if (row.bytesPerSequence === undefined) expect(row.refused).toBeTruthy();
      else {
        const used = (row.largestBatch as number) * row.bytesPerSequence;
        expect(used + plan.weightBytes).toBeLessThanOrEqual(plan.memoryBytes);
        expect(used + row.bytesPerSequence + plan.weightBytes).toBeGreaterThan(plan.memoryBytes);
        expect(row.longestContext).toBeLessThanOrEqual(model.maxPositions);
      }
    }
    expect(
      planMemory({ name: 'gemma', config: model, memoryBytes: 2 ** 30, context: 8192 }).rows[0]?.largestBatch,
    ).toBe(0);
  });
});

describe('hostile configurations end in one sentence', () => {
  test.each([
    [
      { ...llama2, hidden_size: -4 },
      'expected a whole number from 1 to 131072 for hidden_size in config.json but received -4',
    ],
    [
      { ...llama2, hidden_size: 1e300 },
      'expected a whole number from 1 to 131072 for hidden_size in config.json but received 1e+300',
    ],
    [
      { ...llama2, num_hidden_layers: 1e9 },
      'expected a whole number from 1 to 1024 for num_hidden_layers in config.json but received 1000000000',
    ],
    [
      { ...llama2, num_attention_heads: 33 },
      'expected a divisor of the hidden size 4096 for num_attention_heads in config.json but received 33',
    ],
    [
      { ...llama2, num_key_value_heads: 5 },
      'expected a divisor of 32 heads for num_key_value_heads in config.json but received 5',
    ],
    [
      { ...llama2, rope_scaling: { type: 'fancy' } },
      'expected one of default, linear, dynamic, yarn, longrope, llama3 for type in rope_scaling of config.json but received "fancy"',
    ],
    [
      { ...llama2, torch_dtype: 'int4' },
      'expected one of float32, float16, bfloat16, float64, float8_e4m3fn, float8_e5m2 for torch_dtype in config.json but received "int4"',
    ],
    [
      { ...llama2, hidden_act: '__proto__' },
      'expected one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast for hidden_act in config.json but received "__proto__"',
    ],
    [
      { model_type: 'constructor' },
      /^expected one of llama, .* for model_type in config.json but received "constructor"$/,
    ],
    [
      { ...falcon7b, alibi: true },
      'expected false: alibi positions are not supported for alibi in config.json but received true',
    ],
    ['[]', 'expected an object for config.json but received a list of 0'],
    ['{"a":1,"a":2}', /the key "a" twice/],
    ['['.repeat(1000), /nesting deeper than 16/],
  ])('%#', (fields, message) => {
    expect(() => parse(fields as object | string)).toThrow(message);
    expect(() => parse(fields as object | string)).toThrow(InputError);
  });

  test('whatever is changed, the answer is a configuration or an InputError', () => {
    const value = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom(0, -1, 1e308, '', null, [], {}),
      fc.double(),
      fc.maxSafeInteger(),
    );
    const bases = [llama2, gemma2, gemma3, falcon7b, deepSeekLite];
    fc.assert(
      fc.property(fc.constantFrom(...bases), fc.nat(), value, fc.nat(), value, (base, i, a, j, b) => {
        const names = Object.keys(base);
        const changed = { ...base, [names[i % names.length] as string]: a, [names[j % names.length] as string]: b };
        try {
          const model = parse(changed);
          expect(model.layers.length).toBeLessThanOrEqual(1024);
          expect(Number.isFinite(model.parameters)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 5000 },
    );
  });
});
