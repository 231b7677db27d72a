/** Small checkpoints of every family, with known weights, as the files Hugging Face would have. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RawConfig, RawTensor } from './decoder-f64.ts';

/** Shapes of a family's tensors by name. */
export function tensorShapes(config: RawConfig): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  const linear = (name: string, rows: number, columns: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, [rows, columns]);
    if (bias) shapes.set(`${name}.bias`, [rows]);
  };
  const norm = (name: string, size: number, bias: boolean): void => {
    shapes.set(`${name}.weight`, [size]);
    if (bias) shapes.set(`${name}.bias`, [size]);
  };
  const family: string = config.model_type;
  const d: number = config.hidden_size ?? config.n_embd;
  const heads: number = config.num_attention_heads ?? config.n_head;
  const D: number = config.head_dim ?? d / heads;
  const layers: number = config.num_hidden_layers ?? config.n_layer;
  if (family === 'gpt_neox') {
    linear('gpt_neox.embed_in', config.vocab_size, d, false);
    linear('embed_out', config.vocab_size, d, false);
    norm('gpt_neox.final_layer_norm', d, true);
    for (let i = 0; i < layers; i += 1) {
      const at = `gpt_neox.layers.${i}.`;
      linear(`${at}attention.query_key_value`, 3 * d, d, true);
      linear(`${at}attention.dense`, d, d, true);
      linear(`${at}mlp.dense_h_to_4h`, config.intermediate_size, d, true);
      linear(`${at}mlp.dense_4h_to_h`, d, config.intermediate_size, true);
      norm(`${at}input_layernorm`, d, true);
      norm(`${at}post_attention_layernorm`, d, true);
    }
  } else if (family === 'falcon') {
    linear('transformer.word_embeddings', config.vocab_size, d, false);
    norm('transformer.ln_f', d, true);
    const fresh = config.new_decoder_architecture;
    for (let i = 0; i < layers; i += 1) {
      const at = `transformer.h.${i}.`;
      linear(`${at}self_attention.query_key_value`, (heads + 2 * (fresh ? config.num_kv_heads : 1)) * D, d, false);
      linear(`${at}self_attention.dense`, d, d, false);
      linear(`${at}mlp.dense_h_to_4h`, 4 * d, d, false);
      linear(`${at}mlp.dense_4h_to_h`, d, 4 * d, false);
      for (const name of fresh ? ['ln_attn', 'ln_mlp'] : ['input_layernorm']) norm(at + name, d, true);
    }
  } else if (family === 'gpt_bigcode') {
    linear('transformer.wte', config.vocab_size, d, false);
    linear('transformer.wpe', config.n_positions, d, false);
    norm('transformer.ln_f', d, true);
    for (let i = 0; i < layers; i += 1) {
      const at = `transformer.h.${i}.`;
      linear(`${at}attn.c_attn`, d + 2 * D, d, true);
      linear(`${at}attn.c_proj`, d, d, true);
      linear(`${at}mlp.c_fc`, 4 * d, d, true);
      linear(`${at}mlp.c_proj`, d, 4 * d, true);
      norm(`${at}ln_1`, d, true);
      norm(`${at}ln_2`, d, true);
    }
  } else if (family.startsWith('deepseek')) {
    const { kv_lora_rank: rank, qk_rope_head_dim: rope, qk_nope_head_dim: nope, v_head_dim: value } = config;
    const mlp = (name: string, width: number): void => {
      linear(`${name}gate_proj`, width, d, false);
      linear(`${name}up_proj`, width, d, false);
      linear(`${name}down_proj`, d, width, false);
    };
    linear('model.embed_tokens', config.vocab_size, d, false);
    linear('lm_head', config.vocab_size, d, false);
    norm('model.norm', d, false);
    for (let i = 0; i < layers; i += 1) {
      const [at, attention] = [`model.layers.${i}.`, `model.layers.${i}.self_attn.`];
      if (config.q_lora_rank) {
        linear(`${attention}q_a_proj`, config.q_lora_rank, d, false);
        norm(`${attention}q_a_layernorm`, config.q_lora_rank, false);
        linear(`${attention}q_b_proj`, heads * (nope + rope), config.q_lora_rank, false);
      } else linear(`${attention}q_proj`, heads * (nope + rope), d, false);
      linear(`${attention}kv_a_proj_with_mqa`, rank + rope, d, false);
      norm(`${attention}kv_a_layernorm`, rank, false);
      linear(`${attention}kv_b_proj`, heads * (nope + value), rank, false);
      linear(`${attention}o_proj`, d, heads * value, false);
      if (i < config.first_k_dense_replace) mlp(`${at}mlp.`, config.intermediate_size);
      else {
        linear(`${at}mlp.gate`, config.n_routed_experts, d, false);
        if (family === 'deepseek_v3') shapes.set(`${at}mlp.gate.e_score_correction_bias`, [config.n_routed_experts]);
        for (let e = 0; e < config.n_routed_experts; e += 1)
          mlp(`${at}mlp.experts.${e}.`, config.moe_intermediate_size);
        mlp(`${at}mlp.shared_experts.`, config.n_shared_experts * config.moe_intermediate_size);
      }
      norm(`${at}input_layernorm`, d, false);
      norm(`${at}post_attention_layernorm`, d, false);
    }
  } else {
    const kvHeads = config.num_key_value_heads ?? heads;
    const isGemma = family.startsWith('gemma');
    linear('model.embed_tokens', config.vocab_size, d, false);
    if (!(config.tie_word_embeddings ?? isGemma)) linear('lm_head', config.vocab_size, d, false);
    norm('model.norm', d, false);
    for (let i = 0; i < layers; i += 1) {
      const at = `model.layers.${i}.`;
      if (family === 'phi3') {
        linear(`${at}self_attn.qkv_proj`, (heads + 2 * kvHeads) * D, d, false);
        linear(`${at}mlp.gate_up_proj`, 2 * config.intermediate_size, d, false);
      } else {
        const bias = family === 'qwen2';
        linear(`${at}self_attn.q_proj`, heads * D, d, bias);
        linear(`${at}self_attn.k_proj`, kvHeads * D, d, bias);
        linear(`${at}self_attn.v_proj`, kvHeads * D, d, bias);
      }
      linear(`${at}self_attn.o_proj`, d, heads * D, false);
      if (family === 'mixtral') {
        linear(`${at}block_sparse_moe.gate`, config.num_local_experts, d, false);
        for (let e = 0; e < config.num_local_experts; e += 1) {
          const expert = `${at}block_sparse_moe.experts.${e}.`;
          linear(`${expert}w1`, config.intermediate_size, d, false);
          linear(`${expert}w2`, d, config.intermediate_size, false);
          linear(`${expert}w3`, config.intermediate_size, d, false);
        }
      } else if (family === 'qwen3_moe') {
        linear(`${at}mlp.gate`, config.num_experts, d, false);
        for (let e = 0; e < config.num_experts; e += 1) {
          linear(`${at}mlp.experts.${e}.gate_proj`, config.moe_intermediate_size, d, false);
          linear(`${at}mlp.experts.${e}.up_proj`, config.moe_intermediate_size, d, false);
          linear(`${at}mlp.experts.${e}.down_proj`, d, config.moe_intermediate_size, false);
        }
      } else {
        if (family !== 'phi3') {
          linear(`${at}mlp.gate_proj`, config.intermediate_size, d, false);
          linear(`${at}mlp.up_proj`, config.intermediate_size, d, false);
        }
        linear(`${at}mlp.down_proj`, d, config.intermediate_size, false);
      }
      if (family.startsWith('qwen3') || family === 'gemma3_text')
        for (const name of ['q_norm', 'k_norm']) norm(`${at}self_attn.${name}`, D, false);
      norm(`${at}input_layernorm`, d, false);
      norm(`${at}post_attention_layernorm`, d, false);
      if (isGemma) for (const name of ['pre', 'post']) norm(`${at}${name}_feedforward_layernorm`, d, false);
    }
  }
  return shapes;
}

/** Evenly spread in [-1, 1): a linear congruential generator is random enough for weights. */
function generator(seed: number): () => number {
  let state = BigInt(seed) * 2n + 1n;
  return () => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number(state >> 40n) / 2 ** 23 - 1;
  };
}

/** [exponent bits, mantissa bits] of the types smaller than f32. */
const smallTypes = { F16: [5, 10], BF16: [8, 7], F8_E4M3: [4, 3], F8_E5M2: [5, 2] } as const;
type Small = keyof typeof smallTypes;
export type Stored = 'F32' | 'F64' | Small;
const isSmall = (stored: Stored): stored is Small => stored in smallTypes;

/** The nearest number below in size that a type has, and its bits. Weights are far below the largest. */
function rounded(value: number, stored: Small): { readonly code: number; readonly value: number } {
  const [exponentBits, mantissaBits] = smallTypes[stored];
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = Math.max(1 - bias, Math.floor(Math.log2(Math.abs(value))));
  const mantissa = Math.floor(Math.abs(value) / 2 ** (exponent - mantissaBits));
  const field = mantissa < 2 ** mantissaBits ? 0 : exponent + bias;
  const sign = value < 0 ? 1 : 0;
  const code = ((sign << exponentBits) + field) * 2 ** mantissaBits + (mantissa % 2 ** mantissaBits);
  return { code, value: (sign ? -1 : 1) * mantissa * 2 ** (exponent - mantissaBits) };
}

/** Weights that keep every part of the network in play: norms about 1, projections about 1/sqrt(width), loud attention. */
export function tinyWeights(config: RawConfig, seed: number, stored: Stored = 'F32'): Map<string, RawTensor> {
  const next = generator(seed);
  const plusOne = String(config.model_type).startsWith('gemma');
  const tensors = new Map<string, RawTensor>();
  for (const [name, shape] of tensorShapes(config)) {
    const size = shape.reduce((a, b) => a * b, 1);
    const isNorm = /norm|ln_/.test(name) && shape.length === 1 && name.endsWith('weight');
    const loud = /q_proj|k_proj|qkv|query_key_value|c_attn/.test(name) ? 3 : 1.7;
    const width = shape.length === 2 ? (shape[1] as number) : 4;
    const spread = /embed|wte|wpe/.test(name) ? 1 : loud / Math.sqrt(width);
    const data = Float64Array.from({ length: size }, () => {
      const value = isNorm ? (plusOne ? 0 : 1) + 0.3 * next() : spread * next();
      return isSmall(stored) ? rounded(value, stored).value : Math.fround(value);
    });
    tensors.set(name, { shape, data });
  }
  return tensors;
}

/**
 * Projections of layers as DeepSeek-V3 is published: in E4M3, with one scale for every `rows` x `columns` of them.
 * @returns what is stored, and what it stands for
 */
export function blockScaled(
  weights: ReadonlyMap<string, RawTensor>,
  [rows, columns]: readonly [number, number],
): { readonly stored: Map<string, RawTensor>; readonly meant: Map<string, RawTensor> } {
  const [stored, meant] = [new Map(weights), new Map(weights)];
  for (const [name, { shape, data }] of weights) {
    const [height = 1, width = 1] = shape;
    if (!/layers.*_proj/.test(name) || shape.length !== 2) continue;
    const blocks = [Math.ceil(height / rows), Math.ceil(width / columns)] as const;
    // Of four significant bits, as the weights have: the product fits the eight of bf16.
    const scales = Float64Array.from({ length: blocks[0] * blocks[1] }, (_, i) => (8 + (i % 7)) / 2 ** (3 + (i % 2)));
    const scaled = data.map((value, i) => {
      const [r, c] = [Math.floor(i / width), i % width];
      return value * (scales[Math.floor(r / rows) * blocks[1] + Math.floor(c / columns)] as number);
    });
    meant.set(name, { shape, data: scaled });
    stored.set(`${name}_scale_inv`, { shape: blocks, data: scales });
  }
  return { stored, meant };
}

function encode(tensors: Iterable<[string, RawTensor]>, storedAs: (name: string) => Stored): Buffer {
  const header: Record<string, object> = {};
  const parts: Buffer[] = [];
  let end = 0;
  for (const [name, { shape, data }] of tensors) {
    const stored = storedAs(name);
    const bytes = isSmall(stored) ? (smallTypes[stored][0] + smallTypes[stored][1] + 1) / 8 : stored === 'F32' ? 4 : 8;
    const part = Buffer.alloc(data.length * bytes);
    data.forEach((value, i) => {
      if (isSmall(stored)) part.writeUIntLE(rounded(value, stored).code, bytes * i, bytes);
      else if (stored === 'F32') part.writeFloatLE(value, bytes * i);
      else part.writeDoubleLE(value, bytes * i);
    });
    header[name] = { dtype: stored, shape, data_offsets: [end, end + part.length] };
    parts.push(part);
    end += part.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length)); // as it comes: the data need not be aligned
  return Buffer.concat([length, json, ...parts]);
}

/** @param shards files that the tensors are spread over */
export function writeCheckpoint(
  folder: string,
  config: RawConfig,
  tensors: ReadonlyMap<string, RawTensor>,
  { stored = 'F32', shards = 1 }: { stored?: Stored | ((name: string) => Stored); shards?: number } = {},
): void {
  const storedAs = typeof stored === 'function' ? stored : () => stored;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  if (shards === 1) {
    writeFileSync(join(folder, 'model.safetensors'), encode(tensors, storedAs));
    return;
  }
  const entries = [...tensors];
  const map: Record<string, string> = {};
  for (let s = 0; s < shards; s += 1) {
    const name = `model-${s + 1}-of-${shards}.safetensors`;
    const part = entries.filter((_, i) => i % shards === s);
    for (const [tensor] of part) map[tensor] = name;
    writeFileSync(join(folder, name), encode(part, storedAs));
  }
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
}
