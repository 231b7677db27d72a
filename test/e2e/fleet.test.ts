/** The fleet in the window: looked at, given a sweep, watched; a real Redis, a real worker, a real Chromium. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type RedisServer, redisProgram, startRedis } from '../fleet/redis.ts';
import { type CliRun, fakeWorker, startCli } from '../hosts/run-cli.ts';
import { openWindow, startApp } from './app.ts';
import { chromiumPath, seriousFindings, type Watched } from './browser.ts';

const lacks = chromiumPath === undefined ? 'Chromium' : redisProgram === undefined ? 'Redis' : undefined;
if (lacks) process.stderr.write(`skipped: the fleet in the window: ${lacks} is not installed\n`);

describe.skipIf(lacks !== undefined)('the fleet in the window', () => {
  let home: string;
  let redis: RedisServer;
  let app: Awaited<ReturnType<typeof startApp>>;
  let browser: BrowserContext;
  let page: Page;
  let watched: Watched;
  let worker: CliRun | undefined;
  const machines = () => page.getByRole('tab', { name: 'Machines' });

  beforeAll(async () => {
    home = mkdtempSync(join(tmpdir(), 'fastmqa-home-'));
    vi.stubEnv('FASTMQA_HOME', home);
    redis = await startRedis();
    app = await startApp({ queue: redis.url, workerScript: fakeWorker });
    ({ browser, page, watched } = await openWindow(app));
    await page.getByRole('button', { name: 'Run', exact: true }).and(page.locator(':enabled')).waitFor();
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
    worker?.child.kill('SIGKILL');
    redis?.end();
    vi.unstubAllEnvs();
    rmSync(home, { recursive: true, force: true });
  });

  test('without workers it says what to do; a worker that comes is there within seconds', async () => {
    await page.getByRole('tab', { name: 'Sweep', exact: true }).focus();
    for (const key of ['ArrowRight', 'ArrowRight']) await page.keyboard.press(key);
    await page.getByText('No worker is at work for this queue').waitFor();
    await page.getByText('No server yet').waitFor();
    expect(await seriousFindings(page)).toEqual([]);
    worker = startCli(['worker', '--queue', redis.url], { FASTMQA_WORKER: fakeWorker });
    await worker.heard(/ready/);
    await page.getByRole('list', { name: 'Workers' }).getByText('waiting for points').waitFor();
    for (const colorScheme of ['dark', 'light'] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await seriousFindings(page)).toEqual([]);
    }
  });

  test('a sweep is given to the fleet and watched: rows say which machine measured them', async () => {
    await machines().focus();
    for (const key of ['ArrowLeft', 'ArrowLeft']) await page.keyboard.press(key);
    await page.getByRole('combobox', { name: 'Runs on' }).click();
    await page.getByRole('option', { name: 'the fleet' }).click();
    await expect.poll(() => page.getByRole('combobox', { name: 'Runs on' }).inputValue()).toBe('the fleet');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.getByRole('status').getByText(/^done/).waitFor();
    const { points, total } = app.host.hub.snapshot();
    expect(points).toHaveLength(total);
    expect(new Set(points.map(({ outcome, device }) => `${outcome} ${device?.instructionSet}`))).toEqual(
      new Set(['measured scripted']),
    );
    await machines().click();
    await page.getByText(`${total} points done`).waitFor();
    await page.getByText('points waiting').waitFor();
  });

  test('a queue that crashes is back in the window by itself, and nothing is complained of', async () => {
    await redis.crash();
    await page.getByRole('list', { name: 'Workers' }).getByText('waiting for points').waitFor();
    expect(watched.foreign).toEqual([]);
    expect(watched.complaints).toEqual([]);
  });

  test('a host without a queue says how to get one, and refuses a sweep for one', async () => {
    const other = await startApp({ workerScript: fakeWorker });
    const second = await browser.newPage();
    await second.goto(other.host.link());
    await second.getByRole('tab', { name: 'Machines' }).click();
    await second.getByText('This window has no queue').waitFor();
    await second.getByRole('tab', { name: 'Sweep', exact: true }).click();
    await second.getByLabel('Name', { exact: true }).waitFor();
    expect(await second.getByRole('combobox', { name: 'Runs on' }).count()).toBe(0);
    await second.close();
    await other.close();
  });
});
