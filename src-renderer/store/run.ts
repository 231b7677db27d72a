/** The current sweep as this window knows it. Events are only ever reduced; what they cannot tell comes as a snapshot. */
import { createStore } from 'zustand/vanilla';
import {
  followsOn,
  type HubEvent,
  isSampling,
  noRun,
  type RunState,
  reduceRun,
} from '../../src-main/contract/run-state.ts';
import type { Client } from '../client/client.ts';

/**
 * While samples are taken the window is painted this seldom: it runs on the machine that it measures. What changes the
 * state of the sweep is shown at once.
 */
const quietMilliseconds = 500;

export type Connection = 'connecting' | 'live' | 'lost' | 'refused';

export interface RunStore {
  readonly run: RunState;
  readonly connection: Connection;
}

/** It tells of progress and changes nothing else. */
const isCalm = ({ type }: HubEvent): boolean => type === 'progress' || type === 'point';

export function createRunStore(client: Client) {
  const store = createStore<RunStore>(() => ({ run: noRun, connection: 'connecting' }));
  let waiting: HubEvent[] = [];
  /** Heard and not shown yet. */
  let held: HubEvent[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;
  let asking = false;

  /** Batches that arrive while a snapshot is on its way wait for it: those it already holds are dropped. */
  async function askForSnapshot(): Promise<void> {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    timer = undefined;
    held = [];
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
    if (asking) {
      waiting.push(...events);
      return;
    }
    const { run } = store.getState();
    held.push(...events);
    if (!followsOn(run, held)) void askForSnapshot();
    else if (isSampling(run) && events.every(isCalm)) timer ??= setTimeout(show, quietMilliseconds);
    else show();
  }

  function show(): void {
    clearTimeout(timer);
    timer = undefined;
    const events = held;
    held = [];
    if (events.length > 0) store.setState(({ run }) => ({ run: reduceRun(run, events) }));
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
