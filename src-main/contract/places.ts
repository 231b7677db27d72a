/** Where a sweep may run: this machine, an agent on a server, or the fleet behind a queue; and what is known of those. */
import { z } from 'zod';
import type { DeviceInfo } from './api.ts';

export const placeSchema = z.discriminatedUnion('kind', [
  /** One of the agents that this host knows: a window cannot send it elsewhere. */
  z.strictObject({ kind: z.literal('agent'), host: z.string().min(1).max(255) }),
  /** The queue that this host was given; `device`: only devices of this name. */
  z.strictObject({ kind: z.literal('fleet'), device: z.string().min(1).max(255).optional() }),
]);
export type Place = z.infer<typeof placeSchema>;

/** A server as its agent describes it. */
export interface AgentInfo {
  /** As the user calls it. */
  readonly host: string;
  readonly reachable: boolean;
  /** Why not. */
  readonly reason?: string;
  /** As it calls itself. */
  readonly machine?: string;
  /** It has the kernels of this program. */
  readonly fits?: boolean;
  readonly devices: readonly DeviceInfo[];
  /** Sessions that it keeps for somebody, the one it measures among them. */
  readonly runs: readonly {
    readonly run: string;
    readonly name: string;
    readonly status: string;
    readonly rows: number;
  }[];
}
