/** Reads a session as far as it is whole, says what is not, and takes it up again. */
import { dirname } from 'node:path';
import type { RunEnd } from '../contract/api.ts';
import { expected, InputError } from '../contract/input-error.ts';
import type { Point } from '../contract/metrics.ts';
import {
  type Environment,
  type SessionHeader,
  type SessionRecord,
  sessionHeaderSchema,
  sessionRecordSchema,
  sessionSchemaVersion,
} from '../contract/session.ts';
import { checksum, type Recording, recordTo } from './recording.ts';
import { AppendFile, type FileSystem, fileError, nodeFileSystem, readWhole, writeAll } from './storage.ts';

export interface Session {
  readonly header: SessionHeader;
  /** Every whole record in the order written, the header included, unknown fields kept. */
  readonly records: readonly SessionRecord[];
  /** As last labelled, or else as the sweep was called. */
  readonly name: string;
  readonly tags: readonly string[];
  /** How its last run ended; undefined: it did not, or it still goes on. */
  readonly how: RunEnd | undefined;
  /** By id; of two records of one point the first counts. */
  readonly points: ReadonlyMap<string, Point>;
  /** Lines that cannot be trusted and are left out, 1 = first line; those at the end are a torn tail. */
  readonly setAside: readonly number[];
  /** Some are left out, and no run that resumed after them has measured all there is to measure. */
  readonly isLacking: boolean;
}

/** What somebody who works with a damaged session is told. */
export interface Damage {
  readonly sentence: string;
  /** As {@link Session.isLacking}. */
  readonly isLacking: boolean;
}

/** @param copy where the file is as it was found. @returns nothing for a whole session */
export function damageOf(path: string, { setAside, isLacking }: Session, copy?: string): readonly Damage[] {
  if (setAside.length === 0) return [];
  const more = copy === undefined ? (isLacking ? '' : '; measured again since') : `; as it was found it is in ${copy}`;
  return [{ sentence: `${path}: damaged and left out: line ${setAside.join(', ')}${more}`, isLacking }];
}

interface Scan extends Session {
  /** Bytes up to the end of the last whole record, its line end included if it is there. */
  readonly wholeLength: number;
  /** The last whole record lacks its line end. */
  readonly needsLineEnd: boolean;
}

/** @throws InputError for a file that is unreadable, no session, of a newer version, or without a whole header. */
export async function readSession(path: string, fileSystem: FileSystem = nodeFileSystem): Promise<Session> {
  return parseSession(await readWhole(path, fileSystem), path);
}

/** @param path how errors name it. @throws InputError as {@link readSession} */
export function parseSession(bytes: Uint8Array, path: string): Session {
  const { wholeLength: _, needsLineEnd: __, ...session } = scan(bytes, path);
  return session;
}

/**
 * Opens a session to record more. A torn tail is cut off, after the file as found was copied to `<path>.damaged-<n>`; damaged
 * lines before the end stay where they are.
 * @returns `copy`: where the damaged file was set aside.
 * @throws InputError as {@link readSession}, or where the file cannot be written.
 */
export async function resumeRecording(
  path: string,
  environment: Environment,
  fileSystem: FileSystem = nodeFileSystem,
): Promise<{ session: Session; recording: Recording; copy?: string }> {
  const bytes = await readWhole(path, fileSystem);
  const { wholeLength, needsLineEnd, ...session } = scan(bytes, path);
  const copy = wholeLength < bytes.length ? await setAside(path, bytes, fileSystem) : undefined;
  const file = await fileSystem.open(path, 'update').catch((error: unknown) => {
    throw fileError('write', path, error);
  });
  try {
    if (wholeLength < bytes.length) await file.truncate(wholeLength);
    if (needsLineEnd) await writeAll(file, Buffer.from('\n'), wholeLength);
    const recording = recordTo(path, new AppendFile(path, file, wholeLength + (needsLineEnd ? 1 : 0)));
    await recording.append({ kind: 'resumed', environment });
    return copy === undefined ? { session, recording } : { session, recording, copy };
  } catch (error) {
    await file.close().catch(() => undefined);
    throw fileError('write', path, error);
  }
}

const mostCopies = 1000;

/** Copies the file as found to the first free name; a copy is never written over. */
async function setAside(path: string, bytes: Uint8Array, fileSystem: FileSystem): Promise<string> {
  for (let n = 1; n <= mostCopies; n += 1) {
    const copy = `${path}.damaged-${n}`;
    try {
      const file = await fileSystem.open(copy, 'create');
      try {
        await writeAll(file, bytes, 0);
        await file.sync();
      } catch (error) {
        await fileSystem.remove(copy).catch(() => undefined); // half a copy is none
        throw error;
      } finally {
        await file.close();
      }
      await fileSystem.syncFolder(dirname(path));
      return copy;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST'))
        throw fileError('write', copy, error);
    }
  }
  throw new InputError(`cannot set ${path} aside: ${mostCopies} damaged copies stand beside it already`);
}

const lineEnd = 0x0a;

function scan(bytes: Uint8Array, path: string): Scan {
  const records: SessionRecord[] = [];
  const points = new Map<string, Point>();
  const damaged: number[] = [];
  /** Damaged lines before the last place where a run resumed, which measured again what they held if it was done. */
  let resumedAfter = 0;
  let isLacking = false;
  let wholeLength = 0;
  let needsLineEnd = false;
  for (let start = 0, line = 1; start < bytes.length; line += 1) {
    const found = bytes.indexOf(lineEnd, start);
    const end = found === -1 ? bytes.length : found;
    const record = decodeLine(bytes.subarray(start, end), line === 1 ? path : undefined);
    start = end + 1;
    if (!record) {
      damaged.push(line);
      isLacking = true;
      continue;
    }
    records.push(record);
    if (record.kind === 'resumed') resumedAfter = damaged.length;
    if (record.kind === 'ended' && record.how === 'done') isLacking = damaged.length > resumedAfter;
    if (record.kind === 'point' && !points.has(record.point.id)) points.set(record.point.id, record.point);
    wholeLength = Math.min(start, bytes.length);
    needsLineEnd = found === -1;
  }
  const header = records[0];
  if (header?.kind !== 'header') throw noSession(path);
  const said = saidAbout(header, records);
  return { header, ...said, records, points, setAside: damaged, isLacking, wholeLength, needsLineEnd };
}

function saidAbout(header: SessionHeader, records: readonly SessionRecord[]): Pick<Session, 'name' | 'tags' | 'how'> {
  const labels = records.filter((record) => record.kind === 'labelled');
  const last = records.findLast(({ kind }) => kind !== 'labelled');
  return {
    name: labels.findLast(({ name }) => name !== undefined)?.name ?? header.name,
    tags: labels.findLast(({ tags }) => tags !== undefined)?.tags ?? [],
    how: last?.kind === 'ended' ? last.how : undefined,
  };
}

const noSession = (path: string): InputError =>
  expected('a session file (*.fmqa)', 'session', `${path}, which is none`);
/** `<crc32> {"kind":"header"`: how every session begins, damaged or not. */
const headerStart = /^[0-9a-f]{8} \{"kind":"header"/;
const checksumLength = 8;

/**
 * @param headerOf path of the file, for its first line: there, what is wrong ends the reading
 * @returns undefined for a line that is damaged or not understood.
 */
function decodeLine(line: Uint8Array, headerOf?: string): SessionRecord | undefined {
  const text = Buffer.from(line.buffer, line.byteOffset, line.length);
  const json = text.subarray(checksumLength + 1);
  const whole =
    text.length > checksumLength &&
    text[checksumLength] === 0x20 &&
    text.toString('latin1', 0, checksumLength) === checksum(json);
  if (!whole) {
    if (headerOf === undefined) return undefined;
    if (headerStart.test(text.toString('latin1', 0, 64)))
      throw expected('a whole header', 'session', `${headerOf}, whose header is damaged`);
    throw noSession(headerOf);
  }
  const value = nestsTooDeep(json) ? undefined : parse(json);
  if (headerOf !== undefined) return checkHeader(value, headerOf);
  const record = sessionRecordSchema.safeParse(value);
  return record.success ? record.data : undefined;
}

function checkHeader(value: unknown, path: string): SessionHeader {
  const version =
    typeof value === 'object' && value !== null && 'schemaVersion' in value ? value.schemaVersion : undefined;
  if (typeof version === 'number' && version > sessionSchemaVersion) {
    throw expected(
      `a session of version ${sessionSchemaVersion} or older`,
      'session',
      `${path} of version ${version}: update FastMQA`,
    );
  }
  const header = sessionHeaderSchema.safeParse(value);
  if (!header.success) throw noSession(path);
  return header.data;
}

function parse(json: Buffer): unknown {
  try {
    return JSON.parse(json.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Deeper than anything FastMQA writes; structuredClone and recursive readers fail far beyond it. */
const deepest = 64;

function nestsTooDeep(json: Uint8Array): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < json.length; i += 1) {
    const byte = json[i];
    if (inString) {
      if (byte === 0x5c)
        i += 1; // the escaped character
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x5b || byte === 0x7b) depth += 1;
    else if (byte === 0x5d || byte === 0x7d) depth -= 1;
    if (depth > deepest) return true;
  }
  return false;
}
