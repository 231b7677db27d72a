/** Published configurations against the sizes their publishers state. */
import { expect, test } from 'vitest';
import { modelPresets } from '../../src-main/contract/presets.ts';
import { publishedConfig, publishedModels } from '../../src-main/models/published.ts';

/** Parameters in billions, as model cards state them; of the language model alone where there is more. */
const billions: Readonly<Record<string, number>> = {
  ...{ 'Llama-2-7B': 6.74, 'Llama-2-13B': 13.02, 'Llama-2-70B': 68.98, 'Llama-3-8B': 8.03, 'Llama-3-70B': 70.55 },
  ...{ 'Llama-3.1-8B': 8.03, 'Llama-3.1-70B': 70.55, 'Llama-3.1-405B': 405.85, 'Llama-3.2-1B': 1.236 },
  ...{ 'Mistral-7B-v0.1': 7.24, 'Mistral-7B-v0.3': 7.25, 'Mixtral-8x7B': 46.7 },
  ...{ 'Gemma-2-2B': 2.61, 'Gemma-2-9B': 9.24, 'Gemma-2-27B': 27.23 },
  ...{ 'Gemma-3-1B': 1.0, 'Gemma-3-4B': 3.88, 'Gemma-3-12B': 11.77, 'Gemma-3-27B': 27.01 },
  ...{ 'Qwen2.5-0.5B': 0.494, 'Qwen2.5-7B': 7.62, 'Qwen2.5-72B': 72.7 },
  ...{ 'Qwen3-0.6B': 0.596, 'Qwen3-8B': 8.19, 'Qwen3-32B': 32.76, 'Phi-3-mini-4k': 3.82 },
  ...{ 'Falcon-7B': 6.92, 'Falcon-40B': 41.3, 'StarCoder-15B': 15.5, 'GPT-J-6B': 6.05, 'GPT-NeoX-20B': 20.55 },
  ...{ 'Pythia-6.9B': 6.86, 'TinyLlama-1.1B': 1.1, 'SmolLM2-135M': 0.135, 'SmolLM2-360M': 0.362 },
  ...{ 'SmolLM2-1.7B': 1.71, 'DeepSeek-V2-Lite': 15.7, 'DeepSeek-V2': 236, 'DeepSeek-V3': 671 },
};

test('every model of the list is stated here', () => {
  expect(Object.keys(billions).sort()).toEqual([...publishedModels].sort());
  expect(publishedConfig('toString')).toBeUndefined();
  expect(publishedConfig('GPT-5')).toBeUndefined();
});

test.each(publishedModels)('%s has the parameters its card states', (name) => {
  const stated = (billions[name] as number) * 1e9;
  expect(Math.abs((publishedConfig(name)?.parameters as number) / stated - 1)).toBeLessThan(0.015);
});

test.each(modelPresets)('$name has the attention of its preset', ({ name, window, layers, ...preset }) => {
  const config = publishedConfig(name);
  expect(config).toMatchObject({
    ...{ family: preset.family, hiddenDim: preset.hiddenDim, heads: preset.heads, kvHeads: preset.kvHeads },
    ...{ headDim: preset.headDim, maxPositions: preset.maxPositions },
  });
  expect(config?.layers.length).toBe(layers);
  expect(config?.layers.filter((layer) => layer.window !== undefined).map((layer) => layer.window)).toEqual(
    Array.from({ length: window?.layers ?? 0 }, () => window?.tokens),
  );
  const full = config?.layers.find((layer) => layer.window === undefined) ?? config?.layers[0];
  expect(full?.rope?.rotaryDim ?? 0).toBe(preset.rotaryDim);
  expect(full?.rope?.theta ?? 0).toBe(preset.ropeTheta);
});
