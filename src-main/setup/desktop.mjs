/** Whether the desktop window can be opened here, or why not, in one clause. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The package fetches its binary when asked to, not when it is installed. */
export const fetchScript = (root) => join(root, 'node_modules/electron/install.js');

/** Why no window can be opened on this machine, whatever is installed; undefined if one can. */
export function obstacleOf({ platform, environment, userId }) {
  if (platform !== 'linux') return undefined;
  if (!environment.DISPLAY && !environment.WAYLAND_DISPLAY) return 'there is no display';
  if (userId === 0) return 'Electron does not run as root';
  return undefined;
}

/** Path of the Electron binary; undefined if there is none. */
export function electronBinary(root, environment) {
  const folder = join(root, 'node_modules/electron');
  const given = environment.ELECTRON_OVERRIDE_DIST_PATH;
  let name = 'electron';
  try {
    name = readFileSync(join(folder, 'path.txt'), 'utf8');
  } catch {
    if (!given) return undefined;
  }
  const binary = join(given || join(folder, 'dist'), name);
  return existsSync(binary) ? binary : undefined;
}
