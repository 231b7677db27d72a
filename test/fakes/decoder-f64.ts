/**
 * Decoders in fp64, written from the definitions of the model families and nothing else: plain loops over Hugging Face names.
 * It shares no code with what it checks.
 */

export interface RawTensor {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}
export type RawTensors = ReadonlyMap<string, RawTensor>;
// biome-ignore lint/suspicious/noExplicitAny: a configuration as its file has it
export type RawConfig = Record<string, any>;

type Row = number[];
/** Shown what leaves the attention of a layer, a row a token. */
type Show = (layer: number, rows: Row[]) => void;

class Weights {
  private readonly tensors: RawTensors;
  constructor(tensors: RawTensors) {
    this.tensors = tensors;
  }
  get(name: string): RawTensor {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`no ${name}`);
    return found;
  }
  vector(name: string): Row {
    return [...this.get(name).data];
  }
  row(name: string, index: number): Row {
    const { shape, data } = this.get(name);
    const width = shape[1] as number;
    return [...data.subarray(index * width, (index + 1) * width)];
  }
  linear(name: string, x: Row): Row {
    const { shape, data } = this.get(`${name}.weight`);
    const [rows, columns] = shape as [number, number];
    const bias = this.tensors.get(`${name}.bias`);
    return Array.from({ length: rows }, (_, r) => {
      let sum = bias ? (bias.data[r] as number) : 0;
      for (let c = 0; c < columns; c += 1) sum += (data[r * columns + c] as number) * (x[c] as number);
      return sum;
    });
  }
  layerNorm(name: string, x: Row, epsilon: number): Row {
    const [w, b] = [this.vector(`${name}.weight`), this.vector(`${name}.bias`)];
    const mean = x.reduce((s, v) => s + v, 0) / x.length;
    const variance = x.reduce((s, v) => s + (v - mean) ** 2, 0) / x.length;
    return x.map((v, i) => ((v - mean) / Math.sqrt(variance + epsilon)) * (w[i] as number) + (b[i] as number));
  }
  rmsNorm(name: string, x: Row, epsilon: number, plusOne: boolean): Row {
    const w = this.vector(`${name}.weight`);
    const scale = 1 / Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length + epsilon);
    return x.map((v, i) => v * scale * ((w[i] as number) + (plusOne ? 1 : 0)));
  }
}

const erf = (x: number): number => {
  // Taylor series, or the continued fraction where that would cancel.
  const a = Math.abs(x);
  if (a < 3) {
    let [term, sum] = [a, a];
    for (let n = 1; n < 120; n += 1) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let k = 60; k > 0; k -= 1) fraction = k / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / ((a + fraction) * Math.sqrt(Math.PI)));
};
const silu = (x: number): number => x / (1 + Math.exp(-x));
const gelu = (x: number): number => (x / 2) * (1 + erf(x / Math.SQRT2));
const geluTanh = (x: number): number => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

const plus = (a: Row, b: Row): Row => a.map((v, i) => v + (b[i] as number));

interface Frequencies {
  readonly values: Row;
  /** Multiplies cos and sin. */
  readonly factor: number;
}

/** Frequencies of `rotary` channels as the Hugging Face `rope_scaling` entry asks for. */
function frequenciesOf(
  theta: number,
  rotary: number,
  scaling: RawConfig | null | undefined,
  config: RawConfig,
): Frequencies {
  const plain = Array.from({ length: rotary / 2 }, (_, j) => theta ** ((-2 * j) / rotary));
  const kind = scaling?.rope_type ?? scaling?.type;
  if (!scaling || !kind || kind === 'default') return { values: plain, factor: 1 };
  if (kind === 'linear') return { values: plain.map((f) => f / scaling.factor), factor: 1 };
  if (kind === 'llama3') {
    const original = scaling.original_max_position_embeddings;
    const values = plain.map((f) => {
      const wavelength = (2 * Math.PI) / f;
      if (wavelength < original / scaling.high_freq_factor) return f;
      if (wavelength > original / scaling.low_freq_factor) return f / scaling.factor;
      const s =
        (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      return ((1 - s) * f) / scaling.factor + s * f;
    });
    return { values, factor: 1 };
  }
  if (kind === 'yarn') {
    const original = scaling.original_max_position_embeddings;
    const turning = (turns: number): number =>
      (rotary * Math.log(original / (2 * Math.PI * turns))) / (2 * Math.log(theta));
    const low = Math.max(0, Math.floor(turning(scaling.beta_fast)));
    const high = Math.min(rotary - 1, Math.ceil(turning(scaling.beta_slow)));
    const values = plain.map((f, j) => {
      const slowed = Math.min(1, Math.max(0, (j - low) / (high - low)));
      return f * (1 - slowed) + (f / scaling.factor) * slowed;
    });
    const magnitude = (m: number): number => 0.1 * m * Math.log(scaling.factor) + 1;
    return { values, factor: magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim) };
  }
  if (kind === 'longrope') {
    const original = config.original_max_position_embeddings;
    const values = plain.map((f, j) => f / scaling.short_factor[j]);
    const factor = config.max_position_embeddings / original;
    return { values, factor: Math.sqrt(1 + Math.log(factor) / Math.log(original)) };
  }
  throw new Error(kind);
}

/** Rotates the first 2·frequencies channels of a head: pairs (j, j + half). */
function rotate(head: Row, position: number, { values, factor }: Frequencies): Row {
  const out = [...head];
  const half = values.length;
  values.forEach((f, j) => {
    const [cos, sin] = [Math.cos(position * f) * factor, Math.sin(position * f) * factor];
    const [a, b] = [head[j] as number, head[j + half] as number];
    out[j] = a * cos - b * sin;
    out[j + half] = b * cos + a * sin;
  });
  return out;
}

interface Heads {
  /** [token][head][channel] */
  readonly q: Row[][];
  readonly k: Row[][];
  readonly v: Row[][];
}

const channel = (rows: Row[][], token: number, head: number, c: number): number =>
  ((rows[token] as Row[])[head] as Row)[c] as number;

function attention({ q, k, v }: Heads, scale: number, window = Number.POSITIVE_INFINITY, softcap = 0): Row[] {
  return q.map((heads, t) =>
    heads.flatMap((query, h) => {
      const group = heads.length / (k[0] as Row[]).length;
      const g = Math.floor(h / group);
      const scores: number[] = [];
      for (let s = 0; s <= t; s += 1) {
        if (t - s >= window) scores.push(Number.NEGATIVE_INFINITY);
        else {
          let dot = 0;
          query.forEach((x, c) => {
            dot += x * channel(k, s, g, c);
          });
          dot *= scale;
          scores.push(softcap > 0 ? softcap * Math.tanh(dot / softcap) : dot);
        }
      }
      const top = Math.max(...scores);
      const weights = scores.map((x) => Math.exp(x - top));
      const total = weights.reduce((a, b) => a + b, 0);
      const values = (v[0] as Row[])[g] as Row;
      return values.map((_, c) => weights.reduce((sum, w, s) => sum + (w / total) * channel(v, s, g, c), 0));
    }),
  );
}

const split = (row: Row, size: number): Row[] =>
  Array.from({ length: row.length / size }, (_, i) => row.slice(i * size, (i + 1) * size));

/** Llama, Mistral, Qwen 2.5 and 3, Gemma 2 and 3, Phi-3. */
function llamaLike(config: RawConfig, w: Weights, tokens: readonly number[], show: Show): Row[] {
  const family: string = config.model_type;
  const isGemma = family.startsWith('gemma');
  const [heads, kvHeads] = [config.num_attention_heads, config.num_key_value_heads ?? config.num_attention_heads];
  const D: number = config.head_dim ?? config.hidden_size / heads;
  const norm = (name: string, x: Row): Row => w.rmsNorm(name, x, config.rms_norm_eps, isGemma);
  const embed = isGemma ? Math.sqrt(config.hidden_size) : 1;
  const rotary = Math.floor(D * (config.partial_rotary_factor ?? 1));
  const global = frequenciesOf(config.rope_theta ?? 10000, rotary, config.rope_scaling, config);
  const local = family === 'gemma3_text' ? frequenciesOf(config.rope_local_base_freq, D, null, config) : global;
  const act = isGemma ? geluTanh : silu;
  let x = tokens.map((token) => w.row('model.embed_tokens.weight', token).map((v) => v * embed));
  for (let i = 0; i < config.num_hidden_layers; i += 1) {
    const at = `model.layers.${i}.`;
    const slides =
      family === 'mistral' || family === 'phi3'
        ? Boolean(config.sliding_window)
        : family === 'gemma2'
          ? i % 2 === 0
          : family === 'gemma3_text'
            ? (i + 1) % config.sliding_window_pattern !== 0
            : family === 'qwen2' && config.use_sliding_window
              ? i >= config.max_window_layers
              : false;
    const frequencies = slides ? local : global;
    const normed = x.map((row) => norm(`${at}input_layernorm`, row));
    const project = (part: 'q' | 'k' | 'v', row: Row): Row => {
      if (family !== 'phi3') return w.linear(`${at}self_attn.${part}_proj`, row);
      const all = w.linear(`${at}self_attn.qkv_proj`, row);
      const ends = { q: [0, heads * D], k: [heads * D, (heads + kvHeads) * D], v: [(heads + kvHeads) * D, all.length] };
      return all.slice(...(ends[part] as [number, number]));
    };
    const hasHeadNorm = family.startsWith('qwen3') || family === 'gemma3_text';
    const headNorm = (name: string, head: Row): Row => (hasHeadNorm ? norm(`${at}self_attn.${name}_norm`, head) : head);
    const q = normed.map((row, t) => split(project('q', row), D).map((h) => rotate(headNorm('q', h), t, frequencies)));
    const k = normed.map((row, t) => split(project('k', row), D).map((h) => rotate(headNorm('k', h), t, frequencies)));
    const v = normed.map((row) => split(project('v', row), D));
    const scale = 1 / Math.sqrt(config.query_pre_attn_scalar ?? D);
    const mixed = attention(
      { q, k, v },
      scale,
      slides ? config.sliding_window : undefined,
      config.attn_logit_softcapping ?? 0,
    );
    /** The experts with the largest logits, weighted by a softmax over them alone (Mixtral), or over all (Qwen3, unless normalised). */
    const mixture = (row: Row, name: string, [gate, up, down]: readonly string[]): Row => {
      const logits = w.linear(`${name}gate`, row);
      const chosen = topOf(logits, config.num_experts_per_tok);
      const among = family === 'mixtral' || config.norm_topk_prob ? chosen : [...logits.keys()];
      const total = among.reduce((sum, e) => sum + Math.exp(logits[e] as number), 0);
      return chosen
        .map((e) => {
          const at = `${name}experts.${e}.`;
          const wide = w.linear(`${at}${up}`, row);
          const mixed = w.linear(`${at}${gate}`, row).map((g, c) => silu(g) * (wide[c] as number));
          const weight = Math.exp(logits[e] as number) / total;
          return w.linear(`${at}${down}`, mixed).map((y) => weight * y);
        })
        .reduce(plus);
    };
    const mlp = (row: Row): Row => {
      if (family === 'mixtral') return mixture(row, `${at}block_sparse_moe.`, ['w1', 'w3', 'w2']);
      if (family === 'qwen3_moe') return mixture(row, `${at}mlp.`, ['gate_proj', 'up_proj', 'down_proj']);
      let [gate, up]: [Row, Row] = [[], []];
      if (family === 'phi3') {
        const both = w.linear(`${at}mlp.gate_up_proj`, row);
        [gate, up] = [both.slice(0, both.length / 2), both.slice(both.length / 2)];
      } else [gate, up] = [w.linear(`${at}mlp.gate_proj`, row), w.linear(`${at}mlp.up_proj`, row)];
      return w.linear(
        `${at}mlp.down_proj`,
        gate.map((g, c) => act(g) * (up[c] as number)),
      );
    };
    const attended = mixed.map((row) => w.linear(`${at}self_attn.o_proj`, row));
    show(i, attended);
    x = x.map((row, t) => {
      const out = attended[t] as Row;
      if (isGemma) {
        const middle = plus(row, norm(`${at}post_attention_layernorm`, out));
        const after = norm(`${at}post_feedforward_layernorm`, mlp(norm(`${at}pre_feedforward_layernorm`, middle)));
        return plus(middle, after);
      }
      const middle = plus(row, out);
      return plus(middle, mlp(norm(`${at}post_attention_layernorm`, middle)));
    });
  }
  const tied = config.tie_word_embeddings ?? isGemma;
  return x.map((row) => {
    const out = norm('model.norm', row);
    const logits = w.linear(tied ? 'model.embed_tokens' : 'lm_head', out);
    const cap = config.final_logit_softcapping;
    return cap ? logits.map((l) => cap * Math.tanh(l / cap)) : logits;
  });
}

function gptNeoX(config: RawConfig, w: Weights, tokens: readonly number[], show: Show): Row[] {
  const D = config.hidden_size / config.num_attention_heads;
  const frequencies = frequenciesOf(config.rotary_emb_base ?? 10000, Math.floor(D * config.rotary_pct), null, config);
  const epsilon = config.layer_norm_eps;
  let x = tokens.map((token) => w.row('gpt_neox.embed_in.weight', token));
  for (let i = 0; i < config.num_hidden_layers; i += 1) {
    const at = `gpt_neox.layers.${i}.`;
    const fused = x.map((row) =>
      split(w.linear(`${at}attention.query_key_value`, w.layerNorm(`${at}input_layernorm`, row, epsilon)), 3 * D),
    );
    const q = fused.map((hs, t) => hs.map((h) => rotate(h.slice(0, D), t, frequencies)));
    const k = fused.map((hs, t) => hs.map((h) => rotate(h.slice(D, 2 * D), t, frequencies)));
    const v = fused.map((hs) => hs.map((h) => h.slice(2 * D)));
    const mixed = attention({ q, k, v }, 1 / Math.sqrt(D));
    const mlp = (row: Row): Row =>
      w.linear(`${at}mlp.dense_4h_to_h`, w.linear(`${at}mlp.dense_h_to_4h`, row).map(gelu));
    const attended = mixed.map((row) => w.linear(`${at}attention.dense`, row));
    show(i, attended);
    x = x.map((row, t) => {
      const out = attended[t] as Row;
      const base = config.use_parallel_residual ? row : plus(row, out);
      const rest = mlp(w.layerNorm(`${at}post_attention_layernorm`, base, epsilon));
      return config.use_parallel_residual ? plus(plus(row, out), rest) : plus(base, rest);
    });
  }
  return x.map((row) => w.linear('embed_out', w.layerNorm('gpt_neox.final_layer_norm', row, epsilon)));
}

function falcon(config: RawConfig, w: Weights, tokens: readonly number[], show: Show): Row[] {
  const heads = config.num_attention_heads;
  const D = config.hidden_size / heads;
  const fresh = config.new_decoder_architecture;
  const kvHeads = fresh ? config.num_kv_heads : 1;
  const frequencies = frequenciesOf(10000, D, null, config);
  const epsilon = config.layer_norm_epsilon;
  let x = tokens.map((token) => w.row('transformer.word_embeddings.weight', token));
  for (let i = 0; i < config.num_hidden_layers; i += 1) {
    const at = `transformer.h.${i}.`;
    const toAttention = x.map((row) => w.layerNorm(`${at}${fresh ? 'ln_attn' : 'input_layernorm'}`, row, epsilon));
    const toMlp = fresh ? x.map((row) => w.layerNorm(`${at}ln_mlp`, row, epsilon)) : toAttention;
    // [group][its query heads, key, value]
    const fused = toAttention.map((row) =>
      split(w.linear(`${at}self_attention.query_key_value`, row), (heads / kvHeads + 2) * D).map((g) => split(g, D)),
    );
    const q = fused.map((groups, t) => groups.flatMap((g) => g.slice(0, -2).map((h) => rotate(h, t, frequencies))));
    const k = fused.map((groups, t) => groups.map((g) => rotate(g.at(-2) as Row, t, frequencies)));
    const v = fused.map((groups) => groups.map((g) => g.at(-1) as Row));
    const mixed = attention({ q, k, v }, 1 / Math.sqrt(D));
    const attended = mixed.map((row) => w.linear(`${at}self_attention.dense`, row));
    show(i, attended);
    x = x.map((row, t) => {
      const out = attended[t] as Row;
      const hidden = w.linear(`${at}mlp.dense_h_to_4h`, toMlp[t] as Row).map(gelu);
      return plus(plus(row, out), w.linear(`${at}mlp.dense_4h_to_h`, hidden));
    });
  }
  return x.map((row) => w.linear('transformer.word_embeddings', w.layerNorm('transformer.ln_f', row, epsilon)));
}

function gptBigCode(config: RawConfig, w: Weights, tokens: readonly number[], show: Show): Row[] {
  const [d, heads] = [config.n_embd, config.n_head];
  const D = d / heads;
  const epsilon = config.layer_norm_epsilon;
  let x = tokens.map((token, t) => plus(w.row('transformer.wte.weight', token), w.row('transformer.wpe.weight', t)));
  for (let i = 0; i < config.n_layer; i += 1) {
    const at = `transformer.h.${i}.`;
    const fused = x.map((row) => w.linear(`${at}attn.c_attn`, w.layerNorm(`${at}ln_1`, row, epsilon)));
    const q = fused.map((row) => split(row.slice(0, d), D));
    const k = fused.map((row) => [row.slice(d, d + D)]);
    const v = fused.map((row) => [row.slice(d + D)]);
    const mixed = attention({ q, k, v }, 1 / Math.sqrt(D));
    const attended = mixed.map((row) => w.linear(`${at}attn.c_proj`, row));
    show(i, attended);
    x = x.map((row, t) => {
      const middle = plus(row, attended[t] as Row);
      const hidden = w.linear(`${at}mlp.c_fc`, w.layerNorm(`${at}ln_2`, middle, epsilon)).map(geluTanh);
      return plus(middle, w.linear(`${at}mlp.c_proj`, hidden));
    });
  }
  return x.map((row) => w.linear('transformer.wte', w.layerNorm('transformer.ln_f', row, epsilon)));
}

/** Pairs (2j, 2j+1) of the whole row. */
function rotateNeighbours(row: Row, position: number, { values, factor }: Frequencies): Row {
  return values.flatMap((f, j) => {
    const [cos, sin] = [Math.cos(position * f) * factor, Math.sin(position * f) * factor];
    const [a, b] = [row[2 * j] as number, row[2 * j + 1] as number];
    return [a * cos - b * sin, a * sin + b * cos];
  });
}

/** Indices of the largest. */
const topOf = (row: Row, count: number): number[] =>
  row
    .map((_, i) => i)
    .sort((a, b) => (row[b] as number) - (row[a] as number))
    .slice(0, count);

/** What each expert counts for a token; 0 for those not chosen. */
function expertWeights(config: RawConfig, logits: Row, bias: Row): Row {
  const third = config.model_type === 'deepseek_v3';
  const exponents = logits.map((x) => Math.exp(third ? -x : x));
  const total = exponents.reduce((a, b) => a + b, 0);
  const scores = exponents.map((x) => (third ? 1 / (1 + x) : x / total));
  const wanted = scores.map((x, e) => x + (bias[e] ?? 0));
  let open = scores.map(() => true);
  if (third || config.topk_method === 'group_limited_greedy') {
    const size = scores.length / config.n_group;
    const worth = split(wanted, size).map((group) => {
      const [best = 0, second = 0] = [...group].sort((a, b) => b - a);
      return third ? best + second : best;
    });
    const groups = topOf(worth, config.topk_group);
    open = scores.map((_, e) => groups.includes(Math.floor(e / size)));
  }
  const chosen = topOf(
    wanted.map((x, e) => (open[e] ? x : Number.NEGATIVE_INFINITY)),
    config.num_experts_per_tok,
  );
  const sum = config.norm_topk_prob ? chosen.reduce((a, e) => a + (scores[e] as number), 0) : 1;
  return scores.map((x, e) => (chosen.includes(e) ? (x / sum) * config.routed_scaling_factor : 0));
}

/** DeepSeek V2 and V3: keys and values of every head are made out of a latent; nothing is absorbed. */
function deepSeek(config: RawConfig, w: Weights, tokens: readonly number[], show: Show): Row[] {
  const { kv_lora_rank: rank, qk_rope_head_dim: rope, qk_nope_head_dim: nope, v_head_dim: value } = config;
  const frequencies = frequenciesOf(config.rope_theta ?? 10000, rope, config.rope_scaling, config);
  const scaling = config.rope_scaling;
  const magnitude = scaling ? 0.1 * scaling.mscale_all_dim * Math.log(scaling.factor) + 1 : 1;
  const norm = (name: string, x: Row): Row => w.rmsNorm(name, x, config.rms_norm_eps, false);
  let x = tokens.map((token) => w.row('model.embed_tokens.weight', token));
  for (let i = 0; i < config.num_hidden_layers; i += 1) {
    const [at, attn] = [`model.layers.${i}.`, `model.layers.${i}.self_attn.`];
    const normed = x.map((row) => norm(`${at}input_layernorm`, row));
    const latents = normed.map((row) => w.linear(`${attn}kv_a_proj_with_mqa`, row));
    const expanded = latents.map((row) =>
      split(
        w.linear(`${attn}kv_b_proj`, w.rmsNorm(`${attn}kv_a_layernorm`, row.slice(0, rank), 1e-6, false)),
        nope + value,
      ),
    );
    const q = normed.map((row, t) => {
      const low = config.q_lora_rank
        ? w.rmsNorm(`${attn}q_a_layernorm`, w.linear(`${attn}q_a_proj`, row), 1e-6, false)
        : row;
      return split(w.linear(`${attn}${config.q_lora_rank ? 'q_b_proj' : 'q_proj'}`, low), nope + rope).map((head) => [
        ...head.slice(0, nope),
        ...rotateNeighbours(head.slice(nope), t, frequencies),
      ]);
    });
    const k = expanded.map((heads, t) => {
      const shared = rotateNeighbours((latents[t] as Row).slice(rank), t, frequencies);
      return heads.map((head) => [...head.slice(0, nope), ...shared]);
    });
    const v = expanded.map((heads) => heads.map((head) => head.slice(nope)));
    const mixed = attention({ q, k, v }, magnitude ** 2 / Math.sqrt(nope + rope));
    const attended = mixed.map((row) => w.linear(`${attn}o_proj`, row));
    show(i, attended);
    const mlp = (name: string, row: Row): Row => {
      const up = w.linear(`${name}up_proj`, row);
      return w.linear(
        `${name}down_proj`,
        w.linear(`${name}gate_proj`, row).map((g, c) => silu(g) * (up[c] as number)),
      );
    };
    const feed = (row: Row): Row => {
      if (i < config.first_k_dense_replace) return mlp(`${at}mlp.`, row);
      const bias = config.model_type === 'deepseek_v3' ? w.vector(`${at}mlp.gate.e_score_correction_bias`) : [];
      return expertWeights(config, w.linear(`${at}mlp.gate`, row), bias).reduce(
        (sum, weight, e) =>
          weight > 0
            ? plus(
                sum,
                mlp(`${at}mlp.experts.${e}.`, row).map((y) => weight * y),
              )
            : sum,
        mlp(`${at}mlp.shared_experts.`, row),
      );
    };
    x = x.map((row, t) => {
      const middle = plus(row, attended[t] as Row);
      return plus(middle, feed(norm(`${at}post_attention_layernorm`, middle)));
    });
  }
  return x.map((row) => w.linear('lm_head', norm('model.norm', row)));
}

/** Logits [token][vocabulary]. */
export function decodeInF64(
  config: RawConfig,
  tensors: RawTensors,
  tokens: readonly number[],
  show: Show = () => undefined,
): number[][] {
  const weights = new Weights(tensors);
  if (config.model_type === 'gpt_neox') return gptNeoX(config, weights, tokens, show);
  if (config.model_type === 'falcon') return falcon(config, weights, tokens, show);
  if (config.model_type === 'gpt_bigcode') return gptBigCode(config, weights, tokens, show);
  if (String(config.model_type).startsWith('deepseek')) return deepSeek(config, weights, tokens, show);
  return llamaLike(config, weights, tokens, show);
}
