/** The one interface that every host serves and every face of the app talks to. */
import type { Point } from './metrics.ts';
import type { Environment } from './session.ts';
import type { PointConfig, Sweep } from './sweep.ts';

export interface LevelInfo {
  readonly name: string;
  readonly summary: string;
  readonly techniques: readonly string[];
}

export interface DeviceInfo {
  readonly backend: string;
  readonly usable: boolean;
  readonly name?: string;
  /** Why it cannot be used, and what would help. */
  readonly reason?: string;
  readonly memoryBytes?: number;
  readonly threads?: number;
  readonly instructionSet?: string;
  readonly fmaFlopsPerSecond?: number;
  readonly readBytesPerSecond?: number;
  /** Of a GPU, as it is now. */
  readonly computeCapability?: string;
  readonly driverCudaVersion?: string;
  readonly clockMHz?: number;
  readonly mostClockMHz?: number;
  readonly temperatureCelsius?: number;
  readonly powerWatts?: number;
  readonly powerLimitWatts?: number;
  /** Why its clock is not higher. */
  readonly clockReasons?: readonly string[];
  readonly foreignProcesses?: number;
}

/** Of a device this moment. Absent = the system does not tell. */
export interface DeviceVitals {
  readonly backend: string;
  readonly clockHz?: number;
  readonly temperatureCelsius?: number;
  readonly powerWatts?: number;
  readonly powerLimitWatts?: number;
  readonly memoryBytes: number;
  readonly memoryFreeBytes: number;
}

export interface SweepPreview {
  readonly points: readonly PointConfig[];
  /** Combinations that cannot exist, and why. */
  readonly skipped: readonly { readonly config: PointConfig; readonly reason: string }[];
  readonly estimatedSeconds: number;
  /** Largest memory any one point is expected to need. */
  readonly estimatedPeakBytes: number;
}

export type RunEnd = 'done' | 'stopped' | 'cancelled' | 'interrupted';

/** Every event carries a sequence number that grows by one. */
export type RunEvent = { readonly sequence: number } & (
  | { readonly type: 'started'; readonly total: number; readonly done: number; readonly environment: Environment }
  | {
      readonly type: 'progress';
      readonly pointId: string;
      readonly step: 'preparing' | 'sampling';
      readonly samples: number;
    }
  | {
      readonly type: 'point';
      readonly point: Point;
      readonly done: number;
      readonly total: number;
      readonly etaSeconds: number;
    }
  /** `reason`: why the run paused by itself. */
  | { readonly type: 'paused'; readonly reason?: string }
  | { readonly type: 'continued' }
  | { readonly type: 'ended'; readonly how: RunEnd }
);

/** Before it has its number. */
export type RunEventBody = RunEvent extends infer E ? (E extends unknown ? Omit<E, 'sequence'> : never) : never;

export interface RunControl {
  pause(): void;
  continue(): void;
  /** Finish the point at hand, then end. */
  stop(): void;
  /** End now; the point at hand is not recorded. `interrupted`: by a signal, not by the user's choice. */
  cancel(how?: 'cancelled' | 'interrupted'): void;
}

export interface SweepRun extends RunControl {
  readonly finished: Promise<{ readonly points: readonly Point[]; readonly how: RunEnd }>;
}

export interface RunOptions {
  readonly out?: string;
  readonly resume?: boolean;
  readonly onEvent?: (event: RunEvent) => void;
  /** What the user should know and no row says. */
  readonly onNotice?: (line: string) => void;
  /** Ids of points that are not to be measured: somebody has them. */
  readonly except?: readonly string[];
  /** Measured by the workers of this queue instead of this machine. */
  readonly fleet?: FleetOptions;
  /** Measured by the agent of a server. */
  readonly remote?: RemoteOptions;
}

export interface RemoteOptions {
  /** As the user's ssh knows it. */
  readonly host: string;
  /** How FastMQA is called there; absent: as it was before, or `fastmqa`. */
  readonly command?: string;
  readonly onNotice?: (line: string) => void;
}

export interface FleetOptions {
  /** `redis://HOST` or `rediss://HOST`, without a password. */
  readonly queue: string;
  /** Only devices of this name, as `fleet` lists them. */
  readonly device?: string;
  /** What the user should know and no row says. */
  readonly onNotice?: (line: string) => void;
}

export interface ProfilerApi {
  levels(): readonly LevelInfo[];
  devices(): Promise<readonly DeviceInfo[]>;
  /** Costs a few small reads: may be asked while samples are taken. */
  vitals(): Promise<readonly DeviceVitals[]>;
  preview(sweep: Sweep): SweepPreview;
  run(sweep: Sweep, options?: RunOptions): Promise<SweepRun>;
  close(): Promise<void>;
}
