/** What a model's folder may name: regular files in it, whatever links and paths its author wrote. */
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { expected } from '../contract/input-error.ts';

/**
 * Resolves a path and refuses one that leads out of the folder, or out of the cache that Hugging Face keeps it in, or to
 * anything but a regular file; nothing is opened for that.
 */
export async function fence(folder: string): Promise<(path: string) => Promise<string>> {
  const real = await realpath(folder).catch((error: NodeJS.ErrnoException) => {
    throw expected('a readable folder', 'model', `${folder} (${error.code})`);
  });
  // Snapshots of that cache are links to blobs beside them: models--x/snapshots/REVISION → models--x/blobs.
  const snapshots = dirname(real);
  const roots = basename(snapshots) === 'snapshots' ? [real, join(dirname(snapshots), 'blobs')] : [real];
  return async (path) => {
    const target = await realpath(path).catch((error: NodeJS.ErrnoException) => {
      throw expected('a readable file', 'model', `${path} (${error.code})`);
    });
    if (!isInside(target, roots)) throw expected(`a file inside ${folder}`, 'model', `${path}, which leads elsewhere`);
    if (!(await stat(target)).isFile()) throw expected('a regular file', 'model', path);
    return target;
  };
}

const isInside = (target: string, roots: readonly string[]): boolean =>
  roots.some((root) => target.startsWith(root + sep));
