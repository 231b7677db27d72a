/** What lies behind the gate. Everything here was let in: the link in exchange for a cookie, the rest with that cookie. */
import { Hono, type MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { type AppApi, type CallName, calls, type Reply } from '../../contract/calls.ts';
import { answer } from '../app-calls.ts';
import { type Asset, pageOf } from '../assets.ts';
import { securityHeaders } from '../headers.ts';
import type { RunHub } from '../run-hub.ts';
import { openPath } from './gate.ts';
import type { Keys } from './keys.ts';
import { eventStream } from './stream.ts';

/** Without an icon of its own the browser would ask for one that is not there. */
const forwardPage =
  '<!doctype html><meta http-equiv="refresh" content="0;url=/"><link rel="icon" href="data:,"><title>FastMQA</title>';

export interface RoutesOptions {
  readonly api: AppApi;
  readonly hub: RunHub;
  readonly assets: ReadonlyMap<string, Asset>;
  readonly keys: Keys;
  /** The link was used; the next one is good for another browser. */
  readonly onOpened: () => void;
}

export function createRoutes({ api, hub, assets, keys, onOpened }: RoutesOptions): Hono {
  const app = new Hono();
  app.use(async (context, next) => {
    await next();
    for (const [name, value] of Object.entries(securityHeaders())) {
      if (!context.res.headers.has(name)) context.res.headers.set(name, value);
    }
  });

  app.get(openPath, (context) => {
    const token = keys.redeem(context.req.query('ticket') ?? '');
    if (token === undefined)
      return context.text('This link was used already. The program printed a new one where it was started.', 403);
    onOpened();
    context.header('Set-Cookie', `${keys.cookieName}=${token}; HttpOnly; SameSite=Strict; Path=/`);
    // A redirect would still count as the other page's navigation, and the strict cookie would stay behind.
    return context.html(forwardPage);
  });

  app.get('/', (context) => {
    const { html, nonce } = pageOf(assets);
    return context.html(html, 200, securityHeaders(nonce));
  });

  app.get('/api/events', () => new Response(eventStream(hub), { headers: { 'Content-Type': 'text/event-stream' } }));

  app.post('/api/:call', limitBody, async (context) => {
    if (context.req.header('content-type') !== 'application/json')
      return context.json(malformed('expected application/json'), 415);
    const input = await context.req.json().catch(() => undefined);
    const reply = await answer(api, context.req.param('call'), input);
    return context.json(reply, statusOf(reply));
  });

  app.get('*', (context) => {
    const asset = assets.get(context.req.path);
    if (!asset || context.req.path === '/index.html') return context.notFound();
    return context.body(asset.body, 200, { 'Content-Type': asset.type });
  });
  app.onError((error, context) => context.json({ ok: false, failure: 'fault', message: error.message }, 500));
  return app;
}

/** A call that was understood and answered is no failure of the transport, even if the answer is no. */
const statusOf = (reply: Reply): 200 | 400 | 500 =>
  reply.ok || reply.failure === 'input' || reply.failure === 'engine' ? 200 : reply.failure === 'fault' ? 500 : 400;

/** Before anything of the body is read. */
const limitBody: MiddlewareHandler = (context, next) => {
  const name = context.req.param('call') ?? '';
  const maxSize = (Object.hasOwn(calls, name) ? calls[name as CallName] : calls.snapshot).largestBytes;
  return bodyLimit({ maxSize, onError: () => context.json(malformed('the request is too large'), 413) })(context, next);
};

const malformed = (message: string): Reply => ({ ok: false, failure: 'malformed', message });
