import type { Command } from 'commander';
import { onInterrupt } from './exit.ts';
import { numberOption, say } from './output.ts';
import type { Session } from './session.ts';

export const addAgent = (program: Command, { profiler }: Session): Command =>
  program
    .command('agent')
    .description('measure sweeps that come over ssh; `sweep --remote HOST` starts one by itself where there is none')
    .option('--attach', 'join stdin and stdout with the agent of this machine: what ssh calls')
    .option(
      '--idle <s>',
      'end when nobody is connected and nothing is measured for so many seconds',
      numberOption('--idle', 'a number of seconds from 1 to 1000000', (s) => s >= 1 && s <= 1e6),
    )
    .addHelpText('after', '\nCtrl+C ends it; what it measures is kept, and goes on when the client asks again.')
    .action(async ({ attach, idle }: { attach?: boolean; idle?: number }) => {
      if (attach) return profiler.attachToAgent();
      const ending = new AbortController();
      const release = onInterrupt({ onStop: () => ending.abort(), onCancel: () => ending.abort() });
      try {
        await profiler.serveAgent({
          signal: ending.signal,
          onReady: (socket) => say(`ready at ${socket}`),
          ...(idle === undefined ? {} : { idleSeconds: idle }),
        });
      } finally {
        release();
      }
    });
