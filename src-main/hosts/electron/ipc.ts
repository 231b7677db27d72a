/** Carries the calls and events of the contract. Who is asking comes first, then whether the values fit, then the answer. */
import { type IpcMainEvent, type IpcMainInvokeEvent, ipcMain, type WebContents } from 'electron';
import { type AppApi, callNames } from '../../contract/calls.ts';
import { answer } from '../app-calls.ts';
import type { RunHub } from '../run-hub.ts';
import { channelOf, eventsChannel, readyChannel, watchChannel } from './channels.ts';
import { isAppUrl } from './page.ts';

/** Only the main frame of our own window, and only while our own page is in it. */
export function isOurs({ sender, senderFrame }: IpcMainEvent | IpcMainInvokeEvent, window: WebContents): boolean {
  // A frame that is gone by now has nothing to ask.
  if (sender !== window || !senderFrame || senderFrame.detached) return false;
  return senderFrame === sender.mainFrame && senderFrame.parent === null && isAppUrl(senderFrame.url);
}

/** @returns how to end it */
export function setUpIpc(api: AppApi, hub: RunHub, windowOf: () => WebContents | undefined): () => void {
  const admits = (event: IpcMainEvent | IpcMainInvokeEvent): boolean => {
    const window = windowOf();
    return window !== undefined && isOurs(event, window);
  };
  for (const name of callNames) {
    ipcMain.handle(channelOf(name), (event, input: unknown) => {
      if (!admits(event)) throw new Error('refused: not asked by the window of this app');
      return answer(api, name, input);
    });
  }

  let unwatch = (): void => undefined;
  ipcMain.on(watchChannel, (event) => {
    if (!admits(event)) return;
    const { sender } = event;
    const send = (channel: string, value: unknown): void => {
      if (sender.isDestroyed()) unwatch();
      else sender.send(channel, value);
    };
    // A page that was loaded again watches anew.
    unwatch();
    send(readyChannel, hub.snapshot().sequence);
    unwatch = hub.subscribe((events) => send(eventsChannel, events));
  });

  return () => {
    unwatch();
    ipcMain.removeAllListeners(watchChannel);
    for (const name of callNames) ipcMain.removeHandler(channelOf(name));
  };
}
