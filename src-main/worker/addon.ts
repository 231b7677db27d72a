/** Loads the native addon. Only the worker process may do so: a fault in native code ends the process it happens in. */
import { createRequire } from 'node:module';
import type { Addon } from './addon-types.ts';
import { addonFile } from './location.ts';

/** @throws Error that names the cause and the command that helps. */
export function loadAddon(): Addon {
  const load = createRequire(import.meta.url);
  try {
    return load(addonFile) as Addon;
  } catch (error) {
    const cause = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new Error(`the native engine cannot be loaded, run \`npm run build\`: ${cause}`);
  }
}
