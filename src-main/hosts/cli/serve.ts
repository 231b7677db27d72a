import type { Command } from 'commander';
import { serve } from '../web/serve.ts';
import { numberOption } from './output.ts';
import type { Session } from './session.ts';

export const addServe = (program: Command, { profiler }: Session): Command =>
  program
    .command('serve')
    .description('the app in a browser: prints a one-time link, and how to reach it from another machine')
    .option(
      '--port <n>',
      'loopback port; 0 = any free one',
      numberOption('--port', 'a port of 0 to 65535', (n) => Number.isInteger(n) && n >= 0 && n <= 65535),
    )
    .action(async ({ port }: { port?: number }) => {
      const host = await serve({ profiler, ...(port === undefined ? {} : { port }) });
      await new Promise<void>((ended) => {
        process.once('SIGINT', ended).once('SIGTERM', ended);
      });
      await host.close();
    });
