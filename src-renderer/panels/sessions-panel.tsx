/** The library: every session that was measured here, to be found, named, opened, compared with, thrown away. */
import { ActionIcon, Button, Menu, TagsInput, Text, TextInput, Tooltip } from '@mantine/core';
import { IconArrowBackUp, IconDotsVertical, IconSearch, IconTrash } from '@tabler/icons-react';
import { type KeyboardEvent, useEffect, useRef, useState } from 'react';
import { useStore } from 'zustand';
import type { SessionSummary } from '../../src-main/contract/library.ts';
import { GlyphSwatch, ringOf } from '../charts/mark.tsx';
import { baselineColour } from '../series/marks.ts';
import type { App } from '../store/app.ts';
import { searchSessions } from '../store/library.ts';
import { mostBaselines } from '../store/view.ts';
import { SaveItems } from './session-items.tsx';
import { dateOf, isUnfinished, progressOf } from './session-words.ts';
import classes from './sessions-panel.module.css';
import { useApp, useRun, useView } from './use-app.ts';

/** More are found by searching. */
const mostShown = 200;
const listId = 'sessions';
const searchId = 'search-sessions';

export function showLibrary(app: App): void {
  app.view.setState({ left: 'sessions' });
  // The panel may only now be painted.
  requestAnimationFrame(() => document.getElementById(searchId)?.focus());
}

/** For those who have the file but not the hand to drop it. */
export function chooseSessionFile(app: App): void {
  const input = document.createElement('input');
  input.type = 'file';
  input.accept = '.fmqa';
  input.multiple = true;
  input.addEventListener('change', () => void app.library.take([...(input.files ?? [])]));
  input.click();
}

export function SessionsPanel() {
  const app = useApp();
  const { library, search } = useStore(app.library);
  const sessions = library?.sessions ?? [];
  const found = searchSessions(sessions, search);
  return (
    <div className={classes.panel}>
      <div className={classes.head}>
        <TextInput
          id={searchId}
          size="xs"
          aria-label="Search sessions"
          placeholder="Search: name, tag, level"
          leftSection={<IconSearch size={13} />}
          value={search}
          onChange={({ currentTarget }) => app.library.search(currentTarget.value)}
        />
        <div className={classes.library}>
          <Tooltip
            label={`A sweep is saved by itself, point by point, in ${library?.folder ?? 'the library'}`}
            multiline
            maw={420}
          >
            <span>{library && (sessions.length === 1 ? '1 session' : `${sessions.length} sessions`)}</span>
          </Tooltip>
          <Button size="compact-xs" variant="default" onClick={() => chooseSessionFile(app)}>
            Add a file…
          </Button>
        </div>
      </div>
      {library && sessions.length === 0 && <NothingSaved />}
      {sessions.length > 0 && found.length === 0 && (
        <Text size="sm" c="var(--app-quiet)" className={classes.empty}>
          No session has all of these words.
        </Text>
      )}
      <List sessions={found.slice(0, mostShown)} />
      {found.length > mostShown && (
        <Text size="xs" c="var(--app-quiet)" className={classes.empty}>
          and {found.length - mostShown} older ones: search for them
        </Text>
      )}
      {library && library.unreadable.length > 0 && (
        <Text size="xs" c="var(--app-quiet)" className={classes.empty}>
          Not readable as sessions: {library.unreadable.map(({ reason }) => reason).join('; ')}
        </Text>
      )}
      <Trash />
    </div>
  );
}

const NothingSaved = () => (
  <div className={classes.empty}>
    <Text fw={600} size="sm">
      No session yet
    </Text>
    <Text size="sm" c="var(--app-quiet)">
      Press Run: what is measured is kept here. Or drop a session file (*.fmqa) anywhere on this window.
    </Text>
  </div>
);

/** One row is reached by Tab, the others by the arrow keys. */
function List({ sessions }: { readonly sessions: readonly SessionSummary[] }) {
  const app = useApp();
  const list = useRef<HTMLUListElement>(null);
  const [active, setActive] = useState<string>();
  const reached = sessions.some(({ id }) => id === active) ? active : sessions[0]?.id;

  const onKeyDown = (event: KeyboardEvent): void => {
    const row = (event.target as HTMLElement).closest('li');
    const isName = (event.target as HTMLElement).matches('[data-name]');
    const session = sessions.find(({ id }) => id === row?.dataset.session);
    if (!isName || !session) return;
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, Home: -1e9, End: 1e9 };
    const step = steps[event.key];
    const at = sessions.indexOf(session);
    const go = (to: number): void => {
      const next = sessions[Math.min(sessions.length - 1, Math.max(0, to))];
      setActive(next.id);
      nameOf(list.current, next.id)?.focus();
    };
    if (step !== undefined) go(at + step);
    else if (event.key === 'F2') app.library.edit(session.id);
    else if (event.key === 'Delete') {
      go(at === sessions.length - 1 ? at - 1 : at + 1);
      void app.library.throwAway(session);
    } else return;
    event.preventDefault();
  };

  return (
    <ul ref={list} id={listId} className={classes.list} aria-label="Sessions" onKeyDown={onKeyDown}>
      {sessions.map((session) => (
        <Row
          key={session.id}
          session={session}
          isReached={session.id === reached}
          onReach={() => setActive(session.id)}
        />
      ))}
    </ul>
  );
}

const nameOf = (list: HTMLElement | null, id: string): HTMLElement | null | undefined =>
  list?.querySelector<HTMLElement>(`[data-session="${id}"] [data-name]`);

interface RowProps {
  readonly session: SessionSummary;
  /** Its controls can be reached by Tab. */
  readonly isReached: boolean;
  readonly onReach: () => void;
}

function Row({ session, isReached, onReach }: RowProps) {
  const app = useApp();
  const { id, name, tags, status } = session;
  const isEdited = useStore(app.library, ({ editing }) => editing === id);
  const isCurrent = useRun((run) => run.session?.id === id);
  const tabIndex = isReached ? 0 : -1;
  const row = useRef<HTMLLIElement>(null);
  const wasEdited = useRef(false);
  useEffect(() => {
    if (wasEdited.current && !isEdited) row.current?.querySelector<HTMLElement>('[data-name]')?.focus();
    wasEdited.current = isEdited;
  }, [isEdited]);
  if (isEdited)
    return (
      <li className={classes.row} data-session={id}>
        <Labels session={session} />
      </li>
    );
  return (
    <li ref={row} className={classes.row} data-session={id} data-current={isCurrent || undefined} onFocus={onReach}>
      <div className={classes.title}>
        <button
          type="button"
          className={classes.name}
          data-name=""
          tabIndex={tabIndex}
          aria-current={isCurrent || undefined}
          title={`Open ${name}`}
          onClick={() => void app.library.open(id)}
        >
          {name}
        </button>
        <BaselineSwitch session={session} tabIndex={tabIndex} />
        <SessionMenu session={session} tabIndex={tabIndex} />
      </div>
      <div className={classes.facts}>
        {dateOf(session)} · <span data-status={status}>{progressOf(session)}</span>
      </div>
      {tags.length > 0 && (
        <div className={classes.tags}>
          {tags.map((tag) => (
            <button
              type="button"
              key={tag}
              tabIndex={tabIndex}
              title={`Sessions with ${tag}`}
              onClick={() => app.library.search(tag)}
            >
              {tag}
            </button>
          ))}
        </div>
      )}
    </li>
  );
}

interface ControlProps {
  readonly session: SessionSummary;
  readonly tabIndex: number;
}

function BaselineSwitch({ session: { id, name }, tabIndex }: ControlProps) {
  const { view } = useApp();
  const baseline = useView(({ baselines }) => baselines.find((candidate) => candidate.id === id));
  const isFull = useView(({ baselines }) => baselines.length >= mostBaselines);
  const label = baseline ? `Stop comparing with ${name}` : `Compare with ${name}`;
  return (
    <Tooltip label={isFull && !baseline ? `${mostBaselines} baselines at most` : label} openDelay={400}>
      <ActionIcon
        size="sm"
        variant="subtle"
        color="gray"
        tabIndex={tabIndex}
        aria-label={`Baseline: ${name}`}
        aria-pressed={baseline !== undefined}
        data-disabled={(isFull && !baseline) || undefined}
        onClick={() => view.toggleBaseline(id)}
      >
        <GlyphSwatch glyph={ringOf(baseline ? baselineColour(baseline.colour) : 'var(--app-line-strong)')} />
      </ActionIcon>
    </Tooltip>
  );
}

function SessionMenu({ session, tabIndex }: ControlProps) {
  const app = useApp();
  const { id, name } = session;
  return (
    <Menu position="bottom-end" withinPortal>
      <Menu.Target>
        <ActionIcon size="sm" variant="subtle" color="gray" tabIndex={tabIndex} aria-label={`More for ${name}`}>
          <IconDotsVertical size={14} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={() => void app.library.open(id)}>Open</Menu.Item>
        {isUnfinished(session) && (
          <Menu.Item onClick={() => void app.library.continueMeasuring(id)}>Measure the rest</Menu.Item>
        )}
        <Menu.Item onClick={() => app.library.edit(id)}>Name and tags…</Menu.Item>
        <SaveItems id={id} />
        <Menu.Divider />
        <Menu.Item
          disabled={session.isOutside || session.status === 'measuring'}
          onClick={() => void app.library.throwAway(session)}
        >
          Move to the trash
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function Labels({ session: { id, name: oldName, tags: oldTags } }: { readonly session: SessionSummary }) {
  const app = useApp();
  const [name, setName] = useState(oldName);
  const [tags, setTags] = useState<string[]>([...oldTags]);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  const save = (): void => void app.library.label(id, { name, tags });
  const leave = (event: KeyboardEvent): void => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    app.library.edit(undefined);
  };
  return (
    <form
      className={classes.labels}
      aria-label={`Name and tags of ${oldName}`}
      onKeyDown={leave}
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      <TextInput
        ref={field}
        size="xs"
        label="Name"
        maxLength={200}
        value={name}
        onChange={({ currentTarget }) => setName(currentTarget.value)}
      />
      <TagsInput
        size="xs"
        label="Tags"
        placeholder={tags.length === 0 ? 'Enter after each' : ''}
        maxTags={16}
        acceptValueOnBlur
        value={tags}
        onChange={(values) => setTags(values.map((tag) => tag.slice(0, 40)))}
      />
      <div className={classes.buttons}>
        <Button size="compact-xs" type="submit" disabled={name.trim() === ''}>
          Save
        </Button>
        <Button size="compact-xs" variant="default" onClick={() => app.library.edit(undefined)}>
          Cancel
        </Button>
      </div>
    </form>
  );
}

function Trash() {
  const app = useApp();
  const trash = useStore(app.library, ({ library }) => library?.trash ?? none);
  const thrownAway = useStore(app.library, (store) => store.thrownAway);
  const [isOpen, setOpen] = useState(false);
  const [isSure, setSure] = useState(false);
  return (
    <div className={classes.trash}>
      <div role="status" className={classes.undo}>
        {thrownAway && (
          <>
            <span>
              <strong>{thrownAway.name}</strong> is in the trash.
            </span>
            <Button
              size="compact-xs"
              variant="default"
              leftSection={<IconArrowBackUp size={13} />}
              onClick={() => void app.library.restore(thrownAway.id)}
            >
              Undo
            </Button>
          </>
        )}
      </div>
      {trash.length > 0 && (
        <button
          type="button"
          className={classes.trashHead}
          aria-expanded={isOpen}
          onClick={() => {
            setOpen(!isOpen);
            setSure(false);
          }}
        >
          <IconTrash size={13} /> Trash: {trash.length}
        </button>
      )}
      {isOpen && trash.length > 0 && (
        <>
          <ul className={classes.trashList} aria-label="Trash">
            {trash.map((session) => (
              <li key={session.id}>
                <span title={session.file}>
                  {session.name} · {dateOf(session)}
                </span>
                <Button
                  size="compact-xs"
                  variant="default"
                  aria-label={`Restore ${session.name}`}
                  onClick={() => void app.library.restore(session.id)}
                >
                  Restore
                </Button>
              </li>
            ))}
          </ul>
          <Button
            size="compact-xs"
            variant="default"
            onClick={() => {
              if (isSure) void app.library.emptyTrash();
              setSure(!isSure);
            }}
          >
            {isSure ? `Delete ${trash.length} for good, without undo` : 'Empty the trash…'}
          </Button>
        </>
      )}
    </div>
  );
}

const none: readonly SessionSummary[] = [];
