import type { Command } from 'commander';
import { formatBytes, formatSeconds } from '../../contract/format.ts';
import type { FleetView } from '../../contract/places.ts';
import { columns } from './layout.ts';
import { choiceOption, json, print, say } from './output.ts';
import type { Session } from './session.ts';
import { queueOption } from './worker.ts';

export const addFleet = (program: Command, { profiler }: Session): Command =>
  program
    .command('fleet')
    .description('list the workers of a queue: host, device, what they do and how fast; and what waits for them')
    .requiredOption(...queueOption)
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ queue, format }: { queue: string; format: string }) => {
      const view = await profiler.lookAtFleet(queue, say);
      if (format === 'json') return print(json(view));
      const { hosts } = view;
      if (hosts.length === 0) return print(`no worker is at work for this queue\n${waitingIn(view)}`);
      const rows = hosts.map(({ host, backend, device, memoryBytes, done, pointsPerMinute, doing, version, fits }) => [
        host,
        backend,
        device,
        formatBytes(memoryBytes),
        String(done),
        pointsPerMinute.toFixed(1),
        doing ?? 'waiting',
        fits ? version : `${version}, not ours`,
      ]);
      const header = ['host', 'backend', 'device', 'memory', 'done', 'a minute', 'doing', 'kernels'];
      return print([...columns([header, ...rows], 'lllrrrll', 2), waitingIn(view)].join('\n'));
    });

function waitingIn({ waiting, atWork, etaSeconds }: FleetView): string {
  if (waiting + atWork === 0) return 'no point waits';
  const eta = etaSeconds === undefined ? '' : `, about ${formatSeconds(Math.ceil(etaSeconds))} left at this rate`;
  return `${waiting} points wait, ${atWork} are being measured${eta}`;
}
