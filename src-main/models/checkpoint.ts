/**
 * A Hugging Face folder of weights: which bytes of which file are which matrix of the decoder (attention-spec F.1, F.3).
 * Only headers are read here; the engine reads the weights themselves. Nothing outside the folder is opened.
 */
import { lstat, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expected } from '../contract/input-error.ts';
import type { Experts, LatentAttention, ModelConfig, ModelFiles, StoredRows } from '../contract/model.ts';
import { readSmallFile } from './config.ts';
import { hasExperts } from './experts.ts';
import { fence } from './fence.ts';
import { openSafetensors, type TensorEntry } from './safetensors.ts';
import { type Json, parseStrictJson } from './strict-json.ts';

const readable: readonly string[] = ['F32', 'F64', 'F16', 'BF16', 'F8_E4M3', 'F8_E5M2'];
const mostShards = 1000;

interface Located extends TensorEntry {
  readonly file: string;
  readonly dataStart: number;
}

/** @throws InputError that names the tensor or field, what was expected and what was found. */
export async function openCheckpoint(folder: string, config: ModelConfig): Promise<ModelFiles> {
  if (config.planOnly) throw expected('a decoder this version runs', `model in ${folder}`, config.planOnly);
  const inside = await fence(folder);
  const tensors = new Map<string, Located>();
  const versions: string[] = [];
  for (const shard of await shardsOf(folder, inside)) {
    const path = await inside(join(folder, shard));
    const file = await openSafetensors(path);
    try {
      for (const [name, entry] of file.tensors) {
        if (tensors.has(name))
          throw expected('each tensor once', `weights in ${folder}`, `${JSON.stringify(name)} twice`);
        tensors.set(name, { ...entry, file: path, dataStart: file.dataStart });
      }
    } finally {
      await file.close();
    }
    const { size, mtimeMs } = await stat(path);
    versions.push(`${path}:${size}:${mtimeMs}`);
  }
  return { key: versions.join('|'), config, tensors: new Layout(tensors, folder, config).all() };
}

async function shardsOf(folder: string, inside: (path: string) => Promise<string>): Promise<readonly string[]> {
  const index = join(folder, 'model.safetensors.index.json');
  const hasIndex = await lstat(index).then(
    () => true,
    () => false,
  );
  if (!hasIndex) return ['model.safetensors'];
  return shardNames(await readSmallFile(await inside(index), 64 * 2 ** 20), index);
}

/** The files that an index names. @throws InputError */
export function shardNames(bytes: Uint8Array, index: string): readonly string[] {
  const json = parseIndex(bytes, index);
  const map = json.get('weight_map');
  if (!(map instanceof Map)) throw expected('an object', `weight_map in ${index}`, 'something else');
  const names = [...new Set(map.values())];
  if (names.length > mostShards) throw expected(`at most ${mostShards} files`, `weight_map in ${index}`, names.length);
  return names.map((name) => {
    // A plain name in the same folder: a path from a file opens whatever its author likes.
    if (typeof name !== 'string' || !/^[\w][\w.-]{0,200}\.safetensors$/.test(name))
      throw expected('names like model-00001-of-00002.safetensors', `weight_map in ${index}`, JSON.stringify(name));
    return name;
  });
}

function parseIndex(bytes: Uint8Array, path: string): Map<string, Json> {
  try {
    const json = parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes), 8);
    if (json instanceof Map) return json;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
  }
  throw expected('a JSON object', path, 'something else');
}

type Ranges = StoredRows['ranges'];

/** Finds the tensors of a family by name and cuts fused ones. */
class Layout {
  private readonly found: Record<string, StoredRows> = {};
  private readonly tensors: ReadonlyMap<string, Located>;
  private readonly folder: string;
  private readonly config: ModelConfig;

  constructor(tensors: ReadonlyMap<string, Located>, folder: string, config: ModelConfig) {
    this.tensors = tensors;
    this.folder = folder;
    this.config = config;
  }

  all(): Readonly<Record<string, StoredRows>> {
    const { family } = this.config;
    if (family === 'gpt_neox') this.gptNeoX();
    else if (family === 'falcon') this.falcon();
    else if (family === 'gpt_bigcode') this.gptBigCode();
    else this.llamaLike();
    return this.found;
  }

  private has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** The first of some prefixes under which a tensor exists. */
  private prefix(prefixes: readonly string[], name: string): string {
    return prefixes.find((prefix) => this.has(prefix + name)) ?? (prefixes[0] as string);
  }

  private take(role: string, name: string, shape: readonly number[], ranges?: Ranges): void {
    const tensor = this.tensors.get(name);
    const label = `tensor ${JSON.stringify(name)} in ${this.folder}`;
    if (!tensor) {
      const packed = name.replace(/\.weight$/, '.qweight');
      throw expected('weights', label, this.has(packed) ? 'packed integers (GPTQ or AWQ), which are not read' : '');
    }
    if (tensor.shape.join() !== shape.join())
      throw expected(`[${shape.join(', ')}]`, `shape of ${label}`, `[${tensor.shape.join(', ')}]`);
    if (!readable.includes(tensor.dtype))
      throw expected(`one of ${readable.join(', ')}`, `dtype of ${label}`, tensor.dtype);
    const scales = this.scalesOf(name, shape);
    this.found[role] = {
      file: tensor.file,
      offset: tensor.dataStart + tensor.begin,
      dtype: tensor.dtype as StoredRows['dtype'],
      columns: shape[1] ?? 1,
      ranges: ranges ?? [[0, shape[0] as number]],
      ...(scales && { scales }),
    };
  }

  private scalesOf(name: string, [height = 1, width = 1]: readonly number[]): StoredRows['scales'] {
    const scales = this.tensors.get(`${name}_scale_inv`);
    if (!scales) return undefined;
    const label = `tensor ${JSON.stringify(scales.name)} in ${this.folder}`;
    const { weightBlock } = this.config;
    if (!weightBlock) throw expected('weight_block_size in quantization_config', label, 'none');
    const [rows, columns] = weightBlock;
    const blocks = [Math.ceil(height / rows), Math.ceil(width / columns)];
    if (scales.shape.join() !== blocks.join())
      throw expected(`[${blocks.join(', ')}]`, `shape of ${label}`, `[${scales.shape.join(', ')}]`);
    if (scales.dtype !== 'F32') throw expected('F32', `dtype of ${label}`, scales.dtype);
    return { file: scales.file, offset: scales.dataStart + scales.begin, rows, columns };
  }

  /** A projection and its bias, where it has one. @param rows of the stored tensor, of which `ranges` are taken */
  private linear(role: string, name: string, rows: number, columns: number, ranges?: Ranges): void {
    this.take(role, `${name}.weight`, [rows, columns], ranges);
    if (this.has(`${name}.bias`)) this.take(`${role}.bias`, `${name}.bias`, [rows], ranges);
  }

  private norm(role: string, name: string, size = this.config.hiddenDim): void {
    this.take(role, `${name}.weight`, [size]);
    if (this.has(`${name}.bias`)) this.take(`${role}.bias`, `${name}.bias`, [size]);
  }

  private tables(embedding: string, head: string): void {
    const { vocabSize, hiddenDim, tiedEmbeddings } = this.config;
    this.take('embedding', embedding, [vocabSize, hiddenDim]);
    if (!tiedEmbeddings) this.take('head', head, [vocabSize, hiddenDim]);
  }

  private llamaLike(): void {
    const { config } = this;
    const { hiddenDim, heads, kvHeads, headDim, mlpDim } = config;
    const [queryWidth, keyWidth] = [heads * headDim, kvHeads * headDim];
    const prefixes = ['model.', 'language_model.model.', 'model.language_model.', ''];
    const root = this.prefix(prefixes, 'embed_tokens.weight');
    this.tables(
      `${root}embed_tokens.weight`,
      `${this.prefix(['', 'language_model.'], 'lm_head.weight')}lm_head.weight`,
    );
    this.norm('finalNorm', `${root}norm`);
    config.layers.forEach((_, i) => {
      const [to, from] = [`layers.${i}.`, `${root}layers.${i}.`];
      const attention = `${from}self_attn.`;
      if (config.family === 'phi3') {
        const rows = queryWidth + 2 * keyWidth;
        this.linear(`${to}q`, `${attention}qkv_proj`, rows, hiddenDim, [[0, queryWidth]]);
        this.linear(`${to}k`, `${attention}qkv_proj`, rows, hiddenDim, [[queryWidth, keyWidth]]);
        this.linear(`${to}v`, `${attention}qkv_proj`, rows, hiddenDim, [[queryWidth + keyWidth, keyWidth]]);
        this.linear(`${to}gate`, `${from}mlp.gate_up_proj`, 2 * mlpDim, hiddenDim, [[0, mlpDim]]);
        this.linear(`${to}up`, `${from}mlp.gate_up_proj`, 2 * mlpDim, hiddenDim, [[mlpDim, mlpDim]]);
        this.linear(`${to}down`, `${from}mlp.down_proj`, hiddenDim, mlpDim);
        this.linear(`${to}o`, `${attention}o_proj`, hiddenDim, queryWidth);
      } else if (config.mla) {
        this.latentAttention(to, attention, config.mla);
        this.gatedMlpOrExperts(i, to, from);
      } else {
        this.linear(`${to}q`, `${attention}q_proj`, queryWidth, hiddenDim);
        this.linear(`${to}k`, `${attention}k_proj`, keyWidth, hiddenDim);
        this.linear(`${to}v`, `${attention}v_proj`, keyWidth, hiddenDim);
        this.linear(`${to}o`, `${attention}o_proj`, hiddenDim, queryWidth);
        this.gatedMlpOrExperts(i, to, from);
      }
      if (config.queryKeyNorm) {
        this.norm(`${to}queryNorm`, `${attention}q_norm`, headDim);
        this.norm(`${to}keyNorm`, `${attention}k_norm`, headDim);
      }
      this.norm(`${to}attentionNorm`, `${from}input_layernorm`);
      if (config.residual === 'sandwich') {
        this.norm(`${to}afterAttention`, `${from}post_attention_layernorm`);
        this.norm(`${to}mlpNorm`, `${from}pre_feedforward_layernorm`);
        this.norm(`${to}afterMlp`, `${from}post_feedforward_layernorm`);
      } else {
        this.norm(`${to}mlpNorm`, `${from}post_attention_layernorm`);
      }
    });
  }

  private gatedMlpOrExperts(layer: number, to: string, from: string): void {
    const isMixtral = this.config.family === 'mixtral';
    if (hasExperts(this.config, layer))
      this.mixtureOfExperts(to, `${from}${isMixtral ? 'block_sparse_moe' : 'mlp'}.`, this.config.experts as Experts);
    else this.gatedMlp(to, `${from}mlp.`, this.config.mlpDim);
  }

  private gatedMlp(to: string, from: string, width: number): void {
    const { hiddenDim, family } = this.config;
    const [gate, up, down] = family === 'mixtral' ? ['w1', 'w3', 'w2'] : ['gate_proj', 'up_proj', 'down_proj'];
    this.linear(`${to}gate`, `${from}${gate}`, width, hiddenDim);
    this.linear(`${to}up`, `${from}${up}`, width, hiddenDim);
    this.linear(`${to}down`, `${from}${down}`, hiddenDim, width);
  }

  /** Of a query and of the latent's expansion, each head has its unrotated channels first. */
  private latentAttention(to: string, from: string, mla: LatentAttention): void {
    const { hiddenDim, heads, headDim } = this.config;
    const { rank, ropeDim, nopeDim, valueDim, queryRank } = mla;
    if (queryRank === undefined) this.linear(`${to}q`, `${from}q_proj`, heads * headDim, hiddenDim);
    else {
      this.linear(`${to}queryDown`, `${from}q_a_proj`, queryRank, hiddenDim);
      this.norm(`${to}queryDownNorm`, `${from}q_a_layernorm`, queryRank);
      this.linear(`${to}q`, `${from}q_b_proj`, heads * headDim, queryRank);
    }
    this.linear(`${to}latentDown`, `${from}kv_a_proj_with_mqa`, rank + ropeDim, hiddenDim);
    this.norm(`${to}latentNorm`, `${from}kv_a_layernorm`, rank);
    this.linear(`${to}latentUp`, `${from}kv_b_proj`, heads * (nopeDim + valueDim), rank);
    this.linear(`${to}o`, `${from}o_proj`, hiddenDim, heads * valueDim);
  }

  private mixtureOfExperts(to: string, from: string, experts: Experts): void {
    this.take(`${to}router`, `${from}gate.weight`, [experts.count, this.config.hiddenDim]);
    const bias = `${from}gate.e_score_correction_bias`;
    if (this.has(bias)) this.take(`${to}router.bias`, bias, [experts.count]);
    for (let e = 0; e < experts.count; e += 1)
      this.gatedMlp(`${to}experts.${e}.`, `${from}experts.${e}.`, experts.mlpDim);
    if (experts.sharedMlpDim > 0) this.gatedMlp(`${to}shared.`, `${from}shared_experts.`, experts.sharedMlpDim);
  }

  /** Rows of a fused projection [(H, 3, D), d]: every head has its own q, k and v. */
  private perHead(to: string, name: string): void {
    const { heads, headDim, hiddenDim } = this.config;
    ['q', 'k', 'v'].forEach((role, part) => {
      const ranges = Array.from({ length: heads }, (_, h) => [(3 * h + part) * headDim, headDim] as const);
      this.linear(to + role, name, 3 * heads * headDim, hiddenDim, ranges);
    });
  }

  private plainMlp(to: string, up: string, down: string): void {
    const { hiddenDim, mlpDim } = this.config;
    this.linear(`${to}up`, up, mlpDim, hiddenDim);
    this.linear(`${to}down`, down, hiddenDim, mlpDim);
  }

  private gptNeoX(): void {
    const { config } = this;
    const root = this.prefix(['gpt_neox.', ''], 'embed_in.weight');
    this.tables(`${root}embed_in.weight`, 'embed_out.weight');
    this.norm('finalNorm', `${root}final_layer_norm`);
    config.layers.forEach((_, i) => {
      const [to, from] = [`layers.${i}.`, `${root}layers.${i}.`];
      this.perHead(to, `${from}attention.query_key_value`);
      this.linear(`${to}o`, `${from}attention.dense`, config.hiddenDim, config.heads * config.headDim);
      this.plainMlp(to, `${from}mlp.dense_h_to_4h`, `${from}mlp.dense_4h_to_h`);
      this.norm(`${to}attentionNorm`, `${from}input_layernorm`);
      this.norm(`${to}mlpNorm`, `${from}post_attention_layernorm`);
    });
  }

  private falcon(): void {
    const { config } = this;
    const { heads, kvHeads, headDim, hiddenDim } = config;
    const root = this.prefix(['transformer.', ''], 'word_embeddings.weight');
    this.tables(`${root}word_embeddings.weight`, 'lm_head.weight');
    this.norm('finalNorm', `${root}ln_f`);
    const group = heads / kvHeads;
    config.layers.forEach((_, i) => {
      const [to, from] = [`layers.${i}.`, `${root}h.${i}.`];
      const fused = `${from}self_attention.query_key_value`;
      // Falcon-40B: per KV head its query heads, then k, then v; Falcon-7B is the case of one KV head.
      const parts = { q: [0, group], k: [group, 1], v: [group + 1, 1] } as const;
      for (const [role, [first, count]] of Object.entries(parts)) {
        const ranges = Array.from(
          { length: kvHeads },
          (_unused, g) => [(g * (group + 2) + first) * headDim, count * headDim] as const,
        );
        this.linear(to + role, fused, (heads + 2 * kvHeads) * headDim, hiddenDim, ranges);
      }
      this.linear(`${to}o`, `${from}self_attention.dense`, hiddenDim, heads * headDim);
      this.plainMlp(to, `${from}mlp.dense_h_to_4h`, `${from}mlp.dense_4h_to_h`);
      const twoNorms = this.has(`${from}ln_attn.weight`);
      this.norm(`${to}attentionNorm`, `${from}${twoNorms ? 'ln_attn' : 'input_layernorm'}`);
      if (twoNorms) this.norm(`${to}mlpNorm`, `${from}ln_mlp`);
      else if (config.residual === 'sequential') this.norm(`${to}mlpNorm`, `${from}post_attention_layernorm`);
    });
  }

  private gptBigCode(): void {
    const { config } = this;
    const { heads, kvHeads, headDim, hiddenDim } = config;
    const root = this.prefix(['transformer.', ''], 'wte.weight');
    this.tables(`${root}wte.weight`, 'lm_head.weight');
    this.take('positions', `${root}wpe.weight`, [config.maxPositions, hiddenDim]);
    this.norm('finalNorm', `${root}ln_f`);
    config.layers.forEach((_, i) => {
      const [to, from] = [`layers.${i}.`, `${root}h.${i}.`];
      if (kvHeads === heads && heads > 1) {
        this.perHead(to, `${from}attn.c_attn`);
      } else {
        const [width, rows] = [heads * headDim, (heads + 2) * headDim];
        this.linear(`${to}q`, `${from}attn.c_attn`, rows, hiddenDim, [[0, width]]);
        this.linear(`${to}k`, `${from}attn.c_attn`, rows, hiddenDim, [[width, headDim]]);
        this.linear(`${to}v`, `${from}attn.c_attn`, rows, hiddenDim, [[width + headDim, headDim]]);
      }
      this.linear(`${to}o`, `${from}attn.c_proj`, hiddenDim, heads * headDim);
      this.plainMlp(to, `${from}mlp.c_fc`, `${from}mlp.c_proj`);
      this.norm(`${to}attentionNorm`, `${from}ln_1`);
      this.norm(`${to}mlpNorm`, `${from}ln_2`);
    });
  }
}
