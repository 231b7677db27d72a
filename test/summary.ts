/** The last lines of `npm test`: figures that the tests of promises reached; then what passed, failed and was skipped. */
import type { Reporter, TestModule } from 'vitest/node';

export default class Summary implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]) {
    const figures: string[] = [];
    const count = { passed: 0, failed: unhandledErrors.length, skipped: 0 };
    for (const module of modules) {
      let failedTests = 0;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'pending') continue;
        count[state] += 1;
        if (state === 'passed') figures.push(...(test.meta().figures ?? []));
        if (state === 'failed') failedTests += 1;
      }
      // A file that could not even be collected has no tests to count.
      if (failedTests === 0 && module.state() === 'failed') count.failed += 1;
    }
    // Written on exit, so that nothing another reporter prints can follow it.
    process.once('exit', () => {
      const byRow = figures.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
      if (byRow.length > 0) process.stdout.write(`\nWhat it promises, as far as tried:\n  ${byRow.join('\n  ')}\n`);
      process.stdout.write(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped\n`);
    });
  }
}
