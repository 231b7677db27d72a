/** What tests need on a machine that others use too. */
import { vi } from 'vitest';

/** Waits until this throws no more. Vitest's own limit is one second, which a busy machine breaks. */
export const until = <T>(look: () => T | Promise<T>): Promise<T> =>
  vi.waitFor(look, { timeout: 120_000, interval: 50 });

/** How many times longer than alone this process takes now: the time of some arithmetic over the processor time it got. */
export function slowdown(): number {
  const [since, before] = [performance.now(), process.cpuUsage()];
  let used = 0;
  for (let x = 0; used < 100; ) {
    for (let i = 0; i < 1e5; i += 1) x = (x + i * 0.5) % 1;
    const { user, system } = process.cpuUsage(before);
    used = (user + system) / 1000;
  }
  return Math.max(1, (performance.now() - since) / used);
}

/** Milliseconds that work may take which takes `milliseconds` where nobody else works: programs that wait for each other wait twice. */
export const allowed = (milliseconds: number): number => milliseconds * slowdown() ** 2;
