/**
 * Reads a Hugging Face config.json: which model it describes, or which field is at fault (attention-spec B.2, E, F.2).
 * The file is somebody else's: every number has bounds before it sizes anything.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { expected } from '../contract/input-error.ts';
import type { ModelConfig } from '../contract/model.ts';
import { families } from './families.ts';
import { dim, Fields, shown } from './fields.ts';
import { type Json, parseStrictJson } from './strict-json.ts';

const largestFile = 2 ** 20;
const deepestNesting = 16;

/** @throws InputError for a file that cannot be read, is no JSON, or has a field that does not fit. */
export async function readModelConfig(path: string): Promise<ModelConfig> {
  return parseModelConfig(await readSmallFile(path, largestFile), path);
}

/** A regular file of at most so many bytes; `name` is what the sentence blames where it is none. */
export async function readSmallFile(path: string, most: number, name = 'model'): Promise<Uint8Array> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw expected('a readable file', name, `${path} (${error.code})`);
  });
  try {
    const stat = await file.stat();
    if (!stat.isFile()) throw expected('a regular file', name, path);
    if (stat.size > most) throw expected(`at most ${most} bytes`, path, stat.size);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** @param path what messages call it */
export function parseModelConfig(bytes: Uint8Array, path: string): ModelConfig {
  let json: Json;
  try {
    json = parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes), deepestNesting);
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError)
      throw expected('valid JSON', path, error instanceof SyntaxError ? error.message : 'other bytes than UTF-8');
    throw error;
  }
  if (!(json instanceof Map)) throw expected('an object', path, shown(json));
  const whole = new Fields(json, path);
  // Multimodal wrappers keep the language model one level down.
  const fields = whole.object('text_config') ?? whole;
  const family = fields.text(['model_type']) ?? whole.text(['model_type']) ?? 'nothing';
  const read = Object.hasOwn(families, family) ? families[family] : undefined;
  if (!read) throw expected(`one of ${Object.keys(families).join(', ')}`, `model_type in ${path}`, shown(family));
  const weightBlock = weightBlockOf(whole.object('quantization_config') ?? fields.object('quantization_config'));
  const weightBytes = weightBlock
    ? 1
    : weightBytesOf(fields.has('torch_dtype') || fields.has('dtype') ? fields : whole);
  return { ...read(fields, family, weightBytes), ...(weightBlock && { weightBlock }) };
}

/** Of weights in fp8 with block scales (DeepSeek-V3); the tensors of other methods say themselves that they are packed. */
function weightBlockOf(fields: Fields | undefined): readonly [number, number] | undefined {
  if (fields?.text(['quant_method']) !== 'fp8' || !fields.has('weight_block_size')) return undefined;
  const block = fields.figures('weight_block_size');
  if (block.length !== 2 || !block.every((size) => Number.isInteger(size) && size <= dim))
    throw fields.wrong(`two whole numbers from 1 to ${dim}`, 'weight_block_size');
  return [block[0] as number, block[1] as number];
}

function weightBytesOf(fields: Fields): number {
  const dtype = fields.text(['torch_dtype', 'dtype']) ?? 'float16';
  const sizes: Readonly<Record<string, number>> = {
    ...{ float32: 4, float16: 2, bfloat16: 2, float64: 8 },
    ...{ float8_e4m3fn: 1, float8_e5m2: 1 },
  };
  if (!Object.hasOwn(sizes, dtype))
    throw fields.wrong(`one of ${Object.keys(sizes).join(', ')}`, fields.has('torch_dtype') ? 'torch_dtype' : 'dtype');
  return sizes[dtype] as number;
}
