/** Pictures of the library and of a comparison, both themes and sizes, into `screenshots/sessions/`. */
import { join } from 'node:path';
import { timed, writeSession } from '../fakes/session-files.ts';
import { pointsOf, sweepOf } from '../fakes/synthetic-sweep.ts';
import { startApp } from './app.ts';
import { openBrowser, watch } from './browser.ts';
import { complain, takeScreen } from './pictures.ts';

const app = await startApp();
const browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
try {
  const level = ['baseline', 'near-lossless', 'four-bit', 'mixed-latent', 'balanced', 'aggressive'];
  const sweep = {
    ...sweepOf({ level, hiddenDim: [512], heads: [8], phase: ['decode', 'prefill'] }),
    name: 'quick look',
  };
  const points = pointsOf(sweep);
  const file = (name: string) => join(app.folder, 'sessions', `${name}.fmqa`);
  const before = { startedAt: '2026-11-20T09:12:00Z', gitCommit: '0f3a1c2' };
  const slower = timed(points, ({ config }) =>
    config.level === 'four-bit' ? 1.31 : config.level === 'balanced' ? 0.86 : 1.004,
  );
  await writeSession(file('a'), {
    sweep: { ...sweep, name: 'before the new kernels' },
    points,
    how: 'done',
    environment: before,
    tags: ['cpu', 'avx2'],
  });
  await writeSession(file('b'), {
    sweep: { ...sweep, name: 'tiles of 64' },
    points: timed(points, () => 1.08),
    how: 'done',
    environment: { startedAt: '2026-11-22T09:12:00Z' },
  });
  await writeSession(file('c'), {
    sweep: { ...sweep, name: 'tiles of 96, head size 64, two threads' },
    points: slower,
    how: 'done',
    environment: { startedAt: '2026-11-24T11:00:00Z', threads: 1 },
    tags: ['tiles'],
  });
  await writeSession(file('d'), {
    sweep,
    points: points.slice(0, 7),
    environment: { startedAt: '2026-11-24T12:00:00Z' },
  });
  await writeSession(file('e'), {
    sweep: { ...sweep, name: 'stopped early' },
    points: points.slice(0, 4),
    how: 'stopped',
    environment: { startedAt: '2026-11-19T12:00:00Z' },
  });
  const page = browser.pages()[0] ?? (await browser.newPage());
  const watched = await watch(page, app.host.url);
  await page.goto(app.host.link());
  await page.getByText('ended before its sweep did').waitFor();
  await page.getByText('threads').waitFor();
  await takeScreen(page, 'sessions/1-recovery');
  await page.getByRole('button', { name: 'Leave it' }).click();
  await page.getByRole('tab', { name: 'Sessions' }).click();
  await page.getByRole('button', { name: 'tiles of 96', exact: false }).first().click();
  await page.getByText('done · 12 of 12').waitFor();
  await page.getByRole('button', { name: 'Baseline: before the new kernels' }).click();
  await page.getByRole('button', { name: 'Baseline: tiles of 64' }).click();
  await takeScreen(page, 'sessions/2-trade-off');
  await page.getByRole('button', { name: 'More for stopped early' }).click();
  await takeScreen(page, 'sessions/3-menu');
  await page.getByRole('menuitem', { name: 'Move to the trash' }).click();
  await page.getByRole('button', { name: 'More for tiles of 64' }).click();
  await page.getByRole('menuitem', { name: 'Name and tags' }).click();
  await takeScreen(page, 'sessions/4-labels');
  await page.keyboard.press('Escape');
  await page.getByRole('tab', { name: 'Levels' }).click();
  await takeScreen(page, 'sessions/5-levels');
  const compare = page.getByRole('tab', { name: 'Compare' });
  if (await compare.count()) {
    await compare.click();
    await page.waitForTimeout(500);
    await page.getByRole('grid').getByRole('row').nth(2).click();
    await page.mouse.move(640, 4);
    await takeScreen(page, 'sessions/6-compare');
    await page.getByRole('button', { name: 'Baseline: tiles of 64' }).click();
    await page.mouse.move(640, 4);
    await takeScreen(page, 'sessions/7-compare-one');
  }
  complain('sessions', [...watched.complaints, ...watched.foreign]);
} finally {
  await browser.close();
  await app.close();
}
