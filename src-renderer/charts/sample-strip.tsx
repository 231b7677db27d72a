/** Every sample of a point in the order taken: drift, outliers and steps show here before any statistic names them. */
import { formatSeconds } from '../../src-main/contract/format.ts';
import classes from './sample-strip.module.css';

interface SampleStripProps {
  /** Of one step each. */
  readonly seconds: readonly number[];
  readonly median: number;
  readonly colour: string;
}

const [width, height, inset] = [280, 56, 3];
/** More dots than there are pixels say nothing more. */
const mostDots = 560;

export function SampleStrip({ seconds, median, colour }: SampleStripProps) {
  const least = seconds.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const most = seconds.reduce((a, b) => Math.max(a, b), 0);
  const y = (value: number): number =>
    most > least ? height - inset - ((value - least) / (most - least)) * (height - 2 * inset) : height / 2;
  const x = (i: number): number => inset + (i / Math.max(1, seconds.length - 1)) * (width - 2 * inset);
  const every = Math.ceil(seconds.length / mostDots);
  // The slowest are never left out: they are what one looks for.
  const shown = seconds
    .map((value, i) => ({ value, i }))
    .filter(({ value, i }) => i % every === 0 || value > 2 * median);
  const words = `${seconds.length} samples in the order taken, from ${formatSeconds(least)} to ${formatSeconds(most)}, median ${formatSeconds(median)}`;
  return (
    <figure className={classes.figure}>
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={words} className={classes.strip}>
        <line x1={0} x2={width} y1={y(median)} y2={y(median)} className={classes.median} />
        {shown.map(({ value, i }) => (
          <circle key={i} cx={x(i)} cy={y(value)} r={1.6} fill={colour} />
        ))}
      </svg>
      <figcaption>{words}</figcaption>
    </figure>
  );
}
