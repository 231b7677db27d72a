/**
 * An `electron` without windows: it remembers what the app asks of it, plays what the system and the page would do, and runs
 * utility processes as real processes. Both ends of the IPC are here, so a preload script meets the app that it belongs to.
 */
import { fork } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { join } from 'node:path';

type Listener = (...values: never[]) => unknown;
export interface MenuItem {
  readonly label?: string;
  readonly role?: string;
  readonly enabled?: boolean;
  readonly accelerator?: string;
  readonly click?: () => void;
  readonly submenu?: readonly MenuItem[];
}

class Prevented {
  isPrevented = false;
  preventDefault(): void {
    this.isPrevented = true;
  }
}

const freshWorld = () => ({
  isFirst: true,
  lockData: undefined as unknown,
  displays: [{ x: 0, y: 0, width: 1920, height: 1080 }],
  /** Answers of dialogs to come, by the name of the dialog. */
  answers: [] as { readonly dialog: string; readonly answer: unknown }[],
  dialogs: [] as { readonly dialog: string; readonly options: Record<string, unknown> }[],
  menu: [] as readonly MenuItem[],
  exposed: {} as Record<string, unknown>,
  schemes: [] as unknown[],
  recentDocuments: [] as string[],
  keys: [] as { readonly type: string; readonly keyCode: string }[],
  workers: 0,
  isSandboxed: false,
  hasQuit: false,
  exitCode: undefined as number | undefined,
  becomeReady: (): void => undefined,
  ready: Promise.resolve(),
});

/** What tests set beforehand, and what happened. */
export const world = freshWorld();

/** A system on which the app was never started. */
export function forgetAll(): void {
  Object.assign(world, freshWorld());
  world.ready = new Promise((resolve) => {
    world.becomeReady = resolve;
  });
  BrowserWindow.all = [];
  handlers.clear();
  for (const emitter of [app, ipcMain, ipcRenderer]) emitter.removeAllListeners();
}

export const app = Object.assign(new EventEmitter(), {
  enableSandbox: () => {
    world.isSandboxed = true;
  },
  setPath: () => undefined,
  requestSingleInstanceLock: (data: unknown) => {
    world.lockData = data;
    return world.isFirst;
  },
  whenReady: () => world.ready,
  addRecentDocument: (file: string) => void world.recentDocuments.push(file),
  clearRecentDocuments: () => world.recentDocuments.splice(0),
  quit: () => {
    const event = new Prevented();
    app.emit('before-quit', event);
    if (event.isPrevented) return;
    for (const window of BrowserWindow.all) if (!window.close()) return;
    world.hasQuit = true;
  },
  exit: (code: number) => {
    world.exitCode = code;
  },
});

export class FakeFrame {
  parent: FakeFrame | null = null;
  detached = false;
  url: string;
  constructor(url: string) {
    this.url = url;
  }
}

export class WebContents extends EventEmitter {
  readonly mainFrame = new FakeFrame('fastmqa://app/');
  openHandler: (details: { url: string }) => { action: string } = () => ({ action: 'allow' });
  reloads = 0;
  setWindowOpenHandler(handler: WebContents['openHandler']): void {
    this.openHandler = handler;
  }
  isDestroyed = (): boolean => false;
  getURL = (): string => this.mainFrame.url;
  /** Structured clone is what the real one sends. */
  send(channel: string, value: unknown): void {
    ipcRenderer.emit(channel, {}, structuredClone(value));
  }
  focus(): void {}
  reload(): void {
    this.reloads += 1;
  }
  sendInputEvent(event: { type: string; keyCode: string }): void {
    world.keys.push(event);
  }
}

export class BrowserWindow extends EventEmitter {
  static all: BrowserWindow[] = [];
  readonly webContents = new WebContents();
  readonly options: Record<string, unknown> & { webPreferences: Record<string, unknown> };
  loaded = '';
  focused = 0;
  isMax = false;
  isMin = false;
  bounds = { x: 10, y: 20, width: 1000, height: 700 };
  constructor(options: BrowserWindow['options']) {
    super();
    this.options = options;
    BrowserWindow.all.push(this);
    app.emit('web-contents-created', {}, this.webContents);
  }
  loadURL = async (url: string): Promise<void> => {
    this.loaded = url;
  };
  show(): void {}
  maximize(): void {
    this.isMax = true;
  }
  isMaximized = (): boolean => this.isMax;
  isMinimized = (): boolean => this.isMin;
  restore(): void {
    this.isMin = false;
  }
  focus(): void {
    this.focused += 1;
  }
  getNormalBounds = () => this.bounds;
  /** As its cross would. @returns whether it is gone */
  close(): boolean {
    const event = new Prevented();
    this.emit('close', event);
    if (event.isPrevented) return false;
    BrowserWindow.all = BrowserWindow.all.filter((window) => window !== this);
    this.emit('closed');
    return true;
  }
}

const ask =
  (dialog: string) =>
  async (...values: unknown[]): Promise<unknown> => {
    const options = values.at(-1) as Record<string, unknown>;
    world.dialogs.push({ dialog, options });
    const at = world.answers.findIndex((each) => each.dialog === dialog);
    if (at < 0) return { response: 0, filePaths: [], canceled: true };
    return world.answers.splice(at, 1)[0].answer;
  };
export const dialog = {
  showMessageBox: ask('message'),
  showOpenDialog: ask('open'),
  showSaveDialog: ask('save'),
};

export const Menu = {
  buildFromTemplate: (template: readonly MenuItem[]) => template,
  setApplicationMenu: (menu: readonly MenuItem[]) => {
    world.menu = menu;
  },
};

export const screen = { getAllDisplays: () => world.displays.map((workArea) => ({ workArea })) };
export const shell = { openPath: async () => '' };
export const protocol = { registerSchemesAsPrivileged: (schemes: unknown[]) => void world.schemes.push(...schemes) };

/** Handlers as the app set them. */
export const guards: Record<string, (...values: never[]) => unknown> = {};
const keep = (name: string) => (first: unknown, second?: unknown) => {
  guards[name] = (second ?? first) as Listener;
};
export const session = {
  defaultSession: {
    protocol: { handle: keep('page') },
    webRequest: { onBeforeRequest: keep('request') },
    setPermissionRequestHandler: keep('permission'),
    setPermissionCheckHandler: keep('permissionCheck'),
    setDevicePermissionHandler: keep('device'),
  },
};

const handlers = new Map<string, (event: unknown, input: unknown) => unknown>();
export const ipcMain = Object.assign(new EventEmitter(), {
  handlers,
  handle: (channel: string, handler: (event: unknown, input: unknown) => unknown) =>
    void handlers.set(channel, handler),
  removeHandler: (channel: string) => void handlers.delete(channel),
});

/** Asks as some frame would; the real one rejects where nobody listens. */
export async function invokeAs(event: object, channel: string, input: unknown): Promise<unknown> {
  const handler = handlers.get(channel);
  if (!handler) throw new Error(`No handler registered for '${channel}'`);
  return structuredClone(await handler(event, structuredClone(input)));
}

const ownEvent = () => {
  const [window] = BrowserWindow.all;
  return { sender: window.webContents, senderFrame: window.webContents.mainFrame };
};
export const ipcRenderer = Object.assign(new EventEmitter(), {
  invoke: (channel: string, input: unknown) => invokeAs(ownEvent(), channel, input),
  send: (channel: string) => void ipcMain.emit(channel, ownEvent()),
});
export const contextBridge = {
  exposeInMainWorld: (name: string, value: unknown) => {
    world.exposed[name] = value;
  },
};

export const utilityProcess = {
  fork: (script: string, _words: string[], { stdio }: { stdio: string }) => {
    if (stdio !== 'pipe') throw new Error('the last words of a worker would be lost');
    world.workers += 1;
    const child = fork(join(import.meta.dirname, 'utility-process.mjs'), [script], {
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      execArgv: [],
    });
    const utility = Object.assign(new EventEmitter(), {
      pid: undefined as number | undefined,
      stdout: child.stdout,
      stderr: child.stderr,
      postMessage: (message: object) => void (child.connected && child.send(message, () => undefined)),
      /** Only ever SIGTERM, as the real one. */
      kill: () => child.kill('SIGTERM'),
    });
    child.on('spawn', () => {
      utility.pid = child.pid;
      utility.emit('spawn');
    });
    child.on('message', (message) => utility.emit('message', message));
    child.on('close', (code) => {
      utility.pid = undefined;
      utility.emit('exit', code ?? 1);
    });
    return utility;
  },
};
