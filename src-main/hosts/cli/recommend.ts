import { type Command, Option } from 'commander';
import { formatBytes, formatMetric, formatNumber } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import { metrics, type Point } from '../../contract/metrics.ts';
import type { Budget, Recommendation } from '../../contract/recommendation.ts';
import type { PointConfig } from '../../contract/sweep.ts';
import { exitCodes, onInterrupt } from './exit.ts';
import { columns, prose } from './layout.ts';
import { backendOption, choiceOption, json, numberOption, print, say } from './output.ts';
import { bytesOption } from './plan.ts';
import { clearLine, showLine } from './progress.ts';
import type { Session } from './session.ts';

interface Options {
  readonly model: string;
  readonly context: number;
  readonly batch: number;
  readonly budget: readonly Budget[];
  readonly memory?: number;
  readonly cacheMemory?: number;
  readonly tokenFile?: string;
  readonly backend: string;
  readonly out?: string;
  readonly format: string;
}

const defaultBudget: readonly Budget[] = [{ metric: 'logitKl', bound: 0.001 }];

function collectBudget(text: string, before: readonly Budget[]): readonly Budget[] {
  const [metric, value] = text.split(/=(.*)/s);
  const bound = value === undefined || value.trim() === '' ? Number.NaN : Number(value);
  if (!metric || !Number.isFinite(bound)) throw expected('METRIC=NUMBER, e.g. logitKl=0.001,', '--budget', text);
  return [...(before === defaultBudget ? [] : before), { metric, bound }];
}

const count = (name: string, most: number) =>
  numberOption(name, `a whole number from 1 to ${most}`, (n) => Number.isInteger(n) && n >= 1 && n <= most);

export const addRecommend = (program: Command, session: Session): Command =>
  program
    .command('recommend')
    .description('the smallest cache that keeps an error budget: named levels and a search over stacks, all measured')
    .option('--model <name>', 'byte-mha, byte-mqa or a model folder', 'byte-mha')
    .addOption(
      new Option(
        '--budget <metric=bound>',
        'logitKl, perplexityChangePercent, top1Agreement, retrieved, relativeL2, tokensPerSecond, …; repeatable',
      )
        .argParser(collectBudget)
        .default(defaultBudget, 'logitKl=0.001'),
    )
    .option('--context <n>', 'tokens of a sequence', count('--context', 2 ** 20), 512)
    .option('--batch <n>', 'sequences', count('--batch', 4096), 1)
    .option(
      '--memory <size>',
      'of the device, for weights, workspace and cache together, as measured, e.g. 16MiB',
      bytesOption('--memory'),
    )
    .option('--cache-memory <size>', 'for the cache of the whole batch alone, e.g. 1MiB', bytesOption('--cache-memory'))
    .option('--token-file <file>', 'token ids to judge on, for models with a tokenizer of their own')
    .option('--backend <backend>', 'where everything is measured, cpu or cuda:N', backendOption, 'cpu')
    .option('--out <file>', 'record everything measured on the way as a session, *.fmqa')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ budget, memory, cacheMemory, format, ...options }: Options) => {
      const stop = (): void => {
        session.exitCode = exitCodes.interrupted;
        session.profiler.cancel();
        clearLine();
        say(
          `interrupted; what was measured is ${options.out === undefined ? 'not saved: --out FILE.fmqa would' : `in ${options.out}`}`,
        );
      };
      const release = onInterrupt({ onStop: stop, onCancel: stop });
      try {
        const limits = {
          ...(memory !== undefined && { memoryBytes: memory }),
          ...(cacheMemory !== undefined && { cacheBytes: cacheMemory }),
        };
        const found = await session.profiler.recommend({ ...options, budgets: budget, limits }, (search) =>
          showLine(`${search.judged} of ${search.of} stacks judged at ${search.seqLen} tokens`),
        );
        clearLine();
        if (!found.chosen) session.exitCode = exitCodes.someFailed;
        await print(format === 'json' ? json(found) : table(found).join('\n'));
      } finally {
        release();
      }
    });

/** What tells a stack from the level it is built on. */
function stackName(config: PointConfig): string {
  const { level, keyDtype, valueDtype, latentBands, adaptiveBudgetBytes, window } = config;
  const parts = [
    latentBands ??
      (adaptiveBudgetBytes
        ? `${adaptiveBudgetBytes} B a token`
        : keyDtype === valueDtype
          ? keyDtype
          : `${keyDtype}/${valueDtype}`),
    ...(window ? [`window ${window}`] : []),
  ];
  return `${level} (${parts.join(', ')})`;
}

function table({ budgets, limits, chosen, others, rounds }: Recommendation): string[] {
  const columnsOf = budgets.map(({ metric }) => metrics.find(({ id }) => id === metric)).filter((m) => m !== undefined);
  const cells = (point: Point, verdict: string): string[] => [
    stackName(point.config),
    formatBytes(point.memory?.kvAllocatedBytes ?? 0),
    `${formatNumber(point.memory?.multiplierVsOwn16Bit ?? 0)}x`,
    formatBytes(point.memory?.peakBytes ?? 0),
    ...columnsOf.map((metric) => {
      const value = metric.read(point);
      return value === undefined ? '–' : formatMetric(value, metric.unit);
    }),
    formatNumber(point.throughput?.tokensPerSecond ?? 0),
    verdict,
  ];
  const { memoryBytes, cacheBytes } = limits;
  const bounds = [
    ...budgets.map(({ metric, bound }, i) => `${metric} ${columnsOf[i]?.better === 'higher' ? '≥' : '≤'} ${bound}`),
    ...(memoryBytes === undefined ? [] : [`device ≤ ${formatBytes(memoryBytes)}`]),
    ...(cacheBytes === undefined ? [] : [`cache ≤ ${formatBytes(cacheBytes)}`]),
  ];
  return [
    ...[
      `Budget: ${bounds.join(', ')}. ${chosen ? `Recommended: ${stackName(chosen.config)}.` : 'Nothing that was tried keeps it.'}`,
      '`device`: what the point held at its peak, weights, workspace and cache.',
      `Search: ${rounds.map(({ seqLen, judged, kept }) => `${judged} at ${seqLen} tokens → ${kept}`).join(', ')}.`,
    ].flatMap(prose),
    '',
    ...columns(
      [
        ['stack', 'cache', 'x own 16 bit', 'device', ...columnsOf.map(({ label }) => label), 'tok/s', ''],
        ...(chosen ? [cells(chosen, 'recommended')] : []),
        ...others.map(({ point, why }) => cells(point, why)),
      ],
      `lrrr${'r'.repeat(columnsOf.length)}rl`,
    ),
  ];
}
