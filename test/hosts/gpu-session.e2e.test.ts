/** The script for a machine with a GPU (test/gpu/session.sh), where there is none: what cannot run is skipped by name. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildTools, emulatedCudaLibrary } from '../native/tools.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'fastmqa-gpu-session-'));
beforeAll(buildTools, 600_000);
afterAll(() => rmSync(folder, { recursive: true }));

const session = (args: readonly string[]) =>
  spawnSync(join(root, 'test/gpu/session.sh'), ['-o', folder, ...args], {
    encoding: 'utf8',
    env: { ...process.env, FASTMQA_CUDA_LIBRARY: emulatedCudaLibrary },
  });

const summary = (): string[] => readFileSync(join(folder, 'summary.txt'), 'utf8').split('\n');

test('parts run, or are skipped with the reason', () => {
  const { status, stdout } = session(['machine', 'kernels', 'bench']);
  const [machine, kernels, bench] = summary();
  expect(machine).toMatch(/^machine +ok +\d+ +cuda:0: /);
  expect(kernels).toMatch(/^kernels +skipped +0 +no programs\/fastmqa-test-gpu: unpack the archive/);
  expect(bench).toMatch(/^bench +skipped +0 +no programs\/fastmqa-bench-gpu: /);
  expect(stdout).toContain(`results: ${folder}`);
  expect(status).toBe(0);
  expect(readFileSync(join(folder, 'machine.log'), 'utf8')).toContain('CUDA kernels on the CPU');
});

test('a part is ended when the time is over, and others have none left', () => {
  // Whole models take long where kernels run on the CPU; a busy machine needs seconds only to look for its devices.
  expect(session(['-t', '14', 'step', 'gallery']).status).toBe(1);
  const [step, gallery] = summary();
  expect(step).toMatch(/^step +TIMED OUT +\d+ +after \d+ s/);
  expect(gallery).toMatch(/^gallery +skipped +0 +no time left of 14 s$/);
});

test('a part that there is not', () => {
  const { status, stderr } = session(['kernel']);
  expect(stderr).toMatch(/^expected parts among machine kernels .* gallery but received kernel\n$/);
  expect(status).toBe(2);
});
