/** A session file with one bit changed: what is still shown must be true, and what is not shown must be said. */
import { InputError } from '../../src-main/contract/input-error.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { SessionRecord } from '../../src-main/contract/session.ts';
import { encodeRecord } from '../../src-main/sessions/recording.ts';
import { parseSession } from '../../src-main/sessions/recovery.ts';
import { header } from '../fakes/points.ts';
import { Chance } from './effort.ts';

export const wholeSession = (points: readonly Point[]): Buffer => {
  const rows = points.map((point): SessionRecord => ({ kind: 'point', point }));
  return Buffer.concat(
    [header, ...rows, { kind: 'ended', how: 'done' } as const].map((record) => encodeRecord(record as SessionRecord)),
  );
};

export interface Flips {
  readonly flips: number;
  /** Shown, and wrong; or left out without a word. */
  readonly silent: number;
  /** The header was hit, and the file refused. */
  readonly refused: number;
}

export function flipBits(points: readonly Point[], flips: Iterable<number>): Flips {
  const whole = wholeSession(points);
  const truth = parseSession(whole, 'whole');
  const rows = new Map(points.map((point) => [point.id, JSON.stringify(point)]));
  const told = JSON.stringify(truth.header);
  const chance = new Chance(3);
  const count = { flips: 0, silent: 0, refused: 0 };
  for (const _ of flips) {
    count.flips += 1;
    const at = chance.below(whole.length);
    const bit = 1 << chance.below(8);
    whole[at] ^= bit;
    try {
      const session = parseSession(whole, 'flipped');
      const isWrong =
        JSON.stringify(session.header) !== told ||
        [...session.points].some(([id, point]) => rows.get(id) !== JSON.stringify(point)) ||
        session.how !== (session.records.length === truth.records.length ? 'done' : session.how);
      const isMissing = session.records.length < truth.records.length;
      // The very last line end is the only byte whose loss loses nothing.
      if (isWrong || (session.setAside.length === 0 && (isMissing || at !== whole.length - 1))) count.silent += 1;
    } catch (error) {
      if (error instanceof InputError) count.refused += 1;
      else count.silent += 1;
    }
    whole[at] ^= bit;
  }
  return count;
}
