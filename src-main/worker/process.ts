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

const supervisor = new Socket({ fd: pipeDescriptor, readable: true, writable: true });
const hear = frameReader(async (message) => {
  const request = message as Request;
  if (request.call !== 'cancel') supervisor.write(encodeFrame(await answer(request)));
  else if (!(addon instanceof Error)) addon.cancel();
});
supervisor.on('data', hear).on('error', () => undefined);
// Nothing here needs saving, and native threads must not run on without anyone to listen.
supervisor.on('close', () => process.kill(process.pid, 'SIGKILL'));
