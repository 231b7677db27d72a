/** The session in view: its name, that it is saved, and what can be done with it. */
import { Menu, Tooltip } from '@mantine/core';
import { IconChevronDown } from '@tabler/icons-react';
import { useState } from 'react';
import { useStore } from 'zustand';
import { isActive } from '../../src-main/contract/run-state.ts';
import { SaveItems } from '../panels/session-items.tsx';
import { isUnfinished } from '../panels/session-words.ts';
import { showLibrary } from '../panels/sessions-panel.tsx';
import { useApp, useRun } from '../panels/use-app.ts';
import { useDeviceInWords } from '../panels/use-devices.ts';
import classes from './top-bar.module.css';

/** The exports of the session in view are in it. */
export const openSessionMenu = (): void => document.querySelector<HTMLElement>('[data-session-menu]')?.click();

export function SessionMenu() {
  const app = useApp();
  const session = useRun((run) => run.session);
  const active = useRun(isActive);
  const device = useDeviceInWords();
  const [isOpen, setOpen] = useState(false);
  const summary = useStore(app.library, ({ library }) => library?.sessions.find(({ id }) => id === session?.id));
  if (!session)
    return (
      <span className={classes.session} data-none="">
        <span>no session yet</span>
        <small>a sweep is saved as it runs</small>
      </span>
    );
  return (
    <Menu position="bottom-start" withinPortal onChange={setOpen}>
      <Tooltip label={session.file} multiline maw={480} openDelay={400} disabled={isOpen}>
        <Menu.Target>
          <button data-session-menu="" type="button" className={classes.session}>
            <span>
              {session.name} <IconChevronDown size={12} aria-hidden="true" />
            </span>
            <small>{`${active ? 'saved point by point' : 'saved'}${device ? ` · ${device}` : ''}`}</small>
          </button>
        </Menu.Target>
      </Tooltip>
      <Menu.Dropdown>
        <Menu.Item
          onClick={() => {
            app.view.setState({ left: 'sessions' });
            app.library.edit(session.id);
          }}
        >
          Name and tags…
        </Menu.Item>
        {summary && isUnfinished(summary) && !active && (
          <Menu.Item onClick={() => void app.library.continueMeasuring(session.id)}>Measure the rest</Menu.Item>
        )}
        <Menu.Item onClick={() => showLibrary(app)}>Show the library</Menu.Item>
        <SaveItems id={session.id} />
      </Menu.Dropdown>
    </Menu>
  );
}
