/** `attend` over the real addon, against attention computed by its definition in f64. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CacheDtype, cacheDtypes } from '../../src-main/contract/sweep.ts';
import { createProfiler, type Profiler } from '../../src-main/hosts/compose.ts';
import { openSafetensors } from '../../src-main/models/safetensors.ts';
import { type AttentionCase, attention, present, relativeL2, type Values } from '../fakes/attention-f64.ts';
import { buildTools, emulatedCudaLibrary } from '../native/tools.ts';
import { runCli } from './run-cli.ts';

process.env.FASTMQA_CUDA_LIBRARY = emulatedCudaLibrary;

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-attend-'));
let profiler: Profiler;
beforeAll(async () => {
  await buildTools();
  profiler = createProfiler();
});
afterAll(async () => {
  await profiler.close();
  rmSync(folder, { recursive: true });
});

/** Numbers from a seed, the same on every machine (mulberry32). */
function generator(seed: number) {
  let state = seed;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(uniform() * items.length)];
  const tensor = (shape: readonly number[], size = 1) => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => size * normal()),
  });
  return { uniform, pick, tensor };
}

interface Shape {
  readonly B?: number;
  readonly H: number;
  readonly G: number;
  readonly Sq: number;
  readonly Skv: number;
  readonly D: number;
  readonly Dv?: number;
  readonly past?: number;
}

function tensorsOf({ B = 1, H, G, Sq, Skv, D, Dv = D, past }: Shape, seed: number, size = 1): AttentionCase {
  const { tensor } = generator(seed);
  const base = { q: tensor([B, H, Sq, D], size), k: tensor([B, G, Skv, D], size), v: tensor([B, G, Skv, Dv], size) };
  if (past === undefined) return base;
  return { ...base, pastK: tensor([B, G, past, D], size), pastV: tensor([B, G, past, Dv], size) };
}

const fileNames = {
  q: 'q',
  k: 'k',
  v: 'v',
  pastK: 'past_k',
  pastV: 'past_v',
  mask: 'mask',
  cos: 'cos',
  sin: 'sin',
  positionIds: 'position_ids',
} as const;
let files = 0;

/** Writes the tensors with their own types: masks as BOOL, positions as I64, the rest as F32. */
function store(request: AttentionCase): string {
  const header: Record<string, unknown> = {};
  const parts: Uint8Array[] = [];
  let end = 0;
  for (const [key, name] of Object.entries(fileNames)) {
    const tensor = request[key as keyof typeof fileNames] as (Values & { boolean?: boolean }) | undefined;
    if (!tensor) continue;
    const dtype = tensor.boolean ? 'BOOL' : key === 'positionIds' ? 'I64' : 'F32';
    const values = Array.from(tensor.data);
    const data =
      dtype === 'BOOL'
        ? Uint8Array.from(values)
        : dtype === 'I64'
          ? BigInt64Array.from(values, BigInt)
          : Float32Array.from(values);
    header[name] = { dtype, shape: tensor.shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
    parts.push(new Uint8Array(data.buffer));
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  files += 1;
  const path = join(folder, `${files}.safetensors`);
  writeFileSync(path, Buffer.concat([length, json, ...parts]));
  return path;
}

async function readResult(path: string) {
  const file = await openSafetensors(path);
  try {
    const read = async (name: string) => (await file.read(name)) as { shape: readonly number[]; data: Float32Array };
    return { out: await read('out'), k: await read('present_k'), v: await read('present_v') };
  } finally {
    await file.close();
  }
}

type Kernel = 'flash' | 'naive';

async function attend(
  request: AttentionCase,
  kernel: Kernel = 'flash',
  cacheDtype: CacheDtype = 'f32',
  backend = 'cpu',
) {
  const { causal, scale, softcap, windowLeft, windowRight, interleaved } = request;
  const given = { causal, scale, softcap, windowLeft, windowRight, interleavedRope: interleaved };
  const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const input = store(request);
  const output = input.replace('.safetensors', '.out');
  await profiler.attend(input, output, { ...options, kernel, cacheDtype, backend });
  return readResult(output);
}

/** f32 arithmetic over up to 4097 keys: the figure of the issue. */
const f32Tolerance = 2e-6;

async function expectExact(request: AttentionCase, kernel: Kernel = 'flash'): Promise<void> {
  const result = await attend(request, kernel);
  const cache = present(request);
  const { q, k, v, pastK } = request;
  const total = k.shape[2] + (pastK?.shape[2] ?? 0);
  expect(result.out.shape).toEqual([...q.shape.slice(0, 3), v.shape[3]]);
  expect(result.k.shape).toEqual([...k.shape.slice(0, 2), total, k.shape[3]]);
  expect(relativeL2(result.out.data, attention(request, cache))).toBeLessThanOrEqual(f32Tolerance);
  expect(relativeL2(result.k.data, cache.k)).toBeLessThanOrEqual(1e-7);
  expect(relativeL2(result.v.data, cache.v)).toBe(0);
}

function angles(positions: number, pairs: number) {
  const table = (f: (angle: number) => number) => ({
    shape: [positions, pairs],
    data: Float32Array.from({ length: positions * pairs }, (_, i) =>
      f(Math.floor(i / pairs) * 10000 ** (-(i % pairs) / pairs)),
    ),
  });
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

describe('shapes', () => {
  const shapes: [name: string, shape: Shape][] = [
    ['one of everything', { H: 1, G: 1, Sq: 1, Skv: 1, D: 1 }],
    ['an empty past', { H: 4, G: 2, Sq: 3, Skv: 3, D: 16, past: 0 }],
    ['a past', { B: 2, H: 4, G: 2, Sq: 3, Skv: 3, D: 16, past: 29 }],
    ['one query after a past', { B: 2, H: 8, G: 1, Sq: 1, Skv: 1, D: 64, past: 300 }],
    ['several queries after a past', { H: 8, G: 2, Sq: 5, Skv: 5, D: 64, past: 131 }],
    ['more queries than keys', { H: 2, G: 2, Sq: 9, Skv: 4, D: 8 }],
    ['fewer queries than keys', { H: 2, G: 1, Sq: 4, Skv: 70, D: 24 }],
    ['values wider than keys', { H: 4, G: 4, Sq: 17, Skv: 17, D: 24, Dv: 40 }],
    ['values narrower than keys', { H: 4, G: 2, Sq: 17, Skv: 17, D: 192, Dv: 128 }],
    ['values of one channel', { H: 2, G: 1, Sq: 6, Skv: 6, D: 32, Dv: 1 }],
    ['heads in threes', { H: 9, G: 3, Sq: 33, Skv: 33, D: 20 }],
    ['head size 256', { H: 2, G: 1, Sq: 65, Skv: 65, D: 256 }],
    ['1025 tokens', { H: 2, G: 1, Sq: 1025, Skv: 1025, D: 16 }],
    ['4097 keys', { H: 4, G: 2, Sq: 3, Skv: 4097, D: 64 }],
    ['4096 cached and one more', { H: 4, G: 1, Sq: 1, Skv: 1, D: 64, past: 4096 }],
  ];
  test.each(shapes)('%s', async (_, shape) => {
    for (const kernel of ['flash', 'naive'] as const) {
      for (const causal of [false, true]) await expectExact({ ...tensorsOf(shape, 1), causal }, kernel);
    }
  });

  test.each([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 80, 96, 127, 128, 129, 255])(
    'head size %i',
    async (D) => {
      await expectExact({ ...tensorsOf({ H: 3, G: 1, Sq: 7, Skv: 37, D }, D), causal: true });
    },
  );

  test.each([1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257, 511, 513, 2049])(
    '%i keys',
    async (Skv) => {
      await expectExact({ ...tensorsOf({ H: 4, G: 2, Sq: 2, Skv, D: 32 }, Skv), causal: true });
    },
  );
});

describe('masks and windows', () => {
  const shape: Shape = { B: 2, H: 4, G: 2, Sq: 20, Skv: 20, D: 32, past: 13 };
  const random = generator(5);
  const masks = [
    [33],
    [1, 33],
    [20, 33],
    [20, 1],
    [4, 20, 33],
    [4, 1, 33],
    [2, 4, 20, 33],
    [2, 1, 20, 33],
    [2, 1, 1, 33],
    [1, 4, 20, 1],
    [1],
  ];
  test.each(masks.map((mask) => [mask]))('mask %j', async (mask) => {
    const length = mask.reduce((a, b) => a * b, 1);
    const boolean = {
      shape: mask,
      data: Uint8Array.from({ length }, () => (random.uniform() < 0.7 ? 1 : 0)),
      boolean: true,
    };
    const additive = {
      shape: mask,
      data: Float32Array.from(boolean.data, (seen) => (seen ? random.uniform() * 4 - 2 : Number.NEGATIVE_INFINITY)),
      boolean: false,
    };
    for (const kernel of ['flash', 'naive'] as const) {
      await expectExact({ ...tensorsOf(shape, 2), mask: boolean }, kernel);
      await expectExact({ ...tensorsOf(shape, 2), mask: additive, causal: true }, kernel);
    }
  });

  test.each([
    [0, 0],
    [0, undefined],
    [3, 0],
    [7, 2],
    [64, 64],
    [undefined, 5],
    [200, undefined],
  ])('window left %s, right %s', async (left, right) => {
    const window = {
      ...(left === undefined ? {} : { windowLeft: left }),
      ...(right === undefined ? {} : { windowRight: right }),
    };
    for (const causal of [false, true]) {
      await expectExact({ ...tensorsOf({ H: 2, G: 1, Sq: 150, Skv: 150, D: 16 }, 3), ...window, causal });
      await expectExact({ ...tensorsOf(shape, 3), ...window, causal }, 'naive');
    }
  });

  test('a query that may see nothing gives zeros', async () => {
    const data = Uint8Array.from({ length: 20 * 33 }, (_, i) => (Math.floor(i / 33) % 3 === 0 ? 0 : 1));
    const blind = { ...tensorsOf(shape, 4), mask: { shape: [20, 33], data, boolean: true } };
    const additive = {
      shape: [20, 33],
      data: Float32Array.from(data, (seen) => (seen ? 0 : Number.NEGATIVE_INFINITY)),
      boolean: false,
    };
    for (const kernel of ['flash', 'naive'] as const) {
      for (const request of [blind, { ...blind, mask: additive }]) {
        const { out } = await attend(request, kernel);
        for (let row = 0; row < 2 * 4 * 20; row += 1) {
          const values = out.data.subarray(row * 32, row * 32 + 32);
          if ((row % 20) % 3 === 0) expect(values.every((value) => value === 0)).toBe(true);
        }
        await expectExact(request, kernel);
      }
    }
    const nothing = { shape: [1], data: Uint8Array.of(0), boolean: true };
    expect((await attend({ ...tensorsOf(shape, 4), mask: nothing })).out.data.every((value) => value === 0)).toBe(true);
  });

  test('causal rows before the first key see nothing', async () => {
    await expectExact({ ...tensorsOf({ H: 2, G: 1, Sq: 9, Skv: 4, D: 8 }, 6), causal: true });
  });
});

describe('scores', () => {
  const shape: Shape = { H: 4, G: 2, Sq: 40, Skv: 40, D: 48 };
  test.each([[0.01], [1], [-0.3], [3]])('scale %d', (scale) =>
    expectExact({ ...tensorsOf(shape, 7), scale, causal: true }),
  );
  test.each([[0.5], [5], [50], [1e4]])('softcap %d', (softcap) =>
    expectExact({ ...tensorsOf(shape, 8), softcap, causal: true }),
  );

  test.each([[1e4], [1e-6], [30]])('values of magnitude %d', async (size) => {
    for (const kernel of ['flash', 'naive'] as const) {
      await expectExact({ ...tensorsOf(shape, 9, size), causal: true }, kernel);
      await expectExact({ ...tensorsOf({ H: 4, G: 1, Sq: 1, Skv: 1, D: 64, past: 500 }, 9, size) }, kernel);
    }
  });
});

describe('rotary embedding', () => {
  test.each([
    [16, 8],
    [16, 3],
    [17, 8],
    [64, 32],
    [128, 16],
  ])('head size %i, %i pairs', async (D, pairs) => {
    const shape: Shape = { B: 2, H: 4, G: 2, Sq: 6, Skv: 6, D, past: 5 };
    const table = angles(40, pairs);
    const positionIds = { shape: [2, 6], data: Int32Array.from({ length: 12 }, (_, i) => (i * 7) % 40) };
    for (const interleaved of [false, true]) {
      await expectExact({ ...tensorsOf(shape, 10), ...table, interleaved, causal: true });
      await expectExact({ ...tensorsOf(shape, 10), ...table, interleaved, positionIds });
    }
  });

  test('of fewer queries than keys', () =>
    expectExact({ ...tensorsOf({ H: 2, G: 1, Sq: 3, Skv: 9, D: 16 }, 11), ...angles(9, 8), causal: true }));
});

describe('on a GPU, its kernels run on the CPU', () => {
  const shape: Shape = { B: 2, H: 6, G: 2, Sq: 9, Skv: 9, D: 24, Dv: 40, past: 70 };
  test.each([
    ['causal', { causal: true }],
    ['a window and a soft-cap', { windowLeft: 20, windowRight: 2, softcap: 3 }],
    ['rotated', { ...angles(90, 5), interleaved: true, causal: true }],
  ])('%s, f32', async (_, how) => {
    const request: AttentionCase = { ...tensorsOf(shape, 12), ...how };
    const { out, k, v } = await attend(request, 'flash', 'f32', 'cuda:0');
    const cache = present(request);
    expect(relativeL2(out.data, attention(request, cache))).toBeLessThan(3e-6);
    expect(relativeL2(k.data, cache.k)).toBeLessThanOrEqual(1e-7);
    expect(relativeL2(v.data, cache.v)).toBe(0);
  });

  test('queries before the first key give zeros', async () => {
    const request = { ...tensorsOf({ H: 2, G: 1, Sq: 9, Skv: 4, D: 8 }, 6), causal: true };
    const { out } = await attend(request, 'flash', 'f32', 'cuda:0');
    expect(relativeL2(out.data, attention(request, present(request)))).toBeLessThan(3e-6);
  });

  // What is cached is the CPU's, bit for bit; outputs of 16-bit queries differ from it by what those cost.
  test.each(cacheDtypes.filter((dtype) => dtype !== 'f32'))('a cache of %s', async (cacheDtype) => {
    const request = { ...tensorsOf({ B: 2, H: 8, G: 2, Sq: 5, Skv: 5, D: 64, past: 70 }, 13), causal: true };
    const [gpu, cpu] = [
      await attend(request, 'flash', cacheDtype, 'cuda:0'),
      await attend(request, 'flash', cacheDtype),
    ];
    expect(gpu.k.data).toEqual(cpu.k.data);
    expect(gpu.v.data).toEqual(cpu.v.data);
    expect(relativeL2(gpu.out.data, cpu.out.data)).toBeLessThan(cacheDtype === 'bf16' ? 8e-3 : 1e-3);
  });

  test('what it does not do is refused', async () => {
    const mask = { shape: [1], data: Uint8Array.of(1), boolean: true };
    await expect(attend({ ...tensorsOf(shape, 4), mask }, 'flash', 'f32', 'cuda:0')).rejects.toThrow(
      'masks run on the CPU only',
    );
    await expect(attend(tensorsOf({ ...shape, D: 3 }, 4), 'flash', 'f32', 'cuda:0')).rejects.toThrow(
      'expected heads of an even number of channels on a GPU but received 3',
    );
  });
});

describe('random combinations', () => {
  test.each(Array.from({ length: 40 }, (_, seed) => [seed]))('seed %i', async (seed) => {
    const { pick, uniform } = generator(1000 + seed);
    const G = pick([1, 1, 2, 3]);
    const Skv = pick([1, 2, 5, 17, 64, 100, 333]);
    const Sq = pick([1, Skv, Skv, Math.min(Skv, 7)]);
    const D = pick([1, 4, 6, 30, 64, 72, 128]);
    const past = pick([undefined, undefined, 0, 3, 77]);
    const shape: Shape = {
      B: pick([1, 2, 3]),
      H: G * pick([1, 2, 5, 8]),
      G,
      Sq,
      Skv,
      D,
      Dv: pick([D, D, 1, 12, 100]),
      ...(past === undefined ? {} : { past }),
    };
    const total = Skv + (past ?? 0);
    const maskShape = pick([undefined, undefined, [total], [Sq, total], [shape.H, 1, total]]);
    const mask = maskShape && {
      shape: maskShape,
      data: Uint8Array.from({ length: maskShape.reduce((a, b) => a * b, 1) }, () => (uniform() < 0.8 ? 1 : 0)),
      boolean: true,
    };
    const rope =
      D > 1 && uniform() < 0.4 ? { ...angles(total, pick([1, Math.floor(D / 2)])), interleaved: uniform() < 0.5 } : {};
    await expectExact(
      {
        ...tensorsOf(shape, seed, pick([1, 1, 1, 1e-6, 1e4])),
        ...(mask ? { mask } : {}),
        ...rope,
        causal: uniform() < 0.5,
        ...(uniform() < 0.3 ? { softcap: pick([1, 20]) } : {}),
        ...(uniform() < 0.3 ? { windowLeft: pick([0, 4, 50]) } : {}),
        ...(uniform() < 0.2 ? { windowRight: pick([0, 4]) } : {}),
      },
      pick(['flash', 'flash', 'naive']),
    );
  });
});

describe('lower types cost what rounding to them costs, at most twice', () => {
  /** Largest relative error of one rounding, relative to the tensor's norm: half a unit in the last place and some. */
  const roundingBounds: [dtype: CacheDtype, bound: number][] = [
    ['f16', 4e-4],
    ['bf16', 3e-3],
    ['fp8-e4m3', 4e-2],
    ['fp8-e5m2', 8e-2],
    ['int8', 1.5e-2],
    ['int4', 0.15],
  ];
  test.each(roundingBounds)('%s', async (dtype, bound) => {
    for (const [seed, shape] of (
      [
        { H: 4, G: 2, Sq: 33, Skv: 33, D: 64 },
        { B: 2, H: 8, G: 1, Sq: 1, Skv: 1, D: 128, past: 200 },
      ] as Shape[]
    ).entries()) {
      for (const kernel of ['flash', 'naive'] as const) {
        const request = { ...tensorsOf(shape, 20 + seed), causal: true };
        const exact = present(request);
        const { out, k, v } = await attend(request, kernel, dtype);
        expect(relativeL2(k.data, exact.k)).toBeLessThanOrEqual(bound);
        expect(relativeL2(v.data, exact.v)).toBeLessThanOrEqual(bound);
        const rounded = attention(request, { k: Float64Array.from(k.data), v: Float64Array.from(v.data) });
        const wanted = attention(request, exact);
        expect(relativeL2(out.data, wanted)).toBeLessThanOrEqual(2 * relativeL2(rounded, wanted) + f32Tolerance);
      }
    }
  });
});

test('the command itself: file in, file out, one line', async () => {
  const request = {
    ...tensorsOf({ H: 4, G: 2, Sq: 5, Skv: 5, D: 16, Dv: 8 }, 30),
    causal: true,
    softcap: 9,
    windowLeft: 2,
  };
  const input = store(request);
  const output = join(folder, 'command.safetensors');
  const options = ['--causal', '--softcap', '9', '--window-left', '2', '--kernel', 'naive'];
  const { code, stdout, stderr } = await runCli(['attend', '--in', input, '--out', output, ...options]);
  expect({ code, stdout, stderr }).toEqual({
    code: 0,
    stdout: `${output}: out [1, 4, 5, 8], present_k, present_v\n`,
    stderr: '',
  });
  expect(relativeL2((await readResult(output)).out.data, attention(request))).toBeLessThanOrEqual(f32Tolerance);
});
