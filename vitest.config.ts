import os from 'node:os';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that take longest, first: one of them that is begun last would run alone at the end. Vitest's guess is their size. */
const longest = [
  'native/engine',
  'native/anchors',
  'reliability/worker',
  'reliability/kill',
  'reliability/reload',
  'fleet/fleet.e2e',
  'hosts/decoder.e2e',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`));
      return at < 0 ? longest.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    reporters: [process.stdout.isTTY ? 'default' : 'dot', './test/summary.ts'],
    // Much of a test is waiting for processes: three files at once even where there are two cores.
    maxWorkers: Math.max(3, os.availableParallelism() - 1),
    sequence: { sequencer: LongestFirst },
    // Only what hangs takes as long: no test may depend on a machine that does nothing else.
    testTimeout: 300_000,
    hookTimeout: 600_000,
    expect: { poll: { timeout: 120_000, interval: 50 } },
  },
});
