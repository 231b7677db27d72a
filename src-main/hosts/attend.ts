/** Attention on the tensors of a file: checks what the file claims, and turns it into one request to the worker. */
import { stat } from 'node:fs/promises';
import { expected } from '../contract/input-error.ts';
import type { CacheDtype } from '../contract/sweep.ts';
import { encodeSafetensors, openSafetensors, type Safetensors, type TensorData } from '../models/safetensors.ts';
import { refuseUnwritable } from '../sessions/storage.ts';
import type { AttendRequest, AttendResult, Tensor } from '../worker/addon-types.ts';

export interface AttendOptions {
  readonly causal?: boolean;
  readonly scale?: number;
  readonly softcap?: number;
  readonly windowLeft?: number;
  readonly windowRight?: number;
  readonly cacheDtype?: CacheDtype;
  readonly kernel?: 'naive' | 'flash';
  readonly interleavedRope?: boolean;
  /** `cpu` or `cuda:N`. */
  readonly backend?: string;
}

/**
 * Before anything is computed.
 * @throws InputError where the result cannot be put at `output`, or would replace the tensors it is made of.
 */
export async function checkAttendOutput(input: string, output: string): Promise<void> {
  if (output === '') throw expected('a file', '--out', output);
  const [from, to] = await Promise.all([input, output].map((path) => stat(path).catch(() => undefined)));
  if (from && to && from.dev === to.dev && from.ino === to.ino)
    throw expected('another file than --in', '--out', output);
  await refuseUnwritable(output);
}

/** @throws InputError in one sentence for whatever does not fit. */
export async function readAttendRequest(path: string, options: AttendOptions): Promise<AttendRequest> {
  const file = await openSafetensors(path);
  try {
    return await checkedRequest(new Tensors(file, path), options);
  } finally {
    await file.close();
  }
}

/** The result as a safetensors file: `out` [B, H, Sq, Dv], `present_k` [B, G, past + Skv, D], `present_v` [.., Dv]. */
export function encodeAttendResult({ q, k, v, pastK }: AttendRequest, result: AttendResult): Uint8Array {
  const [batch, heads, queries] = q.shape;
  const [, kvHeads, keys, dim] = k.shape;
  const tokens = keys + (pastK?.shape[2] ?? 0);
  return encodeSafetensors({
    out: { shape: [batch, heads, queries, v.shape[3]], data: result.out },
    present_k: { shape: [batch, kvHeads, tokens, dim], data: result.presentK },
    present_v: { shape: [batch, kvHeads, tokens, v.shape[3]], data: result.presentV },
  });
}

async function checkedRequest(file: Tensors, options: AttendOptions): Promise<AttendRequest> {
  const q = await file.floats('q', ['B', 'H', 'Sq', 'D']);
  const [B, H, Sq, D] = q.shape;
  const k = await file.floats('k', [B, 'G', 'Skv', D]);
  const [, G, Skv] = k.shape;
  for (const [name, shape] of [
    ['q', q.shape],
    ['k', k.shape],
  ] as const) {
    if (shape.includes(0)) throw expected('no empty dimension', `shape of ${name}`, `[${shape.join(', ')}]`);
  }
  if (H % G !== 0) throw expected(`a divisor of the ${H} heads of q`, 'heads of k', G);
  const v = await file.floats('v', [B, G, Skv, 'Dv']);
  if (v.shape[3] === 0) throw expected('no empty dimension', 'shape of v', `[${v.shape.join(', ')}]`);
  const past = await readPast(file, [B, G, 'past', D], v.shape[3]);
  const pastLength = past.pastK?.shape[2] ?? 0;
  const mask = file.has('mask') ? await file.mask([B, H, Sq, pastLength + Skv]) : undefined;
  const rope = await readRope(file, { B, Sq, Skv, D, pastLength });
  const { causal = false, cacheDtype = 'f32', kernel = 'flash', ...given } = options;
  return { q, k, v, ...past, ...(mask ? { mask } : {}), ...rope, causal, cacheDtype, kernel, ...given };
}

async function readPast(file: Tensors, shape: readonly (number | string)[], valueDim: number) {
  if (!file.together(['past_k', 'past_v'])) return {};
  const pastK = await file.floats('past_k', shape);
  return { pastK, pastV: await file.floats('past_v', [...pastK.shape.slice(0, 3), valueDim]) };
}

interface Sizes {
  readonly B: number;
  readonly Sq: number;
  readonly Skv: number;
  readonly D: number;
  readonly pastLength: number;
}

/**
 * Angles of new tokens. Queries are aligned with the last keys: token i of q stands at past + Skv - Sq + i, token j of k at
 * past + j; `position_ids` names those of the longer of both, and the shorter takes the last of them.
 */
async function readRope(file: Tensors, { B, Sq, Skv, D, pastLength }: Sizes) {
  if (!file.together(['cos', 'sin'])) {
    if (file.has('position_ids')) throw expected('cos and sin', 'position_ids', 'neither');
    return {};
  }
  const cos = await file.floats('cos', ['positions', 'rotary / 2']);
  const [positions, pairs] = cos.shape;
  if (pairs < 1 || 2 * pairs > D) throw expected(`1 to ${Math.floor(D / 2)} columns`, 'shape of cos', pairs);
  const sin = await file.floats('sin', cos.shape);
  const total = pastLength + Skv;
  if (!file.has('position_ids')) {
    if (Sq > total) throw expected(`position_ids where q is longer than all ${total} keys`, 'q', `${Sq} tokens`);
    if (positions < total) throw expected(`at least ${total} rows`, 'shape of cos', positions);
    return { cos, sin };
  }
  const positionIds = await file.whole('position_ids');
  const length = Math.max(Sq, Skv);
  const { shape, data } = positionIds;
  const fits = shape.at(-1) === length && (shape.length === 1 || (shape.length === 2 && [1, B].includes(shape[0])));
  if (!fits) throw expected(`[${B}, ${length}] or [${length}]`, 'shape of position_ids', `[${shape.join(', ')}]`);
  const wrong = data.find((position) => position < 0 || position >= positions);
  if (wrong !== undefined) throw expected(`rows of cos, 0 to ${positions - 1},`, 'position_ids', wrong);
  return { cos, sin, positionIds };
}

/** The tensors of one file by name, each checked as it is read. */
class Tensors {
  private readonly file: Safetensors;
  private readonly path: string;

  constructor(file: Safetensors, path: string) {
    this.file = file;
    this.path = path;
  }

  has(name: string): boolean {
    return this.file.tensors.has(name);
  }

  /** Whether both are there. @throws InputError where only one is. */
  together(names: readonly [string, string]): boolean {
    const missing = names.filter((name) => !this.has(name));
    if (missing.length === 1) throw expected(`${names[0]} and ${names[1]} together`, this.path, `no ${missing[0]}`);
    return missing.length === 0;
  }

  /** Finite floats of a shape; a name in it stands for any size. */
  async floats(name: string, shape: readonly (number | string)[]): Promise<Tensor> {
    const data = await this.readAs(name, 'F32, F64, F16, BF16, F8_E4M3 or F8_E5M2', isFloats);
    const fits =
      data.shape.length === shape.length &&
      shape.every((size, i) => typeof size === 'string' || size === data.shape[i]);
    if (!fits) throw expected(`[${shape.join(', ')}]`, `shape of ${name}`, `[${data.shape.join(', ')}]`);
    refuseWhere(data, name, 'finite values', (value) => !Number.isFinite(value));
    return data;
  }

  whole(name: string): Promise<Tensor<Int32Array>> {
    return this.readAs(name, 'I32 or I64', isWhole);
  }

  /** Boolean (BOOL, U8) or additive (floats, minus infinity allowed), broadcastable to `full`. */
  async mask(full: readonly number[]): Promise<Tensor<Float32Array | Uint8Array>> {
    const mask = await this.readAs('mask', 'BOOL, U8 or a float', isMask);
    const { shape } = mask;
    const fits = shape.length <= full.length && shape.every((size, i) => [1, full.at(i - shape.length)].includes(size));
    if (!fits) throw expected(`a shape that broadcasts to [${full.join(', ')}]`, 'mask', `[${shape.join(', ')}]`);
    if (isFloats(mask)) {
      const wrong = (value: number): boolean => Number.isNaN(value) || value === Number.POSITIVE_INFINITY;
      refuseWhere(mask, 'mask', 'finite values or minus infinity', wrong);
    }
    // Leading ones are implied; the worker takes four dimensions.
    return { shape: [...new Array(full.length - shape.length).fill(1), ...shape], data: mask.data };
  }

  private async readAs<Kind extends TensorData>(name: string, types: string, is: (data: TensorData) => data is Kind) {
    if (!this.has(name))
      throw expected(
        `a tensor ${name}`,
        this.path,
        `${
          [...this.file.tensors.keys()]
            .slice(0, 12)
            .map((key) => JSON.stringify(key))
            .join(', ') || 'no tensors'
        }`,
      );
    const data = await this.file.read(name);
    if (!is(data)) throw expected(types, `dtype of ${name}`, data.dtype);
    return data;
  }
}

const isFloats = (tensor: TensorData): tensor is TensorData<Float32Array> => tensor.data instanceof Float32Array;
const isWhole = (tensor: TensorData): tensor is TensorData<Int32Array> => tensor.data instanceof Int32Array;
const isMask = (tensor: TensorData): tensor is TensorData<Float32Array | Uint8Array> => !isWhole(tensor);

function refuseWhere(tensor: Tensor, name: string, what: string, isWrong: (value: number) => boolean): void {
  const at = tensor.data.findIndex(isWrong);
  if (at !== -1) throw expected(what, name, `${tensor.data[at]} at [${indexOf(at, tensor.shape).join(', ')}]`);
}

function indexOf(flat: number, shape: readonly number[]): number[] {
  const index: number[] = [];
  for (const size of shape.toReversed()) {
    index.unshift(flat % size);
    flat = Math.floor(flat / size);
  }
  return index;
}
