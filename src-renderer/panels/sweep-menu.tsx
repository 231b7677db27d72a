/** Where a sweep comes from and where it goes: named sweeps, a JSON file, a command line. */
import { ActionIcon, Button, Menu, TextInput, Tooltip } from '@mantine/core';
import { IconDotsVertical, IconPencil, IconX } from '@tabler/icons-react';
import { useEffect, useRef, useState } from 'react';
import { useStore } from 'zustand';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { download } from '../charts/export.ts';
import { commandOf, fileNameOf } from '../store/command.ts';
import classes from './sweep-form.module.css';
import { useApp } from './use-app.ts';

export function SweepMenu() {
  const app = useApp();
  const sweep = useStore(app.preview, (preview) => preview.sweep);
  const named = useStore(app.sweeps, (sweeps) => sweeps.named);
  const file = useRef<HTMLInputElement>(null);
  const [copied, copy] = useCopyCommand(sweep);
  const isKept = sweep !== undefined && named?.own.some(({ name }) => name === sweep.name);
  return (
    <>
      <Menu position="bottom-end" width={236}>
        <Menu.Target>
          <ActionIcon variant="subtle" color="gray" aria-label="Save, import or copy this sweep">
            <IconDotsVertical size={16} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item
            disabled={!sweep}
            onClick={() => sweep && app.attempt(() => app.sweeps.save(sweep))}
          >{`${isKept ? 'Save again' : 'Keep'} under its name`}</Menu.Item>
          <Menu.Item disabled={!sweep} closeMenuOnClick={false} onClick={copy}>
            {copied ? 'Copied' : 'Copy as command'}
          </Menu.Item>
          <Menu.Divider />
          <Menu.Item disabled={!sweep} onClick={() => sweep && exportSweep(sweep)}>
            Export as JSON
          </Menu.Item>
          <Menu.Item onClick={() => file.current?.click()}>Import JSON…</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <input
        ref={file}
        type="file"
        accept=".json,application/json"
        hidden
        aria-label="Sweep as JSON"
        onChange={({ currentTarget }) => {
          const [chosen] = currentTarget.files ?? [];
          if (chosen) void app.attempt(() => app.sweeps.openFile(chosen));
          currentTarget.value = '';
        }}
      />
    </>
  );
}

const exportSweep = (sweep: Sweep): void =>
  download(fileNameOf(sweep), new Blob([`${JSON.stringify(sweep, null, 2)}\n`], { type: 'application/json' }));

const copiedMilliseconds = 1500;

/** Puts the command of a sweep into the clipboard. @returns whether that has just been done, and how to do it */
export function useCopyCommand(sweep: Sweep | undefined): [copied: boolean, copy: () => void] {
  const app = useApp();
  const [copied, setCopied] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = (): void =>
    void app.attempt(async () => {
      if (!sweep) return;
      await navigator.clipboard.writeText(commandOf(sweep));
      setCopied(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => setCopied(false), copiedMilliseconds);
    });
  return [copied, copy];
}

/** Names of sweeps to start from; the user's own can be renamed and deleted. */
export function StartFrom() {
  const app = useApp();
  const named = useStore(app.sweeps, (sweeps) => sweeps.named);
  return (
    <Menu position="bottom-start" width={236} disabled={!named}>
      <Menu.Target>
        <Button size="compact-xs" variant="default" fullWidth mt={6}>
          Start from a named sweep
        </Button>
      </Menu.Target>
      <Menu.Dropdown className={classes.named}>
        {named && named.own.length > 0 && <Menu.Label>Your own</Menu.Label>}
        {named?.own.map((sweep) => (
          <OwnSweep key={sweep.name} sweep={sweep} />
        ))}
        <Menu.Label>Built in</Menu.Label>
        {named?.builtin.map((sweep) => (
          <Menu.Item key={sweep.name} onClick={() => app.sweeps.open(sweep)}>
            {sweep.name}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

function OwnSweep({ sweep }: { readonly sweep: Sweep }) {
  const app = useApp();
  const [name, setName] = useState<string>();
  if (name !== undefined)
    return (
      <TextInput
        size="xs"
        data-autofocus
        autoFocus
        aria-label={`New name of ${sweep.name}`}
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter' || name.trim() === '') return;
          void app.attempt(() => app.sweeps.rename(sweep, name.trim())).then(() => setName(undefined));
        }}
      />
    );
  return (
    <div className={classes.namedRow}>
      <Menu.Item onClick={() => app.sweeps.open(sweep)}>{sweep.name}</Menu.Item>
      <Tooltip label="Rename">
        <ActionIcon
          variant="subtle"
          color="gray"
          size="sm"
          aria-label={`Rename ${sweep.name}`}
          onClick={() => setName(sweep.name)}
        >
          <IconPencil size={14} />
        </ActionIcon>
      </Tooltip>
      <Tooltip label="Delete">
        <ActionIcon
          variant="subtle"
          color="gray"
          size="sm"
          aria-label={`Delete ${sweep.name}`}
          onClick={() => void app.attempt(() => app.sweeps.remove(sweep.name))}
        >
          <IconX size={14} />
        </ActionIcon>
      </Tooltip>
    </div>
  );
}
