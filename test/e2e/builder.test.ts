/** The ways of a sweep into the form and out of it, and of a point back into a sweep. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { sweeps } from '../../src-main/engine/sweeps.ts';
import { pointsOf, startSynthetic, sweepOf } from '../fakes/synthetic-sweep.ts';
import { openWindow } from './app.ts';
import { chromiumPath, seriousFindings, type Watched } from './browser.ts';

const measured = sweepOf({
  level: ['baseline', 'four-bit'],
  hiddenDim: [512],
  heads: [8],
  seqLen: [256],
  phase: ['decode'],
});

describe.skipIf(chromiumPath === undefined)('the sweep builder', () => {
  let app: Awaited<ReturnType<typeof startSynthetic>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  beforeAll(async () => {
    app = await startSynthetic(measured, pointsOf(measured));
    ({ browser, page, watched } = await openWindow(app, ['clipboard-read', 'clipboard-write']));
    await page.getByRole('application').waitFor();
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });

  const field = (name: string) => page.getByLabel(name, { exact: true });
  const menu = async (item: string): Promise<void> => {
    await page.getByRole('button', { name: 'Save, import or copy this sweep' }).click();
    await page.getByRole('menuitem', { name: item }).click();
  };
  const startFrom = () => page.getByRole('button', { name: 'Start from a named sweep' });
  const copied = (): Promise<string> => page.evaluate('navigator.clipboard.readText()');

  test('a model fills the fields of the layer, and undo takes that back', async () => {
    await page.getByRole('combobox', { name: 'Model' }).click();
    await page.getByRole('option', { name: 'Llama-3.1-8B', exact: true }).click();
    await expect.poll(() => field('Hidden size d').inputValue()).toBe('4096');
    await expect.poll(() => field('Model KV heads').inputValue()).toBe('8');
    await expect.poll(() => field('ropeTheta').inputValue()).toBe('500000');
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.poll(() => field('Hidden size d').inputValue()).toBe('');
    await expect.poll(() => page.getByRole('combobox', { name: 'Model' }).inputValue()).toBe('byte-mha');
  });

  test('a named sweep of FastMQA opens whole; what has no field can be taken away', async () => {
    await startFrom().click();
    await page.getByRole('menuitem', { name: 'levels', exact: true }).click();
    await expect.poll(() => field('Name').inputValue()).toBe('levels');
    await expect.poll(() => field('Heads').inputValue()).toBe('16,32');
    await page.getByText('hiddenDim, heads, seqLen advance together').waitFor();
    await page.getByRole('button', { name: 'Remove: and 1 further grid of points' }).click();
    await page.getByText('further grid').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.getByText('and 1 further grid of points').waitFor();
  });

  test('exported as JSON, it is imported as the same sweep; a file that is none is refused in words', async () => {
    const download = page.waitForEvent('download');
    await menu('Export as JSON');
    const path = await (await download).path();
    const written = JSON.parse(await readFile(path, 'utf8'));
    expect(written.also).toEqual(sweeps.levels?.also);
    await field('Name').fill('something else');
    const broken = join(app.folder, 'broken.json');
    await writeFile(broken, '{"name":"x","axes":{"batch":[]}}');
    await page.getByLabel('Sweep as JSON').setInputFiles(broken);
    await page.getByText(/^broken\.json is no sweep: axes\.batch: /).waitFor();
    await page
      .getByRole('button', { name: /dismiss|close/i })
      .first()
      .click();
    const good = join(app.folder, 'good.json');
    await writeFile(good, JSON.stringify(written));
    await page.getByLabel('Sweep as JSON').setInputFiles(good);
    await expect.poll(() => field('Name').inputValue()).toBe('levels');
  });

  test('kept under its name, a sweep outlives a reload, until it is deleted', async () => {
    await startFrom().click();
    await page.getByRole('menuitem', { name: 'scaling', exact: true }).click();
    await field('Name').fill('mine');
    await menu('Keep under its name');
    await startFrom().click();
    await page.getByRole('menuitem', { name: 'mine', exact: true }).waitFor();
    await page.reload();
    await page.getByRole('application').waitFor();
    await startFrom().click();
    await page.getByRole('menuitem', { name: 'mine', exact: true }).click();
    await expect.poll(() => field('Context tokens').inputValue()).toBe('512,1024,2048,4096,8192');
    await startFrom().click();
    await page.getByRole('button', { name: 'Rename mine' }).click();
    await page.getByLabel('New name of mine').fill('ours');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Delete ours' }).waitFor();
    await page.getByRole('menuitem', { name: 'mine', exact: true }).waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Delete ours' }).click();
    await page.getByRole('menuitem', { name: 'ours', exact: true }).waitFor({ state: 'detached' });
    await page.keyboard.press('Escape');
  });

  test('the command of the draft is in the clipboard', async () => {
    await menu('Copy as command');
    await page.getByRole('menuitem', { name: 'Copied' }).waitFor();
    await expect
      .poll(copied)
      .toMatch(/^npm run -s fastmqa -- sweep --name .*--set level=baseline,near-lossless,four-bit,balanced/);
    await page.keyboard.press('Escape');
  });

  test('a point has its command, becomes a draft, shows its samples and its machine', async () => {
    await page.getByRole('grid', { name: 'Points' }).getByRole('row').nth(1).click();
    await page.getByRole('button', { name: 'Copy command' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    await expect.poll(copied).toMatch(/--set seqLen=256 .*--set level=(baseline|four-bit)/);
    const inspector = page.getByRole('complementary', { name: 'Inspector' });
    await inspector.getByRole('img', { name: /samples in the order taken/ }).waitFor();
    await inspector.getByRole('region', { name: 'Environment' }).waitFor();
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await expect.poll(() => field('Name').inputValue()).toMatch(/decode again$/);
  });

  test('axe finds nothing serious, and nothing else is wrong', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await seriousFindings(page)).toEqual([]);
    }
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
  });
});
