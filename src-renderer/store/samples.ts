/** Raw samples, asked for one point at a time when somebody looks at it: ten thousand points of them would fill the memory. */
import { createStore } from 'zustand/vanilla';
import type { Client } from '../client/client.ts';

export type Samples =
  | { readonly state: 'asked' }
  | { readonly state: 'known'; readonly seconds: readonly number[] }
  | { readonly state: 'refused'; readonly reason: string };

const mostKept = 64;

export function createSamplesStore(client: Client) {
  const store = createStore<Readonly<Record<string, Samples>>>(() => ({}));
  const keep = (key: string, samples: Samples): void => {
    const others = Object.entries(store.getState()).filter(([other]) => other !== key);
    store.setState(Object.fromEntries([...others.slice(-(mostKept - 1)), [key, samples]]), true);
  };
  return {
    ...store,
    /** @param sessionId ids of points repeat in another sweep of the same sweep form */
    ask: async (sessionId: string, pointId: string): Promise<void> => {
      const key = samplesKey(sessionId, pointId);
      const known = store.getState()[key];
      if (known && known.state !== 'refused') return;
      keep(key, { state: 'asked' });
      try {
        keep(key, { state: 'known', seconds: await client.api.samples({ pointId }) });
      } catch (error) {
        keep(key, { state: 'refused', reason: (error as Error).message });
      }
    },
  };
}

export const samplesKey = (sessionId: string, pointId: string): string => `${sessionId} ${pointId}`;
