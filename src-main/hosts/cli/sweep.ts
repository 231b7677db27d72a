import type { Command } from 'commander';
import type { FleetOptions, RemoteOptions, RunEnd, RunEvent, SweepRun } from '../../contract/api.ts';
import { formatBytes, formatMetric, formatSeconds } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { Point } from '../../contract/metrics.ts';
import type { Environment } from '../../contract/session.ts';
import type { Measuring, Sweep } from '../../contract/sweep.ts';
import { byReason, exportPoints, type Profiler, defaultMeasuring as usual } from '../compose.ts';
import { remoteCommandOption } from './agents.ts';
import { type ExitCode, exitCodes, onInterrupt } from './exit.ts';
import { prose } from './layout.ts';
import { choiceOption, json, numberOption, print, say } from './output.ts';
import { clearLine, Progress } from './progress.ts';
import type { Session } from './session.ts';
import { sweepTable } from './table.ts';
import { capacityTable } from './table-capacity.ts';
import { isCapacity, isModelPoint, isSpeculation, modelTable, speculationTable } from './table-models.ts';
import { queueOption } from './worker.ts';

const formats = ['table', 'json', 'csv', 'md'] as const;

interface Options {
  readonly set?: readonly string[];
  readonly backend?: string;
  readonly out?: string;
  readonly format: (typeof formats)[number];
  readonly dryRun?: boolean;
  readonly resume?: boolean;
  readonly seed?: number;
  readonly timeout?: number;
  readonly name?: string;
  readonly minTime?: number;
  readonly minSamples?: number;
  readonly maxSamples?: number;
  readonly maxTime?: number;
  readonly maxNoise?: number;
  readonly verbose?: boolean;
  readonly queue?: string;
  readonly device?: string;
  readonly remote?: string;
  readonly remoteCommand?: string;
}

const positive = (name: string) =>
  numberOption(name, 'a number of seconds above 0, at most 86400,', (value) => value > 0 && value <= 86400);

const samples = (name: string, most: number) =>
  numberOption(name, `a whole number from 1 to ${most}`, (n) => Number.isInteger(n) && n >= 1 && n <= most);

export const addSweep = (program: Command, session: Session): Command =>
  program
    .command('sweep')
    .description('measure memory, throughput and error of every point of a sweep')
    .argument(
      '[sweep]',
      'quick, levels, speculation, kv-dtype, scaling, pareto, a level, FILE.json, - for JSON on stdin, or a session FILE.fmqa (default: quick)',
    )
    .option(
      '--set <axis=values>',
      'set an axis: 1,2,4 or 512-8192*2 or 512-2048+512 or names; repeatable, of one axis the last counts',
      collect,
    )
    .option('--name <name>', 'name of the sweep and of its session')
    .option('--backend <backend>', 'cpu or cuda:N (default: cpu)')
    .option('--out <file>', 'record a session, *.fmqa: each point is on the disk before it is reported')
    .option('--format <format>', formats.join(', '), choiceOption('--format', formats), 'table')
    .option('--dry-run', 'print how many points, how long and how much memory, and measure nothing')
    .option('--resume', 'continue the session given by --out; nothing is measured twice')
    .option(
      '--seed <n>',
      'seed of the evaluation inputs (default: 100)',
      numberOption(
        '--seed',
        'a whole number from 0 to 2147483648',
        (n) => Number.isInteger(n) && n >= 0 && n <= 2 ** 31,
      ),
    )
    .option(
      '--timeout <s>',
      `seconds until a point is given up (usual: ${usual.timeoutSeconds})`,
      positive('--timeout'),
    )
    .option(
      '--min-time <s>',
      `seconds to sample each point at least, unless --max-samples come first (usual: ${usual.minSeconds})`,
      numberOption('--min-time', 'a number of seconds from 0 to 3600', (s) => s >= 0 && s <= 3600),
    )
    .option(
      '--max-time <s>',
      `seconds to sample each point at most (usual: ${usual.maxSeconds})`,
      positive('--max-time'),
    )
    .option(
      '--min-samples <n>',
      `samples of each point at least (usual: ${usual.minSamples})`,
      samples('--min-samples', 100_000),
    )
    .option(
      '--max-samples <n>',
      `samples of each point at most (usual: ${usual.maxSamples})`,
      samples('--max-samples', 1_000_000),
    )
    .option(
      '--max-noise <f>',
      `relative spread at which sampling may end (usual: ${usual.maxNoise})`,
      numberOption('--max-noise', 'a number above 0, at most 1', (f) => f > 0 && f <= 1),
    )
    .option(queueOption[0], `let the workers of a queue measure: ${queueOption[1]}`)
    .option('--device <name>', 'with --queue: only devices of this name, as `fleet` lists them')
    .option('--remote <host>', 'let the agent of a server measure, over ssh: HOST or USER@HOST, as ssh knows it')
    .option(...remoteCommandOption)
    .option('--verbose', 'report each point on stderr as it is finished')
    .addHelpText(
      'after',
      '\nUsual: what a sweep has that says nothing else; named sweeps are quicker. Ctrl+C finishes the points at hand and ends; a second one ends at once. Exit code 1: some points failed; 2: bad input, or no point is possible; 130: interrupted.',
    )
    .action(async (source: string | undefined, options: Options) => {
      if (options.resume && options.out === undefined)
        throw expected('--out FILE.fmqa beside it', '--resume', 'nothing');
      if (options.device !== undefined && options.queue === undefined)
        throw expected('--queue ADDRESS beside it', '--device', options.device);
      if (options.remote !== undefined && options.queue !== undefined)
        throw expected('one of --queue and --remote', '--remote', options.remote);
      if (options.remoteCommand !== undefined && options.remote === undefined)
        throw expected('--remote HOST beside it', '--remote-command', options.remoteCommand);
      const { profiler } = session;
      const sweep = await profiler.readSweep(source ?? (options.resume ? options.out : undefined), changesOf(options));
      if (options.dryRun) session.exitCode = await preview(profiler, sweep, options);
      else session.exitCode = await measure(profiler, sweep, options);
    });

const collect = (value: string, before: readonly string[] = []): string[] => [...before, value];

function changesOf(options: Options) {
  const { set = [], name, backend, seed, timeout, minTime, maxTime, minSamples, maxSamples, maxNoise } = options;
  const measuring: Partial<Measuring> = {
    ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
    ...(minTime === undefined ? {} : { minSeconds: minTime }),
    ...(maxTime === undefined ? {} : { maxSeconds: maxTime }),
    ...(minSamples === undefined ? {} : { minSamples }),
    ...(maxSamples === undefined ? {} : { maxSamples }),
    ...(maxNoise === undefined ? {} : { maxNoise }),
  };
  return {
    set,
    measuring,
    ...(name === undefined ? {} : { name }),
    ...(backend === undefined ? {} : { backend }),
    ...(seed === undefined ? {} : { seed }),
  };
}

/** A sweep may be planned on another machine than it is for: its plan is told, and then that it cannot run here. */
async function preview(profiler: Profiler, sweep: Sweep, { format, queue, remote }: Options): Promise<ExitCode> {
  const plan = profiler.preview(sweep);
  await print(format === 'json' ? json({ ...plan, points: plan.points.length }) : planInWords(sweep.name, plan));
  const isForHere = queue === undefined && remote === undefined;
  if (isForHere) await profiler.refuseUnusable(plan.points.map(({ backend }) => backend));
  return plan.points.length === 0 ? exitCodes.badInput : exitCodes.done;
}

function planInWords(
  name: string,
  { points, skipped, estimatedSeconds, estimatedPeakBytes }: ReturnType<Profiler['preview']>,
): string {
  const lines = byReason(skipped).map(
    ({ points, levels, reason }) => `impossible: ${points} of ${levels.join(', ')}: ${reason}`,
  );
  const cost = `, about ${formatSeconds(Math.ceil(estimatedSeconds))}, at most about ${formatBytes(estimatedPeakBytes)} of memory`;
  const impossible = skipped.length > 0 ? `, ${skipped.length} impossible` : '';
  return [...lines, `${name}: ${points.length} points${impossible}${points.length > 0 ? cost : ''}`]
    .flatMap(prose)
    .join('\n');
}

async function measure(profiler: Profiler, sweep: Sweep, options: Options) {
  const progress = new Progress(options.verbose ?? false);
  let environment: Environment | undefined;
  let run: SweepRun | undefined;
  let interrupted = false;
  const hear = (event: RunEvent): void => {
    if (event.type === 'started') environment = event.environment;
    progress.tell(event);
    if (event.type === 'paused' && event.reason !== undefined) {
      progress.line(`giving up: ${event.reason}`);
      run?.stop();
    }
  };
  const release = onInterrupt({
    onStop: () => {
      interrupted = true;
      progress.line('finishing the points at hand; Ctrl+C again ends at once');
      if (run) run.stop();
      else profiler.cancel();
    },
    onCancel: () => {
      interrupted = true;
      run?.cancel('interrupted');
      if (!run) profiler.cancel();
    },
  });
  try {
    const { out, resume } = options;
    run = await profiler.run(sweep, {
      ...(out ? { out } : {}),
      ...(resume ? { resume } : {}),
      ...(options.queue === undefined ? {} : { fleet: fleetOf(options.queue, options.device, progress) }),
      ...(options.remote === undefined ? {} : { remote: remoteOf(options.remote, options.remoteCommand, progress) }),
      onEvent: hear,
      onNotice: (line) => progress.line(line),
    });
    if (interrupted) run.cancel('interrupted');
    const { points, how } = await run.finished;
    clearLine();
    await print(render(points, environment as Environment, options.format));
    reportEnd(how, points.length, options);
    if (interrupted && how !== 'done') return exitCodes.interrupted;
    if (points.length > 0 && points.every(({ outcome }) => outcome === 'skipped')) {
      say(`nothing was measured: ${points[0].reason}`);
      return exitCodes.badInput;
    }
    return how !== 'done' || points.some(({ outcome }) => outcome === 'failed') ? exitCodes.someFailed : exitCodes.done;
  } finally {
    release();
    clearLine();
  }
}

const fleetOf = (queue: string, device: string | undefined, progress: Progress): FleetOptions => ({
  queue,
  ...(device === undefined ? {} : { device }),
  onNotice: (line) => progress.line(line),
});

const remoteOf = (host: string, command: string | undefined, progress: Progress): RemoteOptions => ({
  host,
  ...(command === undefined ? {} : { command }),
  onNotice: (line) => progress.line(line),
});

function render(points: readonly Point[], environment: Environment, format: Options['format']): string {
  if (format !== 'table') return exportPoints({ environment, points }, format);
  if (points.length === 0) return 'no point was measured';
  const [capacities, others] = [points.filter(isCapacity), points.filter((point) => !isCapacity(point))];
  const layers = others.filter((point) => !isModelPoint(point) && !isSpeculation(point));
  const models = others.filter((point) => isModelPoint(point) && !isSpeculation(point));
  const speculations = others.filter(isSpeculation);
  return [
    ...(models.length > 0 ? [modelTable(models), ''] : []),
    ...(speculations.length > 0 ? [speculationTable(speculations), ''] : []),
    ...(layers.length > 0 ? [sweepTable(layers), ''] : []),
    ...(capacities.length > 0 ? [capacityTable(capacities), ''] : []),
    ...machinesOf(points, environment).flatMap(prose),
  ].join('\n');
}

/** One line each, with the ceilings that rooflines are taken from. */
function machinesOf(points: readonly Point[], { cpu, gpus = [], ...here }: Environment): string[] {
  const used = new Set(points.map(({ config }) => config.backend));
  const cards = gpus
    .filter(({ backend }) => used.has(backend))
    .map(({ backend, name, computeCapability, matrixFlopsPerSecond, copyBytesPerSecond }) => {
      const ceilings = `${formatMetric(matrixFlopsPerSecond, 'FLOP/s')} in f16 products, ${formatMetric(copyBytesPerSecond, 'bytes/s')} copied`;
      return `${backend}: ${name}, compute capability ${computeCapability}; ceilings measured now: ${ceilings}.`;
    });
  const machines = points.map(({ device }) => device ?? { ...here, name: cpu, host: '' });
  const lines = machines.map(
    ({ host, name, threads, instructionSet, fmaFlopsPerSecond: fma, readBytesPerSecond: read }) => {
      const ceilings =
        fma && read
          ? `; ceilings measured now: ${formatMetric(fma, 'FLOP/s')}, ${formatMetric(read, 'bytes/s')} read`
          : '';
      return `${host && `${host}: `}${name}, ${threads} threads, ${instructionSet}${ceilings}.`;
    },
  );
  return [...cards, ...new Set(lines)];
}

function reportEnd(how: RunEnd, count: number, { out }: Options): void {
  if (how === 'done') return;
  const those = count === 1 ? '1 point, which is' : `${count} points, which are`;
  const after = count === 0 ? 'before a point was measured' : `after ${those} ${out ? `in ${out}` : 'not saved'}`;
  const more = out ? `continue with --resume --out ${out}` : '--out FILE.fmqa would save them';
  say(`${how} ${after}; ${more}`);
}
