/** Starts a worker process and reports what it says and how it ends. */
import { spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { encodeFrame, frameReader, pipeDescriptor } from './frames.ts';
import type { Request } from './protocol.ts';

export interface WorkerProcess {
  send(request: Request): void;
  /** Ends it at once; it cannot refuse. */
  kill(): void;
}

export interface WorkerListener {
  onMessage(message: unknown): void;
  /** Once, when the process is gone, or could not be started; `how` is a clause: "worker ended by SIGSEGV". */
  onEnd(how: string): void;
}

export type SpawnWorker = (listener: WorkerListener) => WorkerProcess;

/** A process that has hung up is given this long to end by itself, so that its own exit code is what we report. */
const hangUpMilliseconds = 200;
const lastWordsLength = 2000;

/** What a process said last, in brackets behind how it ended; nothing if it said nothing. */
export function lastWordsOf(streams: readonly (NodeJS.ReadableStream | null)[]): () => string {
  let words = '';
  for (const stream of streams) {
    (stream as Partial<Socket> | null)?.unref?.();
    stream?.setEncoding('utf8').on('data', (text: string) => {
      words = (words + text).slice(-lastWordsLength);
    });
  }
  return () => {
    const line = words.trim().split('\n').at(-1);
    return line ? ` (${line})` : '';
  };
}

export const forkWorker =
  (script: string): SpawnWorker =>
  (listener) => {
    const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
    // There is none where the process cannot be started.
    const pipe = child.stdio[pipeDescriptor] as Socket | null;
    // A worker at rest must not keep the program alive; while a call waits, its deadline does.
    child.unref();
    pipe?.unref();
    const kill = (): void => void child.kill('SIGKILL');
    const lastWords = lastWordsOf([child.stdout, child.stderr]);
    let ended = false;
    const end = (how: string): void => {
      if (ended) return;
      ended = true;
      listener.onEnd(`${how}${lastWords()}`);
    };
    let hangUp: NodeJS.Timeout | undefined;
    pipe?.on(
      'data',
      frameReader((message) => listener.onMessage(message)),
    );
    pipe?.on('error', () => undefined); // the end of the process says more
    pipe?.on('close', () => {
      hangUp = setTimeout(() => {
        end('worker hung up without ending');
        kill();
      }, hangUpMilliseconds);
    });
    child.on('error', (error) => {
      if (child.pid === undefined) end(`worker cannot be started: ${error.message}`);
      else kill();
    });
    // `close` comes after the last message and the last words; `exit` may come before them.
    child.on('close', (code, signal) => {
      clearTimeout(hangUp);
      end(signal ? `worker ended by ${signal}` : `worker ended with exit code ${code}`);
    });
    return {
      // A worker that is gone cannot be written to; its end is reported by `close`.
      send: (request) => void (pipe?.writable && pipe.write(encodeFrame(request))),
      kill,
    };
  };
