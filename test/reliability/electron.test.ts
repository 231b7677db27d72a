/** S1 Electron's security checklist, item by item; S2 who may use a channel, and with what. Against a fake `electron`. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { callNames, calls } from '../../src-main/contract/calls.ts';
import type { Asset } from '../../src-main/hosts/assets.ts';
import { channelOf } from '../../src-main/hosts/electron/channels.ts';
import { setUpIpc } from '../../src-main/hosts/electron/ipc.ts';
import { appUrl, registerAppScheme, setUpSession } from '../../src-main/hosts/electron/page.ts';
import { confineAllContents, openWindow } from '../../src-main/hosts/electron/window.ts';
import { createWindowHost } from '../../src-main/hosts/window-host.ts';
import { FakeProfiler } from '../fakes/profiler.ts';
import { Chance, counted, grouped, longestTest, reached, tries } from './effort.ts';

type Handler = (...values: never[]) => unknown;

/** What the app said to Electron. */
const told = vi.hoisted(() => ({
  window: {} as { webPreferences?: Record<string, unknown> },
  schemes: [] as { scheme: string; privileges: Record<string, boolean> }[],
  channels: new Map<string, Handler>(),
  appEvents: new Map<string, Handler>(),
  exposed: {} as Record<string, unknown>,
}));
vi.mock('electron', () => ({
  app: { on: (name: string, handler: Handler) => void told.appEvents.set(name, handler) },
  screen: { getAllDisplays: () => [] },
  BrowserWindow: class {
    webContents = { on: () => undefined };
    constructor(options: typeof told.window) {
      told.window = options;
    }
    once = () => undefined;
    on = () => undefined;
    loadURL = async () => undefined;
  },
  protocol: { registerSchemesAsPrivileged: (schemes: typeof told.schemes) => void told.schemes.push(...schemes) },
  ipcMain: {
    handle: (name: string, handler: Handler) => void told.channels.set(name, handler),
    on: () => undefined,
    removeAllListeners: () => undefined,
    removeHandler: () => undefined,
  },
  ipcRenderer: { invoke: async () => undefined, on: () => undefined, send: () => undefined },
  contextBridge: {
    exposeInMainWorld: (name: string, value: unknown) => void Object.assign(told.exposed, { [name]: value }),
  },
}));

const root = join(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'fastmqa-electron-'));
const sources = readdirSync(join(root, 'src-main/hosts/electron'))
  .map((name) => readFileSync(join(root, 'src-main/hosts/electron', name), 'utf8'))
  .join('\n');

/** What the session of the window was given. */
const given = {
  respond: (() => undefined) as Handler,
  onRequest: (() => undefined) as Handler,
  onPermission: (() => undefined) as Handler,
  onCheck: (() => undefined) as Handler,
};
const contentsEvents = new Map<string, Handler>();
let openHandler: Handler = () => undefined;
const mainFrame = { url: appUrl, parent: null, detached: false };
const own = { mainFrame, getURL: () => mainFrame.url };
const host = createWindowHost({ profiler: new FakeProfiler(), folder });

beforeAll(async () => {
  registerAppScheme();
  confineAllContents();
  openWindow({ now: {} } as never);
  const assets = new Map<string, Asset>([
    ['/index.html', { type: 'text/html', body: new Uint8Array(Buffer.from('<title>x</title>')) }],
  ]);
  const session = {
    protocol: { handle: (_: string, respond: Handler) => Object.assign(given, { respond }) },
    webRequest: { onBeforeRequest: (onRequest: Handler) => Object.assign(given, { onRequest }) },
    setPermissionRequestHandler: (onPermission: Handler) => Object.assign(given, { onPermission }),
    setPermissionCheckHandler: (onCheck: Handler) => Object.assign(given, { onCheck }),
    setDevicePermissionHandler: () => undefined,
  };
  setUpSession(session as never, assets);
  setUpIpc(host.api, host.hub, () => own as never);
  const contents = {
    on: (name: string, handler: Handler) => {
      contentsEvents.set(name, handler);
      return contents;
    },
    setWindowOpenHandler: (handler: Handler) => {
      openHandler = handler;
    },
  };
  told.appEvents.get('web-contents-created')?.(...([{}, contents] as never[]));
  await import('../../src-main/hosts/electron/preload.ts');
});
afterAll(async () => {
  await host.close();
  rmSync(folder, { recursive: true });
});

const call = (handler: Handler, ...values: unknown[]): unknown => handler(...(values as never[]));
const preference = (name: string): unknown => told.window.webPreferences?.[name];
const isCancelled = (url: string): boolean => {
  let cancelled = false;
  call(given.onRequest, { url }, ({ cancel }: { cancel: boolean }) => {
    cancelled = cancel;
  });
  return cancelled;
};
const isPrevented = (event: string, url: string): boolean => {
  let prevented = false;
  call(contentsEvents.get(event) ?? (() => undefined), {
    url,
    preventDefault: () => {
      prevented = true;
    },
  });
  return prevented;
};
const allPermissions = [
  'media',
  'geolocation',
  'notifications',
  'midi',
  'pointerLock',
  'fullscreen',
  'openExternal',
  'hid',
  'serial',
  'usb',
  'clipboard-read',
];
const foreignUrls = [
  'http://evil.example/',
  'https://evil.example/',
  'file:///etc/passwd',
  'about:blank',
  'fastmqa://evil/',
  'fastmqa://app.evil/',
  'data:text/html,x',
  'javascript:1',
];

/** The items in the words of the checklist → whether the app keeps them. */
const checklist: readonly (readonly [string, () => unknown])[] = [
  ['1 only load secure content', () => foreignUrls.slice(0, 6).every(isCancelled) && !isCancelled(appUrl)],
  [
    '2 no Node.js integration',
    () =>
      ['nodeIntegration', 'nodeIntegrationInWorker', 'nodeIntegrationInSubFrames'].every(
        (name) => preference(name) === false,
      ),
  ],
  ['3 context isolation', () => preference('contextIsolation') === true],
  [
    '4 process sandboxing',
    () => preference('sandbox') === true && /^app\.enableSandbox\(\);$/m.test(sources) && !/no-sandbox/.test(sources),
  ],
  [
    '5 permission requests from remote content are handled',
    () =>
      allPermissions.every((permission) => {
        let granted = true;
        call(
          given.onPermission,
          own,
          permission,
          (decision: boolean) => {
            granted = decision;
          },
          { isMainFrame: true },
        );
        return !granted && call(given.onCheck, own, permission) === false;
      }),
  ],
  ['6 webSecurity is on', () => preference('webSecurity') === true],
  [
    '7 a content security policy',
    () => {
      const response = call(given.respond, { method: 'GET', url: appUrl }) as Response;
      const policy = response.headers.get('Content-Security-Policy') ?? '';
      return policy.startsWith("default-src 'none'") && !/unsafe-|\*/.test(policy);
    },
  ],
  ['8 allowRunningInsecureContent is off', () => preference('allowRunningInsecureContent') === false],
  ['9 experimental features are off', () => preference('experimentalFeatures') === false],
  [
    '10 enableBlinkFeatures is not used',
    () => preference('enableBlinkFeatures') === undefined && !/enableBlinkFeatures/.test(sources),
  ],
  ['11 no allowpopups on webviews', () => preference('webviewTag') === false && !/allowpopups/i.test(sources)],
  ['12 webview options are verified: there are none', () => isPrevented('will-attach-webview', appUrl)],
  [
    '13 navigation is limited',
    () =>
      ['will-navigate', 'will-redirect', 'will-frame-navigate'].every(
        (event) => foreignUrls.every((url) => isPrevented(event, url)) && !isPrevented(event, appUrl),
      ),
  ],
  [
    '14 new windows are limited',
    () => [...foreignUrls, appUrl].every((url) => (call(openHandler, { url }) as { action: string }).action === 'deny'),
  ],
  ['15 openExternal is not used', () => !/openExternal/.test(sources)],
  [
    '16 a current Electron, pinned',
    () => /^\d+\.\d+\.\d+$/.test(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).devDependencies.electron),
  ],
  [
    '17 the sender of every IPC message is checked',
    () => callNames.every((name) => told.channels.has(channelOf(name))),
  ],
  [
    '18 a custom protocol instead of file://',
    () => {
      const [{ scheme, privileges }] = told.schemes;
      return (
        appUrl.startsWith(`${scheme}://`) &&
        privileges.standard &&
        privileges.secure &&
        !privileges.bypassCSP &&
        !/loadFile|file:\/\//.test(sources)
      );
    },
  ],
  [
    '20 no Electron API is given to the page',
    () => {
      const { fastmqa, ...others } = told.exposed as { fastmqa: Record<string, unknown> };
      return Object.keys(others).length === 0 && Object.keys(fastmqa).sort().join() === 'call,subscribe';
    },
  ],
];

test.each(checklist)('S1: %s', (_, isKept) => expect(isKept()).toBe(true));

/** The wire of fuses as Electron 45 ships it, in something else than Electron. */
function binaryWithFuses(states: string): string {
  const path = join(folder, `electron-${states}`);
  const wire = Buffer.concat([Buffer.from([1, states.length]), Buffer.from(states)]);
  writeFileSync(
    path,
    Buffer.concat([Buffer.alloc(5e6, 1), Buffer.from('dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX'), wire, Buffer.alloc(99)]),
  );
  return path;
}

test('S1: 19 all nine fuses of a package are set, and those of an Electron that has more are refused', async (context) => {
  const { setFuses, fuses } = (await import(join(root, 'src-main/setup/fuses.mjs'))) as {
    readonly setFuses: (binary: string) => Promise<void>;
    readonly fuses: object;
  };
  const binary = binaryWithFuses('101100011');
  await setFuses(binary);
  const bytes = readFileSync(binary, 'latin1');
  expect(bytes.slice(5e6 + 34, 5e6 + 43)).toBe('010011001');
  expect(Object.keys(fuses)).toHaveLength(9);
  await expect(setFuses(binaryWithFuses('1011000110'))).rejects.toThrow(/strictlyRequireAllFuses/);
  reached(
    context,
    `S1  Electron's checklist: ${checklist.length} of 20 items kept, against a fake electron; item 19: 9 of 9 fuses set in a file with Electron's wire, no package was made`,
  );
});

const refusedEvents: Readonly<Record<string, unknown>> = {
  'a subframe': { sender: own, senderFrame: { url: appUrl, parent: mainFrame, detached: false } },
  'a foreign origin in the main frame': {
    sender: { mainFrame: { ...mainFrame, url: 'https://evil.example/' } },
    senderFrame: { ...mainFrame, url: 'https://evil.example/' },
  },
  'another window': { sender: { mainFrame }, senderFrame: mainFrame },
  'a detached frame': { sender: own, senderFrame: { ...mainFrame, detached: true } },
  'a frame that is gone': { sender: own, senderFrame: null },
  'about:blank': { sender: own, senderFrame: { ...mainFrame, url: 'about:blank' } },
  'a frame that copies our address': { sender: own, senderFrame: { ...mainFrame } },
};

test('S2: every channel refuses every foreign sender, and our own page once it shows something else', async (context) => {
  expect([...told.channels.keys()].sort()).toEqual(callNames.map(channelOf).sort());
  let refused = 0;
  const isRefused = async (name: string, event: unknown): Promise<void> => {
    const handler = told.channels.get(name) as Handler;
    await expect((async () => call(handler, event, {}))()).rejects.toThrow(/^refused: /);
    refused += 1;
  };
  for (const name of told.channels.keys())
    for (const event of Object.values(refusedEvents)) await isRefused(name, event);
  mainFrame.url = 'https://evil.example/';
  for (const name of told.channels.keys()) await isRefused(name, { sender: own, senderFrame: mainFrame });
  mainFrame.url = appUrl;
  reached(
    context,
    `S2  IPC: ${callNames.length} channels x ${Object.keys(refusedEvents).length + 1} foreign senders = ${refused}, all refused`,
  );
});

const words = [
  '',
  'x',
  '../../etc/passwd',
  '__proto__',
  'constructor',
  'a'.repeat(32),
  'csv',
  '\0',
  'é'.repeat(300),
  '1e999',
];

/** Any value that structured clone can carry, often near what a call takes. */
function anyValue(chance: Chance, depth = 0): unknown {
  const kind = chance.below(depth > 4 ? 8 : 12);
  if (kind < 2) return chance.one(words);
  if (kind === 2) return chance.one([0, -0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 1e308]);
  if (kind === 3) return chance.one([null, undefined, true, false]);
  if (kind === 4) return chance.one([10n, new Date(0), /x/, new Map([[1, 2]]), new Set([1]), new Error('x')]);
  if (kind === 5) return chance.one([new Uint8Array(8), new Float64Array(2), new ArrayBuffer(4)]);
  if (kind < 8) return chance.one([{}, [], { id: 'a'.repeat(32) }, { sweep: {} }, { label: {} }]);
  if (kind < 10) return Array.from({ length: chance.below(5) }, () => anyValue(chance, depth + 1));
  const keys = [
    'id',
    'label',
    'name',
    'tags',
    'sweep',
    'axes',
    'measuring',
    'format',
    'pointId',
    'before',
    'after',
    'fileName',
    'base64',
    '__proto__',
    'toString',
  ];
  return Object.fromEntries(
    Array.from({ length: chance.below(5) }, () => [chance.one(keys), anyValue(chance, depth + 1)]),
  );
}

test('S2: whatever a channel is sent, it answers, and only what fits the schema gets through', {
  timeout: longestTest,
}, async (context) => {
  const chance = new Chance(2);
  let [count, fitting] = [0, 0];
  for (const i of counted(tries(110_000, 2_200_000))) {
    const name = callNames[i % callNames.length];
    const value = anyValue(chance);
    const isFit = calls[name].input.safeParse(value).success;
    // Calls that would end, begin or write something are tried with what does not fit only.
    const isHarmless = name === 'snapshot' || name === 'levels' || name === 'samples';
    if (isFit && !isHarmless) continue;
    const reply = (await call(
      told.channels.get(channelOf(name)) as Handler,
      { sender: own, senderFrame: mainFrame },
      value,
    )) as { ok: boolean; failure?: string };
    if (reply.ok !== isFit || (!isFit && reply.failure !== 'malformed'))
      expect.fail(`${name} ${i}: ${JSON.stringify(reply)}`);
    count += 1;
    if (isFit) fitting += 1;
  }
  expect(fitting).toBeGreaterThan(0);
  reached(
    context,
    `S2  IPC: ${grouped(count)} fuzzed payloads, ${grouped(count - fitting)} refused as malformed, 0 thrown`,
  );
});
