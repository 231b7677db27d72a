/** One writer a session: a file beside it, `<path>.lock`, says which process records it. One that died holds nothing. */
import { readFile, stat, unlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import { InputError } from '../contract/input-error.ts';
import { fileError } from './storage.ts';

/** Locks of this process: one that bears its number and is not among them was left behind by an earlier process of that number. */
const ours = new Set<string>();

export const lockOf = (path: string): string => `${path}.lock`;

/**
 * Takes hold of a session.
 * @returns how to let go of it
 * @throws InputError where another process that lives holds it.
 */
export async function holdSession(path: string): Promise<() => Promise<void>> {
  const lock = lockOf(path);
  const owner = await ownerOf(path);
  if (owner !== undefined) throw new InputError(`${path} is being recorded by ${owner}; if it is not, delete ${lock}`);
  await unlink(lock).catch(() => undefined);
  await writeFile(lock, `${process.pid} ${os.hostname()}\n`, { flag: 'wx' }).catch((error: unknown) => {
    throw fileError('write', path, error);
  });
  ours.add(lock);
  return async () => {
    ours.delete(lock);
    await unlink(lock).catch(() => undefined);
  };
}

/** The process that records a session, in words; undefined where none does. */
export async function ownerOf(path: string): Promise<string | undefined> {
  const lock = lockOf(path);
  const text = await readFile(lock, 'utf8').catch(() => undefined);
  const [, pid, host] = /^(\d+) (\S+)\n$/.exec(text ?? '') ?? [];
  if (pid === undefined) return undefined;
  const owner = `process ${pid} of ${host}`;
  if (host !== os.hostname()) return owner;
  if (Number(pid) === process.pid) return ours.has(lock) ? owner : undefined;
  const bootedAt = Date.now() - os.uptime() * 1000;
  const { mtimeMs } = await stat(lock).catch(() => ({ mtimeMs: 0 }));
  return mtimeMs > bootedAt && isAlive(Number(pid)) ? owner : undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
