/**
 * One archive that a bare machine with a GPU, without network and without Node, unpacks and runs: the program with the node
 * binary that runs it, the CUDA backend, its conformance and bench programs, and the sources they came from.
 * Usage: package.mjs [FILE.tar.xz]
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');
const archive = resolve(process.env.INIT_CWD ?? '.', process.argv[2] ?? 'fastmqa-gpu.tar.xz');

/** What the command line needs at run time; the rest of package.json is for building. */
const roots = ['commander', 'zod', 'zustand', 'hono', '@hono/node-server', 'hyparquet-writer', 'bullmq', 'ioredis'];

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', cwd: root, ...options });
  if (error || status !== 0) {
    process.stderr.write(`${command} failed: ${error?.message ?? `exit code ${status}`}\n`);
    process.exit(1);
  }
}

/** Folders of packages and of everything that they depend on, as Node finds them from each. */
function packageFolders(names) {
  const found = new Set();
  const visit = (name, from) => {
    let folder = from;
    while (!existsSync(join(root, folder, 'node_modules', name))) {
      if (folder === '') return; // optional, and not installed here
      folder = dirname(folder) === '.' ? '' : dirname(folder);
    }
    const place = join(folder, 'node_modules', name);
    if (found.has(place)) return;
    found.add(place);
    const { dependencies = {} } = JSON.parse(readFileSync(join(root, place, 'package.json'), 'utf8'));
    for (const other of Object.keys(dependencies)) visit(other, place);
  };
  for (const name of names) visit(name, '');
  return [...found];
}

const started = `#!/bin/sh
# The command line of FastMQA, with the node binary that came with it.
here=$(CDPATH= cd -- "\${0%/*}" && pwd)
exec "$here/node" "$here/dist/src-main/hosts/cli/main.js" "$@"
`;

const howTo = `FastMQA for a machine with an NVIDIA GPU and nothing else: no network, no Node, no compiler.

test/gpu/session.sh                              all of the following in one go, with limits of time and a summary
./fastmqa devices                                the GPU, or why it cannot be used
./fastmqa sweep levels --backend cuda:0          every level of a layer, on the GPU
./fastmqa sweep quick --backend cuda:0           whole models
programs/fastmqa-test-gpu                        conformance of the kernels against fp64
programs/fastmqa-test-accelerator --gpu          whole sweep points against fp64 and against the CPU
programs/fastmqa-bench-gpu                       the kernels against the ceilings of this GPU
programs/fastmqa-endure-gpu                      what does not fit, faults, endless kernels; sequences that fit
./node test/gpu/endure-worker.mjs                the same through the program's own worker
With a CUDA compiler: cmake -S kernels -B build -DFASTMQA_CUDA=ON && cmake --build build
`;

run(process.execPath, [join(root, 'src-main/setup/build-cuda.mjs'), '--programs']);

const stage = mkdtempSync(join(tmpdir(), 'fastmqa-package-'));
try {
  const to = join(stage, 'fastmqa');
  const copy = (from, as = from) => cpSync(join(root, from), join(to, as), { recursive: true, dereference: true });
  mkdirSync(join(to, 'programs'), { recursive: true });
  for (const path of ['package.json', 'LICENSE', 'README.md', 'dist', 'src-main']) copy(path);
  cpSync(join(root, 'docs'), join(to, 'docs'), { recursive: true, filter: (path) => !path.endsWith('.png') });
  for (const library of ['fastmqa.node', 'libfastmqa-cuda.so']) copy(`native/build/Release/${library}`);
  for (const folder of packageFolders(roots)) copy(folder);
  cpSync(join(root, 'kernels'), join(to, 'kernels'), {
    recursive: true,
    filter: (path) => !/\/build[^/]*$/.test(path),
  });
  copy('native/src');
  copy('native/CMakeLists.txt');
  for (const program of ['fastmqa-test-gpu', 'fastmqa-bench-gpu', 'fastmqa-endure-gpu'])
    copy(`native/build/cuda/cuda/${program}`, `programs/${program}`);
  copy('native/build/cuda/fastmqa-test-accelerator', 'programs/fastmqa-test-accelerator');
  // A backend with planted faults.
  copy('native/build/cuda/cuda/faulty/libfastmqa-cuda.so', 'programs/faulty/libfastmqa-cuda.so');
  copy('test/gpu');
  // A program looks for the library beside itself.
  writeFileSync(join(to, 'how-to.txt'), howTo);
  cpSync(process.execPath, join(to, 'node'), { dereference: true });
  writeFileSync(join(to, 'fastmqa'), started);
  for (const program of ['node', 'fastmqa']) chmodSync(join(to, program), 0o755);
  // Symbols are the larger half of these files, and nobody debugs them there.
  for (const file of [
    'node',
    'native/build/Release/fastmqa.node',
    'native/build/Release/libfastmqa-cuda.so',
    ...['test-gpu', 'bench-gpu', 'endure-gpu', 'test-accelerator'].map((name) => `programs/fastmqa-${name}`),
  ])
    spawnSync('strip', ['--strip-debug', join(to, file)]);
  run('ln', ['-s', '../native/build/Release/libfastmqa-cuda.so', join(to, 'programs/libfastmqa-cuda.so')]);
  run('tar', ['-C', stage, '-cf', archive, '--use-compress-program', 'xz -T0 -6', 'fastmqa']);
} finally {
  rmSync(stage, { recursive: true, force: true });
}
process.stdout.write(`${archive}: ${(statSync(archive).size / 2 ** 20).toFixed(1)} MiB\n`);
