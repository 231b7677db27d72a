/** One screen as pictures in both themes and at both sizes, with what axe has to say about each. */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Page } from 'playwright-core';
import { seriousFindings } from './browser.ts';

const folder = join(import.meta.dirname, '../../screenshots');
const sizes = [
  { width: 1280, height: 800 },
  { width: 1920, height: 1080 },
];
const themes = ['light', 'dark'] as const;
/** Charts measure their room before they are drawn. */
const settleMilliseconds = 300;
const mostFadeMilliseconds = 2000;

/** @param screen path below `screenshots/`, without size, theme and ending */
export async function takeScreen(page: Page, screen: string): Promise<void> {
  for (const size of sizes) {
    for (const colorScheme of themes) {
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(settleMilliseconds);
      await stillness(page);
      const path = join(folder, `${screen}-${size.width}-${colorScheme}.png`);
      await mkdir(dirname(path), { recursive: true });
      await page.screenshot({ path });
      complain(`${screen}, ${colorScheme}`, await seriousFindings(page));
    }
  }
}

/** A theme fades in, and on a busy machine that takes longer; a spinner never ends. */
async function stillness(page: Page): Promise<void> {
  for (let waited = 0; waited < mostFadeMilliseconds; waited += 50) {
    if ((await page.evaluate('document.getAnimations().length')) === 0) return;
    await page.waitForTimeout(50);
  }
}

/** A screen on which something is wrong makes the command fail. */
export function complain(what: string, complaints: readonly string[]): void {
  for (const complaint of complaints) process.stdout.write(`${what}: ${complaint}\n`);
  if (complaints.length > 0) process.exitCode = 1;
}
