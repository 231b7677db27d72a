/** The engine's own check programs. Each prints a line a check; whatever is not `ok` is the failure. */
import { beforeAll, describe, expect, test } from 'vitest';
import { buildTools, type Ended, runTool } from './tools.ts';

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

/** Runs no part: code 2 where the variant cannot run. */
const startedWith = (isa: string): Promise<Ended> => runTool('test-engine', ['none'], undefined, { FASTMQA_ISA: isa });

test('an instruction set that cannot run here is refused by name', async () => {
  const { code, lines } = await startedWith('sse1');
  expect(lines.join('\n')).toMatch(/^expected .*portable for FASTMQA_ISA on this machine but received sse1$/);
  expect(code).toBe(2);
});

/** The best variant ran above, with the model of full size and twice as many random cases. */
describe.each(['avx2', 'portable'])('forced to %s', (isa) => {
  test.for([
    { program: 'test-math', args: ['--brief'], fewest: 400 },
    { program: 'test-cache', args: [], fewest: 550 },
    { program: 'test-engine', args: ['--short'], fewest: 2000 },
  ])('$program passes', { timeout: 300_000 }, async ({ program, args, fewest }, { skip }) => {
    if ((await startedWith(isa)).code === 2) skip('this processor has no such instructions');
    const { code, lines } = await runTool(program, args, undefined, { FASTMQA_ISA: isa });
    expect(lines.filter((line) => line.startsWith('FAIL'))).toEqual([]);
    expect(lines.filter((line) => line.startsWith('ok ')).length).toBeGreaterThan(fewest);
    expect(code).toBe(0);
  });
});
