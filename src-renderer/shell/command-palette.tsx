/** Every command by its words: type, go up and down, Enter. */
import { Combobox, Modal, TextInput, useCombobox } from '@mantine/core';
import { IconSearch } from '@tabler/icons-react';
import { useEffect, useMemo, useRef, useState } from 'react';
import { useApp, useRun, useView } from '../panels/use-app.ts';
import classes from './command-palette.module.css';
import type { Command } from './commands.ts';
import { KeyCaps } from './key-caps.tsx';

interface CommandPaletteProps {
  readonly commands: readonly Command[];
}

export function CommandPalette({ commands }: CommandPaletteProps) {
  const { view } = useApp();
  const isOpen = useView(({ overlay }) => overlay === 'commands');
  return (
    <Modal.Root
      opened={isOpen}
      onClose={() => view.setState({ overlay: undefined })}
      lockScroll={false}
      returnFocus={false}
      size={560}
      yOffset={64}
      transitionProps={{ duration: 0 }}
    >
      <Modal.Overlay backgroundOpacity={0.35} />
      <Modal.Content aria-label="Command palette">
        <Choice commands={commands} />
      </Modal.Content>
    </Modal.Root>
  );
}

/** Exists only while the palette is open: it begins anew each time. */
function Choice({ commands }: CommandPaletteProps) {
  const app = useApp();
  const [text, setText] = useState('');
  const close = (): void => app.view.setState({ overlay: undefined });
  const combobox = useCombobox({ opened: true, onDropdownClose: close });
  const run = useRun((state) => state);
  const found = useMemo(() => findCommands(commands, text), [commands, text]);
  const search = useRef<HTMLInputElement>(null);
  const chosen = useRef<Command>(undefined);
  // Now, not a timer later as the dialog would: keys that follow at once belong to the palette, and those after it to what had the focus.
  useEffect(() => {
    const before = document.activeElement;
    search.current?.focus();
    return () => {
      if (before instanceof HTMLElement) before.focus({ preventScroll: true });
      chosen.current?.act(); // may move the focus
    };
  }, []);
  const { selectFirstOption } = combobox;
  useEffect(() => {
    if (text !== '') selectFirstOption();
  }, [text, selectFirstOption]);
  const choose = (id: string): void => {
    chosen.current = commands.find((command) => command.id === id);
    close();
  };
  return (
    <Combobox store={combobox} onOptionSubmit={choose} size="sm">
      <Combobox.EventsTarget withExpandedAttribute>
        <TextInput
          ref={search}
          data-autofocus
          role="combobox"
          size="md"
          variant="unstyled"
          className={classes.search}
          leftSection={<IconSearch size={16} />}
          aria-label="Command"
          placeholder="Find a command"
          value={text}
          onChange={({ currentTarget }) => {
            setText(currentTarget.value);
            combobox.resetSelectedOption();
          }}
        />
      </Combobox.EventsTarget>
      {found.length === 0 && <p className={classes.none}>No command has all of these words.</p>}
      <Combobox.Options className={classes.list} aria-label="Commands" tabIndex={0} hidden={found.length === 0}>
        {found.map(({ id, group, title, keys, isPossible }) => (
          <Combobox.Option key={id} value={id} className={classes.option} disabled={isPossible && !isPossible(run)}>
            <span className={classes.group}>{group}</span>
            <span className={classes.title}>{title}</span>
            {keys && <KeyCaps keys={keys[0]} />}
          </Combobox.Option>
        ))}
      </Combobox.Options>
    </Combobox>
  );
}

/** Those that have every word, in any order; commands that begin with the text come first. */
function findCommands(commands: readonly Command[], text: string): readonly Command[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const begins = ({ title }: Command): number => Number(!title.toLowerCase().startsWith(text.trim().toLowerCase()));
  return commands
    .filter(({ group, title }) => words.every((word) => `${group} ${title}`.toLowerCase().includes(word)))
    .sort((a, b) => begins(a) - begins(b));
}
