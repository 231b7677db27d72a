import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { InputError } from '../../src-main/contract/input-error.ts';
import { encodeSafetensors, openSafetensors } from '../../src-main/models/safetensors.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;

function store(bytes: Uint8Array): string {
  files += 1;
  const path = join(folder, `${files}.safetensors`);
  writeFileSync(path, bytes);
  return path;
}

/** A file from its parts, nothing checked. `length`: what the file claims its header to be. */
function build(header: unknown, data: Uint8Array = new Uint8Array(0), length?: bigint): Uint8Array {
  const json = Buffer.isBuffer(header)
    ? header
    : Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([size, json, data]);
}

const tensor = (dtype: string, shape: number[], begin: number, end: number) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});
const bytes = (...values: number[]) => Uint8Array.from(values);
const zeros = (count: number) => new Uint8Array(count);

async function readAll(content: Uint8Array) {
  const file = await openSafetensors(store(content));
  try {
    const entries = [...file.tensors.values()].filter(({ supported }) => supported);
    const read = await Promise.all(entries.map(async ({ name }) => [name, await file.read(name)] as const));
    return { file, values: Object.fromEntries(read.map(([name, { data }]) => [name, [...data]])) };
  } finally {
    await file.close();
  }
}

describe('valid files', () => {
  test('without a tensor', async () => {
    expect((await readAll(build({}))).file.tensors.size).toBe(0);
  });

  test('the smallest, with metadata and padding', async () => {
    const header = `${JSON.stringify({ __metadata__: { format: 'pt' }, a: tensor('F32', [1], 0, 4) })}   `;
    const { file, values } = await readAll(build(header, new Uint8Array(Float32Array.of(1.5).buffer)));
    expect(values).toEqual({ a: [1.5] });
    expect(file.metadata).toEqual({ format: 'pt' });
  });

  test('a scalar, an empty tensor, and names in another order than data', async () => {
    const header = {
      late: tensor('U8', [2], 1, 3),
      empty: tensor('F32', [0, 5], 1, 1),
      scalar: tensor('U8', [], 0, 1),
    };
    expect((await readAll(build(header, bytes(7, 8, 9)))).values).toEqual({ late: [8, 9], empty: [], scalar: [7] });
  });

  test('a data section that is aligned to nothing', async () => {
    for (let padding = 0; padding < 8; padding += 1) {
      const header = JSON.stringify({ a: tensor('U8', [1], 0, 1), b: tensor('F64', [1], 1, 9) }) + ' '.repeat(padding);
      const data = Buffer.concat([bytes(3), new Uint8Array(Float64Array.of(-2.25).buffer)]);
      expect((await readAll(build(header, data))).values).toEqual({ a: [3], b: [-2.25] });
    }
  });

  test('an unknown type is listed and only refused when it is read', async () => {
    const header = { odd: tensor('Q9', [3], 0, 5), four: tensor('F4', [4], 5, 7), good: tensor('U8', [1], 7, 8) };
    const file = await openSafetensors(store(build(header, zeros(8))));
    expect([...file.tensors.values()].map(({ supported }) => supported)).toEqual([false, false, true]);
    await expect(file.read('odd')).rejects.toThrow(
      /^expected one of F32, .* for dtype of tensor "odd" in .* but received Q9$/,
    );
    await expect(file.read('none')).rejects.toThrow(
      /^expected one of "odd", "four", "good" for tensor in .* but received none$/,
    );
    await file.close();
  });

  test('what is written is read back, byte for byte', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.string({ minLength: 1 }), fc.array(fc.float(), { maxLength: 9 })),
        async (content) => {
          const names = Object.keys(content).filter((name) => name !== '__metadata__' && name !== '__proto__');
          const entries = names.map((name) => [
            name,
            { shape: [content[name].length], data: Float32Array.from(content[name]) },
          ]);
          const { values } = await readAll(encodeSafetensors(Object.fromEntries(entries)));
          for (const name of names) expect(values[name]).toEqual(content[name]);
          expect(Object.keys(values)).toHaveLength(names.length);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('types', () => {
  const decode = async (dtype: string, count: number, data: Uint8Array) =>
    (await readAll(build({ a: tensor(dtype, [count], 0, data.length) }, data))).values.a;
  const words = (...values: number[]) => new Uint8Array(Uint16Array.from(values).buffer);

  test.each([
    [
      'F16',
      8,
      words(0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x7c00, 0xfc00, 0x8000),
      [1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0],
    ],
    ['BF16', 3, words(0x3f80, 0xc040, 0x0001), [1, -3, 2 ** -133]],
    ['F8_E4M3', 6, bytes(0x38, 0xb8, 0x7e, 0x01, 0x08, 0x80), [1, -1, 448, 2 ** -9, 2 ** -6, -0]],
    [
      'F8_E5M2',
      6,
      bytes(0x3c, 0x7b, 0x01, 0x04, 0x7c, 0xfc),
      [1, 57344, 2 ** -16, 2 ** -14, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    ],
    ['F64', 2, new Uint8Array(Float64Array.of(0.5, 1e300).buffer), [0.5, Number.POSITIVE_INFINITY]],
    ['BOOL', 3, bytes(0, 1, 2), [0, 1, 1]],
    ['U8', 2, bytes(0, 255), [0, 255]],
    ['I32', 2, new Uint8Array(Int32Array.of(-5, 2 ** 31 - 1).buffer), [-5, 2 ** 31 - 1]],
    ['I64', 2, new Uint8Array(BigInt64Array.of(-7n, 12n).buffer), [-7, 12]],
  ] as const)('%s', async (dtype, count, data, values) => {
    expect(await decode(dtype, count, data)).toEqual(values);
  });

  test('not a number stays not a number', async () => {
    expect(await decode('F16', 2, words(0x7c01, 0xfe00))).toEqual([Number.NaN, Number.NaN]);
    expect(await decode('BF16', 1, words(0x7fc0))).toEqual([Number.NaN]);
    expect(await decode('F8_E4M3', 2, bytes(0x7f, 0xff))).toEqual([Number.NaN, Number.NaN]);
    expect(await decode('F8_E5M2', 3, bytes(0x7d, 0x7e, 0xff))).toEqual([Number.NaN, Number.NaN, Number.NaN]);
  });

  test('an I64 beyond 32 bits is refused', async () => {
    const large = new Uint8Array(BigInt64Array.of(2n ** 31n).buffer);
    await expect(decode('I64', 1, large)).rejects.toThrow(
      /^expected values that fit 32 bits for .* but received 2147483648$/,
    );
  });
});

const a = (dtype: string, shape: unknown, offsets: unknown) => ({ a: { dtype, shape, data_offsets: offsets } });
const refusals: [what: string, content: Uint8Array, message: RegExp][] = [
  ['an empty file', bytes(), /^expected at least 8 bytes for size of .* but received 0$/],
  [
    'a header near 2^64',
    build('{}', zeros(0), 2n ** 64n - 1n),
    /^expected a safetensors file, with a header of at most 16777216 bytes, for .* but received one that says it has 18446744073709551615$/,
  ],
  ['a header beyond the limit', build('{}', zeros(0), 100_000_001n), /says it has 100000001$/],
  [
    'a header beyond the file',
    build('{}', zeros(0), 3n),
    /^expected at most 2 bytes, what the file holds, for header of .* but received 3$/,
  ],
  ['a header of nothing', build(''), /^expected JSON that starts with \{ for header of .* but received ""$/],
  ['a header that starts with space', build(' {}'), /but received " "$/],
  ['a byte order mark', build('\ufeff{}'), /^expected JSON that starts with \{/],
  ['invalid UTF-8', build(Buffer.from([0x7b, 0xff, 0x7d])), /^expected valid UTF-8/],
  ['no JSON', build('{"a":'), /^expected valid JSON for header of .* but received no value at character 5$/],
  ['text after the JSON', build('{} x'), /something after the end at character 3$/],
  ['a control character', build('{"a\u0001":1}'), /no valid string at character 1$/],
  ['a string without end', build('{"a'), /a string that does not end/],
  ['half a surrogate', build('{"\\ud800":1}'), /no valid string|half a surrogate/],
  ['deep nesting', build(`{"a":${'['.repeat(2000)}`), /nesting deeper than 8/],
  ['a duplicate key', build('{"a":1,"a":1}'), /^expected valid JSON .* but received the key "a" twice/],
  ['a duplicate key in disguise', build('{"a":1,"\\u0061":1}'), /the key "a" twice/],
  [
    'a hole',
    build({ a: tensor('U8', [1], 0, 1), b: tensor('U8', [1], 2, 3) }, zeros(3)),
    /^expected 1, where the tensor before it ends, for begin of tensor "b" in .* but received 2$/,
  ],
  [
    'an overlap',
    build({ a: tensor('U8', [2], 0, 2), b: tensor('U8', [2], 1, 3) }, zeros(3)),
    /^expected 2, .* but received 1$/,
  ],
  ['a start behind the beginning', build({ a: tensor('U8', [1], 1, 2) }, zeros(2)), /^expected 0, .* but received 1$/],
  [
    'bytes at the end',
    build({ a: tensor('U8', [1], 0, 1) }, zeros(2)),
    /^expected 1 bytes of data, as the header says, for .* but received 2$/,
  ],
  ['too little data', build({ a: tensor('U8', [9], 0, 9) }, zeros(2)), /^expected 9 bytes of data, .* but received 2$/],
  [
    'a wrong byte count',
    build({ a: tensor('F32', [2], 0, 4) }, zeros(4)),
    /^expected 8 bytes, as dtype and shape say, for data of tensor "a" in .* but received 4$/,
  ],
  ['bits that fill no byte', build({ a: tensor('F4', [3], 0, 2) }, zeros(2)), /^expected 1.5 bytes/],
  [
    'a shape that overflows',
    build({ a: tensor('F32', [2 ** 40, 2 ** 40], 0, 4) }, zeros(4)),
    /^expected a size below 2\^53 bits/,
  ],
  [
    'an overflow hidden by a zero',
    build({ a: tensor('F32', [2 ** 40, 2 ** 40, 0], 0, 0) }),
    /^expected a size below 2\^53 bits/,
  ],
  [
    'offsets that fall',
    build({ a: tensor('U8', [1], 1, 0) }, zeros(1)),
    /^expected two rising whole numbers for data_offsets of tensor "a" in .* but received \[1, 0\]$/,
  ],
  ['three offsets', build(a('U8', [1], [0, 1, 2]), zeros(1)), /but received \[0, 1, 2\]$/],
  [
    'a negative size',
    build(a('U8', [-1], [0, 1]), zeros(1)),
    /^expected a list of whole numbers for shape of tensor "a" in .* but received \[-1\]$/,
  ],
  ['a fraction', build('{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', zeros(1)), /but received \[1.0\]$/],
  ['an exponent', build('{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', zeros(1)), /but received \[1e0\]$/],
  [
    'a number beyond 2^53',
    build('{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}', zeros(1)),
    /but received \[9007199254740993\]$/,
  ],
  [
    'no dtype',
    build(a(undefined as never, [1], [0, 1]), zeros(1)),
    /^expected a string for dtype of tensor "a" in .* but received nothing$/,
  ],
  ['a tensor that is none', build({ a: 'b' }), /^expected an object for tensor "a" in .* but received "b"$/],
  [
    'metadata that is no text',
    build({ __metadata__: { a: 1 } }),
    /^expected names with strings for __metadata__ of .* but received an object$/,
  ],
  [
    '100,001 tensors',
    build(Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [i, tensor('U8', [0], 0, 0)]))),
    /^expected at most 100000 tensors for .* but received 100001$/,
  ],
  [
    'a name that is not to be shown as it is',
    build({ '\u001b[2J\n../x': 'b' }),
    /^expected an object for tensor "\\u001b\[2J\\n..\/x" in /,
  ],
];

describe('refused, in one sentence', () => {
  test.each(refusals)('%s', async (_, content, message) => {
    const error = await readAll(content).then(
      () => expect.fail('it was read'),
      (cause: unknown) => cause as Error,
    );
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain('\n');
  });

  test('a folder, a missing file and a named pipe', async () => {
    await expect(openSafetensors(folder)).rejects.toThrow(
      /^expected a (regular|readable) file for safetensors but received/,
    );
    await expect(openSafetensors(join(folder, 'none'))).rejects.toThrow(/\(ENOENT\)$/);
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    await expect(openSafetensors(pipe)).rejects.toThrow(/^expected a regular file/);
  });

  test('whatever bytes come, no other error and no long wait', async () => {
    const valid = build(
      { a: tensor('F32', [2], 0, 8), b: tensor('U8', [3], 8, 11), __metadata__: { x: 'y' } },
      zeros(11),
    );
    const flip = fc.tuple(fc.nat(valid.length - 1), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(fc.array(flip, { minLength: 1, maxLength: 4 }), fc.nat(valid.length), async (flips, keep) => {
        const mutated = Uint8Array.from(valid.subarray(0, keep === 0 ? valid.length : keep));
        for (const [at, value] of flips) if (at < mutated.length) mutated[at] = value;
        await readAll(mutated).catch((error: unknown) => expect(error).toBeInstanceOf(InputError));
      }),
      { numRuns: 500 },
    );
  });

  test.each([
    ['one endless string', `{"${'x'.repeat(16_000_000)}`],
    ['one endless number', `{"a":${'1'.repeat(16_000_000)}`],
    ['backslashes only', `{"${'\\'.repeat(16_000_000)}`],
    ['a long list', `{"a":[${'1,'.repeat(5_000_000)}1]}`],
  ])('%s in a header of 16 MB', async (_, header) => {
    const since = process.cpuUsage(); // time of ours: the machine may be busy with other things
    await expect(readAll(build(header))).rejects.toBeInstanceOf(InputError);
    expect(process.cpuUsage(since).user / 1e6).toBeLessThan(5);
  });
});
