/** One writer a session: a file beside it, `<path>.lock`, says which process records it. One that died holds nothing. */
import { randomUUID } from 'node:crypto';
import { link, readFile, stat, unlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { InputError } from '../contract/input-error.ts';
import { fileError } from './storage.ts';

/** Locks of this process: one that bears its number and is not among them was left behind by an earlier process of that number. */
const ours = new Set<string>();
/** Locks that this process is about to take. */
const taking = new Set<string>();
/** Between two looks at a lock that another process is clearing away. */
const clearingMilliseconds = 5;

export const lockOf = (path: string): string => `${path}.lock`;

/**
 * Takes hold of a session.
 * @returns how to let go of it
 * @throws InputError where another process that lives holds it.
 */
export async function holdSession(path: string): Promise<() => Promise<void>> {
  const lock = lockOf(path);
  const refuse = (owner: string): never => {
    throw new InputError(`${path} is being recorded by ${owner}; if it is not, delete ${lock}`);
  };
  if (ours.has(lock) || taking.has(lock)) refuse(inWords(process.pid, os.hostname()));
  taking.add(lock);
  const mine = `${lock}.${randomUUID()}`; // written whole before it is a lock: nobody finds half of one
  try {
    await writeFile(mine, `${process.pid} ${os.hostname()}\n`, { flag: 'wx' });
    while (!(await takes(mine, lock))) {
      const owner = await ownerOf(path);
      if (owner !== undefined) refuse(owner);
      await clearLeftBehind(lock, mine);
    }
    ours.add(lock);
  } catch (error) {
    throw fileError('write', path, error);
  } finally {
    taking.delete(lock);
    await unlink(mine).catch(() => undefined);
  }
  return async () => {
    ours.delete(lock);
    await unlink(lock).catch(() => undefined);
  };
}

/** Of several processes one takes the lock. */
async function takes(mine: string, lock: string): Promise<boolean> {
  try {
    await link(mine, lock);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(codeOf(error))) throw error;
  }
  // A file system without links, as on many memory sticks.
  return writeFile(lock, await readFile(mine), { flag: 'wx' }).then(
    () => true,
    (error: unknown) => {
      if (codeOf(error) === 'EEXIST') return false;
      throw error;
    },
  );
}

/** Removes what a dead process left. Only who holds a lock on that may: a quicker one could have its own there by now. */
async function clearLeftBehind(lock: string, mine: string): Promise<void> {
  const clearing = `${lock}.clearing`;
  if (!(await takes(mine, clearing))) {
    if (await isLeftBehind(clearing)) await unlink(clearing).catch(() => undefined);
    return setTimeout(clearingMilliseconds);
  }
  try {
    if (await isLeftBehind(lock)) await unlink(lock);
  } finally {
    await unlink(clearing).catch(() => undefined);
  }
}

const inWords = (pid: number | string, host: string): string => `process ${pid} of ${host}`;
const codeOf = (error: unknown): string => String((error as NodeJS.ErrnoException).code);

/** The process that records a session, in words; undefined where none does. */
export const ownerOf = (path: string): Promise<string | undefined> => ownerIn(lockOf(path));

async function ownerIn(lock: string): Promise<string | undefined> {
  const text = await readFile(lock, 'utf8').catch(() => '');
  return ownerBy(text, lock);
}

/** It is there, and holds nothing. */
async function isLeftBehind(lock: string): Promise<boolean> {
  const text = await readFile(lock, 'utf8').catch((error: unknown) => (codeOf(error) === 'ENOENT' ? undefined : ''));
  return text !== undefined && (await ownerBy(text, lock)) === undefined;
}

async function ownerBy(text: string, lock: string): Promise<string | undefined> {
  const [, pid, host] = /^(\d+) (\S+)\n$/.exec(text) ?? [];
  if (pid === undefined) return undefined;
  const owner = inWords(pid, host);
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
