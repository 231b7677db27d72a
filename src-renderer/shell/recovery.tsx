/** Sessions whose program ended before their sweep did, each until somebody says what is to become of it. */
import { Button, Group } from '@mantine/core';
import { useStore } from 'zustand';
import { isActive } from '../../src-main/contract/run-state.ts';
import { dateOf, pointsOf } from '../panels/session-words.ts';
import { useApp, useRun } from '../panels/use-app.ts';
import classes from './banner.module.css';

/** The rest is in the library. */
const mostOffered = 2;

export function Recovery() {
  const app = useApp();
  const sessions = useStore(app.library, ({ library }) => library?.sessions);
  const active = useRun(isActive);
  const offered = active ? [] : (sessions ?? []).filter(({ isUnattended }) => isUnattended).slice(0, mostOffered);
  const offers = offered.map((session) => {
    const { id, name, total, damagedLines } = session;
    const points = pointsOf(session);
    const count = total === undefined ? `${points} points` : `${points} of ${total} points`;
    const damaged = damagedLines > 0 ? ` Damaged and left out: ${damagedLines} of its lines.` : '';
    return (
      <div key={id} className={classes.banner}>
        <span>
          <strong>{name}</strong> of {dateOf(session)} ended before its sweep did. {count} are saved.{damaged}
        </span>
        <Group gap={6} wrap="nowrap">
          <Button size="compact-xs" onClick={() => void app.library.continueMeasuring(id)}>
            Measure the rest
          </Button>
          <Button size="compact-xs" variant="default" onClick={() => void app.library.open(id)}>
            Open
          </Button>
          <Button size="compact-xs" variant="default" onClick={() => void app.library.acceptCrash(id)}>
            Leave it
          </Button>
        </Group>
      </div>
    );
  });
  return (
    <div className={classes.offers} role="status">
      {offers}
    </div>
  );
}
