/**
 * Models that a plan knows by name: their configurations as published, made from the shapes of `contract/presets.ts` and what a
 * plan needs besides, and read like any config.json.
 */
import type { ModelConfig } from '../contract/model.ts';
import { type ModelPreset, modelPresets } from '../contract/presets.ts';
import { parseModelConfig } from './config.ts';

/** Width of the MLP, size of the vocabulary, whether head and embedding are one, experts of every layer. */
type Rest = readonly [mlpDim: number, vocabSize: number, isTied?: boolean, experts?: number];

const rest: Readonly<Record<string, Rest>> = {
  'Llama-2-7B': [11008, 32000],
  'Llama-2-13B': [13824, 32000],
  'Llama-2-70B': [28672, 32000],
  'Llama-3-8B': [14336, 128256],
  'Llama-3-70B': [28672, 128256],
  'Llama-3.1-8B': [14336, 128256],
  'Llama-3.1-70B': [28672, 128256],
  'Llama-3.1-405B': [53248, 128256],
  'Llama-3.2-1B': [8192, 128256, true],
  'Mistral-7B-v0.1': [14336, 32000],
  'Mistral-7B-v0.3': [14336, 32768],
  'Mixtral-8x7B': [14336, 32000, false, 8],
  'Gemma-2-2B': [9216, 256000, true],
  'Gemma-2-9B': [14336, 256000, true],
  'Gemma-2-27B': [36864, 256000, true],
  'Gemma-3-1B': [6912, 262144, true],
  'Gemma-3-4B': [10240, 262208, true],
  'Gemma-3-12B': [15360, 262208, true],
  'Gemma-3-27B': [21504, 262208, true],
  'Qwen2.5-0.5B': [4864, 151936, true],
  'Qwen2.5-7B': [18944, 152064],
  'Qwen2.5-72B': [29568, 152064],
  'Qwen3-0.6B': [3072, 151936, true],
  'Qwen3-8B': [12288, 151936],
  'Qwen3-32B': [25600, 151936],
  'Phi-3-mini-4k': [8192, 32064],
  'Falcon-7B': [18176, 65024, true],
  'Falcon-40B': [32768, 65024, true],
  'StarCoder-15B': [24576, 49152, true],
  'GPT-J-6B': [16384, 50400],
  'GPT-NeoX-20B': [24576, 50432],
  'Pythia-6.9B': [16384, 50432],
  'TinyLlama-1.1B': [5632, 32000],
  'SmolLM2-135M': [1536, 49152, true],
  'SmolLM2-360M': [2560, 49152, true],
  'SmolLM2-1.7B': [8192, 49152, true],
};

const deepSeek = (version: 2 | 3, figures: Readonly<Record<string, number | null>>): object => ({
  model_type: `deepseek_v${version}`,
  ...{ kv_lora_rank: 512, qk_rope_head_dim: 64, qk_nope_head_dim: 128, v_head_dim: 128 },
  ...{ max_position_embeddings: 163840, torch_dtype: version === 3 ? 'float8_e4m3fn' : 'bfloat16' },
  ...figures,
});

/** Models whose attention is no {@link ModelPreset}: they cache a latent of their own. */
const latentModels: Readonly<Record<string, object>> = {
  'DeepSeek-V2-Lite': deepSeek(2, {
    ...{ hidden_size: 2048, num_attention_heads: 16, num_hidden_layers: 27, q_lora_rank: null, vocab_size: 102400 },
    ...{ intermediate_size: 10944, moe_intermediate_size: 1408, n_routed_experts: 64, n_shared_experts: 2 },
    ...{ first_k_dense_replace: 1, num_experts_per_tok: 6 },
  }),
  'DeepSeek-V2': deepSeek(2, {
    ...{ hidden_size: 5120, num_attention_heads: 128, num_hidden_layers: 60, q_lora_rank: 1536, vocab_size: 102400 },
    ...{ intermediate_size: 12288, moe_intermediate_size: 1536, n_routed_experts: 160, n_shared_experts: 2 },
    ...{ first_k_dense_replace: 1, num_experts_per_tok: 6 },
  }),
  'DeepSeek-V3': deepSeek(3, {
    ...{ hidden_size: 7168, num_attention_heads: 128, num_hidden_layers: 61, q_lora_rank: 1536, vocab_size: 129280 },
    ...{ intermediate_size: 18432, moe_intermediate_size: 2048, n_routed_experts: 256, n_shared_experts: 1 },
    ...{ first_k_dense_replace: 3, num_experts_per_tok: 8 },
  }),
};

/** As its config.json says it; what only some families say is ignored by the others. */
function asConfig(preset: ModelPreset, [mlpDim, vocabSize, isTied = false, experts]: Rest): object {
  const { family, layers, hiddenDim, heads, kvHeads, headDim, ropeTheta, rotaryDim, maxPositions, window } = preset;
  return {
    model_type: family,
    ...{ hidden_size: hiddenDim, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim },
    ...{ num_hidden_layers: layers, max_position_embeddings: maxPositions, torch_dtype: 'bfloat16' },
    ...{ vocab_size: vocabSize, intermediate_size: mlpDim, tie_word_embeddings: isTied },
    ...(family === 'gpt_bigcode' || family === 'gptj' ? { n_inner: mlpDim } : {}),
    ...(ropeTheta > 0 && { rope_theta: ropeTheta }),
    ...(family === 'gptj' ? { rotary_dim: rotaryDim } : { rotary_pct: rotaryDim / headDim }),
    ...(window && { sliding_window: window.tokens }),
    ...(experts !== undefined && { num_local_experts: experts, num_experts_per_tok: 2 }),
    ...(family === 'falcon' && { new_decoder_architecture: kvHeads > 1, num_kv_heads: kvHeads, multi_query: true }),
  };
}

/** Names that {@link publishedConfig} knows. */
export const publishedModels: readonly string[] = [
  ...modelPresets.map(({ name }) => name),
  ...Object.keys(latentModels),
];

/** The configuration of a model by its name; undefined for a name that is none. */
export function publishedConfig(name: string): ModelConfig | undefined {
  const preset = modelPresets.find((candidate) => candidate.name === name);
  const figures = rest[name];
  const config = Object.hasOwn(latentModels, name)
    ? latentModels[name]
    : preset && figures && asConfig(preset, figures);
  return config && parseModelConfig(Buffer.from(JSON.stringify(config)), name);
}
