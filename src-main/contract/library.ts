/** The library of sessions, as a window sees it: files are named by ids, never by paths. */
import type { Point } from './metrics.ts';
import type { Environment } from './session.ts';

/** `crashed`: its program ended before the sweep did. `measuring`: it is being recorded now. */
export type SessionStatus = 'complete' | 'stopped' | 'crashed' | 'measuring';

export interface SessionSummary {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  /** When its first run began, ISO 8601. */
  readonly startedAt: string;
  readonly status: SessionStatus;
  readonly measured: number;
  readonly failed: number;
  readonly skipped: number;
  /** Points of its sweep; absent where this version cannot tell. */
  readonly total?: number;
  readonly levels: readonly string[];
  readonly backends: readonly string[];
  readonly cpu: string;
  readonly bytes: number;
  /** For eyes: no call takes it. */
  readonly file: string;
  readonly damagedLines: number;
  /** It crashed, and nobody has said yet what is to become of it. */
  readonly isUnattended: boolean;
  /** Opened from outside the library: it can be shown and compared, not thrown away. */
  readonly isOutside: boolean;
}

export interface Library {
  /** Where sessions are saved by themselves. */
  readonly folder: string;
  /** Newest first. */
  readonly sessions: readonly SessionSummary[];
  readonly trash: readonly SessionSummary[];
  /** Files of the folder that cannot be read as sessions, and why. */
  readonly unreadable: readonly { readonly file: string; readonly reason: string }[];
}

/** Points of a session beside the current one, without their raw samples. */
export interface SessionPoints {
  readonly id: string;
  readonly name: string;
  readonly points: readonly Point[];
  /** Of the machine that measured those that name no device. */
  readonly environment: Environment;
}

/** A file to be saved wherever the user likes. */
export interface Download {
  readonly fileName: string;
  readonly mediaType: string;
  readonly base64: string;
}

/** Ten thousand points with all their samples take about half of it. */
export const largestSessionBytes = 64 * 1024 * 1024;
