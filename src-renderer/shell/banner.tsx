/** Sentences that must be read: lost connection, deeds that failed. They lie over the window, so nothing moves. */
import { CloseButton } from '@mantine/core';
import { useStore } from 'zustand';
import { useApp, useConnection } from '../panels/use-app.ts';
import classes from './banner.module.css';

const connectionWords = {
  lost: 'FastMQA does not answer; trying again. A sweep goes on where it runs, and nothing it measured is lost.',
  refused: 'FastMQA was started anew: open the link that it printed.',
};

export function Banner() {
  const app = useApp();
  const connection = useConnection();
  const notices = useStore(app.notices, (store) => store.notices);
  return (
    <div className={classes.stack} role="alert">
      {(connection === 'lost' || connection === 'refused') && (
        <div className={classes.banner}>{connectionWords[connection]}</div>
      )}
      {notices.map(({ id, text }) => (
        <div key={id} className={classes.banner}>
          {text}
          <CloseButton size="sm" aria-label="Dismiss" onClick={() => app.notices.dismiss(id)} />
        </div>
      ))}
    </div>
  );
}
