/**
 * Models by name: the shape of their attention, as their published configurations give it. One layer of such a model is what a
 * sweep measures; a plan for its memory takes the figures of all layers.
 */

export interface ModelPreset {
  readonly name: string;
  /** `model_type` of its configuration. */
  readonly family: string;
  readonly layers: number;
  readonly hiddenDim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Base of the rotary frequencies of layers that see everything; 0 = no rotary embedding. */
  readonly ropeTheta: number;
  /** Channels of a head that rotate. */
  readonly rotaryDim: number;
  readonly maxPositions: number;
  /** Tokens that the layers of a sliding window see, and how many layers that are. */
  readonly window?: { readonly tokens: number; readonly layers: number };
}

const preset = (
  name: string,
  family: string,
  layers: number,
  [hiddenDim, heads, kvHeads, headDim]: readonly [number, number, number, number],
  [ropeTheta, rotaryDim]: readonly [number, number],
  maxPositions: number,
  window?: readonly [tokens: number, layers: number],
): ModelPreset => ({
  name,
  family,
  layers,
  hiddenDim,
  heads,
  kvHeads,
  headDim,
  ropeTheta,
  rotaryDim,
  maxPositions,
  ...(window && { window: { tokens: window[0], layers: window[1] } }),
});

/** Name, family, layers, [hidden, heads, KV heads, head size], [rotary base, rotary channels], positions, [window, its layers]. */
export const modelPresets: readonly ModelPreset[] = [
  preset('Llama-2-7B', 'llama', 32, [4096, 32, 32, 128], [10000, 128], 4096),
  preset('Llama-2-13B', 'llama', 40, [5120, 40, 40, 128], [10000, 128], 4096),
  preset('Llama-2-70B', 'llama', 80, [8192, 64, 8, 128], [10000, 128], 4096),
  preset('Llama-3-8B', 'llama', 32, [4096, 32, 8, 128], [500000, 128], 8192),
  preset('Llama-3-70B', 'llama', 80, [8192, 64, 8, 128], [500000, 128], 8192),
  preset('Llama-3.1-8B', 'llama', 32, [4096, 32, 8, 128], [500000, 128], 131072),
  preset('Llama-3.1-70B', 'llama', 80, [8192, 64, 8, 128], [500000, 128], 131072),
  preset('Llama-3.1-405B', 'llama', 126, [16384, 128, 8, 128], [500000, 128], 131072),
  preset('Llama-3.2-1B', 'llama', 16, [2048, 32, 8, 64], [500000, 64], 131072),
  preset('Mistral-7B-v0.1', 'mistral', 32, [4096, 32, 8, 128], [10000, 128], 32768, [4096, 32]),
  preset('Mistral-7B-v0.3', 'mistral', 32, [4096, 32, 8, 128], [1000000, 128], 32768),
  preset('Mixtral-8x7B', 'mixtral', 32, [4096, 32, 8, 128], [1000000, 128], 32768),
  preset('Gemma-2-2B', 'gemma2', 26, [2304, 8, 4, 256], [10000, 256], 8192, [4096, 13]),
  preset('Gemma-2-9B', 'gemma2', 42, [3584, 16, 8, 256], [10000, 256], 8192, [4096, 21]),
  preset('Gemma-2-27B', 'gemma2', 46, [4608, 32, 16, 128], [10000, 128], 8192, [4096, 23]),
  preset('Gemma-3-1B', 'gemma3', 26, [1152, 4, 1, 256], [1000000, 256], 32768, [512, 22]),
  preset('Gemma-3-4B', 'gemma3', 34, [2560, 8, 4, 256], [1000000, 256], 131072, [1024, 29]),
  preset('Gemma-3-12B', 'gemma3', 48, [3840, 16, 8, 256], [1000000, 256], 131072, [1024, 40]),
  preset('Gemma-3-27B', 'gemma3', 62, [5376, 32, 16, 128], [1000000, 128], 131072, [1024, 52]),
  preset('Qwen2.5-0.5B', 'qwen2', 24, [896, 14, 2, 64], [1000000, 64], 32768),
  preset('Qwen2.5-7B', 'qwen2', 28, [3584, 28, 4, 128], [1000000, 128], 131072),
  preset('Qwen2.5-72B', 'qwen2', 80, [8192, 64, 8, 128], [1000000, 128], 131072),
  preset('Qwen3-0.6B', 'qwen3', 28, [1024, 16, 8, 128], [1000000, 128], 40960),
  preset('Qwen3-8B', 'qwen3', 36, [4096, 32, 8, 128], [1000000, 128], 40960),
  preset('Qwen3-32B', 'qwen3', 64, [5120, 64, 8, 128], [1000000, 128], 40960),
  preset('Phi-3-mini-4k', 'phi3', 32, [3072, 32, 32, 96], [10000, 96], 4096, [2047, 32]),
  preset('Falcon-7B', 'falcon', 32, [4544, 71, 1, 64], [10000, 64], 2048),
  preset('Falcon-40B', 'falcon', 60, [8192, 128, 8, 64], [10000, 64], 2048),
  preset('StarCoder-15B', 'gpt_bigcode', 40, [6144, 48, 1, 128], [0, 0], 8192),
  preset('GPT-J-6B', 'gptj', 28, [4096, 16, 16, 256], [10000, 64], 2048),
  preset('GPT-NeoX-20B', 'gpt_neox', 44, [6144, 64, 64, 96], [10000, 24], 2048),
  preset('Pythia-6.9B', 'gpt_neox', 32, [4096, 32, 32, 128], [10000, 32], 2048),
  preset('TinyLlama-1.1B', 'llama', 22, [2048, 32, 4, 64], [10000, 64], 2048),
  preset('SmolLM2-135M', 'llama', 30, [576, 9, 3, 64], [100000, 64], 8192),
  preset('SmolLM2-360M', 'llama', 32, [960, 15, 5, 64], [100000, 64], 8192),
  preset('SmolLM2-1.7B', 'llama', 24, [2048, 32, 32, 64], [130000, 64], 8192),
];

/** Cache of one token over all layers in 16 bit, windows aside: 2 · KV heads · head size · 2 bytes a layer. */
export const cacheBytesPerToken = ({ layers, kvHeads, headDim }: ModelPreset): number =>
  layers * 2 * kvHeads * headDim * 2;
