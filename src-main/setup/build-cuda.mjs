/**
 * Builds the CUDA backend beside the addon, which finds it there; with `--programs` also the programs for a machine with a GPU.
 * FASTMQA_CUDA_ARCHITECTURES: other compute capabilities, as CMake writes them.
 */
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');
const { FASTMQA_CUDA_ARCHITECTURES: architectures = '75-real;80-real;90' } = process.env;
const build = join(root, 'native/build/cuda');
const targets = process.argv.includes('--programs')
  ? [
      'fastmqa_cuda',
      'fastmqa-test-gpu',
      'fastmqa-bench-gpu',
      'fastmqa-endure-gpu',
      'fastmqa-test-accelerator',
      'fastmqa_faulty',
    ]
  : ['fastmqa_cuda'];

for (const args of [
  [
    ...[
      '-S',
      join(root, 'kernels'),
      '-B',
      build,
      '-DCMAKE_BUILD_TYPE=Release',
      '-DFASTMQA_CUDA=ON',
      '-DFASTMQA_TOOLS=ON',
    ],
    `-DFASTMQA_CUDA_ARCHITECTURES=${architectures}`,
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(root, 'native/build/Release')}`,
  ],
  ['--build', build, '--parallel', '2', '--target', ...targets],
]) {
  const { status, error } = spawnSync('cmake', args, { stdio: 'inherit' });
  if (error) process.stderr.write(`cmake: ${error.message}\n`);
  if (status !== 0) process.exit(status ?? 1);
}
