/** The native menu as data: what can be done now, and the deed behind each item. */
import { basename } from 'node:path';
import type { MenuItemConstructorOptions } from 'electron';
import { isActive, type RunState, type RunVerb } from '../../contract/run-state.ts';

/** A key of the window with its modifiers, as Electron's input events name them. */
export interface Keys {
  readonly keyCode: string;
  readonly modifiers?: ('control' | 'meta' | 'shift')[];
}

export interface MenuDeeds {
  chooseFile(): void;
  open(file: string): void;
  forgetRecent(): void;
  saveAs(): void;
  steer(verb: RunVerb): void;
  /** The window has keys for what only it can do: an item presses them. */
  press(keys: Keys): void;
  showSessionsFolder(): void;
  showAbout(): void;
}

export interface MenuState {
  readonly run: Pick<RunState, 'status' | 'session'>;
  readonly recentFiles: readonly string[];
  readonly platform: NodeJS.Platform;
}

export function menuOf({ run, recentFiles, platform }: MenuState, deeds: MenuDeeds): MenuItemConstructorOptions[] {
  const active = isActive(run as RunState);
  const isMac = platform === 'darwin';
  const command = isMac ? 'meta' : 'control';
  /** Shown beside the item; the window itself listens to it. */
  const keyOfWindow = (accelerator: string) => ({ accelerator, registerAccelerator: false });
  const recent: MenuItemConstructorOptions[] = recentFiles.map((file) => ({
    label: basename(file).replaceAll('&', '&&'),
    toolTip: file,
    enabled: !active,
    click: () => deeds.open(file),
  }));
  return [
    ...(isMac ? [{ role: 'appMenu' } as const] : []),
    {
      label: '&File',
      submenu: [
        { label: '&Open…', accelerator: 'CmdOrCtrl+O', enabled: !active, click: deeds.chooseFile },
        {
          label: 'Open &Recent',
          submenu: [
            ...(recent.length > 0 ? recent : [{ label: 'No file was opened yet', enabled: false }]),
            { type: 'separator' },
            { label: 'Clear', enabled: recent.length > 0, click: deeds.forgetRecent },
          ],
        },
        {
          label: 'Save &As…',
          accelerator: 'CmdOrCtrl+Shift+S',
          enabled: run.session !== undefined,
          click: deeds.saveAs,
        },
        { label: 'Show Sessions Folder', click: deeds.showSessionsFolder },
        { type: 'separator' },
        isMac ? { role: 'close' } : { role: 'quit' },
      ],
    },
    { role: 'editMenu' },
    {
      label: '&Run',
      submenu: [
        {
          label: '&Run',
          ...keyOfWindow('CmdOrCtrl+Enter'),
          enabled: !active,
          click: () => deeds.press({ keyCode: 'Enter', modifiers: [command] }),
        },
        { label: '&Pause', enabled: run.status === 'running', click: () => deeds.steer('pause') },
        { label: '&Continue', enabled: run.status === 'paused', click: () => deeds.steer('continue') },
        { label: '&Stop', enabled: active, click: () => deeds.steer('stop') },
        { label: 'C&ancel', enabled: active, click: () => deeds.steer('cancel') },
      ],
    },
    {
      label: '&View',
      submenu: [
        {
          label: 'Command &Palette…',
          ...keyOfWindow('CmdOrCtrl+Shift+P'),
          click: () => deeds.press({ keyCode: 'P', modifiers: [command, 'shift'] }),
        },
        { type: 'separator' },
        { role: 'reload' },
        { role: 'toggleDevTools' },
        { type: 'separator' },
        { role: 'resetZoom' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { type: 'separator' },
        { role: 'togglefullscreen' },
      ],
    },
    {
      role: 'help',
      submenu: [
        { label: 'Keyboard Shortcuts', ...keyOfWindow('?'), click: () => deeds.press({ keyCode: '?' }) },
        { label: 'About FastMQA', click: deeds.showAbout },
      ],
    },
  ];
}
