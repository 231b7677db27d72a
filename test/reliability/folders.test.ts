/** S6: a model folder opens nothing outside itself. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { Chance, counted, grouped, longestTest, reached, tries } from './effort.ts';
import { escapes, HostileFolders, tryFolder } from './hostile-folders.ts';

/** Where each open led, links resolved. */
const opened = vi.hoisted((): string[] => []);
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const { realpathSync } = await import('node:fs');
  const open: typeof real.open = (path, ...rest) => {
    opened.push(realpathSync(String(path)));
    return real.open(path, ...rest);
  };
  return { ...real, open };
});

const root = realpathSync(mkdtempSync(join(tmpdir(), 'fastmqa-hostile-')));
afterAll(() => rmSync(root, { recursive: true }));

test('S6: no hostile folder leads out of itself, nor to a pipe or a device', {
  timeout: longestTest,
}, async (context) => {
  const folders = new HostileFolders(root, new Chance(6));
  let [count, opens, accepted] = [0, 0, 0];
  for (const i of counted(tries(10_000, 1_000_000))) {
    folders.build();
    opened.length = 0;
    if (await tryFolder(folders.model)) accepted += 1;
    expect(escapes(opened, folders.model), `folder ${i}`).toEqual([]);
    opens += opened.length;
    count += 1;
  }
  expect(accepted).toBeGreaterThan(count / 50); // honest ones are among them
  reached(
    context,
    `S6  hostile model folders: ${grouped(count)}, ${grouped(opens)} files opened, 0 outside, 0 pipes or devices`,
  );
});
