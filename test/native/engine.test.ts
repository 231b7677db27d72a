/** The engine's own check programs. Each prints a line a check; whatever is not `ok` is the failure. */
import { beforeAll, expect, test } from 'vitest';
import { buildTools, runTool } from './tools.ts';

beforeAll(buildTools, 600_000);

test.each([
  { program: 'test-math', fewest: 400 },
  { program: 'test-cache', fewest: 550 },
  { program: 'test-engine', fewest: 4500 },
  { program: 'test-cuda', fewest: 140 },
  { program: 'test-accelerator', fewest: 200 },
])('$program passes', { timeout: 300_000 }, async ({ program, fewest }) => {
  const { code, lines } = await runTool(program, []);
  expect(lines.filter((line) => line.startsWith('FAIL'))).toEqual([]);
  expect(lines.filter((line) => line.startsWith('ok ')).length).toBeGreaterThan(fewest);
  expect(code).toBe(0);
});
