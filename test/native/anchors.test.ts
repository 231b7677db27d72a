/** The engine's errors against the published anchors, for one of the three models; `npm run anchors` takes all of them. */
import { beforeAll, expect, test } from 'vitest';
import { buildTools, runTool } from './tools.ts';

beforeAll(buildTools, 600_000);

test('every technique errs as much as the specification measured', { timeout: 900_000 }, async () => {
  const { code, lines } = await runTool('anchors', ['--brief']);
  expect(lines.filter((line) => !line.startsWith('ok '))).toEqual(['107 rows, 0 failed']);
  expect(code).toBe(0);
});
