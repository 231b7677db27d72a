/** The whole app for a test: the real engine, the web host on a free port, and folders that vanish afterwards. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { serve } from '../../src-main/hosts/web/serve.ts';
import { openBrowser, watch } from './browser.ts';

export async function startApp({ queue, workerScript }: { queue?: string; workerScript?: string } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'fastmqa-e2e-'));
  const profiler = createProfiler(workerScript === undefined ? {} : { workerScript });
  const said: string[] = [];
  const printed: string[] = [];
  const host = await serve({
    profiler,
    port: 0,
    queue,
    sessionsFolder: join(folder, 'sessions'),
    print: (line) => printed.push(line),
    say: (line) => said.push(line),
  });
  return {
    folder,
    host,
    profiler,
    said,
    printed,
    close: async () => {
      await host.close();
      await profiler.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The window of such an app, loaded and watched. */
export async function openWindow(
  { folder, host }: { readonly folder: string; readonly host: { readonly url: string; link(): string } },
  permissions: readonly string[] = [],
) {
  const browser = await openBrowser(join(folder, 'browser'), { width: 1280, height: 800 });
  await browser.grantPermissions([...permissions], { origin: host.url });
  const page = browser.pages()[0] ?? (await browser.newPage());
  const watched = await watch(page, host.url);
  await page.goto(host.link());
  await page.getByRole('tab', { name: 'Trade-off' }).waitFor();
  return { browser, page, watched };
}
