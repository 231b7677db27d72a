/**
 * R11: the tests have teeth. Each bug is planted in a port, and the very checks that run elsewhere must find it; without a bug
 * they must find nothing.
 */
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { readAssets } from '../../src-main/hosts/assets.ts';
import { Keys } from '../../src-main/hosts/web/keys.ts';
import { createRoutes } from '../../src-main/hosts/web/routes.ts';
import { createGatedServer, listen, portOf } from '../../src-main/hosts/web/server.ts';
import { createWindowHost } from '../../src-main/hosts/window-host.ts';
import type { FileSystem, OpenFile } from '../../src-main/sessions/storage.ts';
import { forkWorker, type SpawnWorker, type WorkerListener, type WorkerProcess } from '../../src-main/worker/spawn.ts';
import { measured, planOf } from '../fakes/points.ts';
import { FakeProfiler } from '../fakes/profiler.ts';
import { bad, type Door, type Knock, request, send, statusOf } from '../hosts/web/bad-requests.ts';
import { flipBits } from './damage.ts';
import { Chance, longestTest, reached } from './effort.ts';
import { escapes, HostileFolders, tryFolder } from './hostile-folders.ts';
import { losePower } from './power-loss.ts';
import { childrenLeft, fakeWorker, sweepTrouble } from './sweep-of-trouble.ts';

const planted = vi.hoisted(() => ({ bug: '', opened: [] as string[] }));
afterEach(() => {
  planted.bug = '';
});

vi.mock('node:zlib', async (original) => {
  const real = await original<typeof import('node:zlib')>();
  const crc32: typeof real.crc32 = (...args) => (planted.bug === 'no checksum' ? 0 : real.crc32(...args));
  return { ...real, crc32 };
});
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const { realpathSync: resolve } = await import('node:fs');
  const open: typeof real.open = (path, ...rest) => {
    planted.opened.push(resolve(String(path)));
    return real.open(path, ...rest);
  };
  return { ...real, open };
});
vi.mock('../../src-main/models/fence.ts', async (original) => {
  const real = await original<typeof import('../../src-main/models/fence.ts')>();
  const { realpath } = await import('node:fs/promises');
  const fence: typeof real.fence = async (folder) => {
    if (planted.bug === 'path checked by its beginning')
      return async (path) =>
        (await realpath(path)).startsWith(await realpath(folder))
          ? realpath(path)
          : real.fence(folder).then((inside) => inside(path));
    if (planted.bug === 'links not resolved') return async (path) => path;
    return real.fence(folder);
  };
  return { fence };
});
vi.mock('../../src-main/hosts/web/gate.ts', async (original) => {
  const real = await original<typeof import('../../src-main/hosts/web/gate.ts')>();
  const refusalOf: typeof real.refusalOf = (knock, port, keys) => {
    if (planted.bug === 'a route before the gate' && knock.url === '/main.js') return undefined;
    const isMended = (name: string, value: string): boolean =>
      (planted.bug === 'host checked by its beginning' && name === 'Host' && value.startsWith('127.0.0.1')) ||
      (planted.bug === 'origin not checked' && name === 'Origin');
    const own = { Host: `127.0.0.1:${port}`, Origin: `http://127.0.0.1:${port}` };
    const rawHeaders = knock.rawHeaders.map((value, i, all) =>
      i % 2 === 1 && isMended(all[i - 1], value) ? own[all[i - 1] as keyof typeof own] : value,
    );
    return real.refusalOf({ method: knock.method, url: knock.url, rawHeaders }, port, keys);
  };
  return { ...real, refusalOf };
});

const folder = realpathSync(mkdtempSync(join(tmpdir(), 'fastmqa-planted-')));
afterAll(() => rmSync(folder, { recursive: true }));

const files =
  (
    change: (file: OpenFile, path: string) => Partial<OpenFile>,
    others: (inner: FileSystem) => Partial<FileSystem> = () => ({}),
  ) =>
  (inner: FileSystem): FileSystem => ({
    open: async (path, how) => {
      const file = await inner.open(path, how);
      return { ...file, ...change(file, path) };
    },
    rename: (from, to) => inner.rename(from, to),
    remove: (path) => inner.remove(path),
    syncFolder: (path) => inner.syncFolder(path),
    ...others(inner),
  });
const nothing = async (): Promise<void> => undefined;

/** Bug of the disk → how it looks from the session's side. */
const diskBugs: Readonly<Record<string, (inner: FileSystem) => FileSystem>> = {
  'no fsync': files(() => ({ sync: nothing })),
  'no fsync of the folder': files(
    () => ({}),
    () => ({ syncFolder: nothing }),
  ),
  'acknowledged before it is written': files((file) => ({
    write: async (bytes, position) => {
      const copy = Uint8Array.from(bytes);
      setImmediate(() => void file.write(copy, position));
      return bytes.length;
    },
  })),
  'a short write taken for a whole one': files((file) => ({
    write: async (bytes, position) => {
      await file.write(bytes.subarray(0, Math.ceil(bytes.length / 2)), position);
      return bytes.length;
    },
  })),
  'renamed before the content is synced': files((_, path) => (path.endsWith('.tmp') ? { sync: nothing } : {})),
  'saved in place': (inner) => ({
    ...files(() => ({}))(inner),
    open: (path, how) => inner.open(path.replace(/\.\d+\.tmp$/, ''), how),
    rename: nothing,
  }),
  'records start at the wrong place': files((file) => ({
    write: (bytes, position) => file.write(bytes, Math.max(0, position - 1)),
  })),
};

let caught = 0;
const findings = async (bug: string, check: () => Promise<readonly unknown[]>): Promise<void> => {
  expect(await check(), 'found without a bug').toEqual([]);
  planted.bug = bug;
  expect((await check()).length, `not found: ${bug}`).toBeGreaterThan(0);
  caught += 1;
};

const firstPoints = (): Promise<Point[]> => Promise.all(planOf('baseline', 'four-bit').map(measured));

test.each(Object.keys(diskBugs))('planted in the disk: %s', async (bug) => {
  const [point] = await firstPoints();
  await findings(bug, async () => {
    const through = planted.bug === '' ? undefined : diskBugs[bug];
    // A product that falls over its own file has been caught too.
    const lost = losePower(
      point,
      Array.from({ length: 1500 }, (_, i) => i),
      through,
    );
    return lost.then(
      ({ broken }) => broken,
      (error: unknown) => [error],
    );
  });
});

test('planted in the record: no checksum', async () => {
  const points = await firstPoints();
  await findings('no checksum', async () =>
    Array.from({
      length: flipBits(
        points,
        Array.from({ length: 3000 }, (_, i) => i),
      ).silent,
    }),
  );
});

/** Calls of a worker, changed on their way. */
const changed =
  (
    change: (listener: WorkerListener) => WorkerListener,
    process: (inner: WorkerProcess) => WorkerProcess = (inner) => inner,
  ): SpawnWorker =>
  (listener) =>
    process(forkWorker(fakeWorker)(change(listener)));

const spawnBugs: Readonly<Record<string, { readonly spawn: () => SpawnWorker; readonly behaviour: string }>> = {
  'a poisoned worker used again': {
    behaviour: 'unknown error code',
    spawn: () => {
      let kept: WorkerProcess | undefined;
      let current: WorkerListener | undefined;
      return (listener) => {
        current = listener;
        kept ??= forkWorker(fakeWorker)({
          onMessage: (message) => current?.onMessage(message),
          onEnd: (how) => current?.onEnd(how),
        });
        return { send: kept.send, kill: () => undefined };
      };
    },
  },
  'a worker that is not killed': {
    behaviour: 'hang',
    spawn: () =>
      changed(
        (listener) => listener,
        (inner) => ({ ...inner, kill: () => undefined }),
      ),
  },
  'NaN let through': {
    behaviour: 'NaN samples',
    spawn: () =>
      changed((listener) => ({
        ...listener,
        onMessage: (message) => {
          const reply = message as { value?: unknown };
          if (reply.value instanceof Float64Array)
            reply.value = reply.value.map((value) => (Number.isNaN(value) ? 0.001 : value));
          listener.onMessage(message);
        },
      })),
  },
  'a crash that is not noticed': {
    behaviour: 'crash',
    spawn: () => changed((listener) => ({ ...listener, onEnd: () => undefined })),
  },
  'an answer to another question taken for this one': {
    behaviour: 'wrong id',
    spawn: () => {
      let asked = 0;
      return changed(
        (listener) => ({
          ...listener,
          onMessage: (message) => listener.onMessage({ ...(message as object), id: asked }),
        }),
        (inner) => ({
          ...inner,
          send: (request) => {
            if ('id' in request) asked = request.id;
            inner.send(request);
          },
        }),
      );
    },
  },
};

test.each(Object.keys(spawnBugs))(
  'planted at the worker: %s',
  async (bug) => {
    const { spawn, behaviour } = spawnBugs[bug];
    const expected = {
      'unknown error code': /cuda-700/,
      hang: /killed$/,
      'NaN samples': /impossible value/,
      crash: /SIGSEGV/,
      'wrong id': /not asked/,
    };
    await findings(bug, async () => {
      const options = planted.bug === '' ? {} : { spawn: spawn() };
      const timeoutSeconds = behaviour === 'hang' || (planted.bug !== '' && behaviour === 'crash') ? 0.5 : 20;
      const { rows, sticky } = await sweepTrouble({ behaviours: ['', behaviour, ''], timeoutSeconds, ...options });
      const wrong = rows.flatMap(({ outcome, reason = '' }, i) =>
        i === 1 && !(outcome === 'failed' && expected[behaviour as keyof typeof expected].test(reason))
          ? [`${outcome} ${reason}`]
          : [],
      );
      // What was killed is gone soon; how soon, is the machine's business.
      await vi.waitUntil(() => childrenLeft().length === 0, planted.bug === '' ? 120_000 : 300).catch(() => undefined);
      const left = childrenLeft();
      for (const line of left) process.kill(Number(line.split(' ')[0]), 'SIGKILL');
      return [...sticky, ...wrong, ...left];
    });
  },
  longestTest,
);

/** Bad requests that were let in, and doors that open twice. */
async function letIn(keys: Keys): Promise<string[]> {
  writeFileSync(join(folder, 'index.html'), '<title>x</title>');
  writeFileSync(join(folder, 'main.js'), '//');
  const { api, hub, close } = createWindowHost({ profiler: new FakeProfiler(), folder });
  const assets = await readAssets(folder);
  const server = createGatedServer(createRoutes({ api, hub, assets, keys, onOpened: () => undefined }), keys);
  await listen(server, 0);
  try {
    const port = portOf(server);
    const path = keys.openPath;
    const enter = async (): Promise<string> =>
      send({ port }, request({ port, cookie: '', cookieName: '' }, { path, headers: { Cookie: undefined } }));
    const cookie = /set-cookie: ([^;]+)/i.exec(await enter())?.[1] ?? '';
    const door: Door = { port, cookie, cookieName: keys.cookieName };
    const routes: readonly Knock[] = [
      { path: '/' },
      { path: '/main.js' },
      { method: 'POST', path: '/api/snapshot', body: '{}' },
    ];
    const found: string[] = statusOf(await enter()) < 400 ? ['a link that works twice'] : [];
    for (const [kind, change] of Object.entries(bad)) {
      for (const route of routes) {
        const knock = change(route, door);
        const status = statusOf(await send(door, typeof knock === 'string' ? knock : request(door, knock)));
        if (!(status >= 400 && status < 500)) found.push(`${route.path}: ${kind}`);
      }
    }
    return found;
  } finally {
    server.closeAllConnections();
    server.close();
    await close();
  }
}

class CarelessKeys extends Keys {
  private first: string | undefined;
  override admits(header: string | undefined): boolean {
    if (planted.bug === 'no cookie needed') return true;
    if (planted.bug === 'the name of the cookie is enough') return header?.includes(`${this.cookieName}=`) === true;
    return super.admits(header);
  }
  override redeem(ticket: string): string | undefined {
    const token = super.redeem(ticket);
    this.first ??= token;
    return planted.bug === 'a ticket that is not spent' ? this.first : token;
  }
}

test.each([
  'no cookie needed',
  'the name of the cookie is enough',
  'a ticket that is not spent',
  'a route before the gate',
  'host checked by its beginning',
  'origin not checked',
])('planted at the gate: %s', async (bug) => findings(bug, () => letIn(new CarelessKeys())), longestTest);

test.each(['path checked by its beginning', 'links not resolved'])('planted in the model folder: %s', async (bug) => {
  const root = join(folder, bug.replaceAll(' ', '-'));
  await findings(bug, async () => {
    rmSync(root, { recursive: true, force: true });
    const folders = new HostileFolders(root, new Chance(11));
    const found: string[] = [];
    for (let i = 0; i < 400; i += 1) {
      folders.build();
      planted.opened.length = 0;
      // Endless devices and the like may end in errors of the system; what was opened counts.
      await tryFolder(folders.model).catch(() => undefined);
      found.push(...escapes(planted.opened, folders.model));
    }
    return found;
  });
});

test('at least twelve bugs were planted, and all were found', (context) => {
  expect(caught).toBeGreaterThanOrEqual(20);
  reached(context, `R11 planted bugs: ${caught}, all found by the checks above, none found without a bug`);
});
