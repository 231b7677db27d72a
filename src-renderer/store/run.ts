/** The current sweep as this window knows it. Events are only ever reduced; what they cannot tell comes as a snapshot. */
import { createStore } from 'zustand/vanilla';
import { followsOn, type HubEvent, noRun, type RunState, reduceRun } from '../../src-main/contract/run-state.ts';
import type { Client } from '../client/client.ts';

export type Connection = 'connecting' | 'live' | 'lost' | 'refused';

export interface RunStore {
  readonly run: RunState;
  readonly connection: Connection;
}

export function createRunStore(client: Client) {
  const store = createStore<RunStore>(() => ({ run: noRun, connection: 'connecting' }));
  let waiting: HubEvent[] = [];
  let asking = false;

  /** Batches that arrive while a snapshot is on its way wait for it: those it already holds are dropped. */
  async function askForSnapshot(): Promise<void> {
    if (asking) return;
    asking = true;
    try {
      const run = await client.api.snapshot({});
      store.setState({ run, connection: 'live' });
      asking = false;
      apply(waiting.splice(0).filter(({ sequence }) => sequence > run.sequence));
    } catch {
      asking = false;
      waiting = [];
      store.setState({ connection: 'lost' });
    }
  }

  function apply(events: readonly HubEvent[]): void {
    if (events.length === 0) return;
    const { run } = store.getState();
    if (asking) waiting.push(...events);
    else if (followsOn(run, events)) store.setState({ run: reduceRun(run, events) });
    else void askForSnapshot();
  }

  const connect = (): (() => void) =>
    client.subscribe({
      onReady: () => void askForSnapshot(),
      onEvents: apply,
      onLost: (forGood) => store.setState({ connection: forGood ? 'refused' : 'lost' }),
    });

  /** Resolves with the first word of the host, or the first sign that there will be none. */
  const known = new Promise<void>((resolve) => {
    const end = store.subscribe(({ connection }) => {
      if (connection === 'connecting') return;
      end();
      resolve();
    });
  });
  return { ...store, connect, known };
}
