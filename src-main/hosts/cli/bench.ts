import type { Command } from 'commander';
import { formatMetric, formatSeconds } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { BenchOptions, BenchOutcome } from '../compose.ts';
import { exitCodes } from './exit.ts';
import { columns } from './layout.ts';
import { backendOption, choiceOption, json, numberOption, print, say } from './output.ts';
import type { Session } from './session.ts';

export const addBench = (program: Command, session: Session): Command =>
  program
    .command('bench')
    .description('measure the kernels and the ceilings of this machine in the same run')
    .option('--only <text>', 'only cases whose name contains this, e.g. "decode D1" or "level four-bit"')
    .option(
      '--decode-tokens <n>',
      'context of the decode cases (default: 32768, which takes up to 2 GiB)',
      numberOption(
        '--decode-tokens',
        'a whole number from 64 to 1048576',
        (n) => Number.isInteger(n) && n >= 64 && n <= 2 ** 20,
      ),
    )
    .option(
      '--seconds <n>',
      'seconds for each case (default: 1)',
      numberOption('--seconds', 'a number above 0, at most 600,', (n) => n > 0 && n <= 600),
    )
    .option('--backend <backend>', 'cpu; cuda:N: whole layers only, no single kernels', backendOption, 'cpu')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(
      async (options: { only?: string; decodeTokens?: number; seconds?: number; backend: string; format: string }) => {
        const { only, decodeTokens, seconds, backend, format } = options;
        const asked: BenchOptions = {
          ...(only === undefined ? {} : { only }),
          ...(decodeTokens === undefined ? {} : { decodeTokens }),
          ...(seconds === undefined ? {} : { secondsPerCase: seconds }),
        };
        const cases = await session.profiler.bench(asked, backend, (name) => say(`measuring ${name}`));
        if (cases.length === 0)
          throw expected('a part of the name of a case, as in "decode D1" or "level four-bit",', '--only', only);
        if (cases.some((result) => 'failed' in result)) session.exitCode = exitCodes.someFailed;
        if (format === 'json') return print(json({ cases }));
        const header = ['case', 'shape', 'median', 'FLOP/s', 'of FMA', 'bytes/s', 'of read', ''];
        return print(columns([header, ...cases.map(row)], 'llrrrrrl', 2).join('\n'));
      },
    );

const row = (result: BenchOutcome): string[] => {
  if ('failed' in result) return [result.name, result.shape, ...Array<string>(5).fill(''), `failed: ${result.failed}`];
  const { name, shape, flops, bytes, medianSeconds, fmaFlopsPerSecond, readBytesPerSecond } = result;
  return [
    name,
    shape,
    formatSeconds(medianSeconds),
    formatMetric(flops / medianSeconds, 'FLOP/s'),
    (flops / medianSeconds / fmaFlopsPerSecond).toFixed(2),
    formatMetric(bytes / medianSeconds, 'bytes/s'),
    (bytes / medianSeconds / readBytesPerSecond).toFixed(2),
    '',
  ];
};
