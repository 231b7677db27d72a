/** S5: whatever bytes come, a parser answers soon, in little memory, and with an error of its own kind or none. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { callNames, calls } from '../../src-main/contract/calls.ts';
import { InputError } from '../../src-main/contract/input-error.ts';
import { resolveMeasuring } from '../../src-main/engine/plan.ts';
import { hostOf } from '../../src-main/fleet/hosts.ts';
import { jobSchema } from '../../src-main/fleet/queue.ts';
import { rowOf } from '../../src-main/fleet/run.ts';
import { shardNames } from '../../src-main/models/checkpoint.ts';
import { parseModelConfig } from '../../src-main/models/config.ts';
import { checkHeader } from '../../src-main/models/safetensors.ts';
import { type Json, parseStrictJson } from '../../src-main/models/strict-json.ts';
import * as remote from '../../src-main/remote/protocol.ts';
import { parseSession } from '../../src-main/sessions/recovery.ts';
import { encodeFrame, frameReader } from '../../src-main/worker/frames.ts';
import { replySchema } from '../../src-main/worker/protocol.ts';
import { measured, planOf } from '../fakes/points.ts';
import { wholeSession } from './damage.ts';
import { Chance, counted, grouped, longestTest, reached, tries } from './effort.ts';

const builtin = join(import.meta.dirname, '../../src-main/models/builtin');

/** Pieces that parsers trip over. */
const pieces = [
  ...['{', '}', '[', ']', ',', ':', '"', '\\', '\\u0000', '\\ud800', '""', '{}', '[]', 'null', 'true', ' ', '\n', '\0'],
  ...['0', '-1', '-0', '1e999', '1e-999', '0.5', '9007199254740993', '18446744073709551616', '4294967296', 'NaN', '00'],
  ...[
    '"__proto__"',
    '"constructor"',
    '"a":1,',
    '"kind":"header",',
    '"schemaVersion":99,',
    '"dtype"',
    '"F32"',
    '"shape"',
  ],
  ...['"data_offsets"', '"weight_map"', '\u202e', '\ufeff', 'é', '🙂', '['.repeat(50), '{"a":'.repeat(50)],
].map((piece) => Buffer.from(piece));

/** A document changed in a few places: bytes flipped, pieces put in, parts cut out, doubled or moved. */
function mutate(seed: Buffer, chance: Chance): Buffer {
  let bytes = Buffer.from(seed);
  for (let n = 1 + chance.below(4); n > 0; n -= 1) {
    const at = chance.below(bytes.length + 1);
    const end = Math.min(bytes.length, at + 1 + chance.below(chance.one([2, 20, 200])));
    const [head, part, tail] = [bytes.subarray(0, at), bytes.subarray(at, end), bytes.subarray(end)];
    const kind = chance.below(6);
    if (kind === 0 && at < bytes.length) bytes[at] ^= 1 << chance.below(8);
    if (kind === 1) bytes = Buffer.concat([head, chance.one(pieces), part, tail]);
    if (kind === 2) bytes = Buffer.concat([head, chance.one(pieces), tail]);
    if (kind === 3) bytes = Buffer.concat([head, tail]);
    if (kind === 4) bytes = Buffer.concat([head, part, part, tail]);
    if (kind === 5) bytes = Buffer.concat([tail, head]);
  }
  return bytes;
}

const longestMilliseconds = 1000;
const mostBytes = 256 * 2 ** 20;

interface Fuzzed {
  readonly runs: number;
  readonly accepted: number;
}

/** Runs a parser over mutants; `isTyped` says which errors are its own. @returns how many were tried, and how many it took */
function fuzz(
  seeds: readonly Buffer[],
  runs: number,
  parse: (bytes: Buffer) => unknown,
  isTyped: (error: unknown) => boolean = (error) => error instanceof InputError,
): Fuzzed {
  const chance = new Chance(5);
  const before = process.memoryUsage();
  let accepted = 0;
  let done = 0;
  for (const i of counted(runs)) {
    const bytes = mutate(chance.one(seeds), chance);
    const since = performance.now();
    try {
      parse(bytes);
      accepted += 1;
    } catch (error) {
      if (!isTyped(error)) throw new Error(`mutant ${i}: ${bytes.toString('base64')}`, { cause: error });
    }
    const took = performance.now() - since;
    if (took > longestMilliseconds && isSlowAgain(parse, bytes)) throw new Error(`mutant ${i} took ${took} ms`);
    done += 1;
    if (i % 1000 === 0) {
      const { heapUsed, external } = process.memoryUsage();
      expect(heapUsed + external - before.heapUsed - before.external).toBeLessThan(mostBytes);
    }
  }
  expect(accepted).toBeGreaterThan(0);
  return { runs: done, accepted };
}

/** A machine may pause for a second; a parser that does so twice is slow. */
function isSlowAgain(parse: (bytes: Buffer) => unknown, bytes: Buffer): boolean {
  const since = performance.now();
  try {
    parse(bytes);
  } catch {
    // It was typed the first time.
  }
  return performance.now() - since > longestMilliseconds;
}

const share = (percent: number): number => tries((1_000_000 * percent) / 100, (20_000_000 * percent) / 100);
const told = (what: string, { runs, accepted }: Fuzzed): string =>
  `S5  fuzz of ${what}: ${grouped(runs)} mutants, ${grouped(accepted)} accepted, 0 crashes, hangs, large or untyped errors`;

test('S5: config.json', { timeout: longestTest }, (context) => {
  const seeds = ['byte-mha', 'byte-mqa'].map((name) => readFileSync(join(builtin, name, 'config.json')));
  reached(
    context,
    told(
      'config.json',
      fuzz(seeds, share(20), (bytes) => parseModelConfig(bytes, 'config.json')),
    ),
  );
});

const tensors = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'F16', shape: [], data_offsets: [24, 26] },
  c: { dtype: 'I64', shape: [0, 7], data_offsets: [26, 26] },
  d: { dtype: 'U8', shape: [3], data_offsets: [26, 29] },
};
const dataLength = 29;

/** The rules of the format written down a second time, over plain JSON. Undefined where plain JSON cannot tell. */
function verdict(text: string): boolean | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return false;
  }
  // JSON.parse drops doubled keys, rounds and keeps forms that the strict reader refuses: then the two may differ.
  if (JSON.stringify(json) !== text) return undefined;
  if (/\\ud[89a-f]/.test(text)) return false; // half a surrogate: no valid UTF-8 can hold it
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return false;
  const bits: Record<string, number> = { F32: 32, F16: 16, BF16: 16, I64: 64, U8: 8, I8: 8, F64: 64, I32: 32, BOOL: 8 };
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  const spans: [number, number][] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') {
      if (value === null) continue;
      if (typeof value !== 'object' || Array.isArray(value)) return false;
      if (!Object.values(value as object).every((item) => typeof item === 'string')) return false;
      continue;
    }
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
    if (typeof dtype !== 'string' || !Array.isArray(shape) || !shape.every(isCount)) return false;
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[1] < offsets[0])
      return false;
    if (!Object.hasOwn(bits, dtype)) return undefined; // listed, not read
    const size = shape.reduce((product: number, count: number) => product * count, bits[dtype]);
    if (size !== (offsets[1] - offsets[0]) * 8) return false;
    spans.push([offsets[0], offsets[1]]);
  }
  spans.sort(([a, b], [c, d]) => a - c || b - d);
  let end = 0;
  for (const [from, to] of spans) {
    if (from !== end) return false;
    end = to;
  }
  return end === dataLength;
}

test('S5: the header of safetensors, with the verdict of its rules', { timeout: longestTest }, (context) => {
  let compared = 0;
  const parse = (bytes: Buffer): void => {
    const text = bytes.toString('utf8');
    const expected = verdict(text);
    let isGood = true;
    try {
      const header = parseStrictJson(text, 8);
      if (!(header instanceof Map)) throw new SyntaxError('no object');
      checkHeader(header as Map<string, Json>, dataLength, 'x');
    } catch (error) {
      isGood = false;
      throw error;
    } finally {
      if (expected !== undefined) {
        compared += 1;
        if (expected !== isGood) expect.fail(`the rules say ${expected} of ${text}`);
      }
    }
  };
  const isTyped = (error: unknown): boolean => error instanceof InputError || error instanceof SyntaxError;
  const fuzzed = fuzz([Buffer.from(JSON.stringify(tensors))], share(25), parse, isTyped);
  reached(context, `${told('safetensors headers', fuzzed)}; ${grouped(compared)} verdicts equal to the rules`);
});

test('S5: the index of safetensors, whose names stay plain names', { timeout: longestTest }, (context) => {
  const map = { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors', 'c.d': 'x.safetensors' };
  const seed = Buffer.from(JSON.stringify({ metadata: { total_size: 12 }, weight_map: map }));
  const parse = (bytes: Buffer): void => {
    for (const name of shardNames(bytes, 'x'))
      if (!/^[^./\\\0\n][^/\\\0\n]*\.safetensors$/.test(name)) expect.fail(`it opens ${JSON.stringify(name)}`);
  };
  reached(context, told('safetensors indexes', fuzz([seed], share(10), parse)));
});

test('S5: a session', { timeout: longestTest }, async (context) => {
  const points = await Promise.all(planOf('baseline').map(measured));
  const seed = wholeSession(points.map((point) => ({ ...point, samplesSeconds: [0.01] })));
  reached(
    context,
    told(
      'sessions',
      fuzz([seed], share(10), (bytes) => parseSession(bytes, 'x.fmqa')),
    ),
  );
});

test('S5: what windows ask', { timeout: longestTest }, (context) => {
  const sweep = {
    name: 's',
    axes: { level: ['baseline'], seqLen: [1, 2], zip: [true] },
    zip: [['level', 'seqLen']],
    measuring: { minSeconds: 1 },
  };
  const id = 'a'.repeat(32);
  const inputs = [
    ...[{}, { sweep }, { id }, { id, label: { name: 'x', tags: ['a'] } }, { id, format: 'csv' }, { pointId: 'p' }],
    ...[
      { before: id, after: id },
      { fileName: 'a.fmqa', base64: 'AAAA' },
    ],
  ].map((input) => Buffer.from(JSON.stringify(input)));
  let next = 0;
  const parse = (bytes: Buffer): void => {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    next = (next + 1) % callNames.length;
    if (!calls[callNames[next]].input.safeParse(value).success) throw new SyntaxError('refused');
  };
  reached(
    context,
    told(
      'web messages',
      fuzz(inputs, share(25), parse, (error) => error instanceof SyntaxError),
    ),
  );
});

test('S5: what a worker says', { timeout: longestTest }, (context) => {
  const seeds = [
    { id: 1, generation: 1, ok: true, value: Float64Array.of(1, 2, 3) },
    {
      id: 1,
      generation: 1,
      ok: true,
      value: { handle: 1, memory: { kvParts: { payloadBytes: 1 } }, list: [1, 'two'] },
    },
    { id: 1, generation: 1, ok: false, code: 'failed', message: 'x' },
  ].map((reply) => encodeFrame(reply));
  const parse = (bytes: Buffer): void => {
    let isReply = false;
    frameReader((message) => {
      isReply ||= replySchema.safeParse(message).success;
    })(bytes);
    if (!isReply) throw new SyntaxError('no reply');
  };
  reached(
    context,
    told(
      'worker messages',
      fuzz(seeds, share(10), parse, (error) => error instanceof SyntaxError),
    ),
  );
});

test('S5: what stands in the Redis of a fleet', { timeout: longestTest }, async (context) => {
  const [planned] = planOf('baseline');
  const point = await measured(planned);
  const job = { version: '1-x', run: 'r', point: planned, measuring: resolveMeasuring({ name: 'x', axes: {} }) };
  const host = { id: 'x', version: '1', host: 'h', device: 'd', backend: 'cpu', memoryBytes: 1, queues: ['q'] };
  const seeds = [point, job, { ...host, startedAt: '', done: 0, pointsPerMinute: 0 }];
  const parse = (bytes: Buffer): void => {
    const text = bytes.toString('utf8');
    const row = rowOf(planned, text);
    if (row.id !== planned.id || row.config !== planned.config) expect.fail(`a row of another point: ${text}`);
    const isRead = row.outcome === 'measured' || hostOf(text) !== undefined;
    if (!isRead && !jobSchema.safeParse(JSON.parse(text)).success) throw new SyntaxError('refused');
  };
  reached(
    context,
    told(
      'what a fleet keeps in Redis',
      fuzz(
        seeds.map((seed) => Buffer.from(JSON.stringify(seed))),
        share(5),
        parse,
        (error) => error instanceof SyntaxError,
      ),
    ),
  );
});

test('S5: what a remote agent and its clients say', { timeout: longestTest }, async (context) => {
  const run = '00000000-0000-4000-8000-000000000000';
  const [row] = await Promise.all(planOf('baseline').map(measured));
  const followed = { rows: [row], status: 'running', seen: 3, total: 9, rate: 1, etaSeconds: 2 };
  const seeds = [
    ...[
      { id: 1, call: 'hello', input: {} },
      { id: 2, call: 'follow', input: { run, from: 0, seen: -1 } },
    ],
    ...[
      { id: 3, call: 'steer', input: { run, verb: 'pause' } },
      { id: 4, call: 'acknowledge', input: { run } },
    ],
    { id: 5, call: 'start', input: { run, sweep: { name: 's', axes: { level: ['baseline'] } }, except: ['a'] } },
    ...[
      { id: 6, ok: true, value: followed },
      { id: 7, ok: false, message: 'x', subject: '--remote' },
    ],
  ].map((message) => encodeFrame(message));
  const parse = (bytes: Buffer): void => {
    let isUnderstood = false;
    const hear = frameReader((message) => {
      const [request, reply] = [remote.requestSchema.safeParse(message), remote.replySchema.safeParse(message)];
      if (request.success)
        isUnderstood ||= remote.agentCalls[request.data.call].input.safeParse(request.data.input).success;
      if (!reply.success) return;
      isUnderstood = true;
      if (reply.data.ok) for (const { output } of Object.values(remote.agentCalls)) output.safeParse(reply.data.value);
    }, remote.largestFrameBytes);
    hear(bytes);
    if (!isUnderstood) throw new SyntaxError('refused');
  };
  reached(
    context,
    told(
      'messages of remote agents',
      fuzz(seeds, share(5), parse, (error) => error instanceof SyntaxError),
    ),
  );
});
