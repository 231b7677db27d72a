import type { Command } from 'commander';
import type { DeviceInfo } from '../../contract/api.ts';
import { formatBytes, formatMetric } from '../../contract/format.ts';
import { columns, prose } from './layout.ts';
import { choiceOption, json, print } from './output.ts';
import type { Session } from './session.ts';

export const addDevices = (program: Command, { profiler }: Session): Command =>
  program
    .command('devices')
    .description('list the backends: usable or why not, memory, and the ceilings measured now')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ format }: { format: string }) => {
      const devices = await profiler.devices();
      if (format === 'json') return print(json(devices));
      const header = ['backend', 'usable', 'name', 'memory', 'threads', 'instructions', 'FLOP ceiling', 'byte ceiling'];
      const lines = columns([header, ...devices.map(row)], 'lllrrlrR');
      const states = devices.flatMap(state);
      const reasons = devices.filter(({ usable }) => !usable).map(({ backend, reason }) => `${backend}: ${reason}`);
      return print([...lines, ...[...states, ...reasons].flatMap(prose)].join('\n'));
    });

/** A GPU as it is now, in one line. */
function state(device: DeviceInfo): string[] {
  if (device.computeCapability === undefined) return [];
  const { clockMHz, mostClockMHz, temperatureCelsius, powerWatts, powerLimitWatts, clockReasons, foreignProcesses } =
    device;
  const parts = [`compute capability ${device.computeCapability}, driver for CUDA ${device.driverCudaVersion}`];
  if (clockMHz !== undefined)
    parts.push(`clock ${clockMHz}${mostClockMHz === undefined ? '' : ` of ${mostClockMHz}`} MHz`);
  if (temperatureCelsius !== undefined) parts.push(`${temperatureCelsius} °C`);
  if (powerWatts !== undefined)
    parts.push(`${powerWatts.toFixed(0)}${powerLimitWatts === undefined ? '' : ` of ${powerLimitWatts.toFixed(0)}`} W`);
  if (clockReasons && clockReasons.length > 0) parts.push(`clock held by: ${clockReasons.join(', ')}`);
  if (foreignProcesses) parts.push(`${foreignProcesses} other ${foreignProcesses === 1 ? 'process' : 'processes'}`);
  return [`${device.backend}: ${parts.join(', ')}`];
}

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
