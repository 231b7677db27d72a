/** `recommend` on the real engine: it beats or equals every named level on 20 random budgets. */
import { afterAll, expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { withModels } from '../../src-main/hosts/model-backend.ts';
import { workerScript } from '../../src-main/worker/location.ts';
import { forkWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { judge, measureOnce, randomBudgets } from './random-budgets.ts';

const supervisor = new Supervisor({ spawn: forkWorker(workerScript) });
afterAll(() => supervisor.close());
const bytesOf = (point: Point): number => point.memory?.kvAllocatedBytes as number;

test('20 random budgets on a trained model', async () => {
  const measure = measureOnce(withModels(supervisor));
  const base = { model: 'byte-mha', seqLen: 96, phase: 'decode' };
  let kept = 0;
  let beaten = 0;
  for (const budgets of randomBudgets(20, 7)) {
    const { chosen, named } = await judge(base, budgets, measure);
    if (!named) continue;
    kept += 1;
    if (!chosen) throw new Error(`a named level keeps ${JSON.stringify(budgets)}, but nothing is recommended`);
    expect({ budgets, bytes: bytesOf(chosen) <= bytesOf(named) }).toEqual({ budgets, bytes: true });
    if (bytesOf(chosen) < bytesOf(named)) beaten += 1;
  }
  expect(kept).toBeGreaterThan(12);
  expect(beaten).toBeGreaterThan(5);
});
