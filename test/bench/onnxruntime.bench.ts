/**
 * Our attention beside onnxruntime's, at the same shapes and with the same number of threads, in turns:
 * `npm run bench:onnxruntime [-- TOKENS [CASE]]`. Prints medians and their ratio, twice: with caches that something else has
 * filled before every step, as the other layers of a model would, and with those that the step before has left. "at most" is
 * what the ratio would be if ours ran at the ceilings read in the same rounds. onnxruntime is given its best form of each
 * shape: GroupQueryAttention, which appends to a cache, and MultiHeadAttention over keys and values as they are, with the query
 * heads of a KV head as its rows in decode.
 */
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

interface OnnxTensor {
  readonly dims: readonly number[];
  dispose?(): void;
}
interface OnnxSession {
  run(feeds: Record<string, OnnxTensor>): Promise<Record<string, OnnxTensor>>;
  release(): Promise<void>;
}
interface Onnx {
  readonly Tensor: new (
    type: 'float32' | 'int32',
    data: Float32Array | Int32Array,
    dims: readonly number[],
  ) => OnnxTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options: { intraOpNumThreads: number }): Promise<OnnxSession>;
  };
}
interface Ours {
  bench(options: { only: string; decodeTokens: number; secondsPerCase: number; warm: boolean }): Promise<
    readonly {
      medianSeconds: number;
      flops: number;
      bytes: number;
      fmaFlopsPerSecond: number;
      readBytesPerSecond: number;
    }[]
  >;
  close(): Promise<void>;
}
interface Shape {
  readonly name: string;
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly tokens: number;
  readonly queries: number;
}

const compose = join(import.meta.dirname, '../../dist/src-main/hosts/compose.js');
const onnx: Onnx = createRequire(join(import.meta.dirname, 'onnxruntime/package.json'))('onnxruntime-node');
const { createProfiler }: { createProfiler(): Ours } = await import(/* @vite-ignore */ compose);

const decodeTokens = Number(process.argv[3] ?? 8192);
const rounds = 5;
const secondsPerRound = 0.4;
const decode = { batch: 4, heads: 32, tokens: decodeTokens, queries: 1 };
const shapes: readonly Shape[] = [
  { name: 'prefill P1 f32', batch: 1, heads: 32, kvHeads: 32, headDim: 64, tokens: 1024, queries: 1024 },
  { name: 'prefill P2 f32', batch: 1, heads: 32, kvHeads: 1, headDim: 64, tokens: 1024, queries: 1024 },
  { name: 'prefill P3 f32', batch: 1, heads: 32, kvHeads: 8, headDim: 128, tokens: 2048, queries: 2048 },
  { name: 'decode D1 f32', ...decode, kvHeads: 32, headDim: 64 },
  { name: 'decode D2 f32', ...decode, kvHeads: 1, headDim: 64 },
  { name: 'decode D3 f32', ...decode, kvHeads: 8, headDim: 128 },
];

/** A model of one operator, in the few fields of the ONNX format that it needs. */
const varint = (n: number): number[] => (n < 128 ? [n] : [(n & 127) | 128, ...varint(Math.floor(n / 128))]);
const whole = (field: number, n: number): number[] => [...varint(field * 8), ...varint(n)];
const part = (field: number, bytes: readonly number[]): number[] => [
  ...varint(field * 8 + 2),
  ...varint(bytes.length),
  ...bytes,
];
const text = (field: number, value: string): number[] => part(field, [...Buffer.from(value)]);
const attribute = (name: string, value: number): number[] =>
  part(5, [...text(1, name), ...whole(3, value), ...whole(20, 2)]);
const valueInfo = (field: number, name: string, type: number): number[] =>
  part(field, [...text(1, name), ...part(2, part(1, whole(1, type)))]);

/** `inputs` by place; an empty name is an input left out. `integers` are those of type int32. */
function modelOf(
  operator: string,
  attributes: Record<string, number>,
  inputs: readonly string[],
  outputs: readonly string[],
  integers: readonly string[] = [],
): Uint8Array {
  const node = [
    ...inputs.flatMap((name) => text(1, name)),
    ...outputs.flatMap((name) => text(2, name)),
    ...text(4, operator),
    ...Object.entries(attributes).flatMap(([name, value]) => attribute(name, value)),
    ...text(7, 'com.microsoft'),
  ];
  const graph = [
    ...part(1, node),
    ...text(2, operator),
    ...inputs.filter((name) => name !== '').flatMap((name) => valueInfo(11, name, integers.includes(name) ? 6 : 1)),
    ...outputs.flatMap((name) => valueInfo(12, name, 1)),
  ];
  const opsets = [part(8, [...text(1, ''), ...whole(2, 17)]), part(8, [...text(1, 'com.microsoft'), ...whole(2, 1)])];
  return Uint8Array.from([...whole(1, 8), ...part(7, graph), ...opsets.flat()]);
}

/** Deterministic numbers of about unit size. */
function numbers(...dims: readonly number[]): OnnxTensor {
  const data = new Float32Array(dims.reduce((a, b) => a * b));
  let state = 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    data[i] = state / 2 ** 30;
  }
  return new onnx.Tensor('float32', data, dims);
}

interface Peer {
  readonly session: OnnxSession;
  readonly feeds: Record<string, OnnxTensor>;
}
const sessionOptions = { intraOpNumThreads: availableParallelism() };

async function groupQueryAttention(shape: Shape): Promise<Peer> {
  const { batch: B, heads: H, kvHeads: G, headDim: D, tokens: S, queries: Q } = shape;
  const past = S - Q;
  const cache = ['past_key', 'past_value'];
  const integers = ['seqlens_k', 'total_sequence_length'];
  const model = modelOf(
    'GroupQueryAttention',
    { num_heads: H, kv_num_heads: G },
    ['query', 'key', 'value', ...(past > 0 ? cache : ['', '']), ...integers],
    ['output', 'present_key', 'present_value'],
    integers,
  );
  return {
    session: await onnx.InferenceSession.create(model, sessionOptions),
    feeds: {
      query: numbers(B, Q, H * D),
      key: numbers(B, Q, G * D),
      value: numbers(B, Q, G * D),
      ...(past > 0 ? { past_key: numbers(B, G, past, D), past_value: numbers(B, G, past, D) } : {}),
      seqlens_k: new onnx.Tensor('int32', new Int32Array(B).fill(S - 1), [B]),
      total_sequence_length: new onnx.Tensor('int32', new Int32Array([S]), [1]),
    },
  };
}

/** Prefill: causal, as many KV heads as heads. Decode: the heads of a group are rows of one head, all see all. */
async function multiHeadAttention(shape: Shape): Promise<Peer | undefined> {
  const { batch: B, heads: H, kvHeads: G, headDim: D, tokens: S, queries: Q } = shape;
  if (Q > 1 && G < H) return undefined;
  const model = modelOf(
    'MultiHeadAttention',
    { num_heads: G, unidirectional: Q > 1 ? 1 : 0 },
    ['query', 'key', 'value'],
    ['output'],
  );
  const rows = Q > 1 ? Q : H / G;
  return {
    session: await onnx.InferenceSession.create(model, sessionOptions),
    feeds: { query: numbers(B, rows, G * D), key: numbers(B, G, S, D), value: numbers(B, G, S, D) },
  };
}

const [left, right] = [Buffer.alloc(2 ** 26, 1), Buffer.alloc(2 ** 26, 1)];
/** Reads 128 MiB: more than the last-level caches of most machines, and what our own bench reads between its samples. */
const emptyCaches = (): number => Buffer.compare(left, right);

async function secondsOf({ session, feeds }: Peer, warm: boolean): Promise<number[]> {
  const seconds: number[] = [];
  const start = performance.now();
  while (seconds.length < 2 || performance.now() - start < secondsPerRound * 1000) {
    if (!warm) emptyCaches();
    const before = performance.now();
    const outputs = await session.run(feeds);
    seconds.push((performance.now() - before) / 1000);
    for (const tensor of Object.values(outputs)) tensor.dispose?.();
  }
  return seconds;
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const milliseconds = (seconds: number): string => (seconds * 1000).toFixed(1).padStart(9);

const ours = createProfiler();
const only = process.argv[4] ?? '';
console.log(
  `${'case'.padEnd(16)}${'caches'.padEnd(7)}${'ours ms'.padStart(9)}${'GQA ms'.padStart(9)}${'MHA ms'.padStart(9)}  of the ceiling: ours, peer  ours faster by, at most`,
);
for (const shape of shapes.filter(({ name }) => name.includes(only))) {
  const peers = [await groupQueryAttention(shape), await multiHeadAttention(shape)];
  for (const peer of peers) if (peer) await secondsOf(peer, true); // warm-up
  for (const warm of [false, true]) {
    const times: number[][] = [[], []];
    const mine: number[] = [];
    const floors: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const asked = { only: shape.name, decodeTokens, secondsPerCase: secondsPerRound, warm };
      const [{ medianSeconds, flops, bytes, fmaFlopsPerSecond, readBytesPerSecond }] = await ours.bench(asked);
      mine.push(medianSeconds);
      floors.push(Math.max(flops / fmaFlopsPerSecond, warm ? 0 : bytes / readBytesPerSecond));
      for (const [i, peer] of peers.entries()) if (peer) times[i].push(...(await secondsOf(peer, warm)));
    }
    const best = Math.min(...times.filter((list) => list.length > 0).map(median));
    const [our, floor] = [median(mine), median(floors)];
    console.log(
      shape.name.padEnd(16) +
        (warm ? 'warm' : 'cold').padEnd(7) +
        milliseconds(our) +
        times.map((list) => (list.length > 0 ? milliseconds(median(list)) : '-'.padStart(9))).join('') +
        `${(floor / our).toFixed(2).padStart(23)}${(floor / best).toFixed(2).padStart(6)}` +
        `${(best / our).toFixed(2).padStart(15)}x${(best / floor).toFixed(2).padStart(8)}x`,
    );
  }
  for (const peer of peers) await peer?.session.release();
}
await ours.close();
