/** Where a sweep comes from and where it goes: named sweeps, a JSON file, a command line. */
import { ActionIcon, Button, Menu, Tooltip } from '@mantine/core';
import { IconDotsVertical, IconX } from '@tabler/icons-react';
import { useEffect, useRef, useState } from 'react';
import { useStore } from 'zustand';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { download } from '../charts/export.ts';
import { commandOf, commandOfFile, fileNameOf } from '../store/command.ts';
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

/**
 * Puts the command of a sweep into the clipboard; where no command line can hold it, the sweep is saved as the file that the
 * command then names. @returns whether that has just been done, and how to do it
 */
export function useCopyCommand(sweep: Sweep | undefined): [copied: boolean, copy: () => void] {
  const app = useApp();
  const [copied, setCopied] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = (): void =>
    void app.attempt(async () => {
      if (!sweep) return;
      const command = commandOf(sweep);
      await navigator.clipboard.writeText(command ?? commandOfFile(fileNameOf(sweep)));
      if (command === undefined) exportSweep(sweep);
      setCopied(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => setCopied(false), copiedMilliseconds);
    });
  return [copied, copy];
}

/** Names of sweeps to start from; the user's own can be deleted. */
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
          <div key={sweep.name} className={classes.namedRow}>
            <Menu.Item onClick={() => app.sweeps.open(sweep)}>{sweep.name}</Menu.Item>
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
        ))}
        <Menu.Label>Of FastMQA</Menu.Label>
        {named?.builtin.map((sweep) => (
          <Menu.Item key={sweep.name} onClick={() => app.sweeps.open(sweep)}>
            {sweep.name}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
