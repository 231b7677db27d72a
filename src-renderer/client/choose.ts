/** One client, chosen once at start: nothing else in the window knows what carries its calls. */
import type { Bridge } from '../../src-main/contract/calls.ts';
import { type Client, createClient } from './client.ts';
import { webBridge } from './web.ts';

declare global {
  interface Window {
    /** Exposed by the preload script of the desktop app. */
    readonly fastmqa?: Bridge;
  }
}

export const chooseClient = (): Client => createClient(window.fastmqa ?? webBridge);
