/** What the sweep would cost, and the button that starts it. */
import { Button, Tooltip } from '@mantine/core';
import { IconPlayerPlayFilled } from '@tabler/icons-react';
import { useStore } from 'zustand';
import { formatBytes, formatSeconds } from '../../src-main/contract/format.ts';
import { isActive } from '../../src-main/contract/run-state.ts';
import classes from './sweep-form.module.css';
import { useApp, useRun } from './use-app.ts';

export function SweepPreview() {
  const app = useApp();
  const { summary, sweep } = useStore(app.preview);
  const active = useRun(isActive);
  const nothing = summary?.points === 0;
  return (
    <div className={classes.preview}>
      <dl className={classes.figures} aria-label="What this sweep would cost" aria-live="polite">
        <dt>points</dt>
        <dd>{summary ? summary.points : '–'}</dd>
        <dt>about</dt>
        <dd>{summary ? formatSeconds(Math.ceil(summary.estimatedSeconds)) : '–'}</dd>
        <dt>memory, most</dt>
        <dd>{summary ? formatBytes(summary.estimatedPeakBytes) : '–'}</dd>
      </dl>
      <Impossible />
      <Button
        fullWidth
        disabled={active || !sweep || nothing}
        leftSection={<IconPlayerPlayFilled size={14} />}
        onClick={() => void app.startRun()}
      >
        {active ? 'A sweep is running' : 'Run'}
      </Button>
    </div>
  );
}

function Impossible() {
  const impossible = useStore(useApp().preview, ({ summary }) => summary?.impossible);
  const count = impossible?.reduce((sum, { points }) => sum + points, 0) ?? 0;
  if (!impossible || count === 0) return <div className={classes.impossible} />;
  const all = impossible.map(({ reason, levels, points }) => `${points} of ${levels.join(', ')}: ${reason}`).join('\n');
  return (
    <Tooltip label={all} multiline w={320} style={{ whiteSpace: 'pre-line' }}>
      <div className={classes.impossible}>
        {count} more cannot exist and will be listed as skipped: {impossible[0].reason}
      </div>
    </Tooltip>
  );
}
