import type { Damage, Profiler } from '../compose.ts';
import { type ExitCode, exitCodes } from './exit.ts';
import { say } from './output.ts';

/** What a command works with, and how it ended. */
export interface Session {
  readonly profiler: Profiler;
  exitCode: ExitCode;
}

/** The result is written as far as the sessions are whole; a script sees by the exit code that this is not all there was. */
export function tellDamage(session: Session, damage: readonly Damage[]): void {
  for (const { sentence, isLacking } of damage) {
    say(sentence);
    if (isLacking) session.exitCode = exitCodes.damaged;
  }
}
