import os from 'node:os';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: [process.stdout.isTTY ? 'default' : 'dot', './test/summary.ts'],
    // Much of a test is waiting for processes: three files at once even where there are two cores.
    maxWorkers: Math.max(3, os.availableParallelism() - 1),
    // Only what hangs takes as long: no test may depend on a machine that does nothing else.
    testTimeout: 300_000,
    hookTimeout: 600_000,
    expect: { poll: { timeout: 120_000, interval: 50 } },
  },
});
