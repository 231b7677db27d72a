/** What the fields of a configuration mean, family by family (attention-spec E, F.2). */
import { expected } from '../contract/input-error.ts';
import type { LatentAttention, ModelConfig, ModelLayer, Rope } from '../contract/model.ts';
import { everyMlp, expertsOf, expertWeights } from './experts.ts';
import { dim, type Fields, mostLayers, positions, shown } from './fields.ts';
import { ropeOf, yarnScale } from './rope.ts';

type Reader = (fields: Fields, family: string, weightBytes: number) => ModelConfig;

interface Shape {
  readonly hiddenDim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly layerCount: number;
}

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

const alike = ({ layerCount }: Shape, rope?: Rope): readonly ModelLayer[] =>
  Array.from({ length: layerCount }, () => withWindow(undefined, rope));

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

/** What most families have in common. */
const usual = { queryKeyNorm: false, embeddingScale: 1, learnedPositions: false };

type Rest = Omit<
  ModelConfig,
  | 'family'
  | 'hiddenDim'
  | 'heads'
  | 'kvHeads'
  | 'headDim'
  | 'parameters'
  | 'weightBytes'
  | 'attentionScale'
  | keyof typeof usual
> &
  Partial<Pick<ModelConfig, 'attentionScale' | keyof typeof usual>>;

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
    ...usual,
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
    activation: activationOf(fields, ['hidden_act'], 'silu'),
    gatedMlp: true,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
  });
};

const gptNeoX: Reader = (fields, family, weightBytes) => {
  const shape = shapeOf(fields);
  const rope = ropeOf(fields, shape.headDim, fields.figure(['rotary_pct'], 0.25), ['rotary_emb_base', 'rope_theta']);
  return model(family, shape, weightBytes, {
    layers: alike(shape, rope),
    vocabSize: vocab(fields),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_eps'], 1e-5),
    residual: fields.flag('use_parallel_residual', true) ? 'parallel' : 'sequential',
    activation: activationOf(fields, ['hidden_act'], 'gelu'),
    gatedMlp: false,
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
    layers: alike(shape, rope),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['ffn_hidden_size'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual:
      fields.flag('parallel_attn', true) || fields.flag('new_decoder_architecture', false) ? 'parallel' : 'sequential',
    activation: activationOf(fields, ['activation'], 'gelu'),
    gatedMlp: false,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
  });
};

const gptBigCode: Reader = (fields, family, weightBytes) => {
  const own = shapeOf(fields);
  const shape = { ...own, kvHeads: fields.flag('multi_query', true) ? 1 : own.heads };
  return model(family, shape, weightBytes, {
    layers: alike(shape),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['n_inner'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 1024),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual: 'sequential',
    activation: activationOf(fields, ['activation_function'], 'gelu_pytorch_tanh'),
    gatedMlp: false,
    learnedPositions: true,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
  });
};

const gptJ: Reader = (fields, family, weightBytes) => {
  const shape = shapeOf(fields);
  const rotaryDim = fields.count(['rotary_dim'], shape.headDim, 64);
  const rope = { ...ropeOf(fields, shape.headDim, rotaryDim / shape.headDim), interleaved: true };
  return model(family, shape, weightBytes, {
    layers: alike(shape, rope),
    vocabSize: vocab(fields),
    mlpDim: fields.count(['n_inner'], 2 ** 20, 4 * shape.hiddenDim),
    maxPositions: longest(fields, 2048),
    norm: 'layer',
    normEpsilon: fields.figure(['layer_norm_epsilon'], 1e-5),
    residual: 'parallel',
    activation: activationOf(fields, ['activation_function'], 'gelu_new'),
    gatedMlp: false,
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
    layers: alike(shape, rope),
    mla,
    vocabSize: vocab(fields),
    mlpDim: mlp(fields),
    maxPositions: longest(fields, 163840),
    norm: 'rms',
    normEpsilon: fields.figure(['rms_norm_eps'], 1e-6),
    residual: 'sequential',
    attentionScale: yarnScale(rope) / Math.sqrt(shape.headDim),
    activation: activationOf(fields, ['hidden_act'], 'silu'),
    gatedMlp: true,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    ...(experts && { experts }),
    ...(fields.flag('attention_bias', false) && { planOnly: 'multi-head latent attention with biases' }),
  });
};

/** By `model_type`. */
export const families: Readonly<Record<string, Reader>> = {
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
