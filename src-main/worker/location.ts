/** Where the package and its compiled parts are, seen from the sources and from `dist` alike. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function findPackageRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

export const packageRoot = findPackageRoot();
/** FASTMQA_ADDON names another build of it: `.ci/run` has one with sanitizers. */
export const addonFile = process.env.FASTMQA_ADDON ?? join(packageRoot, 'native/build/Release/fastmqa.node');
export const workerScript = join(packageRoot, 'dist/src-main/worker/process.js');
