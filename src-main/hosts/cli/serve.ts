import type { Command } from 'commander';
import { onInterrupt } from './exit.ts';
import { numberOption } from './output.ts';
import type { Session } from './session.ts';
import { queueOption } from './worker.ts';

export const addServe = (program: Command, { profiler }: Session): Command =>
  program
    .command('serve')
    .description('the app in a browser: prints a one-time link, and how to reach it from another machine')
    .option(
      '--port <n>',
      'loopback port; 0 = any free one',
      numberOption('--port', 'a port of 0 to 65535', (n) => Number.isInteger(n) && n >= 0 && n <= 65535),
    )
    .option(queueOption[0], `show a fleet in the window and let sweeps run there (or FASTMQA_QUEUE): ${queueOption[1]}`)
    .argument('[file]', 'a session to show at first, FILE.fmqa')
    .action(
      async (
        file: string | undefined,
        { port, queue = process.env.FASTMQA_QUEUE }: { port?: number; queue?: string },
      ) => {
        if (queue !== undefined) profiler.watchFleet(queue).close(); // an address that is none is told at once
        const { serve } = await import('../web/serve.ts'); // a server is loaded by nobody else
        const host = await serve({
          profiler,
          queue,
          ...(port === undefined ? {} : { port }),
          ...(file === undefined ? {} : { file }),
        });
        // Listened for to the end: npm may pass on an interrupt that the terminal has delivered already.
        await new Promise<void>((end) => {
          onInterrupt({ onStop: end, onCancel: end });
        });
        await host.close();
      },
    );
