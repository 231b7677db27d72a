/** The planner in the window: what is asked, what is shown, and a proof by the real allocator; real engine, real Chromium. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openWindow, startApp } from './app.ts';
import { chromiumPath, noChromium, seriousFindings, type Watched } from './browser.ts';

if (chromiumPath === undefined) process.stderr.write(`skipped: the planner in a browser: ${noChromium}\n`);

describe.skipIf(chromiumPath === undefined)('the planner', () => {
  let app: Awaited<ReturnType<typeof startApp>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  const row = (level: string) => page.getByRole('row', { name: new RegExp(`^${level} `) });
  const model = () => page.getByRole('combobox', { name: 'Model to plan for' });
  const field = (name: string) => page.getByLabel(name, { exact: true });
  const figures = async (level: string): Promise<string[]> => row(level).getByRole('cell').allInnerTexts();

  beforeAll(async () => {
    app = await startApp();
    await mkdir(join(app.folder, 'sessions'), { recursive: true });
    ({ browser, page, watched } = await openWindow(app));
    await page.getByRole('tab', { name: 'Planner' }).click();
    await row('own-16-bit').waitFor();
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });

  test('a published model: the figures are those of the definition', async () => {
    // Llama-3.1-8B: 2 x 8 KV heads x 128 x 2 bytes x 32 layers = 128 KiB a token, 1 GiB at 8,192 tokens.
    const [perToken, sequence, times, batch] = await figures('own-16-bit');
    expect([perToken, sequence, times]).toEqual(['128 KiB', '1 GiB', '1x']);
    expect(Number(batch)).toBe(Math.floor((80 * 2 ** 30 - 8.03e9 * 2) / 2 ** 30));
    await expect.poll(() => row('shared-64x').innerText()).toContain('for models trained with one shared KV head');
    await field('Context in tokens').fill('16384');
    await expect.poll(() => figures('own-16-bit').then(([, bytes]) => bytes)).toBe('2 GiB');
  });

  test('what is wrong stands at its field, and the last plan stays', async () => {
    await field('Memory of the device').fill('80 bananas');
    await expect.poll(() => field('Memory of the device').getAttribute('title')).toBe('expected a size like 80 GiB');
    expect((await figures('own-16-bit'))[1]).toBe('2 GiB');
    await field('Memory of the device').fill('24 GiB');
    await expect.poll(() => figures('own-16-bit').then(([, , , batch]) => batch)).toBe('4');
    await model().fill('no such model');
    await page.getByText('No plan for this model').waitFor();
    await page.getByText(/^expected one of byte-mha, byte-mqa, a published model/).waitFor();
  });

  test('a proof: planned against reached, level by level, and rings on the chart', async () => {
    await model().fill('byte-mha');
    await field('Context in tokens').fill('512');
    await expect.poll(() => figures('own-16-bit').then(([, bytes]) => bytes)).toBe('2 MiB');
    const planned = await figures('own-16-bit');
    const headings = () => page.locator('thead th').allInnerTexts();
    expect((await headings()).at(-1)).toBe('longest context'); // nothing is proven: no empty columns
    await field('Limit of the proof').fill('9 MiB');
    await page.getByRole('button', { name: 'Prove', exact: true }).click();
    await page.getByRole('button', { name: 'Prove', exact: true }).waitFor();
    const provenOf = (level: string) => figures(level).then((cells) => cells.slice(6));
    await expect.poll(() => provenOf('own-16-bit')).toEqual(['4', '4', '0.00 %']);
    const proven = await Promise.all(['own-16-bit', 'near-lossless', 'four-bit', 'mixed-latent'].map(provenOf));
    expect((await headings()).slice(-3)).toEqual(['planned', 'reached', 'off by']);
    // What is planned for the device stays what it was.
    expect((await figures('own-16-bit')).slice(0, 6)).toEqual(planned.slice(0, 6));
    for (const [sequences, reached, off] of proven) {
      expect(Math.abs(Number(sequences) - Number(reached))).toBeLessThanOrEqual(1);
      expect(off).toBe('0.00 %');
    }
    await expect.poll(() => page.locator('.recharts-reference-dot').count()).toBeGreaterThan(8);
  });

  test('a level stands out when its row is pressed, and is left out by the legend', async () => {
    await row('four-bit').getByRole('button').click();
    await expect.poll(() => row('four-bit').getAttribute('data-lit')).toBe('true');
    const inspector = page.getByRole('complementary', { name: 'Inspector' });
    await expect
      .poll(() => inspector.innerText())
      .toContain('160 B a token: keys, 8 KV heads x 32 x 4 bit, and 4 B of scales for every 32');
    const details = await inspector.innerText();
    const [, planned, allocated] =
      /bytes planned for as many\s+([\d,]+)\s+bytes allocated\s+([\d,]+)/.exec(details) ?? [];
    expect(allocated).toBe(planned);
    await expect.poll(() => page.locator('.recharts-line-curve[stroke-width="3.5"]').count()).toBe(2);
    const lines = await page.locator('.recharts-line-curve').count();
    await page.getByRole('button', { name: 'conservative', pressed: true }).click();
    await expect.poll(() => page.locator('.recharts-line-curve').count()).toBe(lines - 2);
    await page.getByRole('button', { name: 'conservative', pressed: false }).first().click();
  });

  test('is saved as a picture and as figures', async () => {
    const saved = async (item: string): Promise<string> => {
      await page.getByRole('button', { name: /^Save Memory plan/ }).click();
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('menuitem', { name: item }).click(),
      ]);
      expect(download.suggestedFilename()).toMatch(/^plan-byte-mha\.(svg|png|csv)$/);
      return readFile(await download.path(), 'latin1');
    };
    const csv = await saved('CSV, the points shown');
    expect(csv).toContain('level,context,bytesPerSequence,largestBatch\r\nown-16-bit,128,');
    const svg = await saved('SVG');
    expect(svg).toContain('sequences that fit in the device');
    expect(svg).toContain('four-bit');
    expect((await saved('PNG, twice the size')).slice(1, 4)).toBe('PNG');
  });

  test('nothing serious for axe in either theme, nothing in the console, nothing from elsewhere', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await seriousFindings(page)).toEqual([]);
      if (process.env.FASTMQA_PICTURES)
        for (const [width, height] of [
          [1280, 800],
          [1920, 1080],
        ] as const) {
          await page.setViewportSize({ width, height });
          await page.mouse.move(620, 4);
          await page.waitForTimeout(400);
          await page.screenshot({ path: join(process.env.FASTMQA_PICTURES, `planner-${width}-${colorScheme}.png`) });
        }
    }
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
  });
});
