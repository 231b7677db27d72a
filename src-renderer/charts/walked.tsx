/** What every chart of points is to the keyboard: one stop of Tab, arrow keys inside, and words for whoever does not see it. */
import type { ComponentProps, KeyboardEvent, ReactNode } from 'react';
import classes from './plane-chart.module.css';

interface WalkedProps extends Omit<ComponentProps<'div'>, 'onKeyDown'> {
  readonly name: string;
  /** What the keys do, but for Escape. */
  readonly keys: string;
  readonly isNear?: boolean;
  /** @returns whether the key is one of the chart's own */
  readonly onKey: (event: KeyboardEvent) => boolean;
  /** About the point that the keys have led to: read out when it changes. */
  readonly told: ReactNode;
}

export const Walked = ({ name, keys, isNear = false, onKey, told, children, ...rest }: WalkedProps) => (
  <div
    className={classes.plane}
    role="application"
    aria-roledescription="chart"
    aria-label={`${name}. ${keys}, Escape closes. The table lists the same points.`}
    // biome-ignore lint/a11y/noNoninteractiveTabindex: an application is one that a user works with
    tabIndex={0}
    data-near={isNear ? '' : undefined}
    onKeyDown={(event) => {
      if (event.target === event.currentTarget && onKey(event)) event.preventDefault();
    }}
    {...rest}
  >
    {children}
    {/* There before its words are: what enters a page together with them is often not read out. */}
    <div aria-live="polite">{told}</div>
  </div>
);

const rowSteps: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1, Home: -1e9, End: 1e9 };

/** Of rows below each other, the one that a key leads to; from none (-1), the first. Undefined: no such key, or no row. */
export function nextRow<Row>(rows: readonly Row[], at: number, key: string): Row | undefined {
  const step = rowSteps[key];
  if (step === undefined) return undefined;
  return rows[Math.min(rows.length - 1, Math.max(0, at === -1 ? 0 : at + step))];
}
