/** The main flows in a real Electron, wherever its binary and a display are. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { _electron, type ElectronApplication, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { takesLessThan } from '../load.ts';

interface Desktop {
  obstacleOf(machine: object): string | undefined;
  electronBinary(root: string, environment: NodeJS.ProcessEnv): string | undefined;
}
const root = join(import.meta.dirname, '../..');
const { obstacleOf, electronBinary } = (await import(join(root, 'src-main/setup/desktop.mjs'))) as Desktop;
const binary = electronBinary(root, process.env);
const obstacle = binary
  ? obstacleOf({ platform: process.platform, environment: process.env, userId: process.getuid?.() })
  : 'no Electron binary';
if (obstacle) process.stderr.write(`skipped: ${obstacle}: the app in a real Electron\n`);

describe.skipIf(obstacle !== undefined)('the app in a real Electron', () => {
  let folder: string;
  let app: ElectronApplication;
  let page: Page;
  const complaints: string[] = [];
  const start = (): Promise<ElectronApplication> =>
    _electron.launch({
      executablePath: binary as string,
      args: [join(root, 'dist/electron/main.js')],
      env: { ...(process.env as Record<string, string>), FASTMQA_HOME: folder },
    });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fastmqa-electron-'));
    app = await start();
    page = await app.firstWindow();
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
  });

  afterAll(async () => {
    await app?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test('a sweep ready to run; its first result is on the chart within ten seconds', async () => {
    const run = page.getByRole('button', { name: 'Run', exact: true });
    await run.and(page.locator(':enabled')).waitFor();
    await takesLessThan(10_000, async () => {
      await run.click();
      await page.locator('[data-mark]').first().waitFor();
    });
  });

  test('a reload in mid-run loses nothing', async () => {
    await page.reload();
    await page.getByRole('status').getByText(/^done/).waitFor();
  });

  test('the page has the bridge and nothing of Node', async () => {
    expect(await page.evaluate('Object.keys(window.fastmqa).sort()')).toEqual(['call', 'subscribe']);
    expect(await page.evaluate('[typeof require, typeof process, typeof module]')).toEqual(Array(3).fill('undefined'));
    expect(page.url()).toBe('fastmqa://app/');
  });

  test('nothing complains', () => expect(complaints).toEqual([]));
});
