/** The app as a user has it: the real engine, the web host, a real Chromium. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { firstDraft, sweepOf } from '../../src-renderer/store/draft.ts';
import { takesLessThan } from '../load.ts';
import { startApp } from './app.ts';
import { chromiumPath, noChromium, openBrowser, seriousFindings, type Watched, watch } from './browser.ts';

if (chromiumPath === undefined) process.stderr.write(`skipped: the app in a browser: ${noChromium}\n`);

describe.skipIf(chromiumPath === undefined)('the app in a browser', () => {
  let app: Awaited<ReturnType<typeof startApp>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  const run = () => page.getByRole('button', { name: 'Run', exact: true });
  const marks = () => page.locator('[data-mark]');
  const status = () => page.getByRole('status');

  beforeAll(async () => {
    app = await startApp();
    browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
    page = browser.pages()[0] ?? (await browser.newPage());
    watched = await watch(page, app.host.url);
  });

  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });

  const chooseLevels = async (...chosen: string[]): Promise<void> => {
    for (const { name } of app.profiler.levels())
      await page.getByRole('checkbox', { name, exact: true }).setChecked(chosen.includes(name));
  };

  test('the one-time link opens the app, with a sweep ready to run', async () => {
    await page.goto(app.host.link());
    await page.waitForURL(app.host.url);
    await run().and(page.locator(':enabled')).waitFor();
    await page.getByText('Nothing measured yet').waitFor();
    expect(await page.getByLabel('Name').inputValue()).toBe('quick');
    await expect.poll(() => page.getByLabel('What this sweep would cost').innerText()).toMatch(/\b15\b/);
  });

  const open = async (points: number, axes: Sweep['axes'] = {}): Promise<void> => {
    const { sweep } = sweepOf(firstDraft);
    if (sweep === undefined) throw new Error('the first draft is no sweep');
    const path = join(app.folder, `${points}.json`);
    await writeFile(path, JSON.stringify({ ...sweep, axes: { ...sweep.axes, ...axes } }));
    await page.getByLabel('Sweep as JSON').setInputFiles(path);
    const figures = page.getByLabel('What this sweep would cost').getByRole('definition');
    await expect.poll(() => figures.first().innerText()).toBe(String(points));
  };
  /** One small layer, of whose points half are decoding. */
  const openSmall = () => open(12);
  /** The same from seed after seed: it takes a minute, so it still runs when a window that a busy machine starves comes to steer it. */
  const openLong = () => open(300, { seed: Array.from({ length: 25 }, (_, i) => i) });
  const rowCount = async (): Promise<number> =>
    Number(await page.getByRole('grid', { name: 'Points' }).getAttribute('aria-rowcount')) - 1;

  test('what is wrong with a field stands at the field, and Run waits', async () => {
    await openSmall();
    const heads = page.getByLabel('Heads', { exact: true });
    await heads.fill('7,x');
    await page.getByLabel('Batch').fill('0');
    await page.getByText('for heads but received x').waitFor();
    await page.getByText('for batch but received 0').waitFor();
    expect(await run().isDisabled()).toBe(true);
    await page.getByRole('button', { name: '2 fields to put right before it can run' }).click();
    await page.getByRole('textbox', { name: 'Heads', exact: true }).and(page.locator(':focus')).waitFor();
    await heads.fill('8');
    await page.keyboard.press('Control+Enter'); // leads to what is left
    await page.getByRole('textbox', { name: 'Batch' }).and(page.locator(':focus')).waitFor();
    await page.getByLabel('Batch').fill('1');
    await run().and(page.locator(':enabled')).waitFor();
  });

  test('the first result is on the chart within ten seconds, and a reload in mid-run loses nothing', async () => {
    await openLong();
    await takesLessThan(10_000, async () => {
      await run().click();
      await marks().first().waitFor();
    });
    await page.getByRole('button', { name: 'Pause' }).click();
    await status()
      .getByText(/^paused/)
      .waitFor();
    const before = app.host.hub.snapshot().points.length;
    expect(before).toBeGreaterThan(0);
    expect(before).toBeLessThan(300);
    await page.reload();
    await status()
      .getByText(/^paused/)
      .waitFor();
    await expect.poll(rowCount).toBe(before);
    await page.getByRole('button', { name: 'Continue' }).click();
    await status()
      .getByText(/^paused/)
      .waitFor({ state: 'detached' }); // a reload may overtake the request
    await page.reload();
    await expect.poll(rowCount).toBeGreaterThan(before);
    await page.getByRole('button', { name: 'Stop' }).click();
    await status()
      .getByText(/^stopped · \d+ of 300$/)
      .waitFor();
    expect(await rowCount()).toBe(app.host.hub.snapshot().points.length);
  });

  test('a sweep that is left alone is done: every point a row, every one that decodes a mark', async () => {
    await openSmall();
    await run().click();
    await status().getByText('done · 12 of 12').waitFor();
    await expect.poll(rowCount).toBe(12);
    await expect.poll(() => marks().count()).toBe(6);
    expect(app.host.hub.snapshot().points).toHaveLength(12);
  });

  test('the session on the disk holds what the window shows', async () => {
    const { session, points } = app.host.hub.snapshot();
    const stored = await readSession(session?.file ?? '');
    expect([...stored.points.keys()]).toEqual(points.map(({ id }) => id));
    expect(stored.setAside).toEqual([]);
  });

  test('a mark, its row and the inspector are one selection', async () => {
    await marks().last().click();
    const row = page.getByRole('row', { selected: true });
    await expect.poll(() => row.count()).toBe(1);
    const level = (await row.getByRole('gridcell').first().innerText()).trim();
    const inspector = page.getByRole('complementary', { name: 'Inspector' });
    await inspector.getByRole('heading', { name: level }).waitFor();
    await inspector.getByText('Error against fp64').waitFor();
    await page.getByRole('grid').focus();
    await page.keyboard.press('Home');
    await inspector.getByRole('heading', { name: 'baseline' }).waitFor();
  });

  test.each([
    ['SVG', 'svg'],
    ['PNG, twice the size', 'png'],
    ['CSV, the points shown', 'csv'],
  ])('a chart is saved as %s', async (item, ending) => {
    await page.getByRole('button', { name: /^Save / }).click();
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('menuitem', { name: item }).click(),
    ]);
    expect(download.suggestedFilename()).toBe(`trade-off-multiplierVsF32Mha-relativeL2.${ending}`);
    const content = await readFile(await download.path());
    if (ending === 'csv') {
      const { points } = app.host.hub.snapshot();
      const lines = content.toString().trim().split('\r\n');
      expect(lines).toHaveLength(7);
      for (const line of lines.slice(1)) {
        const [id, , , x, y] = line.split(',');
        const point = points.find((candidate) => candidate.id === id);
        expect([Number(x), Number(y)]).toEqual([point?.memory?.multiplierVsF32Mha, point?.error?.relativeL2]);
      }
    } else if (ending === 'svg') {
      const text = content.toString();
      expect(text.match(/data-mark/g)).toBeNull();
      expect(text).not.toContain('var(--');
      expect(text).toContain('cache reduction vs f32 MHA against relative L2 error');
      expect(text).toContain('four-bit');
    } else {
      expect(content.subarray(1, 4).toString()).toBe('PNG');
      expect(content.readUInt32BE(16)).toBeGreaterThan(1000);
    }
  });

  test('stop finishes the points at hand; two windows watch and steer the same sweep', async () => {
    await openLong();
    const other = await browser.newPage();
    await other.goto(app.host.url);
    await page.bringToFront();
    await run().click();
    await other
      .getByRole('status')
      .getByText(/of 300/)
      .waitFor();
    await other.getByRole('button', { name: 'Stop' }).click();
    for (const window of [page, other])
      await window
        .getByRole('status')
        .getByText(/^stopped · \d+ of 300$/)
        .waitFor();
    await other.close();
  });

  test('cancel ends at once and keeps what was finished', async () => {
    await run().click();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await status()
      .getByText(/^cancelled · \d+ of 300$/)
      .waitFor();
  });

  test('a point that cannot be is a row with its reason, listed where it has no mark', async () => {
    await openSmall();
    await chooseLevels('baseline', 'conservative');
    await page.getByLabel('Hidden size d').fill('512,500');
    await page.getByText(/impossible:/).waitFor();
    await run().click();
    await status().getByText(/^done/).waitFor();
    await page.getByText(/\d not on the chart/).waitFor();
    await page.getByText('does not divide into 8 heads').first().waitFor();
  });

  test.each([
    ['light', 'Trade-off'],
    ['light', 'Levels'],
    ['dark', 'Trade-off'],
    ['dark', 'Levels'],
  ] as const)('axe finds nothing serious: %s, %s', async (colorScheme, tab) => {
    await page.emulateMedia({ colorScheme });
    await page.getByRole('tab', { name: tab }).click();
    // Typed: the browser then knows that what moves is the answer to a key.
    await page.getByLabel('Heads', { exact: true }).press('Control+a');
    await page.keyboard.type(tab === 'Levels' ? '8,x' : '8');
    await page
      .getByText('but received x')
      .first()
      .waitFor({ state: tab === 'Levels' ? 'visible' : 'hidden' });
    expect(await seriousFindings(page)).toEqual([]);
  });

  test('the page is quiet: no complaint, no foreign request, no shift of the layout', async () => {
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
    expect(await watched.layoutShifts()).toEqual([]);
  });

  test('a spent link and a browser without the cookie are turned away', async () => {
    const spent = app.printed[0];
    expect((await fetch(spent)).status).toBe(403);
    expect((await fetch(app.host.url)).status).toBe(401);
  });

  test('the token is in no file that the app wrote', async () => {
    const [cookie] = await browser.cookies();
    expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Strict' });
    expect(Buffer.from(cookie.value, 'base64url').length).toBeGreaterThanOrEqual(24);
    const folder = join(app.folder, 'sessions');
    for (const name of await readdir(folder))
      expect(await readFile(join(folder, name), 'utf8')).not.toContain(cookie.value);
    expect([...app.said, ...app.printed, ...process.argv].join('\n')).not.toContain(cookie.value);
  });
});
