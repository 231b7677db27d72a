/**
 * Reads a Hugging Face config.json: which model it describes, or which field is at fault (attention-spec B.2, E, F.2).
 * The file is somebody else's: every number has bounds before it sizes anything.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { expected } from '../contract/input-error.ts';
import type { Experts, LatentAttention, ModelConfig, ModelLayer, Rope } from '../contract/model.ts';
import { type Json, OddNumber, parseStrictJson } from './strict-json.ts';

const largestFile = 2 ** 20;
const deepestNesting = 16;
const mostLayers = 1024;

/** Fields of one object of the configuration; `null` counts as absent. Later names are what older files call it. */
class Fields {
  private readonly values: ReadonlyMap<string, Json>;
  readonly path: string;

  constructor(values: ReadonlyMap<string, Json>, path: string) {
    this.values = values;
    this.path = path;
  }

  private find(names: readonly string[]): readonly [string, Json | undefined] {
    const name = names.find((candidate) => this.has(candidate)) ?? (names[0] as string);
    return [name, this.values.get(name) ?? undefined];
  }

  has(name: string): boolean {
    const value = this.values.get(name);
    return value !== undefined && value !== null;
  }

  wrong(what: string, name: string): Error {
    return expected(what, `${name} in ${this.path}`, shown(this.values.get(name) ?? undefined));
  }

  count(names: readonly string[], most: number, otherwise?: number): number {
    const [name, value] = this.find(names);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (typeof value !== 'number' || value < 1 || value > most)
      throw this.wrong(`a whole number from 1 to ${most}`, name);
    return value;
  }

  optionalCount(name: string, most: number): number | undefined {
    return this.has(name) ? this.count([name], most) : undefined;
  }

  figure(names: readonly string[], otherwise?: number, least = 0): number {
    const [name, value] = this.find(names);
    if (value === undefined && otherwise !== undefined) return otherwise;
    const number = value instanceof OddNumber ? Number(value.text) : value;
    if (typeof number !== 'number' || !Number.isFinite(number) || number <= least || number > 1e12)
      throw this.wrong(`a number above ${least}`, name);
    return number;
  }

  optionalFigure(name: string): number | undefined {
    return this.has(name) ? this.figure([name]) : undefined;
  }

  flag(name: string, otherwise: boolean): boolean {
    if (!this.has(name)) return otherwise;
    const value = this.values.get(name);
    if (typeof value !== 'boolean') throw this.wrong('true or false', name);
    return value;
  }

  text(names: readonly string[]): string | undefined {
    const [name, value] = this.find(names);
    if (value === undefined) return undefined;
    if (typeof value !== 'string') throw this.wrong('a text', name);
    return value;
  }

  list(name: string): readonly Json[] | undefined {
    if (!this.has(name)) return undefined;
    const value = this.values.get(name);
    if (!Array.isArray(value)) throw this.wrong('a list', name);
    return value;
  }

  figures(name: string): readonly number[] {
    const items = (this.list(name) ?? []).map((item) => (item instanceof OddNumber ? Number(item.text) : item));
    if (items.length === 0 || !items.every((item) => typeof item === 'number' && Number.isFinite(item) && item > 0))
      throw this.wrong('a list of positive numbers', name);
    return items as number[];
  }

  object(name: string): Fields | undefined {
    if (!this.has(name)) return undefined;
    const value = this.values.get(name);
    if (!(value instanceof Map)) throw this.wrong('an object', name);
    return new Fields(value, `${name} of ${this.path}`);
  }
}

/** A value from the file, short enough to be shown. */
function shown(value: Json | undefined): string {
  if (value === undefined) return 'nothing';
  if (value instanceof Map) return 'an object';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

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

type Reader = (fields: Fields, family: string, weightBytes: number) => ModelConfig;

interface Shape {
  readonly hiddenDim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly layerCount: number;
}

const dim = 2 ** 17;
const positions = 2 ** 27;

function shapeOf(fields: Fields, defaults: { heads?: number; kvHeads?: number; headDim?: number } = {}): Shape {
  const hiddenDim = fields.count(['hidden_size', 'n_embd', 'd_model'], dim);
  const heads = fields.count(['num_attention_heads', 'n_head'], 1024, defaults.heads);
  const kvHeads = fields.count(['num_key_value_heads'], 1024, defaults.kvHeads ?? heads);
  const layerCount = fields.count(['num_hidden_layers', 'n_layer'], mostLayers);
  const headDim = fields.has('head_dim')
    ? fields.count(['head_dim'], 1024)
    : (defaults.headDim ?? evenShare(fields, hiddenDim, heads));
  if (heads % kvHeads !== 0) throw fields.wrong(`a divisor of ${heads} heads`, 'num_key_value_heads');
  return { hiddenDim, heads, kvHeads, headDim, layerCount };
}

function evenShare(fields: Fields, hiddenDim: number, heads: number): number {
  if (hiddenDim % heads === 0) return hiddenDim / heads;
  const name = ['num_attention_heads', 'n_head'].find((candidate) => fields.has(candidate));
  throw fields.wrong(`a divisor of the hidden size ${hiddenDim}`, name ?? 'num_attention_heads');
}

/** @param fraction of the head that rotates */
function ropeOf(fields: Fields, headDim: number, fraction = 1, thetaNames = ['rope_theta'], layerType?: string): Rope {
  const parameters = fields.object('rope_parameters');
  const own = (layerType && parameters?.object(layerType)) || parameters;
  const rotaryDim = Math.floor(fraction * headDim);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0 || rotaryDim > headDim)
    throw expected('an even number of rotating channels', `rotary part of a head in ${fields.path}`, rotaryDim);
  const theta = own?.has('rope_theta') ? own.figure(['rope_theta'], undefined, 1) : fields.figure(thetaNames, 10000, 1);
  const scaling = scalingOf(own?.has('rope_type') || own?.has('type') ? own : fields.object('rope_scaling'), fields);
  return { theta, rotaryDim, ...(scaling && { scaling }) };
}

function scalingOf(scaling: Fields | undefined, fields: Fields): Rope['scaling'] {
  const kind = scaling?.text(['rope_type', 'type']) ?? 'default';
  if (!scaling || kind === 'default') return undefined;
  const inConfig = fields.optionalFigure('original_max_position_embeddings');
  const longest = fields.optionalFigure('max_position_embeddings');
  const original = scaling.optionalFigure('original_max_position_embeddings') ?? inConfig;
  const optional = (name: string, field: string): Record<string, number> =>
    scaling.has(field) ? { [name]: scaling.figure([field]) } : {};
  switch (kind) {
    case 'linear':
      return { kind, factor: scaling.figure(['factor']) };
    case 'dynamic':
      return { kind, factor: scaling.figure(['factor']), originalMaxPositions: original ?? required(longest, fields) };
    case 'llama3':
      return {
        kind,
        factor: scaling.figure(['factor']),
        originalMaxPositions: original ?? required(undefined, scaling),
        lowFrequencyFactor: scaling.figure(['low_freq_factor']),
        highFrequencyFactor: scaling.figure(['high_freq_factor']),
      };
    case 'yarn':
      return {
        kind,
        factor: scaling.figure(['factor']),
        originalMaxPositions: original ?? required(longest, fields),
        ...optional('betaFast', 'beta_fast'),
        ...optional('betaSlow', 'beta_slow'),
        ...optional('mscale', 'mscale'),
        ...optional('mscaleAllDim', 'mscale_all_dim'),
        ...optional('attentionFactor', 'attention_factor'),
      };
    case 'longrope':
    case 'su': {
      const trained = original ?? required(undefined, fields);
      return {
        kind: 'longrope',
        factor: scaling.optionalFigure('factor') ?? (longest ? longest / trained : 1),
        originalMaxPositions: trained,
        shortFactors: scaling.figures('short_factor'),
        longFactors: scaling.figures('long_factor'),
        ...optional('attentionFactor', 'attention_factor'),
      };
    }
    default:
      throw scaling.wrong(
        'one of default, linear, dynamic, yarn, longrope, llama3',
        scaling.has('rope_type') ? 'rope_type' : 'type',
      );
  }
}

function required(value: number | undefined, fields: Fields): number {
  if (value === undefined) throw fields.wrong('a number above 0', 'original_max_position_embeddings');
  return value;
}

/** Which layers attend through a window: `layer_types` where it is given, else `rule`. */
function windowsOf(fields: Fields, layerCount: number, window: number | undefined, rule: (layer: number) => boolean) {
  const types = fields.list('layer_types');
  if (types && types.length !== layerCount) throw fields.wrong(`a list of ${layerCount}`, 'layer_types');
  return Array.from({ length: layerCount }, (_, i) => {
    const slides = types ? types[i] === 'sliding_attention' : rule(i);
    return slides ? window : undefined;
  });
}

const withWindow = (window: number | undefined, rope: Rope | undefined): ModelLayer => ({
  ...(window !== undefined && { window }),
  ...(rope && { rope }),
});

const activations: Readonly<Record<string, ModelConfig['activation']>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu-tanh',
  gelu_pytorch_tanh: 'gelu-tanh',
  gelu_fast: 'gelu-tanh',
};

function activationOf(fields: Fields, names: readonly string[], otherwise: string): ModelConfig['activation'] {
  const name = fields.text(names) ?? otherwise;
  if (!Object.hasOwn(activations, name))
    throw expected(`one of ${Object.keys(activations).join(', ')}`, `${names[0]} in ${fields.path}`, shown(name));
  return activations[name] as ModelConfig['activation'];
}

type Rest = Omit<
  ModelConfig,
  'family' | 'hiddenDim' | 'heads' | 'kvHeads' | 'headDim' | 'parameters' | 'weightBytes' | 'attentionScale'
> & { readonly attentionScale?: number };

function model(family: string, shape: Shape, weightBytes: number, rest: Rest): ModelConfig {
  const { hiddenDim, heads, kvHeads, headDim, layerCount } = shape;
  const attention = rest.mla
    ? latentAttentionWeights(rest.mla, hiddenDim, heads)
    : 2 * hiddenDim * headDim * (heads + kvHeads);
  const mlp = (rest.gatedMlp ? 3 : 2) * hiddenDim * rest.mlpDim;
  const tables = (rest.tiedEmbeddings ? 1 : 2) * rest.vocabSize + (rest.learnedPositions ? rest.maxPositions : 0);
  return {
    family,
    hiddenDim,
    heads,
    kvHeads,
    headDim,
    weightBytes,
    parameters: layerCount * (attention + mlp) + tables * hiddenDim + expertWeights(rest, hiddenDim),
    attentionScale: 1 / Math.sqrt(headDim),
    ...rest,
  };
}

const latentAttentionWeights = (mla: LatentAttention, hiddenDim: number, heads: number): number => {
  const queryWidth = heads * (mla.nopeDim + mla.ropeDim);
  const query = mla.queryRank ? mla.queryRank * (hiddenDim + queryWidth) : hiddenDim * queryWidth;
  const up = heads * (mla.nopeDim + mla.valueDim) * mla.rank;
  return query + hiddenDim * (mla.rank + mla.ropeDim) + up + heads * mla.valueDim * hiddenDim;
};

const vocab = (fields: Fields, otherwise?: number): number => fields.count(['vocab_size'], 2 ** 24, otherwise);
const mlp = (fields: Fields): number => fields.count(['intermediate_size'], 2 ** 20);
const longest = (fields: Fields, otherwise: number): number =>
  fields.count(['max_position_embeddings', 'n_positions', 'seq_length'], positions, otherwise);

/** Llama and what followed it: RMSNorm, gated MLP, rotary embedding of whole heads. */
const llamaLike =
  ({
    queryKeyNorm = false,
    windows = 'none',
  }: {
    queryKeyNorm?: boolean;
    windows?: 'none' | 'all' | 'qwen';
  } = {}): Reader =>
  (fields, family, weightBytes) => {
    const shape = shapeOf(fields, family.startsWith('qwen3') ? { headDim: 128 } : {});
    const rope = ropeOf(fields, shape.headDim, fields.optionalFigure('partial_rotary_factor') ?? 1);
    const slides = windows === 'all' || (windows === 'qwen' && fields.flag('use_sliding_window', false));
    const window = slides ? fields.optionalCount('sliding_window', positions) : undefined;
    const firstWindowed = windows === 'qwen' ? (fields.optionalCount('max_window_layers', mostLayers) ?? 0) : 0;
    const experts = family === 'mixtral' || family === 'qwen3_moe' ? everyMlp(fields, family) : undefined;
    const isMixed = fields.has('mlp_only_layers') && fields.list('mlp_only_layers')?.length !== 0;
    return model(family, shape, weightBytes, {
      layers: windowsOf(fields, shape.layerCount, window, (i) => i >= firstWindowed).map((w) => withWindow(w, rope)),
      vocabSize: vocab(fields),
      mlpDim: mlp(fields),
      maxPositions: longest(fields, 4096),
      norm: 'rms',
      normEpsilon: fields.figure(['rms_norm_eps'], 1e-6),
      residual: 'sequential',
      queryKeyNorm,
      activation: activationOf(fields, ['hidden_act'], 'silu'),
      gatedMlp: true,
      embeddingScale: 1,
      learnedPositions: false,
      tiedEmbeddings: fields.flag('tie_word_embeddings', false),
      ...(experts && { experts }),
      ...((isMixed || fields.count(['decoder_sparse_step'], mostLayers, 1) > 1) && {
        planOnly: 'experts in some layers',
      }),
    });
  };

const gemma: Reader = (fields, family, weightBytes) => {
  const third = family !== 'gemma2';
  const shape = shapeOf(fields, { heads: 8, kvHeads: 4, headDim: 256 });
  const global = ropeOf(fields, shape.headDim, 1, ['rope_theta'], 'full_attention');
  const theta = third ? 1e6 : 10000;
  const full = { ...global, theta: fields.has('rope_theta') || fields.has('rope_parameters') ? global.theta : theta };
  const local: Rope = third
    ? fields.object('rope_parameters')?.has('sliding_attention')
      ? ropeOf(fields, shape.headDim, 1, ['rope_theta'], 'sliding_attention')
      : { theta: fields.figure(['rope_local_base_freq'], 10000, 1), rotaryDim: shape.headDim }
    : full;
  const pattern = third ? fields.count(['sliding_window_pattern'], mostLayers, 6) : 2;
  const window = fields.optionalCount('sliding_window', positions) ?? (third ? 1024 : 4096);
  // Gemma 2 begins with a window and alternates; Gemma 3 has one full layer in six.
  const windows = windowsOf(fields, shape.layerCount, window, (i) => (i + 1) % pattern !== 0);
  const scalar = fields.figure(['query_pre_attn_scalar'], 256);
  const softcaps = {
    attentionSoftcap: fields.optionalFigure('attn_logit_softcapping') ?? (third ? undefined : 50),
    logitSoftcap: fields.optionalFigure('final_logit_softcapping') ?? (third ? undefined : 30),
  };
  return model(family, shape, weightBytes, {
    layers: windows.map((w) => withWindow(w, w === undefined ? full : local)),
    vocabSize: vocab(fields, third ? 262208 : 256000),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, third ? 131072 : 8192),
    norm: 'rms-plus-one',
    normEpsilon: fields.figure(['rms_norm_eps'], 1e-6),
    residual: 'sandwich',
    queryKeyNorm: third,
    attentionScale: 1 / Math.sqrt(scalar),
    ...(softcaps.attentionSoftcap !== undefined && { attentionSoftcap: softcaps.attentionSoftcap }),
    ...(softcaps.logitSoftcap !== undefined && { logitSoftcap: softcaps.logitSoftcap }),
    activation: activationOf(fields, ['hidden_activation', 'hidden_act'], 'gelu_pytorch_tanh'),
    gatedMlp: true,
    embeddingScale: Math.sqrt(shape.hiddenDim),
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
  });
};

const phi3: Reader = (fields, family, weightBytes) => {
  const shape = shapeOf(fields);
  const rope = ropeOf(fields, shape.headDim, fields.optionalFigure('partial_rotary_factor') ?? 1);
  const window = fields.optionalCount('sliding_window', positions);
  return model(family, shape, weightBytes, {
    layers: windowsOf(fields, shape.layerCount, window, () => true).map((w) => withWindow(w, rope)),
    vocabSize: vocab(fields),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, 4096),
    norm: 'rms',
    normEpsilon: fields.figure(['rms_norm_eps'], 1e-5),
    residual: 'sequential',
    queryKeyNorm: false,
    activation: activationOf(fields, ['hidden_act'], 'silu'),
    gatedMlp: true,
    embeddingScale: 1,
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
  });
};

const gptNeoX: Reader = (fields, family, weightBytes) => {
  const shape = shapeOf(fields);
  const rope = ropeOf(fields, shape.headDim, fields.figure(['rotary_pct'], 0.25), ['rotary_emb_base', 'rope_theta']);
  return model(family, shape, weightBytes, {
    layers: Array.from({ length: shape.layerCount }, () => ({ rope })),
    vocabSize: vocab(fields),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_eps'], 1e-5),
    residual: fields.flag('use_parallel_residual', true) ? 'parallel' : 'sequential',
    queryKeyNorm: false,
    activation: activationOf(fields, ['hidden_act'], 'gelu'),
    gatedMlp: false,
    embeddingScale: 1,
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
  });
};

const falcon: Reader = (fields, family, weightBytes) => {
  if (fields.flag('alibi', false)) throw fields.wrong('false: alibi positions are not supported', 'alibi');
  const own = shapeOf(fields);
  // Falcon-7B says num_kv_heads 71 and means one: only the newer layout reads that field.
  const kvHeads = fields.flag('new_decoder_architecture', false)
    ? fields.count(['num_kv_heads', 'n_head_kv'], 1024, own.heads)
    : fields.flag('multi_query', true)
      ? 1
      : own.heads;
  if (own.heads % kvHeads !== 0) throw fields.wrong(`a divisor of ${own.heads} heads`, 'num_kv_heads');
  const shape = { ...own, kvHeads };
  const rope = ropeOf(fields, shape.headDim);
  return model(family, shape, weightBytes, {
    layers: Array.from({ length: shape.layerCount }, () => ({ rope })),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['ffn_hidden_size'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual:
      fields.flag('parallel_attn', true) || fields.flag('new_decoder_architecture', false) ? 'parallel' : 'sequential',
    queryKeyNorm: false,
    activation: activationOf(fields, ['activation'], 'gelu'),
    gatedMlp: false,
    embeddingScale: 1,
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
  });
};

const gptBigCode: Reader = (fields, family, weightBytes) => {
  const own = shapeOf(fields);
  const shape = { ...own, kvHeads: fields.flag('multi_query', true) ? 1 : own.heads };
  return model(family, shape, weightBytes, {
    layers: Array.from({ length: shape.layerCount }, () => ({})),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['n_inner'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 1024),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual: 'sequential',
    queryKeyNorm: false,
    activation: activationOf(fields, ['activation_function'], 'gelu_pytorch_tanh'),
    gatedMlp: false,
    embeddingScale: 1,
    learnedPositions: true,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
  });
};

const gptJ: Reader = (fields, family, weightBytes) => {
  const shape = shapeOf(fields);
  const rotaryDim = fields.count(['rotary_dim'], shape.headDim, 64);
  const rope = { ...ropeOf(fields, shape.headDim, rotaryDim / shape.headDim), interleaved: true };
  return model(family, shape, weightBytes, {
    layers: Array.from({ length: shape.layerCount }, () => ({ rope })),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['n_inner'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual: 'parallel',
    queryKeyNorm: false,
    activation: activationOf(fields, ['activation_function'], 'gelu_new'),
    gatedMlp: false,
    embeddingScale: 1,
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    planOnly: 'GPT-J, whose head has a bias',
  });
};

const deepSeek: Reader = (fields, family, weightBytes) => {
  const heads = fields.count(['num_attention_heads'], 1024);
  const queryRank = fields.optionalCount('q_lora_rank', dim);
  const mla: LatentAttention = {
    rank: fields.count(['kv_lora_rank'], dim),
    ropeDim: fields.count(['qk_rope_head_dim'], 1024),
    nopeDim: fields.count(['qk_nope_head_dim'], 1024),
    valueDim: fields.count(['v_head_dim'], 1024),
    ...(queryRank !== undefined && { queryRank }),
  };
  const shape: Shape = {
    hiddenDim: fields.count(['hidden_size'], dim),
    heads,
    kvHeads: heads,
    headDim: mla.nopeDim + mla.ropeDim,
    layerCount: fields.count(['num_hidden_layers'], mostLayers),
  };
  const rope = { ...ropeOf(fields, mla.ropeDim), interleaved: fields.flag('rope_interleave', true) };
  const experts = expertsOf(fields, family);
  return model(family, shape, weightBytes, {
    layers: Array.from({ length: shape.layerCount }, () => ({ rope })),
    mla,
    vocabSize: vocab(fields),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, 163840),
    norm: 'rms',
    normEpsilon: fields.figure(['rms_norm_eps'], 1e-6),
    residual: 'sequential',
    queryKeyNorm: false,
    attentionScale: yarnScale(rope) / Math.sqrt(shape.headDim),
    activation: activationOf(fields, ['hidden_act'], 'silu'),
    gatedMlp: true,
    embeddingScale: 1,
    learnedPositions: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    ...(experts && { experts }),
    ...(fields.flag('attention_bias', false) && { planOnly: 'multi-head latent attention with biases' }),
  });
};

/** DeepSeek multiplies the scores by the square of YaRN's magnitude scale (attention-spec B.2). */
function yarnScale({ scaling }: Rope): number {
  if (scaling?.kind !== 'yarn' || !scaling.mscaleAllDim || scaling.factor <= 1) return 1;
  return (0.1 * scaling.mscaleAllDim * Math.log(scaling.factor) + 1) ** 2;
}

const mostExperts = 65536;

function expertsOf(fields: Fields, family: string): Experts | undefined {
  const count = fields.optionalCount('n_routed_experts', mostExperts);
  if (count === undefined) return undefined;
  const third = family === 'deepseek_v3';
  const choose = (name: string, otherwise: string, ...known: readonly string[]): string => {
    const value = fields.text([name]) ?? otherwise;
    if (!known.includes(value)) throw fields.wrong(`one of ${known.join(', ')}`, name);
    return value;
  };
  const method = third
    ? choose('topk_method', 'noaux_tc', 'noaux_tc')
    : choose('topk_method', 'greedy', 'greedy', 'group_limited_greedy');
  const sigmoid = choose('scoring_func', third ? 'sigmoid' : 'softmax', third ? 'sigmoid' : 'softmax') === 'sigmoid';
  const groups = method === 'greedy' ? 1 : fields.count(['n_group'], count, 1);
  if (count % groups !== 0 || (sigmoid && groups > 1 && count / groups < 2))
    throw fields.wrong(`a divisor of ${count} experts`, 'n_group');
  const chosenGroups = groups === 1 ? 1 : fields.count(['topk_group'], groups);
  const mlpDim = fields.count(['moe_intermediate_size'], 2 ** 20);
  const dense = fields.has('first_k_dense_replace') ? fields.figure(['first_k_dense_replace'], undefined, -1) : 0;
  if (!Number.isInteger(dense) || dense > mostLayers)
    throw fields.wrong(`a whole number from 0 to ${mostLayers}`, 'first_k_dense_replace');
  return {
    ...{ count, mlpDim, sigmoid, groups, chosenGroups, firstLayer: dense },
    chosen: fields.count(['num_experts_per_tok'], (count / groups) * chosenGroups),
    sharedMlpDim: (fields.optionalCount('n_shared_experts', 4096) ?? 0) * mlpDim,
    everyLayers: fields.count(['moe_layer_freq'], mostLayers, 1),
    normalises: fields.flag('norm_topk_prob', third),
    scaling: fields.figure(['routed_scaling_factor'], 1),
  };
}

export const hasExperts = ({ experts }: Pick<ModelConfig, 'experts'>, layer: number): boolean =>
  experts !== undefined && layer >= experts.firstLayer && layer % experts.everyLayers === 0;

/** Weights of the layers that have experts, beyond those of a dense MLP in their place. */
function expertWeights(config: Rest, hiddenDim: number): number {
  if (!config.experts) return 0;
  const layers = config.layers.filter((_, layer) => hasExperts(config, layer)).length;
  const { count, mlpDim, sharedMlpDim } = config.experts;
  return layers * hiddenDim * (3 * (count * mlpDim + sharedMlpDim - config.mlpDim) + count);
}

/** Experts in every layer, chosen by a softmax: Mixtral and Qwen3-MoE. */
function everyMlp(fields: Fields, family: string): Experts {
  const isMixtral = family === 'mixtral';
  const count = fields.count(['num_local_experts', 'num_experts'], mostExperts); // transformers 5 writes the former for both
  return {
    ...{
      count,
      sharedMlpDim: 0,
      firstLayer: 0,
      everyLayers: 1,
      sigmoid: false,
      groups: 1,
      chosenGroups: 1,
      scaling: 1,
    },
    chosen: fields.count(['num_experts_per_tok'], count),
    mlpDim: isMixtral ? mlp(fields) : fields.count(['moe_intermediate_size'], 2 ** 20),
    normalises: isMixtral || fields.flag('norm_topk_prob', false),
  };
}

/** By `model_type`. */
const families: Readonly<Record<string, Reader>> = {
  llama: llamaLike(),
  mistral: llamaLike({ windows: 'all' }),
  mixtral: llamaLike({ windows: 'all' }),
  qwen2: llamaLike({ windows: 'qwen' }),
  qwen3: llamaLike({ windows: 'qwen', queryKeyNorm: true }),
  qwen3_moe: llamaLike({ windows: 'qwen', queryKeyNorm: true }),
  gemma2: gemma,
  gemma3: gemma,
  gemma3_text: gemma,
  phi3,
  gpt_neox: gptNeoX,
  falcon,
  gpt_bigcode: gptBigCode,
  gptj: gptJ,
  deepseek_v2: deepSeek,
  deepseek_v3: deepSeek,
};
