/** R10: the window may be loaded again at any time. A real Chromium, the web host, and a scripted worker behind it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Page } from 'playwright-core';
import { afterAll, expect, test } from 'vitest';
import { expandSweep } from '../../src-main/engine/plan.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { serve } from '../../src-main/hosts/web/serve.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { chromiumPath, noChromium, openBrowser, watch } from '../e2e/browser.ts';
import { scriptedWorker } from '../fakes/scripted-worker.ts';
import { grouped, longestTest, reached, tries } from './effort.ts';

if (chromiumPath === undefined) process.stderr.write(`skipped: reloading the window: ${noChromium}\n`);

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-reload-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every row of the table in its order, `id text`, by scrolling through it. */
const rowsOf = (page: Page): Promise<string[]> =>
  page.evaluate(`(async () => {
    const grid = document.querySelector('[role=grid][aria-label=Points]');
    const seen = new Map();
    const painted = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    const isWhole = () => seen.size === Number(grid.getAttribute('aria-rowcount')) - 1;
    grid.scrollTop = 0;
    for (;;) {
      await painted();
      let reached = 0;
      for (const row of grid.querySelectorAll('[role=row][id]')) {
        seen.set(Number(row.getAttribute('aria-rowindex')), row.id + ' ' + row.textContent);
        reached = Math.max(reached, row.getBoundingClientRect().bottom);
      }
      if (isWhole()) break;
      // On only when the rows of this place are there: a table may be drawn some frames after it was scrolled.
      if (reached >= grid.getBoundingClientRect().bottom) grid.scrollTop += grid.clientHeight * 0.8;
    }
    return [...seen].sort(([a], [b]) => a - b).map(([, text]) => text);
  })()`);

test.skipIf(chromiumPath === undefined)(
  'R10: the window, loaded again and again while rows arrive, ends with the rows of the session',
  { timeout: longestTest },
  async (context) => {
    const rows = tries(10_000, 10_000, 600);
    const every = rows / 20;
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
    let reloads = 0;
    let arrived = 0;
    // Rows arrive while the window loads, but no more than two loads' worth: so it is loaded as often on any machine.
    const profiler = createProfiler({
      startWorker: () =>
        scriptedWorker(async () => {
          while (arrived >= (reloads + 2) * every && reloads < 19) await sleep(5);
        }),
    });
    const silent = (): void => undefined;
    const host = await serve({ profiler, port: 0, sessionsFolder: join(folder, 's'), print: silent, say: silent });
    // Told as a window is told: to look at the snapshot would end every batch at once.
    host.hub.subscribe((events) => {
      arrived += events.filter(({ type }) => type === 'point').length;
    });
    const browser = await openBrowser(join(folder, 'browser'), { width: 1280, height: 2000 });
    try {
      const page = browser.pages()[0] ?? (await browser.newPage());
      page.setDefaultTimeout(longestTest); // a slow machine takes its time
      const { complaints } = await watch(page, host.url);
      await page.goto(host.link());
      await page.waitForURL(host.url);
      const { file } = await host.hub.start(sweep);
      for (; reloads < 19; reloads += 1) {
        while (arrived < (reloads + 1) * every) await sleep(5);
        await page.reload({ waitUntil: 'commit' });
      }
      await expect.poll(() => host.hub.snapshot().status, { timeout: longestTest }).toBe('ended');
      const count = (): Promise<string | null> =>
        page.getByRole('grid', { name: 'Points' }).getAttribute('aria-rowcount');
      await expect.poll(count, { timeout: longestTest }).toBe(String(total + 1));
      const live = await rowsOf(page);
      // And once more, from what is on the disk and nothing else.
      const session = await readSession(file);
      host.hub.open(file, session);
      await page.reload({ waitUntil: 'commit' });
      await expect.poll(count, { timeout: longestTest }).toBe(String(total + 1));
      expect(live).toEqual(await rowsOf(page));
      expect(live.map((row) => row.slice(4, row.indexOf(' ')))).toEqual([...session.points.keys()]);
      expect(complaints).toEqual([]);
      reached(
        context,
        `R10 window reloaded ${reloads} times, every ${every} of ${grouped(total)} rows that arrived: table = session`,
      );
    } finally {
      await browser.close();
      await host.close();
      await profiler.close();
    }
  },
);
