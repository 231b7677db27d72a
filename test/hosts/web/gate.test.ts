/** Nobody gets in who does not belong: every route times every bad request, against a real server and its real sockets. */

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { callNames } from '../../../src-main/contract/calls.ts';
import { readAssets } from '../../../src-main/hosts/assets.ts';
import { Keys } from '../../../src-main/hosts/web/keys.ts';
import { createRoutes } from '../../../src-main/hosts/web/routes.ts';
import { createGatedServer, listen, portOf } from '../../../src-main/hosts/web/server.ts';
import { createWindowHost } from '../../../src-main/hosts/window-host.ts';
import { FakeProfiler } from '../../fakes/profiler.ts';
import { grouped, reached } from '../../reliability/effort.ts';
import { bad, type Door, type Knock, request as requestAt, send as sendTo, statusOf } from './bad-requests.ts';

const keys = new Keys();
let folder: string;
let server: ReturnType<typeof createGatedServer>;
let routesOfHost: ReturnType<typeof createRoutes>;
let port: number;
let cookie: string;
/** What no refused request may see. */
const secretOfPage = 'the page itself';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fastmqa-gate-'));
  await writeFile(join(folder, 'index.html'), `<title>${secretOfPage}</title><style nonce="__CSP_NONCE__"></style>`);
  await writeFile(join(folder, 'main.js'), `// ${secretOfPage}`);
  const profiler = new FakeProfiler();
  const { api, hub } = createWindowHost({ profiler, folder });
  const assets = await readAssets(folder);
  routesOfHost = createRoutes({ api, hub, assets, keys, onOpened: () => undefined });
  server = createGatedServer(routesOfHost, keys);
  await listen(server, 0);
  port = portOf(server);
  const opened = await send(request({ path: keys.openPath, headers: { Cookie: undefined } }));
  cookie = /set-cookie: ([^;]+)/i.exec(opened)?.[1] ?? '';
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(folder, { recursive: true });
});

const door = (): Door => ({ port, cookie, cookieName: keys.cookieName });
const request = (knock: Knock): string => requestAt(door(), knock);
const send = (text: string): Promise<string> => sendTo({ port }, text);

const routes: readonly Knock[] = [
  { path: '/' },
  { path: '/main.js' },
  { path: '/api/events' },
  ...callNames.map((name) => ({ method: 'POST', path: `/api/${name}`, body: '{}' })),
];

/** Every route of the host, as its routes are written → which of the requests above tries it. */
const entries: Readonly<Record<string, (route: Knock) => boolean>> = {
  'GET /': ({ path }) => path === '/',
  'GET /api/events': ({ path }) => path === '/api/events',
  'POST /api/:call': ({ method, path }) => method === 'POST' && path?.startsWith('/api/') === true,
  'GET /*': ({ path }) => path === '/main.js',
  // The one door without a cookie: tried below, with tickets of every kind.
  'GET /open': () => true,
};

test('a route without an entry here is not allowed', () => {
  const patterns = routesOfHost.routes.filter(({ path, method }) => `${method} ${path}` !== 'ALL /*');
  expect(new Set(patterns.map(({ path, method }) => `${method} ${path}`))).toEqual(new Set(Object.keys(entries)));
  for (const [pattern, isTried] of Object.entries(entries)) expect(routes.some(isTried), pattern).toBe(true);
});

test('there are at least forty kinds of bad request', (context) => {
  const kinds = Object.keys(bad).length;
  expect(kinds).toBeGreaterThanOrEqual(40);
  const tried = grouped(routes.length * kinds);
  reached(context, `S3  bad requests: ${routes.length} routes x ${kinds} kinds = ${tried}, 0 let in, 0 secrets told`);
});

test.each(routes)('good requests pass: $method $path', async (route) => {
  const status = statusOf(await send(request(route)));
  expect([200, 400]).toContain(status); // 400: the call wants more than {}
});

test.each(Object.keys(bad))('refused on every route: %s', async (kind) => {
  const answers = await Promise.all(
    routes.map(async (route) => {
      const changed = bad[kind](route, door());
      return send(typeof changed === 'string' ? changed : request(changed));
    }),
  );
  for (const answer of answers) {
    expect(statusOf(answer)).toBeGreaterThanOrEqual(400);
    expect(statusOf(answer)).toBeLessThan(500);
    for (const secret of [secretOfPage, 'event:', '"ok":true', cookie.split('=')[1], keys.openPath.split('=')[1]])
      expect(answer).not.toContain(secret);
  }
});

test('calls are not reached by GET, nor pages by POST', async () => {
  for (const name of callNames) expect(statusOf(await send(request({ path: `/api/${name}` })))).toBe(404);
  expect(statusOf(await send(request({ method: 'POST', path: '/', body: '{}' })))).toBe(404);
});

test.each([
  ['text', { 'Content-Type': 'text/plain' }, '{}', 415],
  ['a form', { 'Content-Type': 'application/x-www-form-urlencoded' }, 'a=b', 415],
  ['no JSON', {}, '{', 400],
  ['an unknown field', {}, '{"x":1}', 400],
  ['a list', {}, '[]', 400],
])('a call with %s is refused', async (_, headers, body, status) => {
  expect(statusOf(await send(request({ method: 'POST', path: '/api/snapshot', headers, body })))).toBe(status);
});

test('an unknown call is refused, also one that every object has', async () => {
  for (const name of ['nothing', 'constructor', '__proto__', 'toString'])
    expect(statusOf(await send(request({ method: 'POST', path: `/api/${name}`, body: '{}' })))).toBe(400);
});

test('each call has its own limit, and a request beyond it is refused', async () => {
  const sizes: readonly (readonly [string, number, number])[] = [
    ['/api/snapshot', 5 * 1024 * 1024, 413],
    ['/api/importSession', 5 * 1024 * 1024, 200],
    ['/api/importSession', 90 * 1024 * 1024, 413],
    ['/api/nothing', 5 * 1024 * 1024, 413],
  ];
  for (const [path, length, status] of sizes) {
    const body = JSON.stringify({ fileName: 'x.fmqa', base64: 'A'.repeat(length) });
    expect(statusOf(await send(request({ method: 'POST', path, body })))).toBe(status);
  }
});

test('a session is named by its id: paths and other names are no ids', async () => {
  for (const id of ['../../etc/passwd', '/etc/passwd', 'a.fmqa', '', 'A'.repeat(32), 'a'.repeat(33)]) {
    for (const path of ['/api/openSession', '/api/trashSession', '/api/continueSession'])
      expect(statusOf(await send(request({ method: 'POST', path, body: JSON.stringify({ id }) })))).toBe(400);
  }
});

test('the link works once, then another one is needed', async () => {
  const path = keys.openPath;
  const noCookie = { Cookie: undefined };
  const first = await send(request({ path, headers: noCookie }));
  expect(statusOf(first)).toBe(200);
  expect(first).toMatch(/set-cookie: fastmqa-[0-9a-f]{12}=[\w-]{43}; HttpOnly; SameSite=Strict; Path=\//i);
  expect(statusOf(await send(request({ path, headers: noCookie })))).toBe(403);
  expect(keys.openPath).not.toBe(path);
});

test.each([
  ['guessed', '/open?ticket=guess'],
  ['empty', '/open?ticket='],
  ['absent', '/open'],
])('a ticket that is %s opens nothing', async (_, path) => {
  const answer = await send(request({ path, headers: { Cookie: undefined } }));
  expect(statusOf(answer)).toBe(403);
  expect(answer).not.toMatch(/set-cookie/i);
});

test('a link that is only looked at ahead of time is not spent', async () => {
  const path = keys.openPath;
  await send(request({ path, headers: { Cookie: undefined, 'Sec-Purpose': 'prefetch' } }));
  expect(keys.openPath).toBe(path);
});

test('a link may be clicked on another page; the app itself may not be framed or fetched by one', async () => {
  const link = { 'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Dest': 'document', Cookie: undefined };
  expect(statusOf(await send(request({ path: keys.openPath, headers: link })))).toBe(200);
  const frame = { ...link, 'Sec-Fetch-Dest': 'iframe' };
  expect(statusOf(await send(request({ path: keys.openPath, headers: frame })))).toBe(403);
});

test.each(['/', '/main.js', '/nothing', '/api/events'])('headers of %s', async (path) => {
  const answer = (await send(request({ path }))).toLowerCase();
  for (const header of [
    "content-security-policy: default-src 'none'",
    'cache-control: no-store',
    'x-content-type-options: nosniff',
    'referrer-policy: no-referrer',
    'x-frame-options: deny',
    'cross-origin-opener-policy: same-origin',
    'cross-origin-resource-policy: same-origin',
  ])
    expect(answer).toContain(header);
  expect(answer).not.toContain('access-control-allow');
  expect(answer).not.toContain('unsafe-');
});

test('each page has a nonce of its own', async () => {
  const nonceOf = async () => /'nonce-([^']+)'/.exec(await send(request({ path: '/' })))?.[1];
  const [first, second] = [await nonceOf(), await nonceOf()];
  expect(first).toHaveLength(22);
  expect(first).not.toBe(second);
  expect(await send(request({ path: '/' }))).not.toContain('__CSP_NONCE__');
});

test('it listens on the loopback address only', () => {
  expect(server.address()).toMatchObject({ address: '127.0.0.1' });
});

test('nothing of the secrets is written to a file', async () => {
  for (const name of await readdir(folder)) {
    const text = await readFile(join(folder, name), 'utf8');
    expect(text).not.toContain(cookie.split('=')[1]);
  }
});
