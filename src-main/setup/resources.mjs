/**
 * Prints what every CUDA kernel takes of a multiprocessor, as the assembler reports it: registers a thread, bytes spilled, stack
 * and static shared memory. Builds the kernels afresh for that. Needs nvcc, no GPU.
 * FASTMQA_CUDA_ARCHITECTURES: other compute capabilities than 90, as CMake writes them.
 * Ends with 1 if a kernel spills more than `allowedSpill` bytes a thread.
 */
import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';

/** Of threads that only feed the others a few words may lie in local memory. */
const allowedSpill = 64;

const root = resolve(import.meta.dirname, '../..');
const build = join(root, 'native/build/cuda-resources');
const architectures = process.env.FASTMQA_CUDA_ARCHITECTURES ?? '90-real';

function run(command, args, input) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28, input });
  if (error || status !== 0) {
    process.stderr.write(error ? `${command}: ${error.message}\n` : `${stdout}${stderr}`);
    process.exit(status || 1);
  }
  return stdout + stderr;
}

run('cmake', [
  ...['--fresh', '-S', join(root, 'kernels'), '-B', build, '-DFASTMQA_CUDA=ON', '-DFASTMQA_CUDA_RESOURCES=ON'],
  `-DFASTMQA_CUDA_ARCHITECTURES=${architectures}`,
]);
const log = run('cmake', ['--build', build, '--clean-first', '--parallel', '2', '--target', 'fastmqa_cuda_kernels']);
const warnings = log.split('\n').filter((line) => /\bwarning\b/i.test(line));

const kernels = [];
for (const block of log.split("Compiling entry function '").slice(1)) {
  const [, name, target] = /^([^']+)' for '([^']+)'/.exec(block) ?? [];
  const [, stack, stores] = /(\d+) bytes stack frame, (\d+) bytes spill stores/.exec(block) ?? [];
  const [, registers] = /Used (\d+) registers/.exec(block) ?? [];
  const [, shared] = /(\d+) bytes smem/.exec(block) ?? [];
  if (registers) kernels.push({ name, target, registers, spill: Number(stores), stack, shared: shared ?? '0' });
}
const names = run('c++filt', [], kernels.map((kernel) => kernel.name).join('\n')).split('\n');
const short = (name) =>
  name
    .replace(/^void /, '')
    .replace(/fastmqa::gpu::(hopper::)?/g, '$1')
    .replace(/\(fastmqa.*|\(hopper::PrefillProblem\)|\((Attention|Append|Product|Expand)\w*\)$/, '');
process.stdout.write('target   registers  spilled  stack  static shared  kernel\n');
for (const [i, kernel] of kernels.entries())
  process.stdout.write(
    `${kernel.target.padEnd(9)}${kernel.registers.padStart(9)}${String(kernel.spill).padStart(9)}${kernel.stack.padStart(7)}${kernel.shared.padStart(15)}  ${short(names[i])}\n`,
  );
const spilling = kernels.filter((kernel) => kernel.spill > allowedSpill);
process.stdout.write(
  `${kernels.length} kernels, ${spilling.length} spill more than ${allowedSpill} bytes, ${warnings.length} warnings\n`,
);
for (const line of warnings) process.stdout.write(`${line}\n`);
process.exitCode = spilling.length || warnings.length ? 1 : 0;
