/** What runs, how far it is, and the verbs that steer it. */
import {
  ActionIcon,
  Button,
  Group,
  Progress,
  Text,
  Tooltip,
  useComputedColorScheme,
  useMantineColorScheme,
} from '@mantine/core';
import {
  IconMoon,
  IconPlayerPause,
  IconPlayerPlay,
  IconPlayerPlayFilled,
  IconPlayerStop,
  IconSun,
  IconX,
} from '@tabler/icons-react';
import { useStore } from 'zustand';
import { useShallow } from 'zustand/react/shallow';
import { formatMetric, formatSeconds } from '../../src-main/contract/format.ts';
import { isActive, type RunState } from '../../src-main/contract/run-state.ts';
import { useApp, useRun } from '../panels/use-app.ts';
import { Device } from './device.tsx';
import { SessionMenu } from './session-menu.tsx';
import classes from './top-bar.module.css';

export const TopBar = () => (
  <header className={classes.bar}>
    <span className={classes.brand}>FastMQA</span>
    <SessionMenu />
    <Verbs />
    <RunProgress />
    <Device />
    <ThemeSwitch />
  </header>
);

function Verbs() {
  const app = useApp();
  const { status, asked } = useRun(useShallow(({ status, asked }) => ({ status, asked })));
  const active = useRun(isActive);
  const isPaused = status === 'paused' || asked === 'pause';
  return (
    <Group gap={6} wrap="nowrap" role="group" aria-label="Steer the sweep">
      <RunButton />
      <Tooltip label={isPaused ? 'Go on measuring (Space)' : 'Rest after the step at hand (Space)'} openDelay={400}>
        <Button
          size="compact-sm"
          variant="default"
          w={104}
          disabled={!active}
          leftSection={isPaused ? <IconPlayerPlay size={14} /> : <IconPlayerPause size={14} />}
          onClick={() => void app.steer(isPaused ? 'continue' : 'pause')}
        >
          {isPaused ? 'Continue' : 'Pause'}
        </Button>
      </Tooltip>
      <Tooltip label="Finish the points at hand, then end" openDelay={400}>
        <Button
          size="compact-sm"
          variant="default"
          disabled={!active || asked === 'stop'}
          leftSection={<IconPlayerStop size={14} />}
          onClick={() => void app.steer('stop')}
        >
          Stop
        </Button>
      </Tooltip>
      <Tooltip label="End now; finished points are kept" openDelay={400}>
        <Button
          size="compact-sm"
          variant="default"
          disabled={!active}
          leftSection={<IconX size={14} />}
          onClick={() => void app.steer('cancel')}
        >
          Cancel
        </Button>
      </Tooltip>
    </Group>
  );
}

function RunButton() {
  const app = useApp();
  const active = useRun(isActive);
  const hasSweep = useStore(app.preview, ({ sweep, summary }) => sweep !== undefined && summary?.points !== 0);
  return (
    <Tooltip label="Measure the sweep on the left (Ctrl+Enter)" openDelay={400}>
      <Button
        size="compact-sm"
        disabled={active || !hasSweep}
        leftSection={<IconPlayerPlayFilled size={12} />}
        onClick={() => void app.startRun()}
      >
        Run
      </Button>
    </Tooltip>
  );
}

function RunProgress() {
  const run = useRun(
    useShallow(({ status, asked, done, total, etaSeconds, how, failure, pauseReason, notice, points }) => ({
      status,
      asked,
      done,
      total,
      etaSeconds,
      how,
      failure,
      pauseReason,
      notice,
      failed: points.filter(({ outcome }) => outcome === 'failed').length,
    })),
  );
  return (
    <div className={classes.progress}>
      <Progress
        value={run.total === 0 ? 0 : (100 * run.done) / run.total}
        size="sm"
        transitionDuration={0}
        color={run.failure ? 'red' : run.status === 'paused' ? 'yellow' : 'blue'}
        aria-label="Points done"
      />
      <Text size="xs" c="var(--app-quiet)" truncate role="status">
        {inWords(run)}
      </Text>
    </div>
  );
}

type Told = Pick<
  RunState,
  'status' | 'asked' | 'done' | 'total' | 'etaSeconds' | 'how' | 'failure' | 'pauseReason' | 'notice'
> & {
  readonly failed: number;
};

function inWords({ status, asked, done, total, etaSeconds, how, failure, pauseReason, notice, failed }: Told): string {
  const told = notice === undefined || status === 'ended' ? '' : ` · ${notice}`;
  const figure = (points: number): string => formatMetric(points, 'count');
  const count = `${figure(done)} of ${figure(total)}${failed > 0 ? `, ${figure(failed)} failed` : ''}${told}`;
  if (failure !== undefined) return `ended by a fault: ${failure}`;
  if (status === 'idle') return 'ready';
  if (status === 'starting') return 'measuring what this machine can do…';
  if (status === 'ended') return `${how} · ${count}`;
  if (status === 'paused') return pauseReason ? `paused: ${pauseReason}` : `paused · ${count}`;
  if (asked === 'pause') return `pausing after this step · ${count}`;
  if (asked === 'stop') return `stopping after the points at hand · ${count}`;
  if (asked === 'cancel') return `cancelling · ${count}`;
  return etaSeconds === undefined ? count : `${count} · about ${formatSeconds(Math.ceil(etaSeconds))} left`;
}

function ThemeSwitch() {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme('light');
  const other = scheme === 'dark' ? 'light' : 'dark';
  return (
    <Tooltip label={`Use the ${other} theme`} openDelay={400}>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label={`Use the ${other} theme`}
        onClick={() => setColorScheme(other)}
      >
        {scheme === 'dark' ? <IconSun size={16} /> : <IconMoon size={16} />}
      </ActionIcon>
    </Tooltip>
  );
}
