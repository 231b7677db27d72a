import { expect, test } from 'vitest';
import { cacheBytesPerToken, modelPresets } from '../../src-main/contract/presets.ts';

/** Published, or worked out from published configurations by hand: attention-spec E. */
const bytesPerToken: Readonly<Record<string, number>> = {
  'Llama-2-7B': 524288,
  'Llama-2-13B': 819200,
  'Llama-2-70B': 327680,
  'Llama-3-8B': 131072,
  'Llama-3-70B': 327680,
  'Llama-3.1-8B': 131072,
  'Llama-3.1-70B': 327680,
  'Llama-3.1-405B': 516096,
  'Llama-3.2-1B': 32768,
  'Mistral-7B-v0.1': 131072,
  'Mistral-7B-v0.3': 131072,
  'Mixtral-8x7B': 131072,
  'Gemma-2-2B': 106496,
  'Gemma-2-9B': 344064,
  'Gemma-2-27B': 376832,
  'Gemma-3-1B': 26624,
  'Gemma-3-4B': 139264,
  'Gemma-3-12B': 393216,
  'Gemma-3-27B': 507904,
  'Qwen2.5-0.5B': 12288,
  'Qwen2.5-7B': 57344,
  'Qwen2.5-72B': 327680,
  'Qwen3-0.6B': 114688,
  'Qwen3-8B': 147456,
  'Qwen3-32B': 262144,
  'Phi-3-mini-4k': 393216,
  'Falcon-7B': 8192,
  'Falcon-40B': 122880,
  'StarCoder-15B': 20480,
  'GPT-J-6B': 458752,
  'GPT-NeoX-20B': 1081344,
  'Pythia-6.9B': 524288,
  'TinyLlama-1.1B': 22528,
  'SmolLM2-135M': 23040,
  'SmolLM2-360M': 40960,
  'SmolLM2-1.7B': 196608,
};

test('every preset caches what its model is known to cache', () => {
  expect(Object.fromEntries(modelPresets.map((preset) => [preset.name, cacheBytesPerToken(preset)]))).toEqual(
    bytesPerToken,
  );
  expect(modelPresets.length).toBeGreaterThanOrEqual(35);
});

test.each(modelPresets)(
  '$name is a layer that can be built',
  ({ heads, kvHeads, headDim, rotaryDim, window, layers }) => {
    expect(heads % kvHeads).toBe(0);
    expect(rotaryDim % 2).toBe(0);
    expect(rotaryDim).toBeLessThanOrEqual(headDim);
    expect(window?.layers ?? 0).toBeLessThanOrEqual(layers);
  },
);
