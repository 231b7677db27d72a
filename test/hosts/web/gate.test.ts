/** Nobody gets in who does not belong: every route times every bad request, against a real server and its real sockets. */

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
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

const keys = new Keys();
let folder: string;
let server: ReturnType<typeof createGatedServer>;
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
  server = createGatedServer(createRoutes({ api, hub, assets, keys, onOpened: () => undefined }), keys);
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

interface Knock {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body?: string;
}

/** A good request, except for what is changed; a header that is undefined is left out, one with several values repeated. */
function request({ method = 'GET', path = '/', headers = {}, body }: Knock): string {
  const all: Knock['headers'] = {
    Host: `127.0.0.1:${port}`,
    Cookie: cookie,
    ...(method === 'POST' ? { Origin: `http://127.0.0.1:${port}`, 'Content-Type': 'application/json' } : {}),
    ...(body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }),
    Connection: 'close',
    ...headers,
  };
  const lines = Object.entries(all).flatMap(([name, value]) =>
    (typeof value === 'string' ? [value] : (value ?? [])).map((each) => `${name}: ${each}\r\n`),
  );
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body ?? ''}`;
}

/** Everything the server says until it hangs up, or until a stream has begun to talk. */
function send(text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    const done = (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(3000, done);
    socket.on('data', (chunk) => {
      answer += chunk.toString();
      if (answer.includes('event: ready')) done();
    });
    socket.on('close', done).on('error', done);
  });
}

const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);

const routes: readonly Knock[] = [
  { path: '/' },
  { path: '/main.js' },
  { path: '/api/events' },
  ...callNames.map((name) => ({ method: 'POST', path: `/api/${name}`, body: '{}' })),
];

const own = (): string => `127.0.0.1:${port}`;
const flip = (text: string, at: number): string =>
  `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;

/** What is wrong → how a good request becomes that. */
const bad: Readonly<Record<string, (good: Knock) => Knock | string>> = {
  'no cookie': (good) => ({ ...good, headers: { Cookie: undefined } }),
  'empty cookie': (good) => ({ ...good, headers: { Cookie: '' } }),
  'cookie without a value': (good) => ({ ...good, headers: { Cookie: `${keys.cookieName}=` } }),
  'cookie of the right name, wrong value': (good) => ({ ...good, headers: { Cookie: `${keys.cookieName}=guess` } }),
  'cookie of another name': (good) => ({ ...good, headers: { Cookie: cookie.replace(keys.cookieName, 'fastmqa') } }),
  'cookie with its last letter changed': (good) => ({ ...good, headers: { Cookie: flip(cookie, cookie.length - 2) } }),
  'cookie with its first letter changed': (good) => ({
    ...good,
    headers: { Cookie: flip(cookie, keys.cookieName.length + 1) },
  }),
  'cookie cut short': (good) => ({ ...good, headers: { Cookie: cookie.slice(0, -1) } }),
  'cookie with a letter more': (good) => ({ ...good, headers: { Cookie: `${cookie}A` } }),
  'cookie in upper case': (good) => ({ ...good, headers: { Cookie: cookie.toUpperCase() } }),
  'two of our cookies': (good) => ({ ...good, headers: { Cookie: `${cookie}; ${keys.cookieName}=guess` } }),
  'two cookie headers': (good) => ({ ...good, headers: { Cookie: [cookie, cookie] } }),
  'the token in the query instead': (good) => ({
    ...good,
    path: `${good.path}?${cookie}`,
    headers: { Cookie: undefined },
  }),
  'the token as a bearer': (good) => ({
    ...good,
    headers: { Cookie: undefined, Authorization: `Bearer ${cookie.split('=')[1]}` },
  }),
  'no host': (good) => ({ ...good, headers: { Host: undefined } }),
  'two hosts': (good) => ({ ...good, headers: { Host: [own(), own()] } }),
  'two hosts, one foreign': (good) => ({ ...good, headers: { Host: [own(), 'evil.example'] } }),
  'a foreign host': (good) => ({ ...good, headers: { Host: 'evil.example' } }),
  'a foreign host on our port': (good) => ({ ...good, headers: { Host: `evil.example:${port}` } }),
  'a host that begins like ours': (good) => ({ ...good, headers: { Host: `127.0.0.1.evil.example:${port}` } }),
  'a host that ends like ours': (good) => ({ ...good, headers: { Host: `evil-localhost:${port}` } }),
  'a host with a user': (good) => ({ ...good, headers: { Host: `evil.example@${own()}` } }),
  'our host on another port': (good) => ({ ...good, headers: { Host: `127.0.0.1:${port + 1}` } }),
  'our host without a port': (good) => ({ ...good, headers: { Host: '127.0.0.1' } }),
  'another loopback address': (good) => ({ ...good, headers: { Host: `127.0.0.2:${port}` } }),
  'every address': (good) => ({ ...good, headers: { Host: `0.0.0.0:${port}` } }),
  'a host in another spelling': (good) => ({ ...good, headers: { Host: `2130706433:${port}` } }),
  'an empty host': (good) => ({ ...good, headers: { Host: '' } }),
  'a foreign origin': (good) => ({ ...good, headers: { Origin: 'http://evil.example' } }),
  'origin null': (good) => ({ ...good, headers: { Origin: 'null' } }),
  'our origin with https': (good) => ({ ...good, headers: { Origin: `https://${own()}` } }),
  'our origin on another port': (good) => ({ ...good, headers: { Origin: `http://127.0.0.1:${port + 1}` } }),
  'our origin by its other name': (good) => ({ ...good, headers: { Origin: `http://localhost:${port}` } }),
  'an origin that begins like ours': (good) => ({ ...good, headers: { Origin: `http://${own()}.evil.example` } }),
  'two origins': (good) => ({ ...good, headers: { Origin: [`http://${own()}`, 'http://evil.example'] } }),
  'sent by a page elsewhere': (good) => ({ ...good, headers: { 'Sec-Fetch-Site': 'cross-site' } }),
  'sent by a page on another port': (good) => ({ ...good, headers: { 'Sec-Fetch-Site': 'same-site' } }),
  'fetched ahead of time': (good) => ({ ...good, headers: { 'Sec-Purpose': 'prefetch' } }),
  'a WebSocket upgrade': (good) => ({
    ...good,
    headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': 'x', 'Sec-WebSocket-Version': '13' },
  }),
  'a WebSocket upgrade from elsewhere': (good) => ({
    ...good,
    headers: { Connection: 'Upgrade', Upgrade: 'websocket', Origin: 'http://evil.example' },
  }),
  'an upgrade to HTTP/2': (good) => ({ ...good, headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }),
  HEAD: (good) => ({ ...good, method: 'HEAD' }),
  OPTIONS: (good) => ({ ...good, method: 'OPTIONS', headers: { Origin: 'http://evil.example' } }),
  PUT: (good) => ({ ...good, method: 'PUT' }),
  DELETE: (good) => ({ ...good, method: 'DELETE' }),
  TRACE: (good) => ({ ...good, method: 'TRACE' }),
  CONNECT: (good) => ({ ...good, method: 'CONNECT', path: own() }),
  'an absolute address': (good) => ({ ...good, path: `http://evil.example${good.path}` }),
  'a climbing path': (good) => ({ ...good, path: `/assets/..${good.path}` }),
  'an escaped path': (good) => ({ ...good, path: `/%2e${good.path}` }),
  'a doubled slash': (good) => ({ ...good, path: `/${good.path}` }),
  'a backslash': (good) => ({ ...good, path: `\\${good.path}` }),
  'a path without a slash': (good) => ({ ...good, path: `x${good.path}` }),
  'a dot file': (good) => ({ ...good, path: '/.env' }),
  'a fragment': (good) => ({ ...good, path: `${good.path}#x` }),
  'a very long path': (good) => ({ ...good, path: `/${'a'.repeat(4000)}` }),
  'headers beyond all measure': (good) => ({ ...good, headers: { 'X-Long': 'a'.repeat(40_000) } }),
  'no HTTP at all': () => 'hello\r\n\r\n',
  'a TLS greeting': () => '\u0016\u0003\u0001\u0002\u0000\u0001\u0000',
};

test('there are at least forty kinds of bad request', () => expect(Object.keys(bad).length).toBeGreaterThanOrEqual(40));

test.each(routes)('good requests pass: $method $path', async (route) => {
  const status = statusOf(await send(request(route)));
  expect([200, 400]).toContain(status); // 400: the call wants more than {}
});

test.each(Object.keys(bad))('refused on every route: %s', async (kind) => {
  const answers = await Promise.all(
    routes.map(async (route) => {
      const changed = bad[kind](route);
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
