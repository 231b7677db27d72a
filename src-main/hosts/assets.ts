/** The built window, read once: a request can only name what is in this map, so there is no path to climb out of. */
import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { InputError } from '../contract/input-error.ts';

export interface Asset {
  readonly type: string;
  readonly body: Uint8Array<ArrayBuffer>;
}

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.woff2': 'font/woff2',
};

/** Stands in the built page where the nonce belongs: see `src-renderer/vite.config.ts`. */
const noncePlaceholder = '__CSP_NONCE__';

/** The page itself, with a fresh nonce for its style sheets. */
export function pageOf(assets: ReadonlyMap<string, Asset>): { readonly html: string; readonly nonce: string } {
  const nonce = randomBytes(16).toString('base64url');
  return { html: new TextDecoder().decode(assets.get('/index.html')?.body).replaceAll(noncePlaceholder, nonce), nonce };
}

/** Path as requested → file. @throws InputError where the window is not built. */
export async function readAssets(folder: string): Promise<ReadonlyMap<string, Asset>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const files = entries.filter((entry) => entry.isFile() && types[extname(entry.name)]);
  const assets = await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const file = join(parentPath, name);
      const path = `/${relative(folder, file).split(sep).join('/')}`;
      return [path, { type: types[extname(name)], body: new Uint8Array(await readFile(file)) }] as const;
    }),
  );
  const map = new Map(assets);
  if (!map.has('/index.html')) throw new InputError('the window is not built: run npm run build');
  return map;
}
