/** Runs a TypeScript file as a program: `node test/run-program.mjs FILE`. */
import { resolve } from 'node:path';
import { runnerImport } from 'vite';

await runnerImport(resolve(process.argv[2]));
