/**
 * Pictures of the app from its first screen to a finished sweep, both themes and sizes, into `screenshots/`. README's are among
 * them, copied by hand after a run on a quiet machine: trade-off = 4-inspector-1280-light, levels = 5-levels-1280-dark,
 * latency = 9-latency-1280-dark, planner = 11-planner-proved-1280-light.
 */
import { join } from 'node:path';
import { openWindow, startApp } from './app.ts';
import { openBrowser, watch } from './browser.ts';
import { complain, takeScreen } from './pictures.ts';

/** The menus of a first window, and the sessions that come with the app as they open. */
async function lookAround(): Promise<void> {
  const app = await startApp();
  const { browser, page, watched } = await openWindow(app);
  try {
    await page.getByRole('button', { name: 'Start from a named sweep' }).click();
    await takeScreen(page, '16-named-sweeps');
    await page.keyboard.press('Escape');
    for (const [i, name] of ['Levels', 'Cache formats', 'Contexts', 'Roofline', 'Until memory'].entries()) {
      await page.keyboard.press('Control+K');
      await page.keyboard.type(`H100: ${name}`);
      await page.getByRole('option').first().waitFor();
      await page.keyboard.press('Enter');
      await page.getByRole('status').getByText(/^done/).waitFor();
      await page.mouse.move(620, 4);
      await takeScreen(page, `examples/${i + 1}-${name.toLowerCase().replace(' ', '-')}`);
    }
    complain('the examples', [...watched.complaints, ...watched.foreign]);
  } finally {
    await browser.close();
    await app.close();
  }
}

/** A real sweep of real models, from the empty window to its end. */
async function measure(): Promise<void> {
  const app = await startApp();
  const browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    const watched = await watch(page, app.host.url);
    await page.goto(app.host.link());
    const run = page.getByRole('button', { name: 'Run', exact: true });
    await run.and(page.locator(':enabled')).waitFor();
    await page.getByText('threads').waitFor();
    await takeScreen(page, '1-empty');
    await run.click();
    await page.mouse.move(620, 4);
    await page.locator('[data-mark]').first().waitFor();
    await takeScreen(page, '2-running');
    await page.getByText(/^done/).waitFor({ timeout: 300_000 });
    // Whoever takes pictures of a sweep disturbs it: what the others show was measured in peace.
    await run.click();
    await page.getByText(/^done/).waitFor({ state: 'detached' });
    await page.getByText(/^done/).waitFor({ timeout: 300_000 });
    await page.getByRole('row', { name: /^mixed-latent byte-mha/ }).click();
    await page.mouse.move(620, 4);
    await takeScreen(page, '3-trade-off');
    await page.keyboard.press('Escape');
    await page.evaluate('document.getElementById("inspector").scrollTop = 330');
    await takeScreen(page, '4-inspector');
    for (const [i, chart] of ['Levels', 'Scaling', 'Roofline', 'Heat map', 'Latency', 'Devices', 'Planner'].entries()) {
      await page.getByRole('tab', { name: chart }).click();
      await page.mouse.move(620, 4);
      await takeScreen(page, `${5 + i}-${chart.toLowerCase().replace(' ', '-')}`);
    }
    await page
      .getByRole('row', { name: /^balanced / })
      .getByRole('button')
      .click();
    await takeScreen(page, '11-planner-caution');
    await page.getByRole('combobox', { name: 'Model to plan for' }).fill('byte-mha');
    await page.getByLabel('Context in tokens').fill('512');
    await page.getByRole('row', { name: /^own-16-bit .* 2 MiB/ }).waitFor();
    await page.getByLabel('Limit of the proof').fill('9 MiB');
    await page.getByRole('button', { name: 'Prove', exact: true }).click();
    await page.getByRole('button', { name: 'Prove', exact: true }).waitFor();
    await takeScreen(page, '11-planner-proved');
    await page.keyboard.press('Alt+1');
    await page.getByRole('button', { name: 'Choose columns' }).click();
    await takeScreen(page, '12-columns');
    await page.keyboard.press('Escape');
    await page.keyboard.press('Control+Shift+P');
    await takeScreen(page, '13-commands');
    await page.keyboard.press('Escape');
    await page.getByRole('grid').focus();
    await page.keyboard.press('?');
    await takeScreen(page, '14-keys');
    await page.keyboard.press('Escape');
    await page.getByLabel('Heads', { exact: true }).fill('7,x');
    await page.getByLabel('Batch').fill('0');
    await takeScreen(page, '15-errors');
    complain('the app', [...watched.complaints, ...watched.foreign]);
  } finally {
    await browser.close();
    await app.close();
  }
}

await measure();
await lookAround();
