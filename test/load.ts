/** What tests need on a machine that others use too. */
import { expect, vi } from 'vitest';

/** Waits until this throws no more. Vitest's own limit is one second, which a busy machine breaks. */
export const until = <T>(look: () => T | Promise<T>): Promise<T> =>
  vi.waitFor(look, { timeout: 120_000, interval: 50 });

/** How many times longer than alone this process takes now: the time of some arithmetic over the processor time it got. */
function slowdown(): number {
  const [since, before] = [performance.now(), process.cpuUsage()];
  let used = 0;
  for (let x = 0; used < 50; ) {
    for (let i = 0; i < 1e5; i += 1) x = (x + i * 0.5) % 1;
    const { user, system } = process.cpuUsage(before);
    used = (user + system) / 1000;
  }
  return Math.max(1, (performance.now() - since) / used);
}

const lookMilliseconds = 1000;

/**
 * Does what takes less than `milliseconds` where nobody else works. Elsewhere it may take as much longer as this process took for
 * the like from its beginning to its end, on average: a look at the end alone would miss a load that ends together with what it
 * held up. Programs that wait for each other wait twice.
 */
export async function takesLessThan(milliseconds: number, work: () => Promise<unknown>): Promise<void> {
  const looks = [slowdown()];
  const looking = setInterval(() => looks.push(slowdown()), lookMilliseconds);
  const since = performance.now();
  try {
    await work();
  } finally {
    clearInterval(looking);
  }
  const took = performance.now() - since;
  looks.push(slowdown());
  const factor = looks.reduce((sum, look) => sum + look ** 2, 0) / looks.length;
  expect(took).toBeLessThan(milliseconds * factor);
}
