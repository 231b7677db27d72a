/** Pictures of every chart over a sweep with several axes, both themes and sizes, into `screenshots/charts/`. */
import { join } from 'node:path';
import { pointsOf, startSynthetic, sweepOf, tenThousand } from '../fakes/synthetic-sweep.ts';
import { openBrowser, watch } from './browser.ts';
import { complain, takeScreen } from './pictures.ts';

const tabs = ['Trade-off', 'Levels', 'Scaling', 'Roofline', 'Heat map', 'Latency'];

async function pictures(name: string, sweep: ReturnType<typeof sweepOf>): Promise<void> {
  const app = await startSynthetic(sweep, pointsOf(sweep, 10_000));
  const browser = await openBrowser(join(app.folder, 'browser'), { width: 1280, height: 800 });
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    const watched = await watch(page, app.host.url);
    await page.goto(app.host.link());
    await page.getByRole('grid', { name: 'Points' }).getByRole('row').nth(3).click();
    for (const tab of tabs) {
      await page.getByRole('tab', { name: tab }).click();
      await page.mouse.move(640, 4);
      await takeScreen(page, `charts/${name}-${tab.toLowerCase().replace(' ', '-')}`);
    }
    complain(name, [...watched.complaints, ...watched.foreign]);
  } finally {
    await browser.close();
    await app.close();
  }
}

const level = ['baseline', 'conservative', 'balanced', 'four-bit', 'aggressive', 'shared-64x'];
await pictures(
  'some',
  sweepOf({
    level,
    hiddenDim: [512],
    heads: [8],
    seqLen: [256, 1024, 4096, 16384],
    batch: [1, 8],
    phase: ['decode', 'prefill'],
  }),
);
await pictures('many', tenThousand);
