import type { Command } from 'commander';
import { formatBytes } from '../../contract/format.ts';
import { choiceOption, columns, json, print } from './output.ts';
import type { Session } from './session.ts';
import { queueOption } from './worker.ts';

export const addFleet = (program: Command, { profiler }: Session): Command =>
  program
    .command('fleet')
    .description('list the workers of a queue: host, device, what they do and how fast')
    .requiredOption(...queueOption)
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ queue, format }: { queue: string; format: string }) => {
      const hosts = await profiler.fleet(queue);
      if (format === 'json') return print(json(hosts));
      if (hosts.length === 0) return print('no worker is at work for this queue');
      const rows = hosts.map(({ host, backend, device, memoryBytes, done, pointsPerMinute, doing, version }) => [
        host,
        backend,
        device,
        formatBytes(memoryBytes),
        String(done),
        pointsPerMinute.toFixed(1),
        doing ?? 'waiting',
        version,
      ]);
      const header = ['host', 'backend', 'device', 'memory', 'done', 'a minute', 'doing', 'kernels'];
      return print(columns([header, ...rows], 'lllrrrll').join('\n'));
    });
