/** The worker process: loads the addon, answers the supervisor, and ends when the supervisor does. */

import { loadAddon } from './addon.ts';
import type { Addon } from './addon-types.ts';
import type { Reply, Request } from './protocol.ts';

// Whoever interrupts the program means the supervisor, which then ends this process in its own time.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
// Nothing here needs saving, and native threads must not run on without anyone to listen.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
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

process.on('message', async (request: Request) => {
  if (request.call !== 'cancel') process.send?.(await answer(request), () => undefined);
  else if (!(addon instanceof Error)) addon.cancel();
});
