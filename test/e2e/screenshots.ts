/** Pictures of every screen in both themes and at both sizes, into `screenshots/`: to be looked at before a screen is called done. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { startApp } from './app.ts';
import { chromiumPath, noChromium, openBrowser } from './browser.ts';

const folder = join(import.meta.dirname, '../../screenshots');
const sizes = [
  { width: 1280, height: 800 },
  { width: 1920, height: 1080 },
];
const themes = ['light', 'dark'] as const;

async function takeAll(page: Page, screen: string): Promise<void> {
  for (const size of sizes) {
    for (const colorScheme of themes) {
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(400);
      await page.screenshot({ path: join(folder, `${screen}-${size.width}-${colorScheme}.png`) });
    }
  }
}

async function main(): Promise<void> {
  await mkdir(folder, { recursive: true });
  const app = await startApp();
  const browser = await openBrowser(join(app.folder, 'browser'), sizes[0]);
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    await page.goto(app.host.link());
    await page.getByRole('button', { name: 'Run', exact: true }).and(page.locator(':enabled')).waitFor();
    await page.getByText('threads').waitFor();
    await takeAll(page, '1-empty');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.mouse.move(620, 4);
    await page.locator('[data-mark]').first().waitFor();
    await takeAll(page, '2-running');
    await page.getByText(/^done/).waitFor({ timeout: 120_000 });
    await page.locator('[data-mark]').nth(2).click();
    await takeAll(page, '3-trade-off');
    await page.getByRole('tab', { name: 'Levels' }).click();
    await takeAll(page, '4-levels');
    await page.getByLabel('Heads', { exact: true }).fill('7,x');
    await page.getByLabel('Batch').fill('0');
    await takeAll(page, '5-errors');
  } finally {
    await browser.close();
    await app.close();
  }
  process.stdout.write(`${folder}\n`);
}

if (chromiumPath) await main();
else process.stderr.write(`${noChromium}\n`);
