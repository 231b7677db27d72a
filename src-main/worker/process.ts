/** The worker process: loads the addon, answers the supervisor, and ends when the supervisor does. */

import { Socket } from 'node:net';
import { loadAddon } from './addon.ts';
import type { Addon } from './addon-types.ts';
import { encodeFrame, frameReader, pipeDescriptor } from './frames.ts';
import type { Reply, Request } from './protocol.ts';

// Whoever interrupts the program means the supervisor, which then ends this process in its own time.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('uncaughtException', (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});

let addon: Addon | Error;
try {
  addon = loadAddon();
} catch (error) {
  addon = error as Error;
}

async function answer({ id, generation, call, args }: Exclude<Request, { call: 'cancel' }>): Promise<Reply> {
  try {
    if (addon instanceof Error) throw Object.assign(addon, { code: 'failed' });
    const run = addon[call] as (...values: unknown[]) => unknown;
    return { id, generation, ok: true, value: await run(...args) };
  } catch (error) {
    const { code, message } = error as { code?: unknown; message?: unknown };
    return { id, generation, ok: false, code: String(code), message: String(message ?? error) };
  }
}

interface Channel {
  listen(hear: (request: Request) => void): void;
  send(reply: Reply): void;
}

/** What a utility process of Electron has instead of a pipe. Electron ends the process when the app is gone. */
interface ParentPort {
  on(event: 'message', listener: (event: { readonly data: Request }) => void): void;
  postMessage(message: Reply): void;
}

const portChannel = (port: ParentPort): Channel => ({
  listen: (hear) => port.on('message', ({ data }) => hear(data)),
  send: (reply) => port.postMessage(reply),
});

function pipeChannel(): Channel {
  const supervisor = new Socket({ fd: pipeDescriptor, readable: true, writable: true });
  // Nothing here needs saving, and native threads must not run on without anyone to listen.
  supervisor.on('error', () => undefined).on('close', () => process.kill(process.pid, 'SIGKILL'));
  return {
    listen: (hear) =>
      void supervisor.on(
        'data',
        frameReader((message) => hear(message as Request)),
      ),
    send: (reply) => void supervisor.write(encodeFrame(reply)),
  };
}

const { parentPort } = process as { parentPort?: ParentPort };
const channel = parentPort ? portChannel(parentPort) : pipeChannel();
channel.listen(async (request) => {
  if (request.call !== 'cancel') channel.send(await answer(request));
  else if (!(addon instanceof Error)) addon.cancel();
});
