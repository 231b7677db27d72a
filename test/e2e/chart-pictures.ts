/** Pictures of every chart over a sweep with several axes, both themes and sizes, into `screenshots/charts/`. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { pointsOf, startSynthetic, sweepOf, tenThousand } from '../fakes/synthetic-sweep.ts';
import { openBrowser, watch } from './browser.ts';

const folder = join(import.meta.dirname, '../../screenshots/charts');
const tabs = ['Trade-off', 'Levels', 'Scaling', 'Roofline', 'Heat map', 'Latency'];
const views = [
  { width: 1280, height: 800, colorScheme: 'light' },
  { width: 1280, height: 800, colorScheme: 'dark' },
  { width: 1920, height: 1080, colorScheme: 'light' },
  { width: 1920, height: 1080, colorScheme: 'dark' },
] as const;

async function take(page: Page, name: string): Promise<void> {
  for (const { width, height, colorScheme } of views) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.waitForTimeout(250);
    await page.screenshot({ path: join(folder, `${name}-${width}-${colorScheme}.png`) });
  }
}

async function pictures(name: string, sweep: ReturnType<typeof sweepOf>): Promise<void> {
  const app = await startSynthetic(sweep, pointsOf(sweep, 10_000));
  const browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    const watched = await watch(page, app.host.url);
    await page.goto(app.host.link());
    await page.getByRole('grid', { name: 'Points' }).getByRole('row').nth(3).click();
    for (const tab of tabs) {
      await page.getByRole('tab', { name: tab }).click();
      await page.mouse.move(640, 4);
      await take(page, `${name}-${tab.toLowerCase().replace(' ', '-')}`);
    }
    process.stdout.write(`${name}: ${JSON.stringify([watched.complaints, await watched.layoutShifts()])}\n`);
  } finally {
    await browser.close();
    await app.close();
  }
}

await mkdir(folder, { recursive: true });
const level = ['baseline', 'conservative', 'balanced', 'four-bit', 'aggressive', 'shared-64x'];
await pictures(
  'some',
  sweepOf({
    level,
    hiddenDim: [512],
    heads: [8],
    seqLen: [256, 1024, 4096, 16384],
    batch: [1, 8],
    phase: ['decode', 'prefill'],
  }),
);
await pictures('many', tenThousand);
