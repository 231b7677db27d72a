/** Pictures of the machines in the window, both themes and sizes, into `screenshots/fleet/`: played hosts, so that there are many. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FleetView } from '../../src-main/contract/places.ts';
import { serve } from '../../src-main/hosts/web/serve.ts';
import { FakeProfiler } from '../fakes/profiler.ts';
import { pointsOf, startSynthetic, sweepOf } from '../fakes/synthetic-sweep.ts';
import { openBrowser, watch } from './browser.ts';
import { complain, takeScreen } from './pictures.ts';

const folder = await mkdtemp(join(tmpdir(), 'fastmqa-e2e-'));
const queue = 'redis://10.0.0.5';
const host = (id: string, device: string, gibibytes: number, rate: number, doing?: string, fits = true) => ({
  ...{ id, host: id, device, backend: gibibytes > 100 ? 'cuda:0' : 'cpu', memoryBytes: gibibytes * 2 ** 30, fits },
  ...{ version: fits ? '1-aa' : '1-0f3a1c2d4e5b', startedAt: '', done: Math.round(rate * 41), pointsPerMinute: rate },
  ...(doing === undefined ? {} : { doing }),
});
let view: FleetView = { queue, hosts: [], waiting: 0, atWork: 0, pointsPerMinute: 0, etaSeconds: 0 };

const profiler = new FakeProfiler();
profiler.watchFleet = () => ({ queue, look: async () => view, close: () => undefined });
let known: string[] = [];
profiler.knownAgents = async () => known;
profiler.agents = async () => [
  {
    host: 'gpu1',
    reachable: true,
    machine: 'dgx-a-0017',
    fits: true,
    devices: [
      {
        backend: 'cpu',
        usable: true,
        name: 'AMD EPYC 9654',
        memoryBytes: 768 * 2 ** 30,
        fmaFlopsPerSecond: 3.1e12,
        readBytesPerSecond: 4.1e11,
      },
    ],
    runs: [{ run: 'x', name: 'levels at 32k', status: 'running', rows: 112 }],
  },
  {
    host: 'gpu2',
    reachable: false,
    reason:
      'no agent can be reached at gpu2: ssh ended with exit code 255 (ssh: connect to host gpu2 port 22: No route to host)',
    devices: [],
    runs: [],
  },
];
const web = await serve({
  profiler,
  port: 0,
  sessionsFolder: join(folder, 'sessions'),
  queue,
  print: () => undefined,
  say: () => undefined,
});
const browser = await openBrowser(join(folder, 'browser'), { width: 1280, height: 800 });
try {
  const page = browser.pages()[0] ?? (await browser.newPage());
  const watched = await watch(page, web.url);
  await page.goto(web.link());
  await page.getByRole('tab', { name: 'Machines' }).click();
  await page.getByText('No worker is at work').waitFor();
  await takeScreen(page, 'fleet/1-empty');
  known = ['gpu1', 'gpu2'];
  view = {
    ...{ queue, waiting: 1204, atWork: 3, pointsPerMinute: 61.5, etaSeconds: 1178 },
    hosts: [
      host('gpu-a', 'NVIDIA H200', 141, 40.2, 'four-bit decode'),
      host('gpu-b', 'NVIDIA H100 80GB HBM3', 80, 18.1, 'baseline prefill'),
      host('cpu-c', 'AMD EPYC 9654 96-Core Processor', 64, 3.2, 'mixed-latent-17x decode'),
      host('cpu-d', 'AMD EPYC 7763', 64, 0),
      host('old-e', 'AMD EPYC 7763', 64, 0, undefined, false),
    ],
  };
  await page.reload();
  await page.getByRole('tab', { name: 'Machines' }).click();
  await page.getByRole('button', { name: 'Refresh' }).click();
  await page.getByText('112 points, measuring').waitFor();
  await takeScreen(page, 'fleet/2-fleet');
  await page.getByRole('tab', { name: 'Sweep', exact: true }).click();
  await takeScreen(page, 'fleet/3-runs-on');
  const sweep = sweepOf({
    ...{ level: ['baseline', 'near-lossless', 'four-bit', 'mixed-latent', 'balanced'], hiddenDim: [512], heads: [8] },
    ...{ phase: ['decode'], seqLen: [512, 1024, 2048, 4096] },
  });
  const names = ['NVIDIA H200', 'NVIDIA H100 80GB HBM3', 'AMD EPYC 9654 96-Core Processor'];
  const points = pointsOf(sweep).map((point, i) => ({
    ...point,
    device: {
      ...{
        host: `gpu-${i % 3}`,
        name: names[i % 3] as string,
        memoryBytes: 2 ** 37,
        threads: 8,
        instructionSet: 'avx512',
      },
      ...{ fmaFlopsPerSecond: 1e11 * 3 ** (2 - (i % 3)), readBytesPerSecond: 1e10 * 3 ** (2 - (i % 3)) },
    },
  }));
  const measured = await startSynthetic(sweep, points);
  await page.goto(measured.host.link());
  await page.locator('[data-mark]').first().waitFor();
  await page.getByText('by device', { exact: true }).click();
  await takeScreen(page, 'fleet/4-trade-off-by-device');
  for (const tab of ['Levels', 'Scaling', 'Roofline', 'Devices']) {
    await page.getByRole('tab', { name: tab, exact: true }).click();
    if (tab === 'Devices') await page.getByLabel('Price of an hour of this device').fill('2.5');
    await takeScreen(page, `fleet/5-${tab.toLowerCase()}`);
  }
  await measured.close();
  complain(
    'machines and devices',
    watched.foreign.filter((url) => !url.startsWith(measured.host.url)),
  );
} finally {
  await browser.close();
  await web.close();
  await rm(folder, { recursive: true, force: true });
}
