/** Runs a TypeScript file of this repository as a program, from any folder: `node test/run-program.mjs FILE`. */
import { resolve } from 'node:path';
import { runnerImport } from 'vite';

try {
  await runnerImport(resolve(import.meta.dirname, '..', process.argv[2]));
} catch (error) {
  if (error?.constructor?.name !== 'InputError') throw error;
  process.stderr.write(`${error.message}\n`); // as a window that is not built yet
  process.exit(2);
}
