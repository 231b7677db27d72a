import type { Command } from 'commander';
import { formatSeconds } from '../../contract/format.ts';
import { exitCodes, onInterrupt } from './exit.ts';
import { backendOption, numberOption, say } from './output.ts';
import type { Session } from './session.ts';

export const queueOption = [
  '--queue <address>',
  'redis://HOST or rediss://HOST (TLS); the password is taken from FASTMQA_QUEUE_PASSWORD or FASTMQA_QUEUE_PASSWORD_FILE',
] as const;

export const addWorker = (program: Command, session: Session): Command =>
  program
    .command('worker')
    .description('measure points that others submit with `sweep --queue`')
    .requiredOption(...queueOption)
    .option(
      '--lease <s>',
      'seconds without a sign of life after which a point goes to another worker',
      numberOption('--lease', 'a number of seconds from 1 to 3600', (s) => s >= 1 && s <= 3600),
      30,
    )
    .option('--backend <backend>', 'what measures here, cpu or cuda:N; one worker for each', backendOption, 'cpu')
    .addHelpText(
      'after',
      '\nCtrl+C finishes the point at hand and ends; a second one ends at once, and its point goes to another worker.',
    )
    .action(async ({ queue, lease, backend }: { queue: string; lease: number; backend: string }) => {
      const stopping = new AbortController();
      const release = onInterrupt({
        onStop: () => {
          say('finishing the point at hand; Ctrl+C again ends at once');
          stopping.abort();
        },
        onCancel: () => process.exit(exitCodes.interrupted),
      });
      try {
        await session.profiler.work({
          queue,
          backend,
          leaseSeconds: lease,
          signal: stopping.signal,
          onReady: (device) => say(`ready: ${device}`),
          onNotice: say,
          onPoint: ({ outcome, reason, config, throughput }) => {
            const how = throughput ? `${formatSeconds(throughput.medianSeconds)} a step` : `${outcome}: ${reason}`;
            say(`${config.level} ${config.phase} ${config.seqLen}: ${how}`);
          },
        });
      } finally {
        release();
      }
    });
