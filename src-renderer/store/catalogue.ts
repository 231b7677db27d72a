/** What the host has to offer: levels and devices. Asked for once. */
import { createStore } from 'zustand/vanilla';
import type { DeviceInfo, LevelInfo } from '../../src-main/contract/api.ts';
import type { Client } from '../client/client.ts';

interface Catalogue {
  readonly levels: readonly LevelInfo[];
  /** Undefined until they are known: measuring a device takes a second. */
  readonly devices: readonly DeviceInfo[] | undefined;
  readonly failure: string | undefined;
}

export function createCatalogueStore(client: Client) {
  const store = createStore<Catalogue>(() => ({ levels: [], devices: undefined, failure: undefined }));
  const fail = (error: unknown) => store.setState({ failure: (error as Error).message });
  return {
    ...store,
    loadLevels: () => client.api.levels({}).then((levels) => store.setState({ levels }), fail),
    loadDevices: () => client.api.devices({}).then((devices) => store.setState({ devices }), fail),
  };
}
