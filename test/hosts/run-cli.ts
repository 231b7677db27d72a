/** Runs the compiled command line as a user would. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

export const mainScript = join(import.meta.dirname, '../../dist/src-main/hosts/cli/main.js');
export const fakeWorker = join(import.meta.dirname, '../fakes/misbehaving-worker.mjs');

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliRun {
  readonly child: ChildProcess;
  readonly ended: Promise<CliResult>;
  /** Resolves when a line of stderr matches. */
  heard(pattern: RegExp): Promise<void>;
}

export function startCli(
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  stdin?: string,
): CliRun {
  const child = spawn(process.execPath, [mainScript, ...args], {
    env: { ...process.env, ...environment },
    stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  }) as ChildProcessByStdio<Writable | null, Readable, Readable>;
  child.stdin?.end(stdin);
  let [stdout, stderr] = ['', ''];
  const listeners = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<CliResult>((resolve) => {
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
  const heard = (pattern: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const listen = (): void => {
        if (!pattern.test(stderr)) return;
        listeners.delete(listen);
        resolve();
      };
      listeners.add(listen);
      listen();
      void ended.then(() => reject(new Error(`it ended without saying ${pattern}: ${stderr}`)));
    });
  return { child, ended, heard };
}

export const runCli = (args: readonly string[], environment?: Readonly<Record<string, string>>): Promise<CliResult> =>
  startCli(args, environment).ended;
