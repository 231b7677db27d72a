/**
 * The one gate of the web host: every request and every upgrade passes it before anything is routed, parsed or read. It knows
 * the request line and the headers as they came, nothing else, and lets in only what it knows to be right.
 */
import type { Keys } from './keys.ts';

/** What the gate sees of a request; `IncomingMessage` fits. */
export interface Knock {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  /** Name, value, name, value …, repeated headers included. */
  readonly rawHeaders: readonly string[];
}

export interface Refusal {
  readonly status: 400 | 401 | 403 | 404 | 405 | 414 | 421 | 426;
  /** Says what to do, and nothing about what would have been let in. */
  readonly says: string;
}

export const openPath = '/open';

/** Plain paths only: no escapes, no dots that climb, no empty segments, no second way to write anything. */
const plainPath = /^\/(?:[A-Za-z0-9_-][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$/;
const plainQuery = /^[A-Za-z0-9_=&-]*$/;
const longestUrl = 512;
const hostNames = ['127.0.0.1', 'localhost'];

/** @returns why not, or undefined to let it in. */
export function refusalOf(knock: Knock, port: number, keys: Keys): Refusal | undefined {
  const header = (name: string): readonly string[] => valuesOf(knock.rawHeaders, name);
  const refuse = (status: Refusal['status'], says: string): Refusal => ({ status, says });

  if (header('upgrade').length > 0) return refuse(426, 'no upgrades');
  if (knock.method !== 'GET' && knock.method !== 'POST') return refuse(405, 'only GET and POST');
  const url = knock.url ?? '';
  if (url.length > longestUrl) return refuse(414, 'too long');
  const [path, query, ...more] = url.split('?');
  if (more.length > 0 || !plainPath.test(path) || !plainQuery.test(query ?? '')) return refuse(400, 'not a plain path');

  // A page elsewhere may point its own name at 127.0.0.1: then the browser sends that name.
  const hosts = header('host');
  if (hosts.length !== 1 || !hostNames.some((name) => hosts[0] === `${name}:${port}`))
    return refuse(421, `open this address as http://127.0.0.1:${port}/`);

  const origins = header('origin');
  const ownOrigin = `http://${hosts[0]}`;
  if (origins.some((origin) => origin !== ownOrigin) || origins.length > 1) return refuse(403, 'not from another page');
  if (knock.method === 'POST' && origins.length !== 1) return refuse(403, 'not from outside the app');

  const site = header('sec-fetch-site');
  // The link may be clicked in a terminal or a chat that is itself a page; nothing else may come from one.
  const isLink = path === openPath && header('sec-fetch-dest').every((dest) => dest === 'document');
  if (!isLink && site.some((from) => from !== 'same-origin' && from !== 'none'))
    return refuse(403, 'not from another page');
  // A browser that only guesses must not spend the link.
  if (header('sec-purpose').length > 0 || header('purpose').length > 0) return refuse(403, 'not ahead of time');

  if (path === openPath) return knock.method === 'GET' ? undefined : refuse(405, 'only GET');
  if (header('cookie').length > 1 || !keys.admits(header('cookie')[0]))
    return refuse(401, 'open the one-time link that the program printed where it was started');
  return undefined;
}

function valuesOf(rawHeaders: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i].toLowerCase() === name) values.push(rawHeaders[i + 1]);
  }
  return values;
}
