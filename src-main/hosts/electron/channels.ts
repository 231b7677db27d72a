/** Names of the IPC channels: one for each call of the contract, and three for the stream of events. */
import type { CallName } from '../../contract/calls.ts';

export const channelOf = <Name extends CallName>(name: Name) => `fastmqa:call:${name}` as const;
/** Window to host: begin to send events. */
export const watchChannel = 'fastmqa:watch';
/** Host to window: the number of the last event so far, and from then on batches. */
export const readyChannel = 'fastmqa:ready';
export const eventsChannel = 'fastmqa:events';
