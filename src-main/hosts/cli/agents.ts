import type { Command } from 'commander';
import { formatBytes, formatMetric } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { AgentInfo } from '../../contract/places.ts';
import { exitCodes } from './exit.ts';
import { columns } from './layout.ts';
import { choiceOption, json, print, say } from './output.ts';
import type { Session } from './session.ts';

export const remoteCommandOption = [
  '--remote-command <command>',
  "how FastMQA is called on the server, remembered with the host (default: fastmqa), e.g. 'npm --prefix FastMQA run -s fastmqa --'",
] as const;

interface Options {
  readonly format: string;
  readonly forget?: string;
  readonly remoteCommand?: string;
}

export const addAgents = (program: Command, session: Session): Command =>
  program
    .command('agents')
    .description('list the agents of servers: devices, ceilings, what they measure and keep')
    .argument('[host...]', 'servers as ssh knows them (default: all that were reached before)')
    .option(...remoteCommandOption)
    .option('--forget <host>', 'list it no more')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async (hosts: readonly string[], { format, forget, remoteCommand }: Options) => {
      const { profiler } = session;
      if (forget !== undefined) {
        if (!(await profiler.knownAgents()).includes(forget))
          throw expected('a host that `agents` lists', '--forget', forget);
        await profiler.forgetAgent(forget);
      }
      const agents = await profiler.agents(hosts, remoteCommand);
      if (agents.some(({ reachable }) => !reachable)) session.exitCode = exitCodes.someFailed;
      if (format === 'json') return print(json(agents));
      for (const { reachable, reason } of agents) if (!reachable) say(String(reason));
      if (agents.length === 0) return print('no agent is known: name a server, as in `agents HOST`');
      const header = ['host', 'backend', 'device', 'memory', 'FMA ceiling', 'read ceiling', 'doing'];
      return print(columns([header, ...agents.flatMap(rowsOf)], 'lllrrrl', 2).join('\n'));
    });

function rowsOf({ host, reachable, fits, devices, runs }: AgentInfo): string[][] {
  if (!reachable) return [[host, '', 'out of reach', '', '', '', '']];
  const sweeps = runs.map(({ name, status, rows }) => `${name}: ${rows} points, ${inWords[status] ?? status}`);
  const doing = fits ? sweeps.join('; ') || 'waiting' : 'refused: other kernels';
  return devices
    .filter(({ usable }) => usable)
    .map(({ backend, name, memoryBytes, fmaFlopsPerSecond: fma, readBytesPerSecond: read }) => [
      host,
      backend,
      name ?? '',
      memoryBytes === undefined ? '' : formatBytes(memoryBytes),
      fma === undefined ? '' : formatMetric(fma, 'FLOP/s'),
      read === undefined ? '' : formatMetric(read, 'bytes/s'),
      doing,
    ]);
}

const inWords: Readonly<Record<string, string>> = {
  starting: 'at work',
  running: 'at work',
  ended: 'kept for --resume',
  idle: 'kept for --resume',
};
