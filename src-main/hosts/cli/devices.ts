import type { Command } from 'commander';
import type { DeviceInfo } from '../../contract/api.ts';
import { formatBytes, formatMetric } from '../../contract/format.ts';
import { choiceOption, columns, json, print } from './output.ts';
import type { Session } from './session.ts';

export const addDevices = (program: Command, { profiler }: Session): Command =>
  program
    .command('devices')
    .description('list the backends: usable or why not, memory, and the ceilings measured now')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ format }: { format: string }) => {
      const devices = await profiler.devices();
      if (format === 'json') return print(json(devices));
      const header = ['backend', 'usable', 'name', 'memory', 'threads', 'instructions', 'FMA ceiling', 'read ceiling'];
      const lines = columns([header, ...devices.map(row)], 'llrrrlrr');
      const reasons = devices.filter(({ usable }) => !usable).map(({ backend, reason }) => `${backend}: ${reason}`);
      return print([...lines, ...reasons].join('\n'));
    });

const row = (device: DeviceInfo): string[] => [
  device.backend,
  device.usable ? 'yes' : 'no',
  device.name ?? '',
  device.memoryBytes === undefined ? '' : formatBytes(device.memoryBytes),
  String(device.threads ?? ''),
  device.instructionSet ?? '',
  device.fmaFlopsPerSecond === undefined ? '' : formatMetric(device.fmaFlopsPerSecond, 'FLOP/s'),
  device.readBytesPerSecond === undefined ? '' : formatMetric(device.readBytesPerSecond, 'bytes/s'),
];
