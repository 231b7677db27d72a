/** What the sweep would cost. */
import { Tooltip } from '@mantine/core';
import { useStore } from 'zustand';
import { formatBytes, formatSeconds } from '../../src-main/contract/format.ts';
import classes from './sweep-form.module.css';
import { useApp } from './use-app.ts';

export function SweepPreview() {
  const { summary, sweep } = useStore(useApp().preview);
  return (
    <div className={classes.preview}>
      <dl
        className={classes.figures}
        data-stale={!sweep || undefined}
        aria-label="What this sweep would cost"
        aria-live="polite"
      >
        <dt>points</dt>
        <dd>{summary ? summary.points : '–'}</dd>
        <dt>about</dt>
        <dd>{summary ? formatSeconds(Math.ceil(summary.estimatedSeconds)) : '–'}</dd>
        <dt>memory, most</dt>
        <dd>{summary ? formatBytes(summary.estimatedPeakBytes) : '–'}</dd>
      </dl>
      <Impossible />
    </div>
  );
}

/** What keeps Run from being pressed, which may stand at a field out of sight; or what the sweep leaves out. */
function Impossible() {
  const { errors, summary } = useStore(useApp().preview);
  const wrong = Object.values(errors);
  if (wrong.length > 0)
    return (
      <Tooltip label={wrong.join('\n')} multiline w={320} style={{ whiteSpace: 'pre-line' }}>
        <div className={classes.impossible} data-wrong="">
          {wrong.length === 1 ? wrong[0] : `${wrong.length} fields to put right before it can run`}
        </div>
      </Tooltip>
    );
  const impossible = summary?.impossible;
  const count = impossible?.reduce((sum, { points }) => sum + points, 0) ?? 0;
  if (!impossible || count === 0) return <div className={classes.impossible} />;
  const all = impossible.map(({ reason, levels, points }) => `${points} of ${levels.join(', ')}: ${reason}`).join('\n');
  return (
    <Tooltip label={all} multiline w={320} style={{ whiteSpace: 'pre-line' }}>
      <div className={classes.impossible}>
        {count} impossible: {impossible[0].reason}
      </div>
    </Tooltip>
  );
}
