/** Where sweeps may run, which of these places the user has chosen, and what is known of the fleet and the agents. */
import { createStore } from 'zustand/vanilla';
import type { AgentInfo, FleetView, Place, Places } from '../../src-main/contract/places.ts';
import type { Client } from '../client/client.ts';

export interface PlacesStore {
  /** Undefined until the host has told. */
  readonly places: Places | undefined;
  /** Undefined = this machine. */
  readonly chosen: Place | undefined;
  /** Null: this host has no queue. Undefined until it was looked at. */
  readonly fleet: FleetView | null | undefined;
  /** Why the last look failed. */
  readonly failure: string | undefined;
  /** Undefined until they were asked. */
  readonly agents: readonly AgentInfo[] | undefined;
  readonly asking: boolean;
}

const lookMilliseconds = 2000;

export function createPlacesStore(client: Client, attempt: (deed: () => Promise<unknown>) => Promise<void>) {
  const store = createStore<PlacesStore>(() => ({
    places: undefined,
    chosen: undefined,
    fleet: undefined,
    failure: undefined,
    agents: undefined,
    asking: false,
  }));
  const { setState, getState } = store;

  async function look(): Promise<void> {
    try {
      setState({ fleet: await client.api.fleet({}), failure: undefined });
    } catch (error) {
      setState({ failure: (error as Error).message });
    }
  }

  return {
    ...store,
    load: () => attempt(async () => setState({ places: await client.api.places({}) })),
    choose: (chosen: Place | undefined) => setState({ chosen }),
    /** Looks at the fleet again and again while somebody watches. @returns how to end it */
    watch: (isSeen: () => boolean): (() => void) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      let ended = false;
      const again = async (): Promise<void> => {
        if (isSeen()) await look();
        // Without a queue there is nothing that could change.
        if (!ended && getState().fleet !== null) timer = setTimeout(again, lookMilliseconds);
      };
      void again();
      return () => {
        ended = true;
        clearTimeout(timer);
      };
    },
    /** Over ssh, each: only when the user asks. */
    askAgents: () =>
      attempt(async () => {
        setState({ asking: true });
        try {
          setState({ agents: await client.api.agents({}) });
        } finally {
          setState({ asking: false });
        }
      }),
  };
}
