/** The window without a mouse: the command palette, the keyboard map, panes, and every key that a command names. */
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pointsOf, startSynthetic, sweepOf } from '../fakes/synthetic-sweep.ts';
import { openWindow } from './app.ts';
import { chromiumPath, seriousFindings, type Watched } from './browser.ts';

const sweep = sweepOf({
  level: ['baseline', 'four-bit', 'balanced'],
  hiddenDim: [512],
  heads: [8],
  seqLen: [256, 1024],
  phase: ['decode'],
});

describe.skipIf(chromiumPath === undefined)('the keyboard', () => {
  let app: Awaited<ReturnType<typeof startSynthetic>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  beforeAll(async () => {
    app = await startSynthetic(sweep, pointsOf(sweep));
    ({ browser, page, watched } = await openWindow(app));
    await page.getByRole('application').waitFor();
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });
  const chart = (name: string) => page.getByRole('tab', { name, selected: true }).waitFor();
  const palette = () => page.getByRole('dialog', { name: 'Command palette' });
  const map = () => page.getByRole('dialog', { name: 'Keyboard map' });
  const focused = (selector: string) => page.locator(`${selector}:focus`).waitFor();

  test('the palette finds a command by its words and does it', async () => {
    await page.keyboard.press('Control+Shift+P');
    await palette().waitFor();
    await page.keyboard.type('map heat');
    await page.getByRole('option', { name: /Show Heat map/ }).waitFor();
    await page.keyboard.press('Enter');
    await palette().waitFor({ state: 'detached' });
    await chart('Heat map');
  });

  test('it says so when nothing fits, and Escape closes it', async () => {
    await page.keyboard.press('Control+K');
    await palette().waitFor();
    await page.keyboard.type('no such thing');
    await palette().getByText('No command has all of these words.').waitFor();
    expect(await seriousFindings(page)).toEqual([]);
    await page.keyboard.press('Escape');
    await palette().waitFor({ state: 'detached' });
  });

  test('what cannot be done now cannot be chosen', async () => {
    await page.keyboard.press('Control+Shift+P');
    expect(
      await page.getByRole('option', { name: /Stop after the points/ }).getAttribute('data-combobox-disabled'),
    ).toBe('true');
    expect(await seriousFindings(page)).toEqual([]);
    await page.keyboard.press('Control+Shift+P');
    await palette().waitFor({ state: 'detached' });
  });

  test('the map lists keys, and while it is open they do nothing else', async () => {
    await page.keyboard.press('?');
    await map().waitFor();
    for (const word of ['Command palette', 'Pause or continue', 'go from point to point', 'open, rename, throw away'])
      await map().getByText(word).waitFor();
    await page.keyboard.press('Alt+2');
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await seriousFindings(page)).toEqual([]);
    }
    await page.keyboard.press('?');
    await map().waitFor({ state: 'detached' });
    await chart('Heat map');
  });

  test('charts have numbers, panes a key, the filter one of its own', async () => {
    await page.keyboard.press('Alt+3');
    await chart('Scaling');
    await page.keyboard.press('Alt+1');
    await chart('Trade-off');
    await page.getByRole('application').waitFor(); // what the keys are to lead to
    await page.keyboard.press('Control+f');
    await focused('[aria-label="Filter points"]');
    await page.keyboard.type('?');
    expect(await map().count()).toBe(0);
    await page.keyboard.press('Backspace');
    await page.keyboard.press('F6');
    await focused('[aria-label="Inspector"]');
    await page.keyboard.press('F6');
    await focused('[role="grid"]');
    await page.keyboard.press('Shift+F6');
    await page.keyboard.press('Shift+F6');
    await focused('[role="application"]');
  });

  test('points are selected, added and chosen without a mouse', async () => {
    const rows = () => page.getByRole('row', { selected: true }).count();
    await page.keyboard.press('Home');
    await expect.poll(rows).toBe(1);
    await page.keyboard.press('Shift+ArrowRight');
    await expect.poll(rows).toBe(2);
    await page.keyboard.press('Control+Shift+P');
    await page.keyboard.type('choose the selected');
    await page.getByRole('option', { name: /Choose the selected/ }).waitFor();
    await page.keyboard.press('Enter');
    await page
      .getByRole('main')
      .getByRole('button', { name: /2 points chosen/ })
      .waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    await page
      .getByRole('main')
      .getByRole('button', { name: /2 points chosen/ })
      .waitFor({ state: 'detached' });
  });

  test('levels are walked row by row, each is read out, and a click does the same', async () => {
    const told = () => page.locator('[role="application"] [aria-live="polite"]').innerText();
    const selected = () => page.getByRole('row', { selected: true }).allInnerTexts();
    await page.keyboard.press('Alt+2');
    await chart('Levels');
    await page.getByRole('application', { name: /^Levels by .* Up and down go from row to row/ }).focus();
    await page.keyboard.press('Home');
    await expect
      .poll(told)
      .toMatch(
        /^baseline · 256 tokens, cache reduction vs f32 MHA 1x, tokens per second \S+ tokens\/s, relative L2 error /,
      );
    await page.keyboard.press('ArrowDown');
    await expect.poll(told).toMatch(/^baseline · 1,024 tokens, /);
    await page.keyboard.press('End');
    await expect.poll(told).toMatch(/^four-bit · 1,024 tokens, /);
    await page.keyboard.press('Shift+ArrowUp');
    await expect.poll(told).toMatch(/^four-bit · 256 tokens, /);
    expect(await selected()).toEqual([expect.stringMatching(/^four-bit/), expect.stringMatching(/^four-bit/)]);
    expect(await page.locator('[data-row]').count()).toBe(2);
    expect(await seriousFindings(page)).toEqual([]);
    await page.getByRole('application').click({ position: { x: 20, y: 44 } });
    await expect.poll(told).toMatch(/^baseline · 256 tokens, /);
    expect(await selected()).toEqual([expect.stringMatching(/^baseline/)]);
    await page.keyboard.press('Alt+1');
    await chart('Trade-off');
    await page.getByRole('application').waitFor();
  });

  test('menus and choices open by Enter, close by Escape and give the focus back', async () => {
    for (const name of [
      'Choose columns',
      'Copy the table',
      'Start from a named sweep',
      'Save, import or copy this sweep',
    ]) {
      const button = page.getByRole('button', { name });
      const open = page.locator(':is([role="menu"], [role="dialog"]):visible');
      await button.focus();
      await page.keyboard.press('Enter');
      await open.locator(':focus').waitFor();
      await page.keyboard.press('Escape');
      await open.waitFor({ state: 'detached' });
      await button.and(page.locator(':focus')).waitFor();
    }
  });

  test('borders of panes move with the arrow keys', async () => {
    const border = page.getByRole('separator', { name: 'Width of the inspector' });
    const before = Number(await border.getAttribute('aria-valuenow'));
    await border.focus();
    await page.keyboard.press('ArrowLeft');
    await expect.poll(() => border.getAttribute('aria-valuenow')).toBe(String(before + 16));
  });

  test('the page is quiet', () => {
    expect(watched.complaints).toEqual([]);
    expect(watched.foreign).toEqual([]);
  });
});
