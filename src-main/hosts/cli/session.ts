import type { Profiler } from '../compose.ts';
import type { ExitCode } from './exit.ts';

/** What a command works with, and how it ended. */
export interface Session {
  readonly profiler: Profiler;
  exitCode: ExitCode;
}
