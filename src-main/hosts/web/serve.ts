/** The app in a browser: on this machine, or over an SSH tunnel on any other. */
import os from 'node:os';
import { readAssets } from '../assets.ts';
import { rendererFolder, sessionsFolder } from '../folders.ts';
import type { RunHub } from '../run-hub.ts';
import { createWindowHost, type WindowProfiler } from '../window-host.ts';
import { Keys } from './keys.ts';
import { createRoutes } from './routes.ts';
import { createGatedServer, listen, portOf } from './server.ts';

/** Tried first, so that a tunnel set up once keeps working. */
const usualPort = 7878;

export interface ServeOptions {
  readonly profiler: WindowProfiler;
  /** 0 = any free port; absent = the usual one if it is free. */
  readonly port?: number;
  readonly sessionsFolder?: string;
  /** Of a fleet that windows may see and use, without a password. */
  readonly queue?: string | undefined;
  /** A session to show at first. */
  readonly file?: string;
  /** Receives the one-time link, and each later one as the last is used: one line, for stdout. */
  readonly print?: (line: string) => void;
  /** Receives everything else: for stderr. */
  readonly say?: (line: string) => void;
}

export interface WebHost {
  readonly port: number;
  readonly url: string;
  /** The current one-time link: whoever opens it first is let in. */
  link(): string;
  readonly hub: RunHub;
  /** Ends a sweep that runs, keeps what it measured, and closes every connection. The profiler stays open. */
  close(): Promise<void>;
}

/** @throws InputError where the window is not built or the port cannot be had. */
export async function serve({
  profiler,
  port,
  sessionsFolder: folder = sessionsFolder(),
  queue,
  file,
  print = (line) => process.stdout.write(`${line}\n`),
  say = (line) => process.stderr.write(`${line}\n`),
}: ServeOptions): Promise<WebHost> {
  const keys = new Keys();
  const { api, hub, openPath: openSession, close } = createWindowHost({ profiler, folder, queue });
  if (file !== undefined) await openSession(file);
  const assets = await readAssets(rendererFolder);
  const link = (): string => `http://127.0.0.1:${portOf(server)}${keys.openPath}`;
  const onOpened = (): void => {
    say('A browser was let in. For another one:');
    print(link());
  };
  const routes = createRoutes({ api, hub, assets, keys, onOpened });
  const server = createGatedServer(routes, keys);
  await listenWhereFree(server, port);

  const bound = portOf(server);
  say('FastMQA is ready. Open this link; it works once:');
  print(link());
  say(`From another machine, first: ssh -L ${bound}:127.0.0.1:${bound} ${os.userInfo().username}@${os.hostname()}`);
  say(`Sessions are saved in ${folder}. Ctrl+C ends.`);
  return {
    port: bound,
    url: `http://127.0.0.1:${bound}/`,
    link,
    hub,
    close: async () => {
      await close();
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listenWhereFree(server: ReturnType<typeof createGatedServer>, port: number | undefined): Promise<void> {
  if (port !== undefined) return listen(server, port);
  await listen(server, usualPort).catch(() => listen(server, 0));
}
