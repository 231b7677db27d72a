/** R10: the window may be loaded again at any time. A real Chromium, the web host, and a scripted worker behind it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, expect, test } from 'vitest';
import { expandSweep } from '../../src-main/engine/plan.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { serve } from '../../src-main/hosts/web/serve.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { chromiumPath, noChromium, openBrowser, watch } from '../e2e/browser.ts';
import { grouped, longestTest, reached, tries } from './effort.ts';
import { fakeWorker } from './sweep-of-trouble.ts';

if (chromiumPath === undefined) process.stderr.write(`skipped: reloading the window: ${noChromium}\n`);

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-reload-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every row of the table in its order, `id text`, by scrolling through it. */
const rowsOf = (page: Page): Promise<string[]> =>
  page.evaluate(`(async () => {
    const grid = document.querySelector('[role=grid][aria-label=Points]');
    const seen = new Map();
    const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    grid.scrollTop = 0;
    for (;;) {
      await painted();
      for (const row of grid.querySelectorAll('[role=row][id]'))
        seen.set(Number(row.getAttribute('aria-rowindex')), row.id + ' ' + row.innerText);
      if (grid.scrollTop + grid.clientHeight >= grid.scrollHeight - 1) break;
      grid.scrollTop += grid.clientHeight * 0.8;
    }
    return [...seen].sort(([a], [b]) => a - b).map(([, text]) => text);
  })()`);

test.skipIf(chromiumPath === undefined)(
  'R10: the window, loaded again and again while rows arrive, ends with the rows of the session',
  { timeout: longestTest },
  async (context) => {
    const rows = tries(2000, 10_000, 300);
    const every = Math.ceil(rows / 20);
    const sweep = {
      name: 'reload',
      axes: {
        level: ['baseline', 'near-lossless', 'four-bit', 'mixed-latent'],
        hiddenDim: [64],
        heads: [2],
        seqLen: Array.from({ length: rows / 4 }, (_, i) => 64 + i),
      },
      measuring: { minSeconds: 0, minSamples: 5 },
    };
    const total = expandSweep(sweep).length;
    const profiler = createProfiler({ workerScript: fakeWorker });
    const silent = (): void => undefined;
    const host = await serve({ profiler, port: 0, sessionsFolder: join(folder, 's'), print: silent, say: silent });
    const browser = await openBrowser(join(folder, 'browser'), { width: 1280, height: 800 });
    try {
      const page = browser.pages()[0] ?? (await browser.newPage());
      const { complaints } = await watch(page, host.url);
      await page.goto(host.link());
      await page.waitForURL(host.url);
      const { file } = await host.hub.start(sweep);
      let reloads = 0;
      for (let next = every; host.hub.snapshot().status !== 'ended'; ) {
        if (host.hub.snapshot().points.length >= next) {
          await page.reload({ waitUntil: 'commit' });
          reloads += 1;
          next += every;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const count = (): Promise<string | null> =>
        page.getByRole('grid', { name: 'Points' }).getAttribute('aria-rowcount');
      await expect.poll(count, { timeout: 30_000 }).toBe(String(total + 1));
      const live = await rowsOf(page);
      // The same window, shown what is on the disk and nothing else.
      const session = await readSession(file);
      host.hub.open(file, session);
      await expect.poll(() => rowsOf(page), { timeout: 60_000 }).toHaveLength(total);
      expect(live).toEqual(await rowsOf(page));
      expect(live.map((row) => row.slice(4, row.indexOf(' ')))).toEqual([...session.points.keys()]);
      expect(reloads).toBeGreaterThan(3);
      expect(complaints).toEqual([]);
      reached(context, `R10 window reloaded ${reloads} times while ${grouped(total)} rows arrived: table = session`);
    } finally {
      await browser.close();
      await host.close();
      await profiler.close();
    }
  },
);
