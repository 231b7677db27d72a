/** From what a user calls a model to its configuration: a built-in name, a folder, a config.json, or a published name. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expected } from '../contract/input-error.ts';
import type { ModelConfig } from '../contract/model.ts';
import { withNearest } from '../contract/nearest.ts';
import { readModelConfig } from './config.ts';
import { fence } from './fence.ts';
import { publishedConfig, publishedModels } from './published.ts';

export const builtinModels = ['byte-mha', 'byte-mqa'] as const;

export interface FoundModel {
  readonly name: string;
  readonly config: ModelConfig;
  /** Where its weights are; absent where only the configuration is known. */
  readonly folder?: string;
}

/** @param builtinFolder where the built-in models are */
export async function findModel(name: string, builtinFolder: string): Promise<FoundModel> {
  if ((builtinModels as readonly string[]).includes(name)) {
    const folder = join(builtinFolder, name);
    return { name, folder, config: await readModelConfig(join(folder, 'config.json')) };
  }
  const found = await stat(name).catch(() => undefined);
  if (found?.isDirectory()) {
    const inside = await fence(name);
    return { name, folder: name, config: await readModelConfig(await inside(join(name, 'config.json'))) };
  }
  if (found) return { name, config: await readModelConfig(name) };
  const config = publishedConfig(name);
  if (config) return { name, config };
  throw expected(
    `one of ${builtinModels.join(', ')}, a published model like Llama-3.1-8B, a model folder or a config.json`,
    'model',
    withNearest([...builtinModels, ...publishedModels], name),
  );
}
