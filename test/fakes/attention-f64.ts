/** Attention by its definition, in f64 and nothing but loops: what `fastmqa attend` is compared with. */

export interface Values {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

export interface AttentionCase {
  /** [B, H, Sq, D] */
  readonly q: Values;
  /** [B, G, Skv, D] and [B, G, Skv, Dv] */
  readonly k: Values;
  readonly v: Values;
  readonly pastK?: Values;
  readonly pastV?: Values;
  /** Broadcastable to [B, H, Sq, past + Skv]; `boolean`: 0 hides, otherwise added to the scores. */
  readonly mask?: Values & { readonly boolean: boolean };
  /** [positions, pairs] */
  readonly cos?: Values;
  readonly sin?: Values;
  /** [B, max(Sq, Skv)] */
  readonly positionIds?: Values;
  readonly interleaved?: boolean;
  readonly causal?: boolean;
  readonly scale?: number;
  readonly softcap?: number;
  readonly windowLeft?: number;
  readonly windowRight?: number;
}

/** Row-major offset of an index under broadcasting, missing leading dimensions included. */
function at({ shape, data }: Values, index: readonly number[]): number {
  let offset = 0;
  for (let i = 0; i < shape.length; i += 1) {
    const size = shape[i];
    offset = offset * size + (size === 1 ? 0 : index[index.length - shape.length + i]);
  }
  return data[offset];
}

/** Rotates the first 2 * pairs channels of each row [.., tokens, D]. */
function rotated(
  x: Values,
  positionOf: (batch: number, token: number) => number,
  { cos, sin, interleaved }: AttentionCase,
): Float64Array {
  const out = Float64Array.from(x.data);
  if (!cos || !sin) return out;
  const [, heads, tokens, dim] = x.shape;
  const pairs = cos.shape[1];
  for (let row = 0; row < out.length / dim; row += 1) {
    const position = positionOf(Math.floor(row / (heads * tokens)), row % tokens);
    for (let c = 0; c < pairs; c += 1) {
      const first = row * dim + (interleaved ? 2 * c : c);
      const second = row * dim + (interleaved ? 2 * c + 1 : c + pairs);
      const [a, b] = [out[first], out[second]];
      const [cosine, sine] = [cos.data[position * pairs + c], sin.data[position * pairs + c]];
      out[first] = a * cosine - b * sine;
      out[second] = b * cosine + a * sine;
    }
  }
  return out;
}

/** [B, G, past + tokens, width] */
function joined(
  past: Values | undefined,
  fresh: ArrayLike<number>,
  [batch, heads, tokens, width]: readonly number[],
): Float64Array {
  const before = past?.shape[2] ?? 0;
  const out = new Float64Array(batch * heads * (before + tokens) * width);
  for (let row = 0; row < batch * heads; row += 1) {
    const start = row * (before + tokens) * width;
    for (let i = 0; i < before * width; i += 1) out[start + i] = past?.data[row * before * width + i] as number;
    for (let i = 0; i < tokens * width; i += 1) out[start + before * width + i] = fresh[row * tokens * width + i];
  }
  return out;
}

/** What the cache holds when it rounds nothing. */
export function present(request: AttentionCase): { k: Float64Array; v: Float64Array } {
  const { q, k, v, pastK, pastV, positionIds } = request;
  const before = pastK?.shape[2] ?? 0;
  const longest = Math.max(q.shape[2], k.shape[2]);
  const keyPosition = (batch: number, token: number): number =>
    positionIds ? positionIds.data[batch * longest + longest - k.shape[2] + token] : before + token;
  return { k: joined(pastK, rotated(k, keyPosition, request), k.shape), v: joined(pastV, v.data, v.shape) };
}

/** [B, H, Sq, Dv]. `cached`: keys and values as a cache has rounded them. */
export function attention(request: AttentionCase, cached = present(request)): Float64Array {
  const { q, k, v, pastK, mask, positionIds, causal, softcap = 0, windowLeft, windowRight } = request;
  const [batch, heads, queries, dim] = q.shape;
  const [, kvHeads, fresh] = k.shape;
  const width = v.shape[3];
  const total = (pastK?.shape[2] ?? 0) + fresh;
  const scale = request.scale ?? 1 / Math.sqrt(dim);
  const longest = Math.max(queries, fresh);
  const queryPosition = (b: number, token: number): number =>
    positionIds ? positionIds.data[b * longest + longest - queries + token] : total - queries + token;
  const rows = rotated(q, queryPosition, request);
  const out = new Float64Array(batch * heads * queries * width);
  const scores = new Float64Array(total);

  for (let row = 0; row < batch * heads * queries; row += 1) {
    const i = row % queries;
    const h = Math.floor(row / queries) % heads;
    const b = Math.floor(row / (queries * heads));
    const cacheRow = (b * kvHeads + Math.floor((h * kvHeads) / heads)) * total;
    const position = total - queries + i;
    let highest = Number.NEGATIVE_INFINITY;
    for (let s = 0; s < total; s += 1) {
      const hidden =
        (causal && s > position) ||
        (windowLeft !== undefined && s < position - windowLeft) ||
        (windowRight !== undefined && s > position + windowRight);
      let score = 0;
      for (let c = 0; c < dim; c += 1) score += rows[row * dim + c] * cached.k[(cacheRow + s) * dim + c];
      score *= scale;
      if (softcap > 0) score = softcap * Math.tanh(score / softcap);
      const masked = mask ? at(mask, [b, h, i, s]) : 0;
      if (mask) score = mask.boolean ? (masked === 0 ? Number.NEGATIVE_INFINITY : score) : score + masked;
      scores[s] = hidden ? Number.NEGATIVE_INFINITY : score;
      highest = Math.max(highest, scores[s]);
    }
    if (highest === Number.NEGATIVE_INFINITY) continue; // sees nothing: zeros
    let sum = 0;
    for (let s = 0; s < total; s += 1) {
      const weight = Math.exp(scores[s] - highest);
      sum += weight;
      if (weight > 0)
        for (let c = 0; c < width; c += 1) out[row * width + c] += weight * cached.v[(cacheRow + s) * width + c];
    }
    for (let c = 0; c < width; c += 1) out[row * width + c] /= sum;
  }
  return out;
}

export function relativeL2(actual: ArrayLike<number>, wanted: ArrayLike<number>): number {
  if (actual.length !== wanted.length) return Number.NaN;
  let [difference, norm] = [0, 0];
  for (let i = 0; i < wanted.length; i += 1) {
    difference += (actual[i] - wanted[i]) ** 2;
    norm += wanted[i] ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}
