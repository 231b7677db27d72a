/** The sessions that come with the app: whole, measured on a GPU, and small. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { readSession } from '../../src-main/sessions/recovery.ts';

const folder = join(import.meta.dirname, '../../src-renderer/panels/examples');
const names = readdirSync(folder);

test('examples are under 2 MB together', () => {
  const bytes = names.map((name) => statSync(join(folder, name)).size).reduce((a, b) => a + b, 0);
  expect(bytes).toBeLessThan(2e6);
});

test.each(names)('%s opens, with points that a GPU measured', async (name) => {
  const session = await readSession(join(folder, name));
  expect(session.setAside).toEqual([]);
  const measured = [...session.points.values()].filter(({ outcome }) => outcome === 'measured');
  expect(measured.length).toBeGreaterThan(8);
  for (const { config } of measured) expect(config.backend).toBe('cuda:0');
  expect(session.header.environment.gpus?.[0]?.name).toMatch(/NVIDIA H100/);
});
