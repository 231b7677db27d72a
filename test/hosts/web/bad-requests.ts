/** Requests that must be refused, each a good one with one thing wrong, sent over a bare socket. */
import { connect } from 'node:net';

export interface Knock {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body?: string;
}

/** A host as its own browser knows it. */
export interface Door {
  readonly port: number;
  /** `name=value`, as the browser sends it. */
  readonly cookie: string;
  readonly cookieName: string;
}

/** A good request, except for what is changed; a header that is undefined is left out, one with several values repeated. */
export function request({ port, cookie }: Door, { method = 'GET', path = '/', headers = {}, body }: Knock): string {
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
export function send({ port }: Pick<Door, 'port'>, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    const done = (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(60_000, done); // silent for longer than any machine is slow
    socket.on('data', (chunk) => {
      answer += chunk.toString();
      if (answer.includes('event: ready')) done();
    });
    socket.on('close', done).on('error', done);
  });
}

export const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);

const own = ({ port }: Door): string => `127.0.0.1:${port}`;
const flip = (text: string, at: number): string =>
  `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`;

/** What is wrong → how a good request becomes that. */
export const bad: Readonly<Record<string, (good: Knock, door: Door) => Knock | string>> = {
  'no cookie': (good) => ({ ...good, headers: { Cookie: undefined } }),
  'empty cookie': (good) => ({ ...good, headers: { Cookie: '' } }),
  'cookie without a value': (good, door) => ({ ...good, headers: { Cookie: `${door.cookieName}=` } }),
  'cookie of the right name, wrong value': (good, door) => ({
    ...good,
    headers: { Cookie: `${door.cookieName}=guess` },
  }),
  'cookie of another name': (good, door) => ({
    ...good,
    headers: { Cookie: door.cookie.replace(door.cookieName, 'fastmqa') },
  }),
  'cookie with its last letter changed': (good, door) => ({
    ...good,
    headers: { Cookie: flip(door.cookie, door.cookie.length - 2) },
  }),
  'cookie with its first letter changed': (good, door) => ({
    ...good,
    headers: { Cookie: flip(door.cookie, door.cookieName.length + 1) },
  }),
  'cookie cut short': (good, door) => ({ ...good, headers: { Cookie: door.cookie.slice(0, -1) } }),
  'cookie with a letter more': (good, door) => ({ ...good, headers: { Cookie: `${door.cookie}A` } }),
  'cookie in upper case': (good, door) => ({ ...good, headers: { Cookie: door.cookie.toUpperCase() } }),
  'two of our cookies': (good, door) => ({ ...good, headers: { Cookie: `${door.cookie}; ${door.cookieName}=guess` } }),
  'two cookie headers': (good, door) => ({ ...good, headers: { Cookie: [door.cookie, door.cookie] } }),
  'the token in the query instead': (good, door) => ({
    ...good,
    path: `${good.path}?${door.cookie}`,
    headers: { Cookie: undefined },
  }),
  'the token as a bearer': (good, door) => ({
    ...good,
    headers: { Cookie: undefined, Authorization: `Bearer ${door.cookie.split('=')[1]}` },
  }),
  'no host': (good) => ({ ...good, headers: { Host: undefined } }),
  'two hosts': (good, door) => ({ ...good, headers: { Host: [own(door), own(door)] } }),
  'two hosts, one foreign': (good, door) => ({ ...good, headers: { Host: [own(door), 'evil.example'] } }),
  'a foreign host': (good) => ({ ...good, headers: { Host: 'evil.example' } }),
  'a foreign host on our port': (good, door) => ({ ...good, headers: { Host: `evil.example:${door.port}` } }),
  'a host that begins like ours': (good, door) => ({
    ...good,
    headers: { Host: `127.0.0.1.evil.example:${door.port}` },
  }),
  'a host that ends like ours': (good, door) => ({ ...good, headers: { Host: `evil-localhost:${door.port}` } }),
  'a host with a user': (good, door) => ({ ...good, headers: { Host: `evil.example@${own(door)}` } }),
  'our host on another port': (good, door) => ({ ...good, headers: { Host: `127.0.0.1:${door.port + 1}` } }),
  'our host without a port': (good) => ({ ...good, headers: { Host: '127.0.0.1' } }),
  'another loopback address': (good, door) => ({ ...good, headers: { Host: `127.0.0.2:${door.port}` } }),
  'every address': (good, door) => ({ ...good, headers: { Host: `0.0.0.0:${door.port}` } }),
  'a host in another spelling': (good, door) => ({ ...good, headers: { Host: `2130706433:${door.port}` } }),
  'an empty host': (good) => ({ ...good, headers: { Host: '' } }),
  'a foreign origin': (good) => ({ ...good, headers: { Origin: 'http://evil.example' } }),
  'origin null': (good) => ({ ...good, headers: { Origin: 'null' } }),
  'our origin with https': (good, door) => ({ ...good, headers: { Origin: `https://${own(door)}` } }),
  'our origin on another port': (good, door) => ({ ...good, headers: { Origin: `http://127.0.0.1:${door.port + 1}` } }),
  'our origin by its other name': (good, door) => ({ ...good, headers: { Origin: `http://localhost:${door.port}` } }),
  'an origin that begins like ours': (good, door) => ({
    ...good,
    headers: { Origin: `http://${own(door)}.evil.example` },
  }),
  'two origins': (good, door) => ({ ...good, headers: { Origin: [`http://${own(door)}`, 'http://evil.example'] } }),
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
  CONNECT: (good, door) => ({ ...good, method: 'CONNECT', path: own(door) }),
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
