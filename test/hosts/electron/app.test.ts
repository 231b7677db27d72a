/** The whole desktop app against a fake `electron`: real preload, real IPC handlers, a real worker and a real small sweep. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type Bridge, callNames, type Reply } from '../../../src-main/contract/calls.ts';
import type { HubEvent, RunState } from '../../../src-main/contract/run-state.ts';
import { readSession } from '../../../src-main/sessions/recovery.ts';
import type * as FakeElectron from '../../fakes/electron.ts';
import type { MenuItem } from '../../fakes/electron.ts';
import { until } from '../../load.ts';

vi.mock('electron', () => import('../../fakes/electron.ts'));

const small = {
  name: 'small',
  axes: { hiddenDim: [64], heads: [2], seqLen: [32], batch: [1], level: ['baseline', 'near-lossless'] },
};
let folder: string;
let electron: typeof FakeElectron;
let listeners: Map<string, unknown[]>;
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const { argv } = process;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fastmqa-desktop-'));
  vi.stubEnv('FASTMQA_HOME', folder);
  listeners = new Map(signals.map((signal) => [signal, process.listeners(signal as NodeJS.Signals)]));
  await restart();
});

/** As on a machine where the app does not run. */
async function restart(): Promise<void> {
  vi.resetModules();
  electron = (await import('electron')) as unknown as typeof FakeElectron;
  electron.forgetAll();
}

afterEach(async () => {
  const [window] = electron.BrowserWindow.all;
  if (window) await quitBySignal();
  for (const signal of signals) {
    for (const listener of process.listeners(signal as NodeJS.Signals))
      if (!listeners.get(signal)?.includes(listener)) process.off(signal, listener);
  }
  process.argv = argv;
  vi.unstubAllEnvs();
  // What starts with the app may still be writing its first files.
  await rm(folder, { recursive: true, maxRetries: 20, retryDelay: 50 });
});

/** The handler that the app set, called as Electron would. */
async function quitBySignal(): Promise<void> {
  const added = process.listeners('SIGTERM').filter((listener) => !listeners.get('SIGTERM')?.includes(listener));
  for (const listener of added) listener('SIGTERM');
  await until(() => expect(electron.world.hasQuit).toBe(true));
}

async function start(...files: string[]) {
  process.argv = ['electron', 'main.js', ...files];
  await import('../../../src-main/hosts/electron/main.ts');
  electron.world.becomeReady();
  await until(() => expect(electron.BrowserWindow.all).toHaveLength(1));
  await import('../../../src-main/hosts/electron/preload.ts');
  const [window] = electron.BrowserWindow.all;
  return { window, bridge: electron.world.exposed.fastmqa as Bridge };
}

const heldBy = (reply: Reply): unknown => (reply.ok ? reply.value : expect.fail(reply.message));
const snapshotOf = async (bridge: Bridge) => heldBy(await bridge.call('snapshot', {})) as RunState;

async function runSmall(bridge: Bridge): Promise<RunState> {
  heldBy(await bridge.call('startRun', { sweep: small }));
  await until(async () => expect((await snapshotOf(bridge)).status).toBe('ended'));
  return snapshotOf(bridge);
}

/** Starts a sweep whose worker never answers, so that it runs for as long as the test needs. */
async function runForEver(bridge: Bridge): Promise<void> {
  heldBy(await bridge.call('startRun', { sweep: small }));
  await until(async () => expect((await snapshotOf(bridge)).status).toBe('running'));
}
const withHangingWorker = (): void => {
  vi.stubEnv('FASTMQA_WORKER', join(import.meta.dirname, '../../fakes/hanging-utility.mjs'));
};

/** An item by its labels without their underlined letters, or by its role. */
function item(...path: string[]): MenuItem {
  let found: MenuItem = { submenu: electron.world.menu };
  for (const name of path) {
    const next = found.submenu?.find(({ label, role }) => (label?.replace('&', '') ?? role) === name);
    if (!next) throw new Error(`no ${name} in the menu`);
    found = next;
  }
  return found;
}

test('a real sweep end to end, through the preload, the IPC and a worker in a utility process', async () => {
  const { bridge } = await start();
  const seen: HubEvent[] = [];
  let readyAt = -1;
  bridge.subscribe({
    onReady: (sequence) => {
      readyAt = sequence;
    },
    onEvents: (events) => void seen.push(...events),
    onLost: () => expect.fail('the app is in reach'),
  });
  expect(readyAt).toBe(0);
  const state = await runSmall(bridge);
  expect(state.points.map(({ outcome }) => outcome)).toEqual(['measured', 'measured']);
  expect(state.points[1].error?.relativeL2).toBeGreaterThan(state.points[0].error?.relativeL2 ?? 1);
  await until(() => expect(seen.at(-1)?.type).toBe('library'));
  expect(seen.map(({ sequence }) => sequence)).toEqual(seen.map((_, i) => i + 1));
  expect(electron.world.workers).toBe(1);
  const stored = await readSession(state.session?.file ?? '');
  expect([...stored.points.keys()]).toEqual(state.points.map(({ id }) => id));

  // Saved as another session, and as CSV, by the native dialog.
  for (const name of ['copy.fmqa', 'points.csv']) {
    electron.world.answers.push({ dialog: 'save', answer: { filePath: join(folder, name) } });
    item('File', 'Save As…').click?.();
    await until(() => expect(existsSync(join(folder, name))).toBe(true));
  }
  expect(await readFile(join(folder, 'copy.fmqa'))).toEqual(await readFile(state.session?.file ?? ''));
  expect(await readFile(join(folder, 'points.csv'), 'utf8')).toContain(state.points[1].id);

  // Opened again by the native dialog, and from the list of recent files.
  electron.world.answers.push({ dialog: 'open', answer: { filePaths: [join(folder, 'copy.fmqa')] } });
  item('File', 'Open…').click?.();
  await until(async () => expect((await snapshotOf(bridge)).session?.file).toBe(join(folder, 'copy.fmqa')));
  await until(() => expect(item('File', 'Open Recent', 'copy.fmqa').enabled).toBe(true));
  expect(electron.world.recentDocuments).toEqual([join(folder, 'copy.fmqa')]);
  await until(async () =>
    expect(JSON.parse(await readFile(join(folder, 'desktop.json'), 'utf8')).recentFiles).toHaveLength(1),
  );
  item('File', 'Open Recent', 'Clear').click?.();
  await until(() => expect(() => item('File', 'Open Recent', 'copy.fmqa')).toThrow());
});

test('a utility process that is killed costs a row, not the sweep', async () => {
  vi.stubEnv('FASTMQA_WORKER', join(import.meta.dirname, '../../fakes/hanging-utility.mjs'));
  vi.stubEnv('FASTMQA_UTILITY', 'dies');
  const { bridge } = await start();
  const state = await runSmall(bridge);
  expect(state.points.map(({ outcome }) => outcome)).toEqual(['failed', 'failed']);
  expect(state.points[0].reason).toMatch(/worker ended with exit code 7 \(the last words\)/);
  expect(electron.world.workers).toBeGreaterThan(1);
});

test('a second launch hands its file to the first and ends', async () => {
  electron.world.isFirst = false;
  process.argv = ['electron', 'main.js', 'a.fmqa', '--flag', 'b.txt'];
  await import('../../../src-main/hosts/electron/main.ts');
  expect(electron.world.lockData).toEqual({ files: [join(process.cwd(), 'a.fmqa')] });
  electron.world.becomeReady();
  await Promise.resolve();
  expect(electron.world.hasQuit).toBe(true);
  expect(electron.BrowserWindow.all).toHaveLength(0);
});

test('files come from the command line, the system and a second launch; one that is no session is told', async () => {
  const { bridge, window } = await start();
  const { session } = await runSmall(bridge);
  const [first, second] = ['first.fmqa', 'second.fmqa'].map((name) => join(folder, name));
  for (const copy of [first, second]) await writeFile(copy, await readFile(session?.file ?? ''));
  const shows = (file: string) => until(async () => expect((await snapshotOf(bridge)).session?.file).toBe(file));

  const event = { preventDefault: vi.fn() };
  electron.app.emit('open-file', event, first);
  await shows(first);
  expect(event.preventDefault).toHaveBeenCalled();

  window.isMin = true;
  electron.app.emit('second-instance', {}, [], folder, { files: [second] });
  await shows(second);
  expect([window.isMin, window.focused]).toEqual([false, 1]);

  electron.app.emit('second-instance', {}, [], folder, { files: 'not a list' });
  expect(window.focused).toBe(2);

  await writeFile(first, 'no session');
  electron.app.emit('open-file', event, first);
  await until(() => expect(electron.world.dialogs.at(-1)?.options.message).toMatch(/first\.fmqa/));
  expect((await snapshotOf(bridge)).session?.file).toBe(second);
});

test('a file named at the start is shown at the start', async () => {
  const { bridge } = await start();
  const { session } = await runSmall(bridge);
  const file = join(folder, 'named.fmqa');
  await writeFile(file, await readFile(session?.file ?? ''));
  await quitBySignal();
  await restart();
  const again = await start(file);
  await until(async () => expect((await snapshotOf(again.bridge)).session?.file).toBe(file));
});

test('quitting asks while a sweep runs, and ends it in order', async () => {
  withHangingWorker();
  const { bridge, window } = await start();
  await runForEver(bridge);
  const { session } = await snapshotOf(bridge);
  const asked = () => electron.world.dialogs.filter(({ options }) => options.type === 'question').length;

  electron.world.answers.push({ dialog: 'message', answer: { response: 0 } });
  window.close();
  await until(() => expect(asked()).toBe(1));
  expect((await snapshotOf(bridge)).status).toBe('running');
  expect(electron.world.hasQuit).toBe(false);

  electron.world.answers.push({ dialog: 'message', answer: { response: 1 } });
  electron.app.quit();
  await until(() => expect(electron.world.hasQuit).toBe(true));
  expect(asked()).toBe(2);
  expect((await readSession(session?.file ?? '')).how).toBe('interrupted');
});

test('quitting asks nothing while no sweep runs', async () => {
  const { window } = await start();
  window.close();
  await until(() => expect(electron.world.hasQuit).toBe(true));
  expect(electron.world.dialogs).toEqual([]);
});

test('the menu follows the sweep and steers it', async () => {
  withHangingWorker();
  const { bridge } = await start();
  const enabled = (...names: string[]) => names.map((name) => item('Run', name).enabled);
  const verbs = ['Run', 'Pause', 'Continue', 'Stop', 'Cancel'];
  expect(enabled(...verbs)).toEqual([true, false, false, false, false]);
  expect(item('File', 'Save As…').enabled).toBe(false);
  item('Run', 'Run').click?.();
  expect(electron.world.keys.map(({ type, keyCode }) => [type, keyCode])[0]).toEqual(['keyDown', 'Enter']);

  await runForEver(bridge);
  await until(() => expect(enabled(...verbs)).toEqual([false, true, false, true, true]));
  expect(item('File', 'Open…').enabled).toBe(false);
  expect(item('File', 'Save As…').enabled).toBe(true);
  item('Run', 'Cancel').click?.();
  await until(async () => expect((await snapshotOf(bridge)).how).toBe('cancelled'));
  await until(() => expect(enabled(...verbs)).toEqual([true, false, false, false, false]));
});

test('the window comes back where it stood, maximised if it was, and never where no display is', async () => {
  const { window } = await start();
  expect([window.options.x, window.options.width]).toEqual([undefined, 1280]);
  window.isMax = true;
  await quitBySignal();
  await restart();
  const second = await start();
  expect(second.window.options).toMatchObject(window.bounds);
  expect(second.window.isMax).toBe(true);
  second.window.bounds = { x: 3000, y: 50, width: 1100, height: 750 };
  await quitBySignal();
  await restart();
  const third = await start();
  expect([third.window.options.x, third.window.options.width]).toEqual([undefined, 1100]);
});

test('a damaged memory is no reason not to start', async () => {
  await writeFile(join(folder, 'desktop.json'), '{"window":{"x":"left"');
  const { window } = await start();
  expect(window.options.width).toBe(1280);
});

test('the preload exposes the bridge and nothing else', async () => {
  const { bridge } = await start();
  expect(Object.keys(electron.world.exposed)).toEqual(['fastmqa']);
  expect(Object.keys(bridge).sort()).toEqual(['call', 'subscribe']);
  expect([...electron.ipcMain.handlers.keys()].sort()).toEqual(callNames.map((name) => `fastmqa:call:${name}`).sort());
  await expect(bridge.call('constructor' as never, {})).rejects.toThrow('No handler');
});

test('every channel refuses whoever is not the main frame of the own window with the own page in it', async () => {
  const { window } = await start();
  const { webContents } = window;
  const { FakeFrame, WebContents } = electron;
  const framed = (change: Partial<FakeElectron.FakeFrame>) => Object.assign(new FakeFrame('fastmqa://app/'), change);
  const asMain = (url: string) => {
    const contents = Object.assign(webContents, {});
    return { sender: contents, senderFrame: contents.mainFrame, url };
  };
  const strangers: Record<string, () => object> = {
    'a subframe': () => ({ sender: webContents, senderFrame: framed({ parent: webContents.mainFrame }) }),
    'another frame of ours': () => ({ sender: webContents, senderFrame: framed({}) }),
    'a frame that is gone': () => ({ sender: webContents, senderFrame: null }),
    'other contents': () => {
      const other = new WebContents();
      return { sender: other, senderFrame: other.mainFrame };
    },
    ...Object.fromEntries(
      [
        'https://example.org/',
        'about:blank',
        'file:///etc/passwd',
        'fastmqa://app.evil/',
        'fastmqa://app/icon.svg',
      ].map((url) => [url, () => asMain(url)]),
    ),
    'a detached frame': () => ({ ...asMain('fastmqa://app/'), detached: true }),
  };
  for (const [who, event] of Object.entries(strangers)) {
    const stranger = event() as { sender: FakeElectron.WebContents; url?: string; detached?: boolean };
    webContents.mainFrame.url = stranger.url ?? 'fastmqa://app/';
    webContents.mainFrame.detached = stranger.detached ?? false;
    for (const name of callNames)
      await expect(electron.invokeAs(stranger, `fastmqa:call:${name}`, {}), `${name} by ${who}`).rejects.toThrow(
        'refused',
      );
    const send = vi.spyOn(stranger.sender, 'send');
    electron.ipcMain.emit('fastmqa:watch', stranger);
    expect(send, `watch by ${who}`).not.toHaveBeenCalled();
    send.mockRestore();
  }
  webContents.mainFrame.url = 'fastmqa://app/';
  webContents.mainFrame.detached = false;
});

test('every channel refuses what does not fit, and survives anything at all', async () => {
  const { bridge } = await start();
  for (const name of callNames) {
    for (const input of [undefined, null, 7, [], { unknown: 1 }])
      expect(await bridge.call(name, input), name).toMatchObject({ ok: false, failure: 'malformed' });
  }
  const harmless = callNames.filter((name) => !['devices', 'emptyTrash', 'startRun'].includes(name));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...harmless),
      fc.anything({ withMap: true, withTypedArray: true }),
      async (name, input) => {
        const reply = await bridge.call(name, input);
        expect(typeof reply.ok).toBe('boolean');
        if (!reply.ok) expect(reply.failure).not.toBe('fault');
      },
    ),
    { numRuns: 2000 },
  );
});

test('the window is sandboxed and stays where it is', async () => {
  const { window } = await start();
  expect(electron.world.isSandboxed).toBe(true);
  expect(window.loaded).toBe('fastmqa://app/');
  expect(window.options.webPreferences).toMatchObject({
    sandbox: true,
    contextIsolation: true,
    nodeIntegration: false,
    nodeIntegrationInWorker: false,
    nodeIntegrationInSubFrames: false,
    webSecurity: true,
    allowRunningInsecureContent: false,
    experimentalFeatures: false,
    webviewTag: false,
    navigateOnDragDrop: false,
  });
  for (const name of ['will-navigate', 'will-redirect', 'will-frame-navigate', 'will-attach-webview']) {
    const event = { url: 'https://example.org/', preventDefault: vi.fn() };
    window.webContents.emit(name, event);
    expect(event.preventDefault, name).toHaveBeenCalled();
  }
  expect(window.webContents.openHandler({ url: 'https://example.org/' })).toEqual({ action: 'deny' });
  window.webContents.emit('render-process-gone', {}, { reason: 'crashed' });
  expect(window.webContents.reloads).toBe(1);
});

test('permissions are refused but for copying text, requests but for the app itself', async () => {
  const { window } = await start();
  const guard = (name: string, ...values: unknown[]) =>
    (electron.guards[name] as (...all: unknown[]) => unknown)(...values);
  const request = (permission: string, isMainFrame = true) => {
    const decide = vi.fn();
    guard('permission', window.webContents, permission, decide, { isMainFrame });
    return decide.mock.calls[0][0];
  };
  expect(request('clipboard-sanitized-write')).toBe(true);
  expect(request('clipboard-sanitized-write', false)).toBe(false);
  for (const permission of ['media', 'geolocation', 'notifications', 'clipboard-read', 'openExternal', 'fileSystem']) {
    expect(request(permission), permission).toBe(false);
    expect(guard('permissionCheck', window.webContents, permission), permission).toBe(false);
  }
  expect(guard('permissionCheck', null, 'clipboard-sanitized-write')).toBe(false);
  expect(guard('device', {})).toBe(false);

  const isLetOut = (url: string) => {
    const decide = vi.fn();
    guard('request', { url }, decide);
    return !decide.mock.calls[0][0].cancel;
  };
  expect(
    ['fastmqa://app/', 'fastmqa://app/assets/a.js', 'data:,x', 'blob:fastmqa://app/1'].map(isLetOut),
  ).not.toContain(false);
  expect(
    ['https://example.org/', 'http://127.0.0.1/', 'file:///etc/passwd', 'fastmqa://other/', 'ws://x/'].map(isLetOut),
  ).not.toContain(true);
});

test('the page comes with the policy of the web host, a fresh nonce each time, and nothing but built files', async () => {
  await start();
  const get = (path: string, method = 'GET') =>
    (electron.guards.page as unknown as (request: Request) => Response)(
      new Request(`fastmqa://app${path}`, { method }),
    );
  const [page, again] = [get('/'), get('/')];
  const policyOf = ({ headers }: Response) => headers.get('Content-Security-Policy') ?? '';
  const nonce = /'nonce-([^']+)'/.exec(policyOf(page))?.[1] ?? '';
  expect(policyOf(page)).toContain("default-src 'none'");
  expect(await page.text()).toContain(nonce);
  expect(policyOf(again)).not.toContain(nonce);
  for (const path of [
    '/index.html',
    '/none.js',
    '/../package.json',
    '/%2e%2e/package.json',
    '/assets/..%2f..%2fpackage.json',
  ])
    expect(get(path).status, path).toBe(404);
  expect(get('/', 'POST').status).toBe(400);
  expect(policyOf(get('/none.js'))).toContain("default-src 'none'");
  expect(electron.world.schemes).toEqual([{ scheme: 'fastmqa', privileges: { standard: true, secure: true } }]);
});
