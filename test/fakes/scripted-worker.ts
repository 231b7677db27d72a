/** A worker without a process: it answers at once, so that thousands of rows cost seconds. For tests of what stands behind it. */
import type { Request } from '../../src-main/worker/protocol.ts';
import type { SpawnWorker } from '../../src-main/worker/spawn.ts';
// @ts-expect-error: shared with a worker process, which runs it uncompiled
import { figures } from './scripted-figures.mjs';

/** @param mayGoOn each sample waits for it */
export const scriptedWorker =
  (mayGoOn: () => Promise<void>): SpawnWorker =>
  (listener) => {
    const answer = async (request: Exclude<Request, { call: 'cancel' }>): Promise<unknown> => {
      if (request.call === 'info') return { threads: 2, instructionSet: 'scripted', buildFlags: 'none' };
      if (request.call === 'ceilings') return { fmaFlopsPerSecond: 1e11, readBytesPerSecond: 1e10 };
      if (request.call === 'prepare') return figures(request.args[0]);
      if (request.call === 'release') return undefined;
      await mayGoOn();
      return Float64Array.from({ length: 10 }, (_, i) => 0.001 + i * 1e-9);
    };
    return {
      kill: () => listener.onEnd('worker ended'),
      send: async (request) => {
        if (request.call === 'cancel') return;
        const { id, generation } = request;
        listener.onMessage({ id, generation, ok: true, value: await answer(request) });
      },
    };
  };
