/**
 * Reads and writes safetensors files: `[u64 N][N bytes of JSON][data]`, little-endian, offsets relative to the data
 * (attention-spec F.1). A file is somebody else's: every claim in it is checked before memory is taken for it.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { endianness } from 'node:os';
import { expected } from '../contract/input-error.ts';
import { type Json, parseStrictJson } from './strict-json.ts';

/** Bits of an element, after the reference reader. */
const dtypeBits: Readonly<Record<string, number>> = {
  ...{ F4: 4, F6_E2M3: 6, F6_E3M2: 6 },
  ...{ BOOL: 8, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8 },
  ...{ I16: 16, U16: 16, F16: 16, BF16: 16 },
  ...{ I32: 32, U32: 32, F32: 32 },
  ...{ I64: 64, U64: 64, F64: 64, C64: 64 },
};

export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** In the data section, end exclusive. */
  readonly begin: number;
  readonly end: number;
  /** false: listed, but its type cannot be read here. */
  readonly supported: boolean;
}

/** Row-major; booleans and U8 as bytes, whole numbers as i32, every float as f32. */
export interface TensorData<Data = Float32Array | Uint8Array | Int32Array> {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Data;
}

export interface Safetensors {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the data section in the file. */
  readonly dataStart: number;
  /** @throws InputError for a tensor that is missing, of an unsupported type, or whose values do not fit. */
  read(name: string): Promise<TensorData>;
  close(): Promise<void>;
}

/** The format allows 100 MB; such a header takes seconds and a gigabyte to parse, and no real one comes near. */
const largestHeader = 16 * 2 ** 20;
const mostTensors = 100_000;
const deepestNesting = 8;

/** @throws InputError `expected … for … but received …` for a file that is unreadable or breaks a rule of the format. */
export async function openSafetensors(path: string): Promise<Safetensors> {
  const file = await openRegularFile(path);
  try {
    const { size } = await file.stat();
    const { tensors, metadata, dataStart } = await readHeader(file, size, path);
    return {
      tensors,
      metadata,
      dataStart,
      read: async (name) => {
        const entry = tensors.get(name);
        if (!entry) throw expected(`one of ${listed([...tensors.keys()])}`, `tensor in ${path}`, name);
        const label = `tensor ${quoted(name)} in ${path}`;
        if (!entry.supported)
          throw expected(`one of ${Object.keys(decoders).join(', ')}`, `dtype of ${label}`, entry.dtype);
        const bytes = await readExactly(file, entry.end - entry.begin, dataStart + entry.begin, label);
        if (endianness() === 'BE') swap(bytes, dtypeBits[entry.dtype]);
        return { dtype: entry.dtype, shape: entry.shape, data: decoders[entry.dtype](bytes, label) };
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openRegularFile(path: string): Promise<FileHandle> {
  // Without O_NONBLOCK, opening a named pipe waits for a writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    throw expected('a readable file', 'safetensors', `${path} (${error.code})`);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw expected('a regular file', 'safetensors', path);
}

async function readHeader(file: FileHandle, size: number, path: string) {
  if (size < 8) throw expected('at least 8 bytes', `size of ${path}`, size);
  const lengthBytes = await readExactly(file, 8, 0, path);
  const declared = lengthBytes.readBigUInt64LE();
  if (declared > BigInt(largestHeader))
    throw expected(
      `a safetensors file, with a header of at most ${largestHeader} bytes,`,
      path,
      `one that says it has ${declared}`,
    );
  const length = Number(declared);
  if (8 + length > size) throw expected(`at most ${size - 8} bytes, what the file holds,`, `header of ${path}`, length);
  const text = decodeUtf8(await readExactly(file, length, 8, path), path);
  if (!text.startsWith('{')) throw expected('JSON that starts with {', `header of ${path}`, quoted(text.slice(0, 1)));
  return { ...checkHeader(parseHeader(text, path), size - 8 - length, path), dataStart: 8 + length };
}

function decodeUtf8(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw expected('valid UTF-8', `header of ${path}`, 'other bytes');
  }
}

function parseHeader(text: string, path: string): Map<string, Json> {
  try {
    return parseStrictJson(text, deepestNesting) as Map<string, Json>;
  } catch (error) {
    if (error instanceof SyntaxError) throw expected('valid JSON', `header of ${path}`, error.message);
    throw error;
  }
}

/** @param dataLength bytes of the data section, which the tensors must cover without hole or overlap */
export function checkHeader(header: ReadonlyMap<string, Json>, dataLength: number, path: string) {
  const entries = [...header].filter(([name]) => name !== '__metadata__');
  if (entries.length > mostTensors) throw expected(`at most ${mostTensors} tensors`, path, entries.length);
  const tensors = entries.map(([name, value]) => checkEntry(name, value, path));
  let end = 0;
  for (const tensor of [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    const label = `begin of tensor ${quoted(tensor.name)} in ${path}`;
    if (tensor.begin !== end) throw expected(`${end}, where the tensor before it ends,`, label, tensor.begin);
    end = tensor.end;
  }
  if (end !== dataLength) throw expected(`${end} bytes of data, as the header says,`, path, dataLength);
  return {
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])),
    metadata: checkMetadata(header.get('__metadata__'), path),
  };
}

function checkMetadata(value: Json | undefined, path: string): Record<string, string> {
  if (value === undefined || value === null) return {};
  const isText = value instanceof Map && [...value.values()].every((item) => typeof item === 'string');
  if (!isText) throw expected('names with strings', `__metadata__ of ${path}`, described(value));
  return Object.fromEntries(value) as Record<string, string>;
}

function checkEntry(name: string, value: Json, path: string): TensorEntry {
  const label = `tensor ${quoted(name)} in ${path}`;
  if (!(value instanceof Map)) throw expected('an object', label, described(value));
  const [dtype, shape, offsets] = [value.get('dtype'), value.get('shape'), value.get('data_offsets')];
  if (typeof dtype !== 'string') throw expected('a string', `dtype of ${label}`, described(dtype));
  if (!isCounts(shape)) throw expected('a list of whole numbers', `shape of ${label}`, described(shape));
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[1] < offsets[0])
    throw expected('two rising whole numbers', `data_offsets of ${label}`, described(offsets));
  const [begin, end] = offsets;
  const bits = Object.hasOwn(dtypeBits, dtype) ? dtypeBits[dtype] : undefined;
  if (bits !== undefined) {
    const wanted = bitsOf(shape, bits);
    if (wanted === undefined) throw expected('a size below 2^53 bits', `shape of ${label}`, described(shape));
    if (wanted !== (end - begin) * 8)
      throw expected(`${wanted / 8} bytes, as dtype and shape say,`, `data of ${label}`, end - begin);
  }
  return { name, dtype, shape, begin, end, supported: Object.hasOwn(decoders, dtype) };
}

const isCounts = (value: Json | undefined): value is number[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'number');

/** Undefined on overflow. */
function bitsOf(shape: readonly number[], bits: number): number | undefined {
  let total = bits;
  for (const size of shape) {
    total *= size;
    if (!Number.isSafeInteger(total)) return undefined;
  }
  return total;
}

async function readExactly(file: FileHandle, length: number, position: number, label: string): Promise<Buffer> {
  // Of its own, so that typed arrays may be laid over it; not zeroed, since every byte is read or the reading fails.
  const bytes = Buffer.allocUnsafeSlow(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, position + done);
    if (bytesRead === 0) throw expected(`${length} bytes`, label, `${done}: the file became shorter`);
    done += bytesRead;
  }
  return bytes;
}

function swap(bytes: Buffer, bits: number): void {
  if (bits === 16) bytes.swap16();
  if (bits === 32) bytes.swap32();
  if (bits === 64) bytes.swap64();
}

/** @param exponentBits of the format; the rest but the sign is mantissa. `finite`: E4M3FN, which has no infinity. */
function smallFloat(code: number, bits: number, exponentBits: number, finite = false): number {
  const mantissaBits = bits - 1 - exponentBits;
  const sign = code >> (bits - 1) ? -1 : 1;
  const exponent = (code >> mantissaBits) & ((1 << exponentBits) - 1);
  const fraction = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
  const bias = (1 << (exponentBits - 1)) - 1;
  const last = (1 << exponentBits) - 1;
  if (exponent === last && finite && fraction === 1 - 1 / (1 << mantissaBits)) return Number.NaN;
  if (exponent === last && !finite) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** Every code's value, computed when first asked for. */
function codebook(bits: number, exponentBits: number, finite = false): () => Float32Array {
  let values: Float32Array | undefined;
  return () => {
    values ??= Float32Array.from({ length: 1 << bits }, (_, code) => smallFloat(code, bits, exponentBits, finite));
    return values;
  };
}

const over = <View>(
  type: new (buffer: ArrayBuffer, offset: number, length: number) => View,
  bytes: Buffer,
  size: number,
) => new type(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength / size);

function lookUp(codes: Uint8Array | Uint16Array, values: Float32Array): Float32Array {
  const result = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i += 1) result[i] = values[codes[i]];
  return result;
}

const f16 = codebook(16, 5);
const e4m3 = codebook(8, 4, true);
const e5m2 = codebook(8, 5);

const decoders: Readonly<Record<string, (bytes: Buffer, label: string) => TensorData['data']>> = {
  F32: (bytes) => over(Float32Array, bytes, 4),
  F64: (bytes) => new Float32Array(over(Float64Array, bytes, 8)),
  F16: (bytes) => lookUp(over(Uint16Array, bytes, 2), f16()),
  BF16: (bytes) => {
    const bits = new Uint32Array(over(Uint16Array, bytes, 2));
    for (let i = 0; i < bits.length; i += 1) bits[i] <<= 16;
    return new Float32Array(bits.buffer);
  },
  F8_E4M3: (bytes) => lookUp(bytes, e4m3()),
  F8_E5M2: (bytes) => lookUp(bytes, e5m2()),
  BOOL: (bytes) => Uint8Array.from(bytes, (byte) => (byte === 0 ? 0 : 1)),
  U8: (bytes) => over(Uint8Array, bytes, 1),
  I32: (bytes) => over(Int32Array, bytes, 4),
  I64: (bytes, label) =>
    Int32Array.from(over(BigInt64Array, bytes, 8), (value) => {
      if (BigInt.asIntN(32, value) !== value) throw expected('values that fit 32 bits', label, value);
      return Number(value);
    }),
};

export type FloatTensor = TensorData<Float32Array>;

/** The bytes of a file with these tensors as F32, in the order given; the data section is aligned to 8 bytes. */
export function encodeSafetensors(tensors: Readonly<Record<string, Pick<FloatTensor, 'shape' | 'data'>>>): Uint8Array {
  let end = 0;
  const header = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => {
      const begin = end;
      end += data.byteLength;
      return [name, { dtype: 'F32', shape, data_offsets: [begin, end] }];
    }),
  );
  const json = Buffer.from(JSON.stringify(header));
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + length + end, ' ');
  bytes.writeBigUInt64LE(BigInt(length));
  json.copy(bytes, 8);
  let position = 8 + length;
  for (const { data } of Object.values(tensors)) {
    const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    raw.copy(bytes, position);
    if (endianness() === 'BE') bytes.subarray(position, position + raw.length).swap32();
    position += raw.length;
  }
  return bytes;
}

/** Names come from the file: escaped and shortened before anyone reads them. */
const quoted = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
const listed = (names: readonly string[]): string =>
  names.length === 0 ? 'no tensor' : names.slice(0, 10).map(quoted).join(', ') + (names.length > 10 ? ', …' : '');

function described(value: Json | undefined): string {
  if (value === undefined) return 'nothing';
  if (value instanceof Map) return 'an object';
  if (Array.isArray(value)) {
    const items = value.slice(0, 8).map((item) => (Array.isArray(item) || item instanceof Map ? '…' : String(item)));
    return `[${items.join(', ')}${value.length > 8 ? ', …' : ''}]`;
  }
  return typeof value === 'string' ? quoted(value) : String(value);
}
