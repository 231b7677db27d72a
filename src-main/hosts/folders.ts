/** Where FastMQA keeps what it writes by itself, and where the built window lies. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import os from 'node:os';
import { join, resolve } from 'node:path';
import { packageRoot } from '../worker/location.ts';

export const rendererFolder = join(packageRoot, 'dist/renderer');
export const builtinFolder = join(packageRoot, 'src-main/models/builtin');
export const preloadScript = join(packageRoot, 'dist/electron/preload.cjs');

type Environment = Readonly<Record<string, string | undefined>>;

/** FASTMQA_HOME, or the folder that the platform sets aside for data of applications. */
export function dataFolder(environment: Environment = process.env, platform = process.platform): string {
  if (environment.FASTMQA_HOME) return environment.FASTMQA_HOME;
  const home = os.homedir();
  if (platform === 'darwin') return join(home, 'Library/Application Support/FastMQA');
  if (platform === 'win32') return join(environment.LOCALAPPDATA ?? join(home, 'AppData/Local'), 'FastMQA');
  return join(environment.XDG_DATA_HOME ?? join(home, '.local/share'), 'fastmqa');
}

export const sessionsFolder = (environment?: Environment): string => join(dataFolder(environment), 'sessions');

/** `2026-01-31-142501-quick.fmqa`: sorts by time, and no character that a file system refuses. */
export function sessionFileName(sweepName: string, at: Date): string {
  const time = at.toISOString().slice(0, 19).replaceAll(':', '').replace('T', '-');
  const name = sweepName
    .normalize('NFKD')
    .replaceAll(/[^A-Za-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .toLowerCase()
    .slice(0, 40);
  return `${time}${name ? `-${name}` : ''}.fmqa`;
}

/** What a window calls a session file. Nothing of the path can be read from it, and no path can be made of it. */
export const sessionIdOf = (path: string): string =>
  createHash('sha256').update(resolve(path)).digest('hex').slice(0, 32);

/** A path in the folder that is not taken: a number is added where it is. */
export function freePath(folder: string, fileName: string): string {
  const stem = fileName.replace(/\.fmqa$/, '');
  for (let n = 1; ; n += 1) {
    const path = join(folder, n === 1 ? `${stem}.fmqa` : `${stem}-${n}.fmqa`);
    if (!existsSync(path)) return path;
  }
}
