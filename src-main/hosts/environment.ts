/** The machine a session was measured on: whatever a reader needs to judge its figures. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Environment, Gpu } from '../contract/session.ts';
import type { BackendInfo, Ceilings } from '../engine/ports.ts';
import { packageRoot } from '../worker/location.ts';

export const fastmqaVersion = (
  JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }
).version;

export const cpuName = (): string => os.cpus()[0]?.model.trim() || 'unknown CPU';

function governor(): string | undefined {
  try {
    return readFileSync('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor', 'utf8').trim();
  } catch {
    return undefined; // not Linux, or a virtual machine
  }
}

/** Of this checkout, marked if it was changed since; a folder inside another repository has none. */
async function gitCommit(): Promise<string | undefined> {
  if (!existsSync(join(packageRoot, '.git'))) return undefined;
  const describe = ['describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'];
  try {
    return (await promisify(execFile)('git', describe, { cwd: packageRoot, timeout: 2000 })).stdout.trim();
  } catch {
    return undefined; // no git, or no commit yet
  }
}

/** Of the sources of the kernels: two machines with the same one measure the same thing. */
export function kernelsFingerprint(): string {
  const folder = join(packageRoot, 'kernels');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(cpp|h|inl|cu|cuh)$/.test(file) && !file.startsWith('build'))
    .sort();
  const hash = createHash('sha256');
  for (const file of files) hash.update(`${file}\0`).update(readFileSync(join(folder, file)));
  return hash.digest('hex').slice(0, 12);
}

const optional = <Key extends string, Value>(key: Key, value: Value | undefined) =>
  (value === undefined ? {} : { [key]: value }) as { [K in Key]?: Value };

/** @param ceilings measured in this run, if this machine measures; @param gpus those that the run uses */
export async function describeEnvironment(
  backend: BackendInfo,
  ceilings?: Ceilings,
  gpus: readonly Gpu[] = [],
): Promise<Environment> {
  return {
    fastmqaVersion,
    ...optional('gitCommit', await gitCommit()),
    nodeVersion: process.version,
    os: `${os.type()} ${os.release()} ${os.arch()}`,
    cpu: cpuName(),
    logicalCores: os.cpus().length,
    threads: backend.threads,
    instructionSet: backend.instructionSet,
    buildFlags: backend.buildFlags,
    ...optional('governor', governor()),
    memoryBytes: os.totalmem(),
    loadAverage1m: os.loadavg()[0],
    startedAt: new Date().toISOString(),
    ...ceilings,
    ...(gpus.length > 0 && { gpus: [...gpus] }),
  };
}
