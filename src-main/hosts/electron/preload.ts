/** All that the page gets of Electron: the bridge of the contract. Built as one CommonJS file, as a sandbox demands. */
import { contextBridge, ipcRenderer } from 'electron';
import type { Bridge } from '../../contract/calls.ts';
import type { HubEvent } from '../../contract/run-state.ts';
import { channelOf, eventsChannel, readyChannel, watchChannel } from './channels.ts';

const bridge: Bridge = {
  call: (name, input) => ipcRenderer.invoke(channelOf(name), input),
  subscribe: (listener) => {
    const ready = (_: unknown, sequence: number): void => listener.onReady(sequence);
    const events = (_: unknown, batch: readonly HubEvent[]): void => listener.onEvents(batch);
    ipcRenderer.on(readyChannel, ready).on(eventsChannel, events);
    ipcRenderer.send(watchChannel);
    return () => void ipcRenderer.off(readyChannel, ready).off(eventsChannel, events);
  },
};

contextBridge.exposeInMainWorld('fastmqa', bridge);
