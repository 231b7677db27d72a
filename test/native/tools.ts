/** The engine's own programs (kernels/tools), built beside the addon, from the same objects, and run. */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const build = join(root, 'native/build');

/** The CUDA backend with its kernels run on the CPU; `buildTools` makes it, FASTMQA_CUDA_LIBRARY names it to the engine. */
export const emulatedCudaLibrary = join(build, 'Release/libfastmqa-cuda-emulated.so');

export interface Ended {
  code: number | null;
  /** Of both streams. */
  lines: string[];
}

function run(
  command: string,
  args: readonly string[],
  onLine?: (line: string) => void,
  environment?: Readonly<Record<string, string>>,
): Promise<Ended> {
  return new Promise((done, failed) => {
    const lines: string[] = [];
    const env = { ...process.env, ...environment };
    const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr])
      createInterface(stream).on('line', (line) => {
        lines.push(line);
        onLine?.(line);
      });
    child.on('error', failed);
    child.on('close', (code) => done({ code, lines }));
  });
}

/** The process that holds a lock; this one while the file has just gone or has no content yet. */
function ownerOf(lock: string): number {
  try {
    return Number(readFileSync(lock, 'utf8')) || process.pid;
  } catch {
    return process.pid;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Test files run side by side, and each of them may want to build. */
async function alone<Result>(work: () => Promise<Result>): Promise<Result> {
  const lock = join(build, '.lock');
  mkdirSync(build, { recursive: true });
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      if (!isRunning(ownerOf(lock))) rmSync(lock, { force: true });
      await wait(200);
    }
  }
  try {
    return await work();
  } finally {
    rmSync(lock, { force: true });
  }
}

/** Builds what is out of date, in the folder that `npm run build` made; throws what the compiler says. */
export function buildTools(): Promise<void> {
  return alone(async () => {
    for (const args of [
      ['-S', 'native', '-B', 'native/build', '-DFASTMQA_TOOLS=ON'],
      ['--build', 'native/build', '--config', 'Release', '--parallel', '2', '--target', 'fastmqa-tools'],
    ]) {
      const { code, lines } = await run('cmake', args);
      if (code !== 0) throw new Error(lines.slice(-30).join('\n'));
    }
  });
}

/** `name` as in kernels/tools/NAME.cpp. */
export function runTool(
  name: string,
  args: readonly string[] = [],
  onLine?: (line: string) => void,
  environment?: Readonly<Record<string, string>>,
): Promise<Ended> {
  return run(join(build, `kernels/fastmqa-${name}`), args, onLine, environment);
}
