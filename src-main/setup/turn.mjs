/** One set-up at a time in a folder: two that install or build at once would spoil each other's files. */
import { mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whose turn it is renews the file so often. Not by its process: it may run in another container, on another machine. */
const renewSeconds = 1;
/** A file older than this was left behind by a process that was killed. */
const leftBehindSeconds = 15;

/**
 * Does `work` when nobody else does; waits for its turn.
 * @param file says that somebody is at it
 * @param onWait called once if there is a wait
 * @throws the system's error where the file cannot be written
 */
export async function inTurn(file, work, onWait) {
  mkdirSync(dirname(file), { recursive: true });
  for (let waited = false; !takes(file); waited = true) {
    if (!waited) onWait();
    await sleep(250);
  }
  const renewal = setInterval(() => renew(file), renewSeconds * 1000);
  const giveBack = () => rmSync(file, { force: true });
  process.once('exit', giveBack); // an interrupt ends the process here and there
  try {
    return await work();
  } finally {
    clearInterval(renewal);
    process.off('exit', giveBack);
    giveBack();
  }
}

function renew(file) {
  const now = new Date();
  try {
    utimesSync(file, now, now);
  } catch {
    // Somebody deleted it, with all that was built; there is nothing to renew.
  }
}

function takes(file) {
  try {
    writeFileSync(file, `${process.pid}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  const { mtimeMs } = statSync(file, { throwIfNoEntry: false }) ?? { mtimeMs: Date.now() };
  if (Date.now() - mtimeMs > leftBehindSeconds * 1000) rmSync(file, { force: true });
  return false;
}
