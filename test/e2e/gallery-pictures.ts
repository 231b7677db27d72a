/**
 * The charts that README shows of the sessions that come with the app: each opened from the first screen and saved by the chart's
 * own menu into `docs/`. Usage: node test/run-program.mjs test/e2e/gallery-pictures.ts
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { openWindow, startApp } from './app.ts';

const docs = join(import.meta.dirname, '../../docs');

interface Picture {
  readonly example: string;
  /** Of docs, without ending. */
  readonly name: string;
}

const pictures: readonly Picture[] = [
  { example: 'Levels', name: 'h100-levels' },
  { example: 'Cache formats', name: 'h100-formats' },
  { example: 'Contexts up to 128k', name: 'h100-contexts' },
  { example: 'Roofline', name: 'h100-roofline' },
  { example: 'Until memory is full', name: 'h100-memory' },
];

for (const { example, name } of pictures) {
  // The first screen is that of an empty library.
  const app = await startApp();
  const { browser, page } = await openWindow(app);
  try {
    await page.setViewportSize({ width: 1500, height: 1000 });
    await page.getByRole('button', { name: example, exact: true }).click();
    await page.getByRole('button', { name: /^Save / }).waitFor();
    await page.mouse.move(620, 4);
    await page.waitForTimeout(500);
    await page.getByRole('button', { name: /^Save / }).click();
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('menuitem', { name: 'PNG, twice the size' }).click(),
    ]);
    await mkdir(docs, { recursive: true });
    await download.saveAs(join(docs, `${name}.png`));
  } finally {
    await browser.close();
    await app.close();
  }
}
