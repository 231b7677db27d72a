/** Files that do not lie: what resolves is on the disk, and a failure leaves the old file whole. */
import { constants } from 'node:fs';
import * as files from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { InputError } from '../contract/input-error.ts';

/** The few calls that durability depends on, one to one, so that a test can fail or replay each of them. */
export interface FileSystem {
  /** `create` fails where the path exists; `replace` starts from nothing; `update` needs an existing file. */
  open(path: string, how: 'create' | 'replace' | 'update' | 'read'): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes the names in a folder durable. */
  syncFolder(path: string): Promise<void>;
}

export interface OpenFile {
  /** May write less than asked; returns the bytes written. */
  write(bytes: Uint8Array, position: number): Promise<number>;
  read(): Promise<Uint8Array>;
  truncate(length: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

const openFlags = {
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
  replace: constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
  update: constants.O_RDWR,
  read: constants.O_RDONLY,
};

export const nodeFileSystem: FileSystem = {
  async open(path, how) {
    const file = await open(path, openFlags[how], 0o644);
    return {
      write: async (bytes, position) => (await file.write(bytes, 0, bytes.length, position)).bytesWritten,
      read: async () => {
        if ((await file.stat()).isCharacterDevice()) throw new InputError(`cannot read ${path}: it is a device`); // which may never end
        return file.readFile();
      },
      truncate: (length) => file.truncate(length),
      sync: () => file.datasync(),
      close: () => file.close(),
    };
  },
  rename: files.rename,
  remove: files.unlink,
  async syncFolder(path) {
    if (process.platform === 'win32') return; // folders cannot be opened there; the rename itself is journalled
    const folder = await open(path, constants.O_RDONLY);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
};

const causes: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the quota is used up',
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  ENOENT: 'no such file or folder',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of the path is no folder',
  EIO: 'the device reported an error',
  ERR_FS_FILE_TOO_LARGE: 'it is larger than 2 GiB',
};

/** A failed file operation as one sentence; other errors pass unchanged. */
export function fileError(action: string, path: string, error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  return code === undefined ? error : new InputError(`cannot ${action} ${path}: ${causes[code] ?? code}`);
}

/** Writes all bytes or throws: a single write may be short. */
export async function writeAll(file: OpenFile, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const written = await file.write(bytes.subarray(done), position + done);
    if (written <= 0) throw new Error('the file system wrote nothing and reported no error');
    done += written;
  }
}

/** @throws InputError where the file cannot be read. */
export async function readWhole(path: string, fileSystem: FileSystem = nodeFileSystem): Promise<Uint8Array> {
  try {
    const file = await fileSystem.open(path, 'read');
    try {
      return await file.read();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fileError('read', path, error);
  }
}

/**
 * Asked before a result is made that takes long, and will be put there by {@link writeWhole}, which would replace a device too.
 * @throws InputError where that cannot be
 */
export async function refuseUnwritable(path: string): Promise<void> {
  const there = await files.stat(path).catch(() => undefined);
  if (there && !there.isFile())
    throw new InputError(`cannot write ${path}: it is a ${there.isDirectory() ? 'folder' : 'device or a pipe'}`);
  await files.access(dirname(path), constants.W_OK).catch((error: unknown) => {
    throw fileError('write', path, error);
  });
}

/**
 * Puts `bytes` at `path`, all or nothing: after a failure or a power loss the file is the old one or the new one.
 * @throws InputError, the old file untouched.
 */
export async function writeWhole(
  path: string,
  bytes: Uint8Array,
  fileSystem: FileSystem = nodeFileSystem,
): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await fileSystem.open(temporary, 'replace');
    try {
      await writeAll(file, bytes, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await fileSystem.rename(temporary, path);
  } catch (error) {
    await fileSystem.remove(temporary).catch(() => undefined);
    throw fileError('write', path, error);
  }
  await fileSystem.syncFolder(dirname(path)).catch((error: unknown) => {
    throw fileError('write', path, error);
  });
}

/** A file that only grows. After the first failure its state on the disk is unknown, so it takes nothing more. */
export class AppendFile {
  private readonly path: string;
  private readonly file: OpenFile;
  private length: number;
  private failure: unknown;
  private tail: Promise<void> = Promise.resolve();

  constructor(path: string, file: OpenFile, length: number) {
    this.path = path;
    this.file = file;
    this.length = length;
  }

  /**
   * Resolves when the bytes are on the disk. Calls are served in order.
   * @throws InputError; every later call then fails with the same cause: an fsync that failed once may lie the next time.
   */
  append(bytes: Uint8Array): Promise<void> {
    const done = this.tail.then(() => this.appendNow(bytes));
    this.tail = done.catch(() => undefined);
    return done;
  }

  async close(): Promise<void> {
    await this.tail;
    await this.file.close().catch((error: unknown) => {
      throw fileError('write', this.path, error);
    });
  }

  private async appendNow(bytes: Uint8Array): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    try {
      await writeAll(this.file, bytes, this.length);
      await this.file.sync();
      this.length += bytes.length;
    } catch (error) {
      this.failure = fileError('write', this.path, error);
      throw this.failure;
    }
  }
}
