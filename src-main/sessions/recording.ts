/**
 * A session file, `*.fmqa`: one record a line, `<crc32 of the JSON, 8 hex digits> <JSON>\n`, the header first.
 * A record whose promise has resolved survives a crash of the program and of the machine.
 */
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { expected } from '../contract/input-error.ts';
import type { SessionHeader, SessionRecord } from '../contract/session.ts';
import { AppendFile, type FileSystem, fileError, nodeFileSystem } from './storage.ts';

export interface Recording {
  readonly path: string;
  /** Resolves when the record is durable. */
  append(record: SessionRecord): Promise<void>;
  close(): Promise<void>;
}

export const checksum = (json: Uint8Array): string => crc32(json).toString(16).padStart(8, '0');

/**
 * One line of a session.
 * @throws TypeError for a value that JSON would change in silence: NaN, infinity, a hole or undefined in a list, bigint, function.
 */
export function encodeRecord(record: SessionRecord): Uint8Array {
  const json = Buffer.from(JSON.stringify(record, refuseLossy));
  return Buffer.concat([Buffer.from(`${checksum(json)} `), json, Buffer.from('\n')]);
}

function refuseLossy(this: unknown, key: string, value: unknown): unknown {
  const lossy =
    (typeof value === 'number' && !Number.isFinite(value)) ||
    typeof value === 'bigint' ||
    typeof value === 'function' ||
    typeof value === 'symbol' ||
    (value === undefined && Array.isArray(this));
  if (lossy) throw new TypeError(`expected a value that JSON can hold for ${key} but received ${String(value)}`);
  return value;
}

/**
 * Begins a session file; the header and the file's name are durable on return.
 * @throws InputError where the file exists or cannot be written.
 */
export async function createRecording(
  path: string,
  header: SessionHeader,
  fileSystem: FileSystem = nodeFileSystem,
): Promise<Recording> {
  const line = encodeRecord(header);
  const file = await fileSystem.open(path, 'create').catch((error: unknown) => {
    const exists = error instanceof Error && 'code' in error && error.code === 'EEXIST';
    throw exists
      ? expected('a new file', 'session', `${path}, which exists; --resume continues a sweep`)
      : fileError('write', path, error);
  });
  const output = new AppendFile(path, file, 0);
  try {
    await output.append(line);
    await fileSystem.syncFolder(dirname(path));
  } catch (error) {
    await output.close().catch(() => undefined);
    await fileSystem.remove(path).catch(() => undefined);
    throw fileError('write', path, error);
  }
  return recordTo(path, output);
}

/**
 * Adds one record to a session that nobody records. What stands there stays as it is: a torn last line gets a line end, and
 * remains set aside.
 * @throws InputError where the file cannot be written.
 */
export async function appendRecord(
  path: string,
  record: SessionRecord,
  fileSystem: FileSystem = nodeFileSystem,
): Promise<void> {
  const line = encodeRecord(record);
  const file = await fileSystem.open(path, 'update').catch((error: unknown) => {
    throw fileError('write', path, error);
  });
  try {
    const before = await file.read();
    const needsLineEnd = before.length > 0 && before[before.length - 1] !== lineEnd;
    await new AppendFile(path, file, before.length).append(
      needsLineEnd ? Buffer.concat([Buffer.from('\n'), line]) : line,
    );
  } finally {
    await file.close().catch(() => undefined);
  }
}

const lineEnd = 0x0a;

export const recordTo = (path: string, output: AppendFile): Recording => ({
  path,
  append: async (record) => output.append(encodeRecord(record)),
  close: () => output.close(),
});
