/** Sessions in the window: found, named, thrown away, opened, continued, saved and dropped; real engine, real Chromium. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { exportFormats } from '../../src-main/contract/session.ts';
import { expandSweep } from '../../src-main/engine/plan.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { timed, writeSession } from '../fakes/session-files.ts';
import { pointsOf, sweepOf } from '../fakes/synthetic-sweep.ts';
import { startApp } from './app.ts';
import { chromiumPath, noChromium, openBrowser, seriousFindings, type Watched, watch } from './browser.ts';

if (chromiumPath === undefined) process.stderr.write(`skipped: sessions in a browser: ${noChromium}\n`);

/** Small enough for the real engine to finish in a moment. */
const small = {
  name: 'left behind',
  axes: { hiddenDim: [256], heads: [4], seqLen: [128], phase: ['decode'], level: ['baseline', 'four-bit'] },
  measuring: { minSeconds: 0.01, maxSeconds: 0.05 },
};
const sweep = sweepOf({ hiddenDim: [512], heads: [8], phase: ['decode'], level: ['baseline', 'four-bit', 'balanced'] });

describe.skipIf(chromiumPath === undefined)('sessions in a browser', () => {
  let app: Awaited<ReturnType<typeof startApp>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  const file = (name: string): string => join(app.folder, 'sessions', `${name}.fmqa`);
  const session = (name: string) =>
    page.getByRole('list', { name: 'Sessions' }).getByRole('button', { name, exact: true });
  const status = (text: string | RegExp) => page.getByRole('banner').getByRole('status').getByText(text).waitFor();
  const choose = async (name: string, item: string): Promise<void> => {
    await page.getByRole('button', { name: `More for ${name}` }).click();
    await page.getByRole('menuitem', { name: item }).click();
  };
  const drop = (name: string, bytes: Uint8Array): Promise<void> =>
    page.evaluate(`{
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(${JSON.stringify([...bytes])})], ${JSON.stringify(name)}));
      for (const type of ['dragover', 'drop'])
        document.body.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }`);

  beforeAll(async () => {
    app = await startApp();
    const points = pointsOf(sweep);
    await mkdir(join(app.folder, 'sessions'));
    await writeSession(file('old'), {
      sweep: { ...sweep, name: 'old kernels' },
      points,
      how: 'done',
      environment: { startedAt: '2026-01-02T10:00:00Z', gitCommit: 'aaaaaaa' },
      tags: ['reference'],
    });
    await writeSession(file('new'), {
      sweep: { ...sweep, name: 'new kernels' },
      points: timed(points, ({ config }) =>
        config.level === 'four-bit' ? 1.4 : config.level === 'balanced' ? 0.7 : 1,
      ),
      how: 'done',
      environment: { startedAt: '2026-01-03T10:00:00Z', gitCommit: 'bbbbbbb' },
    });
    await writeSession(file('crashed'), { sweep: small, points: pointsOf(small).slice(0, 1) });
    browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
    page = browser.pages()[0] ?? (await browser.newPage());
    watched = await watch(page, app.host.url);
    await page.goto(app.host.link());
  });

  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });

  test('a session whose program crashed is offered, and only its rest is measured', async () => {
    await page.getByText('ended before its sweep did. 1 of 2 points are saved.').waitFor();
    for (const name of ['Levels', 'Trade-off']) await page.getByRole('tab', { name }).click(); // the offer covers none
    const before = await readSession(file('crashed'));
    await page.getByRole('button', { name: 'Measure the rest' }).click();
    await status('done · 2 of 2');
    await expect.poll(() => page.getByRole('grid', { name: 'Points' }).getByRole('row').count()).toBe(3);
    await page.getByText('ended before its sweep did').waitFor({ state: 'detached' });
    const after = await readSession(file('crashed'));
    expect([...after.points.keys()]).toEqual(expandSweep(small).map(({ id }) => id));
    expect([...after.points.values()][0]).toEqual([...before.points.values()][0]);
    expect(after.how).toBe('done');
  });

  test('a name and tags are written into the file and shown at the top', async () => {
    await page.getByRole('tab', { name: 'Sessions' }).click();
    await choose('left behind', 'Name and tags');
    await page.getByRole('textbox', { name: 'Name' }).fill('found again');
    await page.getByPlaceholder('Enter after each').fill('small');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByRole('button', { name: /^found again saved/ }).waitFor();
    await page.locator('[data-name]:focus').getByText('found again').waitFor();
    expect(await readSession(file('crashed'))).toMatchObject({ name: 'found again', tags: ['small'] });
  });

  test('words find sessions by name, tag and level', async () => {
    const search = page.getByLabel('Search sessions');
    const names = () => page.locator('[data-name]').allInnerTexts();
    for (const [words, found] of [
      ['reference', ['old kernels']],
      ['kernels balanced', ['new kernels', 'old kernels']],
      ['nothing like it', []],
      ['', ['found again', 'new kernels', 'old kernels']],
    ] as const) {
      await search.fill(words);
      await expect.poll(async () => (await names()).sort()).toEqual(found);
    }
  });

  test('the trash takes a session, and gives it back, by keyboard alone', async () => {
    const bytes = await readFile(file('old'));
    await session('new kernels').focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Delete');
    await page.getByText('old kernels is in the trash.').waitFor();
    expect(existsSync(file('old'))).toBe(false);
    await session('old kernels').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Undo' }).press('Enter');
    await session('old kernels').waitFor();
    expect((await readFile(file('old'))).equals(bytes)).toBe(true);
    await choose('old kernels', 'Move to the trash');
    await session('old kernels').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Trash: 1' }).click();
    await page.getByRole('button', { name: 'Restore old kernels' }).click();
    await session('old kernels').waitFor();
  });

  test('an opened session is what every window shows, also after a reload', async () => {
    const other = await browser.newPage();
    await other.goto(app.host.url);
    await session('new kernels').click();
    for (const window of [page, other]) {
      await window.getByRole('button', { name: /^new kernels saved/ }).waitFor();
      await window.getByText('done · 3 of 3').waitFor();
      await expect.poll(() => window.locator('[data-mark]').count()).toBe(3);
    }
    await other.close();
    await page.reload();
    await page.getByRole('button', { name: /^new kernels saved/ }).waitFor();
    await page.getByRole('tab', { name: 'Sessions' }).click();
  });

  test('it is saved as it is, and exported in every format', async () => {
    const save = async (item: string): Promise<readonly [string, Buffer]> => {
      await page.getByRole('button', { name: /^new kernels saved/ }).click();
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('menuitem', { name: item }).click(),
      ]);
      return [download.suggestedFilename(), await readFile(await download.path())];
    };
    expect(await save('Save as')).toEqual(['new.fmqa', await readFile(file('new'))]);
    const items = { csv: 'CSV', json: 'JSON', md: 'Markdown', html: 'HTML', parquet: 'Parquet' };
    for (const format of exportFormats) {
      const [name, content] = await save(items[format]);
      const { content: expected } = await app.profiler.exportSession(file('new'), format);
      expect(name).toBe(`new.${format}`);
      expect(content.equals(Buffer.from(expected))).toBe(true);
    }
  });

  test('the exported report opens without a network and holds every point', async () => {
    const { content } = await app.profiler.exportSession(file('new'), 'html');
    const path = join(app.folder, 'report.html');
    await writeFile(path, content);
    const report = await browser.newPage();
    const asked: string[] = [];
    const complaints: string[] = [];
    report.on('request', (request) => asked.push(request.url()));
    report.on('console', (message) => complaints.push(message.text()));
    report.on('pageerror', (error) => complaints.push(error.message));
    // This page alone: the app's own goes on asking its host.
    const network = await browser.newCDPSession(report);
    const offline = { offline: true, latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
    await network.send('Network.emulateNetworkConditions', offline);
    try {
      await report.goto(pathToFileURL(path).href);
      expect(await report.evaluate('navigator.onLine')).toBe(false);
      const { points } = app.host.hub.snapshot();
      expect(await report.locator('tr[data-id]').count()).toBe(points.length);
      expect(await report.locator('svg path.mark').count()).toBe(points.length);
      expect(await report.locator('svg rect.bar').count()).toBeGreaterThan(points.length);
      expect(asked).toEqual([pathToFileURL(path).href]);
      expect(complaints).toEqual([]);
    } finally {
      await report.close();
    }
  });

  test('keys lead to the library, save the session and open its exports', async () => {
    await page.getByRole('tab', { name: 'Sweep' }).click();
    await page.keyboard.press('Control+o');
    await page.locator('input[aria-label="Search sessions"]:focus').waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), page.keyboard.press('Control+s')]);
    expect(download.suggestedFilename()).toBe('new.fmqa');
    await page.keyboard.press('Control+Shift+e');
    await page.getByRole('menuitem', { name: 'Parquet' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('menuitem', { name: 'Parquet' }).waitFor({ state: 'detached' });
  });

  test('a dropped session is kept and opened; another file is refused in words', async () => {
    const path = join(app.folder, 'elsewhere', 'from a server.fmqa');
    await writeSession(path, { sweep: { ...sweep, name: 'from a server' }, points: pointsOf(sweep), how: 'done' });
    await drop('from a server.fmqa', await readFile(path));
    await page.getByRole('button', { name: /^from a server saved/ }).waitFor();
    expect((await readFile(file('from-a-server'))).equals(await readFile(path))).toBe(true);
    await drop('notes.fmqa', Buffer.from('no session at all\n'));
    await page
      .getByText('expected a session file (*.fmqa) for session but received notes.fmqa, which is none')
      .waitFor();
    await page.getByRole('button', { name: 'Dismiss' }).click();
    expect((await readdir(join(app.folder, 'sessions'))).filter((name) => name.includes('notes'))).toEqual([]);
  });

  test('nothing is opened in place of a sweep that runs', async () => {
    const cancel = page.getByRole('button', { name: 'Cancel', exact: true });
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await cancel.and(page.locator(':enabled')).waitFor(); // the host has it: what is asked next comes later
    await session('new kernels').click();
    await page.getByText('a sweep is running: stop or cancel it first').waitFor();
    await page.getByRole('button', { name: 'Dismiss' }).click();
    await cancel.click();
    await status(/^cancelled/);
    await session('new kernels').click();
    await status('done · 3 of 3');
  });

  test('points are judged against a baseline, as the command line judges them', async () => {
    await page.getByRole('tab', { name: 'Compare' }).click();
    await page.getByText('Compare with which session?').waitFor();
    await page.getByRole('button', { name: 'Baseline: old kernels' }).click();
    const table = page.getByRole('grid', { name: 'Comparison' });
    await expect.poll(() => table.getByRole('row').count()).toBe(4);
    await expect.poll(() => table.getByRole('row').nth(1).innerText()).toContain('SLOWER');
    const rows = await table.getByRole('row').allInnerTexts();
    const { points } = await app.profiler.compare(file('old'), file('new'));
    for (const [i, level, verdict, time] of [
      [1, 'four-bit', 'SLOWER !', '+40 %'],
      [2, 'balanced', 'FASTER', '−30 %'],
      [3, 'baseline', 'SAME', '0 %'],
    ] as const) {
      const point = points.find(({ config }) => config.level === level);
      expect(verdict.startsWith(point?.verdict ?? '?')).toBe(true);
      for (const word of [verdict, time, level, 'old kernels', point?.reason ?? '?']) expect(rows[i]).toContain(word);
    }
    await expect.poll(() => page.locator('[data-verdict][data-mark]').count()).toBe(3);
    await page.getByText('1 difference between the sessions: old kernels: gitCommit was aaaaaaa, is bbbbbbb').waitFor();
  });

  test('verdicts filter, heads sort, a row is the selection of every view', async () => {
    const table = page.getByRole('grid', { name: 'Comparison' });
    const first = () => table.getByRole('row').nth(1);
    await page.getByText('FASTER 1').click();
    await expect.poll(() => table.getByRole('row').count()).toBe(2);
    await page.getByText('all 3').click();
    await table.getByRole('button', { name: 'time', exact: true }).click();
    await expect.poll(() => first().innerText()).toContain('balanced');
    await table.getByRole('button', { name: 'time', exact: true }).click();
    await expect.poll(() => first().innerText()).toContain('four-bit');
    await table.focus();
    await page.keyboard.press('ArrowDown');
    await page.getByRole('complementary', { name: 'Inspector' }).getByRole('heading', { name: 'four-bit' }).waitFor();
  });

  test('the comparison is saved as SVG, PNG and CSV, and its figures are those of the host', async () => {
    const save = async (item: string): Promise<Buffer> => {
      await page.getByRole('button', { name: 'Save Time against old kernels' }).click();
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('menuitem', { name: item }).click(),
      ]);
      expect(download.suggestedFilename()).toMatch(/^compare\.(svg|png|csv)$/);
      return readFile(await download.path());
    };
    const svg = (await save('SVG')).toString();
    expect(svg).not.toContain('var(--');
    for (const word of ['Time against old kernels', 'four-bit', 'SLOWER', '+40']) expect(svg).toContain(word);
    expect((await save('PNG')).subarray(1, 4).toString()).toBe('PNG');
    const [head, ...lines] = (await save('CSV')).toString().trim().split('\r\n');
    const column = head.split(',').indexOf('timeRatio');
    const { points } = await app.profiler.compare(file('old'), file('new'));
    expect(lines).toHaveLength(3);
    for (const line of lines) {
      const [id] = line.split(',');
      expect(Number(line.split(',')[column])).toBe(points.find((point) => point.id === id)?.timeRatio);
    }
  });

  test('a baseline is outlined on the trade-off and stands across the bars of the levels', async () => {
    await page.getByRole('tab', { name: 'Trade-off' }).click();
    await expect.poll(() => page.locator('[data-beside]').count()).toBe(3);
    await page.getByRole('tab', { name: 'Levels' }).click();
    await expect.poll(() => page.locator('[data-beside]').count()).toBe(9);
    await page.reload();
    await expect.poll(() => page.locator('[data-beside]').count()).toBe(9);
    await page.getByRole('tab', { name: 'Compare' }).click();
    await page.getByRole('tab', { name: 'Sessions' }).click();
  });

  test.each(['light', 'dark'] as const)('axe finds nothing serious: %s', async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await choose('old kernels', 'Name and tags');
    expect(await seriousFindings(page)).toEqual([]);
    await page.keyboard.press('Escape');
    expect(await seriousFindings(page)).toEqual([]);
  });

  test('the page is quiet: no complaint, no foreign request', () => {
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
  });
});
