/** What the sweep would cost, or what keeps it from running. */
import { Tooltip } from '@mantine/core';
import { useStore } from 'zustand';
import { formatBytes, formatMetric, formatSeconds } from '../../src-main/contract/format.ts';
import type { App } from '../store/app.ts';
import { wholeForm } from '../store/preview.ts';
import classes from './sweep-form.module.css';
import { useApp } from './use-app.ts';

export const formId = 'sweep-form';

/** The first field that has something wrong with it, brought into view. */
export function focusWrong(app: App): void {
  app.view.setState({ left: 'sweep' });
  // The form may only now be painted.
  requestAnimationFrame(() =>
    document.getElementById(formId)?.querySelector<HTMLElement>('[aria-invalid="true"], [data-wrong] input')?.focus(),
  );
}

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
        <dd>{summary ? formatMetric(summary.points, 'count') : '–'}</dd>
        <dt>time, about</dt>
        <dd>{summary ? formatSeconds(Math.ceil(summary.estimatedSeconds)) : '–'}</dd>
        <dt>peak memory</dt>
        <dd>{summary ? formatBytes(summary.estimatedPeakBytes) : '–'}</dd>
      </dl>
      <Obstacle />
    </div>
  );
}

/** What keeps Run from being pressed: each sentence stands at its field, which may be out of sight. Or what the sweep leaves out. */
function Obstacle() {
  const app = useApp();
  const { errors, summary } = useStore(app.preview);
  const { [wholeForm]: whole, ...fields } = errors;
  const wrong = Object.keys(fields).length;
  if (whole !== undefined)
    return (
      <div className={classes.obstacle} data-wrong="" role="alert">
        {whole}
      </div>
    );
  if (wrong > 0)
    return (
      <button type="button" className={classes.obstacle} data-wrong="" onClick={() => focusWrong(app)}>
        {`${wrong} ${wrong === 1 ? 'field' : 'fields'} to put right before it can run`}
      </button>
    );
  const impossible = summary?.impossible;
  const count = impossible?.reduce((sum, { points }) => sum + points, 0) ?? 0;
  if (!impossible || count === 0) return <div className={classes.obstacle} />;
  const all = impossible.map(({ reason, levels, points }) => `${points} of ${levels.join(', ')}: ${reason}`).join('\n');
  return (
    <Tooltip label={all} multiline w={320} style={{ whiteSpace: 'pre-line' }}>
      <div className={classes.obstacle}>
        {count} impossible: {impossible[0].reason}
      </div>
    </Tooltip>
  );
}
