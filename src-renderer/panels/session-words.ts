/** A session in words. */
import type { SessionSummary } from '../../src-main/contract/library.ts';

const dates = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });

/** As it came, where it is no date. */
export function dateOf({ startedAt }: SessionSummary): string {
  const date = new Date(startedAt);
  return Number.isNaN(date.getTime()) ? startedAt : dates.format(date);
}

export const pointsOf = ({ measured, failed, skipped }: SessionSummary): number => measured + failed + skipped;

/** `7 of 12 points · stopped · 1 damaged line left out`. */
export function progressOf(session: SessionSummary): string {
  const { status, total, failed, damagedLines } = session;
  const points = pointsOf(session);
  const count = total !== undefined && points < total ? `${points} of ${total} points` : `${points} points`;
  const ending = { complete: [], stopped: ['stopped'], crashed: ['crashed'], measuring: ['measuring now'] }[status];
  const lines = damagedLines === 1 ? 'line' : 'lines';
  const damage = damagedLines > 0 ? [`${damagedLines} damaged ${lines} left out`] : [];
  return [count, ...(failed > 0 ? [`${failed} failed`] : []), ...ending, ...damage].join(' · ');
}

/** Whether there is anything left to measure. */
export const isUnfinished = ({ status }: SessionSummary): boolean => status === 'stopped' || status === 'crashed';
