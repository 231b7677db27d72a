/** What a user does to a chart, and what every other view then shows: in a real Chromium, over a sweep that is known. */
import { readFile } from 'node:fs/promises';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pointsOf, startSynthetic, sweepOf, tenThousand } from '../fakes/synthetic-sweep.ts';
import { openWindow } from './app.ts';
import { chromiumPath, seriousFindings, type Watched } from './browser.ts';

const sweep = sweepOf({
  level: ['baseline', 'balanced', 'four-bit'],
  hiddenDim: [512],
  heads: [8],
  seqLen: [256, 1024, 4096],
  batch: [1, 8],
  phase: ['decode'],
});

async function open(points: ReturnType<typeof pointsOf>, of: typeof sweep) {
  const app = await startSynthetic(of, points);
  const window = await openWindow(app);
  await window.page.getByRole('application').waitFor();
  return { app, ...window };
}

const tab = (page: Page, name: string) => page.getByRole('tab', { name }).click();
const rowCount = async (page: Page): Promise<number> =>
  Number(await page.getByRole('grid', { name: 'Points' }).getAttribute('aria-rowcount')) - 1;

async function saved(page: Page, item: string): Promise<Buffer> {
  await page.getByRole('button', { name: /^Save / }).click();
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('menuitem', { name: item }).click(),
  ]);
  return readFile(await download.path());
}

describe.skipIf(chromiumPath === undefined)('charts', () => {
  const points = pointsOf(sweep);
  let app: Awaited<ReturnType<typeof startSynthetic>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  beforeAll(async () => {
    ({ app, browser, page, watched } = await open(points, sweep));
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });
  const tooltip = () => page.locator('[aria-live="polite"]').getByText('grade');
  const selectedRow = () => page.getByRole('row', { selected: true });

  test('a click pins the figures of a point in every chart, Escape lets them go', async () => {
    await page.locator('[data-mark]').last().click();
    await page.mouse.move(640, 4);
    await tooltip().waitFor();
    await expect.poll(() => selectedRow().count()).toBe(1);
    for (const name of ['Scaling', 'Roofline', 'Heat map']) {
      await tab(page, name);
      await tooltip().waitFor();
    }
    await page.keyboard.press('Escape');
    await tooltip().waitFor({ state: 'hidden' });
    await expect.poll(() => selectedRow().count()).toBe(1);
  });

  test('arrow keys go from point to point', async () => {
    await tab(page, 'Scaling');
    await page.locator('[data-mark]').first().waitFor();
    await page.getByRole('application').focus();
    await page.keyboard.press('Home');
    const seen: (string | null)[] = [];
    for (let i = 0; i < 4; i += 1) {
      await page.keyboard.press('ArrowRight');
      await expect.poll(() => selectedRow().getAttribute('id')).not.toBe(seen.at(-1));
      seen.push(await selectedRow().getAttribute('id'));
    }
    expect(new Set(seen).size).toBe(4);
    await page.keyboard.press('Escape');
  });

  test.each(['Trade-off', 'Scaling', 'Roofline'])(
    '%s: dragging chooses points, for the table too, until the chip is cleared',
    async (name) => {
      await tab(page, name);
      await page.locator('[data-mark]').first().waitFor();
      const box = await page.getByRole('application').boundingBox();
      if (!box) throw new Error('there is no chart');
      const all = await rowCount(page);
      await page.mouse.move(box.x + 110, box.y + 20);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.5, box.y + box.height - 60, { steps: 4 });
      await page.mouse.up();
      const chip = page.getByRole('main').getByRole('button', { name: /points? chosen/ });
      const chosen = Number.parseInt(await chip.innerText(), 10);
      expect(chosen).toBeGreaterThan(0);
      expect(chosen).toBeLessThan(all);
      await expect.poll(() => rowCount(page)).toBe(chosen);
      await chip.click();
      await expect.poll(() => rowCount(page)).toBe(all);
    },
  );

  test.each(['Levels', 'Scaling', 'Roofline', 'Heat map', 'Trade-off'])(
    '%s: a click in the legend hides a level everywhere',
    async (name) => {
      await tab(page, name);
      await page.getByRole('button', { name: 'four-bit', exact: true }).click();
      await expect.poll(() => rowCount(page)).toBe(points.filter(({ config }) => config.level !== 'four-bit').length);
      await page.getByRole('button', { name: /hidden: Show all/ }).click();
      await page.getByRole('button', { name: 'four-bit', exact: true, pressed: true }).waitFor();
      await expect.poll(() => rowCount(page)).toBe(points.length);
    },
  );

  test('the free filter holds everywhere', async () => {
    await page.getByLabel('Filter points').fill('batch=8 tokens>=1024');
    await expect
      .poll(() => rowCount(page))
      .toBe(points.filter(({ config }) => config.batch === 8 && config.seqLen >= 1024).length);
    await page.getByRole('button', { name: /filtered: Clear/ }).click();
    await expect.poll(() => rowCount(page)).toBe(points.length);
  });

  test('columns are chosen, remembered, sorted by and copied, by keyboard alone', async () => {
    await browser.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: app.host.url });
    const heads = () => page.getByRole('columnheader').allInnerTexts();
    const copied = (): Promise<string> => page.evaluate('navigator.clipboard.readText()');
    await page.getByRole('button', { name: 'Choose columns' }).press('Enter');
    await page.getByRole('checkbox', { name: 'peak memory' }).press('Space');
    await page.getByRole('checkbox', { name: 'phase', exact: true }).press('Space');
    expect(await seriousFindings(page)).toEqual([]);
    await page.keyboard.press('Escape');
    await expect.poll(heads).toContain('peak memory');
    await expect.poll(heads).not.toContain('phase');
    await page.reload();
    await page.getByRole('application').waitFor();
    await expect.poll(heads).toContain('peak memory');
    await page.getByRole('columnheader').first().getByRole('button').focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Enter');
    await expect
      .poll(() => page.getByRole('columnheader', { name: 'tokens', exact: true }).getAttribute('aria-sort'))
      .toBe('descending');
    await page.getByRole('button', { name: 'Copy the table' }).press('Enter');
    await page.getByRole('menuitem', { name: 'CSV' }).click();
    await expect.poll(copied).toMatch(/^[^|]*\r\n/);
    const [head, ...rows] = (await copied()).trim().split('\r\n');
    expect(rows).toHaveLength(points.length);
    const [tokens, peak] = ['seqLen', 'peakBytes'].map((name) => head.split(',').indexOf(name));
    expect(rows.map((row) => Number(row.split(',')[tokens]))).toEqual(
      points.map(({ config }) => config.seqLen).sort((a, b) => b - a),
    );
    expect(new Set(rows.map((row) => Number(row.split(',')[peak])))).toEqual(
      new Set(points.map(({ memory }) => memory?.peakBytes)),
    );
    await page.getByRole('button', { name: 'Copy the table' }).press('Enter');
    await page.getByRole('menuitem', { name: 'Markdown' }).click();
    await expect.poll(copied).toMatch(/^\| level \| d \| tokens \|.*peak memory \|\n\| --- \| --: \| --: \|/);
    await page.getByRole('button', { name: 'Choose columns' }).press('Enter');
    await page.getByRole('button', { name: 'Show the usual ones' }).press('Enter');
    await page.keyboard.press('Escape');
    await expect.poll(heads).toContain('phase');
  });

  test('the wheel zooms, a double click shows all; scales switch', async () => {
    await tab(page, 'Scaling');
    const count = () => page.locator('[data-mark]').count();
    await page.locator('[data-mark]').first().waitFor();
    const all = await count();
    await page.getByRole('application').hover();
    await page.mouse.wheel(0, -900);
    await expect.poll(count).toBeLessThan(all);
    await page.getByRole('application').dblclick();
    await expect.poll(count).toBe(all);
    await page.getByRole('button', { name: 'Scale of median time: log' }).click();
    await page.getByRole('button', { name: 'Scale of median time: linear' }).click();
  });

  test.each(['Scaling', 'Roofline', 'Heat map', 'Latency', 'Levels'])(
    '%s is saved as SVG, PNG and CSV',
    async (name) => {
      await tab(page, 'Trade-off');
      await page.locator('[data-mark]').last().click();
      await tab(page, name);
      const svg = (await saved(page, 'SVG')).toString();
      const found = await page.evaluate<{ isBroken: boolean; texts: number }>(
        `(() => {
          const picture = new DOMParser().parseFromString(${JSON.stringify(svg)}, 'image/svg+xml');
          return {
            isBroken: picture.querySelector('parsererror') !== null,
            texts: picture.querySelectorAll('text').length,
          };
        })()`,
      );
      expect(found.isBroken).toBe(false);
      expect(found.texts).toBeGreaterThan(5);
      expect(svg).not.toContain('var(--');
      const png = await saved(page, 'PNG, twice the size');
      const width = Number(/width="([\d.]+)"/.exec(svg)?.[1]);
      expect(png.readUInt32BE(16)).toBe(Math.round(2 * Math.floor(width)));
      expect((await saved(page, 'CSV, the points shown')).toString().split('\r\n').length).toBeGreaterThan(3);
    },
  );

  test.each(['Scaling', 'Roofline', 'Heat map', 'Latency'])('axe finds nothing serious: %s', async (name) => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      await tab(page, name);
      expect(await seriousFindings(page)).toEqual([]);
    }
  });

  test('all of the window fits 900x600, and can be scrolled to where there is less room', async () => {
    const theme = page.getByRole('button', { name: /^Use the .* theme$/ });
    const isInside = async (
      part: ReturnType<typeof page.locator>,
      { width, height }: { width: number; height: number },
    ) => {
      const box = await part.boundingBox();
      return box !== null && box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height;
    };
    const smallest = { width: 900, height: 600 };
    await page.setViewportSize(smallest);
    for (const name of ['Levels', 'Heat map', 'Latency', 'Scaling']) {
      await tab(page, name);
      await page.locator('main figure svg').first().waitFor();
      for (const part of [theme, page.locator('main figure'), page.getByRole('complementary', { name: 'Inspector' })])
        await expect.poll(() => isInside(part, smallest)).toBe(true);
    }
    const half = { width: 640, height: 400 }; // 1280x800 at 200 %
    await page.setViewportSize(half);
    for (const part of [theme, page.getByRole('button', { name: 'Copy the table' })]) {
      await part.scrollIntoViewIfNeeded();
      expect(await isInside(part, half)).toBe(true);
    }
    await page.evaluate('document.getElementById("root").scrollTo(0, 0)');
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  test('the page is quiet: no complaint, no foreign request, no shift of the layout', async () => {
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
    expect(await watched.layoutShifts()).toEqual([]);
  });

  test('what cannot be drawn says so in its place, and nothing else goes with it', async () => {
    await page.evaluate('localStorage.setItem("fastmqa.view", JSON.stringify({ columns: { points: 5 } }))');
    await page.reload();
    await page.getByRole('alert').getByText('A fault of FastMQA: the table cannot be drawn').waitFor();
    await page.locator('[data-mark]').first().waitFor();
    expect(await seriousFindings(page)).toEqual([]);
    await page.evaluate('localStorage.clear()');
  });
});

test.skipIf(chromiumPath === undefined)(
  'ten thousand points: on a canvas, and in a saved picture every one of them',
  async () => {
    const points = pointsOf(tenThousand, 10_000);
    const { app, browser, page, watched } = await open(points, tenThousand);
    try {
      await expect.poll(() => page.getByRole('application').locator('canvas').count()).toBe(1);
      expect(await page.locator('[data-mark]').count()).toBe(0);
      const measured = points.filter(({ outcome, config }) => outcome === 'measured' && config.phase === 'decode');
      const svg = (await saved(page, 'SVG')).toString();
      expect(svg.match(/<path[^>]* transform="translate\([^>]* d="[^>]* opacity="1"\/>/g)?.length).toBe(
        measured.length,
      );
      expect(watched.complaints).toEqual([]);
    } finally {
      await browser.close();
      await app.close();
    }
  },
);
