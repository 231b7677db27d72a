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

/** Where sweeps may run besides this machine. */
export interface Places {
  /** Servers whose agents were reached before. */
  readonly agents: readonly string[];
  /** Address of the queue, without a password. */
  readonly queue?: string;
}

/** A worker of a queue, as it describes itself. */
export interface FleetHost {
  readonly id: string;
  readonly host: string;
  readonly device: string;
  readonly backend: string;
  readonly memoryBytes: number;
  /** Of its kernels and protocol. */
  readonly version: string;
  /** They are those of this program; others take none of its points. */
  readonly fits: boolean;
  readonly startedAt: string;
  /** Points finished since then. */
  readonly done: number;
  /** Over the last minute. */
  readonly pointsPerMinute: number;
  /** What it works on: level and phase. */
  readonly doing?: string;
}

export interface FleetView {
  readonly queue: string;
  /** Why the rest is not known. */
  readonly outOfReach?: string;
  readonly hosts: readonly FleetHost[];
  /** Points of all submitters that wait for a worker, and that one has taken. */
  readonly waiting: number;
  readonly atWork: number;
  /** Of all workers together, over the last minute. */
  readonly pointsPerMinute: number;
  /** Until all of them are measured at that rate; absent where there is none. */
  readonly etaSeconds?: number;
}
