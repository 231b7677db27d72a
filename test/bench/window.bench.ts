/**
 * How the window bears ten thousand points, in a real Chromium: what a frame costs while the pointer moves over a chart,
 * how long a change of metric takes, what memory is held. Prints the figures; the limits are those of design.md, section 5.
 *
 * A frame is counted from the first event of the pointer to the first task after its paint: the time our code and the
 * browser need, whatever the display's own rate.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CDPSession, Page } from 'playwright-core';
import { openBrowser, watch } from '../e2e/browser.ts';
import { pointsOf, startSynthetic, tenThousand } from '../fakes/synthetic-sweep.ts';

const limits = { hoverP95Milliseconds: 16, switchMilliseconds: 100, memoryMegabytes: 600 };
const charts = ['Trade-off', 'Scaling', 'Roofline', 'Heat map'];
const moves = 240;

/** Times every event of a kind until after the paint that follows it. */
const stopwatch = `
  window.measured = [];
  window.measure = (kind) => {
    let running = false;
    window.measured = [];
    const onEvent = () => {
      if (running) return;
      running = true;
      const since = performance.now();
      requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => { window.measured.push(performance.now() - since); running = false; };
        channel.port2.postMessage(0);
      });
    };
    window.addEventListener(kind, onEvent, true);
    return () => window.removeEventListener(kind, onEvent, true);
  };
`;

const quantile = (values: readonly number[], share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))];

async function hover(page: Page): Promise<number[]> {
  const box = await page.getByRole('application').boundingBox();
  if (!box) throw new Error('there is no chart to point at');
  await page.evaluate('window.stop = window.measure("pointermove")');
  for (let i = 0; i < moves; i += 1) {
    // A slow wave over the whole chart: marks and gaps in turn.
    const x = box.x + box.width * (0.16 + (0.78 * i) / moves);
    await page.mouse.move(x, box.y + box.height * (0.45 + 0.35 * Math.sin(i / 9)));
  }
  return page.evaluate('window.stop(); window.measured');
}

async function switchMetric(page: Page, field: string, option: string): Promise<number> {
  await page.getByLabel(field, { exact: true }).first().click();
  const choice = page.getByRole('option', { name: option, exact: true });
  await choice.waitFor();
  await page.evaluate('window.stop = window.measure("click")');
  await choice.click();
  await page.waitForFunction('window.measured.length > 0');
  return page.evaluate('window.stop(); window.measured[0]');
}

/** Resident memory of the largest process that draws pages, after a collection. */
async function memory(session: CDPSession, profile: string): Promise<{ heap: number; resident: number }> {
  await session.send('HeapProfiler.collectGarbage');
  const { metrics } = await session.send('Performance.getMetrics');
  const heap = metrics.find(({ name }) => name === 'JSHeapUsedSize')?.value ?? 0;
  let resident = 0;
  for (const id of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => '');
    if (!command.includes('--type=renderer') || !(await isBelow(id, profile))) continue;
    const status = await readFile(`/proc/${id}/status`, 'utf8').catch(() => '');
    resident = Math.max(resident, 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0));
  }
  return { heap: heap / 1e6, resident: resident / 1e6 };
}

/** Whether a process belongs to the browser with this profile: other tests may run browsers of their own. */
async function isBelow(id: string, profile: string): Promise<boolean> {
  for (let at = id; at !== '0' && at !== ''; ) {
    if ((await readFile(`/proc/${at}/cmdline`, 'utf8').catch(() => '')).includes(profile)) return true;
    at = /PPid:\s+(\d+)/.exec(await readFile(`/proc/${at}/status`, 'utf8').catch(() => ''))?.[1] ?? '';
  }
  return false;
}

async function main(): Promise<void> {
  const points = pointsOf(tenThousand, 10_000);
  const app = await startSynthetic(tenThousand, points);
  const profile = join(app.folder, 'browser');
  const browser = await openBrowser(profile, { width: 1920, height: 1080 });
  const failures: string[] = [];
  const say = (name: string, value: number, unit: string, limit: number): void => {
    process.stdout.write(`${name.padEnd(44)} ${value.toFixed(1).padStart(8)} ${unit}   limit ${limit} ${unit}\n`);
    if (!(value < limit)) failures.push(name);
  };
  try {
    const page = browser.pages()[0] ?? (await browser.newPage());
    const watched = await watch(page, app.host.url);
    await page.addInitScript(stopwatch);
    const session = await browser.newCDPSession(page);
    await session.send('Performance.enable');
    const since = performance.now();
    await page.goto(app.host.link());
    await page.getByRole('application').waitFor();
    process.stdout.write(`${points.length} points, on the chart after ${(performance.now() - since).toFixed(0)} ms\n`);
    await page.getByText('all', { exact: true }).click();
    for (const chart of charts) {
      await page.getByRole('tab', { name: chart }).click();
      await page.getByRole('application').waitFor();
      await page.waitForTimeout(500);
      const frames = await hover(page);
      say(`hover, ${chart}, p95 of ${frames.length} frames`, quantile(frames, 0.95), 'ms', limits.hoverP95Milliseconds);
    }
    await page.getByRole('tab', { name: 'Trade-off' }).click();
    for (const option of ['peak memory', 'median time', 'cache reduction vs f32 MHA'])
      say(
        `metric switch, Trade-off, ${option}`,
        await switchMetric(page, 'Horizontal axis', option),
        'ms',
        limits.switchMilliseconds,
      );
    await page.getByRole('tab', { name: 'Scaling' }).click();
    for (const option of ['tokens per second', 'peak memory'])
      say(
        `metric switch, Scaling, ${option}`,
        await switchMetric(page, 'Metric', option),
        'ms',
        limits.switchMilliseconds,
      );
    await page.getByRole('tab', { name: 'Heat map' }).click();
    for (const option of ['median time', 'relative L2 error'])
      say(
        `metric switch, Heat map, ${option}`,
        await switchMetric(page, 'Metric shown as colour', option),
        'ms',
        limits.switchMilliseconds,
      );
    const { heap, resident } = await memory(session, profile);
    say('memory, JavaScript heap', heap, 'MB', limits.memoryMegabytes);
    say('memory, whole process of the page', resident, 'MB', limits.memoryMegabytes);
    if (watched.complaints.length > 0) failures.push(`complaints: ${watched.complaints.join(' | ')}`);
  } finally {
    await browser.close();
    await app.close();
  }
  if (failures.length > 0) {
    process.stdout.write(`over the limit: ${failures.join(', ')}\n`);
    process.exitCode = 1;
  }
}

await main();
