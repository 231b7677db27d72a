/** Clock, temperature and memory of the devices, asked for again and again; less often while samples are taken. */
import { createStore } from 'zustand/vanilla';
import type { DeviceVitals } from '../../src-main/contract/api.ts';
import { isSampling } from '../../src-main/contract/run-state.ts';
import type { Client } from '../client/client.ts';
import type { createRunStore } from './run.ts';

const restMilliseconds = 2000;
const quietMilliseconds = 6000;

export function createVitalsStore(client: Client, run: ReturnType<typeof createRunStore>) {
  const store = createStore<{ readonly devices: readonly DeviceVitals[] }>(() => ({ devices: [] }));
  return {
    ...store,
    /** @param isHidden nobody looks: nothing is asked. @returns how to end it */
    follow: (isHidden: () => boolean): (() => void) => {
      let timer: ReturnType<typeof setTimeout>;
      let isOver = false;
      const ask = async (): Promise<void> => {
        // A host that does not answer is told elsewhere; old figures would be wrong ones.
        if (!isHidden()) store.setState({ devices: await client.api.vitals({}).catch(() => []) });
        if (!isOver) timer = setTimeout(ask, isSampling(run.getState().run) ? quietMilliseconds : restMilliseconds);
      };
      void ask();
      return () => {
        isOver = true;
        clearTimeout(timer);
      };
    },
  };
}
