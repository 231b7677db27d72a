import { type Command, Option } from 'commander';
import { formatBytes, formatMetric, formatNumber } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { MemoryPlan, PlanRow } from '../../contract/model.ts';
import { parseBytes } from '../../contract/sizes.ts';
import { columns, prose } from './layout.ts';
import { backendOption, choiceOption, json, numberOption, print } from './output.ts';
import { clearLine, showLine } from './progress.ts';
import type { Session } from './session.ts';

interface Options {
  readonly model?: string;
  readonly list?: boolean;
  readonly memory: number;
  readonly context: number;
  readonly weights?: number;
  readonly prove?: string;
  readonly backend: string;
  readonly format: string;
}

const mostTokens = 2 ** 27;

/** `80GiB`, `24GB`, `512MiB`. */
export const bytesOption =
  (name: string) =>
  (text: string): number => {
    const bytes = parseBytes(text);
    if (bytes === undefined) throw expected('a size like 80GiB or 24GB', name, text);
    return bytes;
  };

export const addPlan = (program: Command, { profiler }: Session): Command =>
  program
    .command('plan')
    .description('how far a device’s memory goes on a model, per level')
    .option('--list', 'the models known by name')
    .option(
      '--model <name>',
      'byte-mha, a published model like Llama-3.1-8B (--list names them), a model folder or a config.json',
    )
    .addOption(
      new Option('--memory <size>', 'memory of the device, weights included, e.g. 24GB')
        .argParser(bytesOption('--memory'))
        .default(80 * 2 ** 30, '80GiB'),
    )
    .option(
      '--context <n>',
      'tokens of a sequence',
      numberOption(
        '--context',
        `a whole number from 1 to ${mostTokens}`,
        (n) => Number.isInteger(n) && n >= 1 && n <= mostTokens,
      ),
      8192,
    )
    .option(
      '--weights <size>',
      'memory that the weights take (default: by the configuration)',
      bytesOption('--weights'),
    )
    .option(
      '--prove <size>',
      'allocate caches for real until they would take so much, and compare: minutes for a GiB; `device`, on a GPU: until it refuses, the weights taken first',
    )
    .option('--backend <backend>', 'where --prove allocates: cpu or cuda:N', backendOption, 'cpu')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ model, list, memory, context, weights, prove, backend, format }: Options) => {
      if (list) {
        const names = profiler.models();
        await print(format === 'json' ? json(names) : names.join('\n'));
        return;
      }
      if (model === undefined) throw expected('a name, a folder or a file', '--model', '');
      const plan = await profiler.plan(model, {
        memoryBytes: memory,
        context,
        ...(weights !== undefined && { weightBytes: weights }),
        ...(prove !== undefined && { prove: proofOf(prove, backend) }),
        onProgress: (level, done, of) => showLine(`${done}/${of}  filling caches of ${level}`),
      });
      clearLine();
      await print(format === 'json' ? json(plan) : table(plan).join('\n'));
    });

/** The whole device, or a size. */
function proofOf(text: string, backend: string) {
  if (text !== 'device') return { backend, limitBytes: bytesOption('--prove')(text) };
  if (backend === 'cpu') throw expected('a size like 1GiB where the CPU is asked', '--prove', text);
  return { backend };
}

function table(plan: MemoryPlan): string[] {
  const proves = plan.rows.some((row) => row.proof);
  const header = ['level', 'cache a token', 'x own 16 bit', 'largest batch', 'users at half', 'longest context'];
  const rows = plan.rows.map((row) => [...cells(row), ...(proves ? proofCells(row) : [])]);
  const { context, maxPositions, memoryBytes, weightBytes } = plan;
  const device = `${formatBytes(memoryBytes)}, of which weights ${formatBytes(weightBytes)}`;
  const intro = [
    `${plan.model}: ${device}; context ${count(context)} tokens.`,
    'By formula, with the pages the engine allocates in. Workspace is not counted. `users at half`: the average user has used half of the context.',
    ...(weightBytes > memoryBytes
      ? ['The weights alone do not fit: more memory, or fewer bits a weight (--weights).']
      : []),
    ...(context > maxPositions ? [`The model itself ends at ${count(maxPositions)} tokens.`] : []),
    '',
  ];
  const proofHeader = proves ? ['planned', 'reached', 'bytes off by'] : [];
  const remarks = [
    ...remarksOf(plan.rows, ({ caution }) => caution),
    ...remarksOf(plan.rows, ({ refused }) => refused),
    ...remarksOf(plan.rows, fewerUsers),
  ];
  return [
    ...intro.flatMap(prose),
    ...columns([[...header, ...proofHeader], ...rows], 'lrrrrrrrr'),
    ...(remarks.length > 0 ? ['', ...remarks.flatMap(prose)] : []),
  ];
}

/** A window that ends within a page needs one page more than at the end of the context. */
const fewerUsers = ({ largestBatch = 0, concurrentUsers = 0 }: PlanRow): string | undefined =>
  concurrentUsers < largestBatch
    ? 'at half of this context the window lies over one page more than at its end, so fewer users fit than sequences of the largest batch'
    : undefined;

/** `shared-64x, shared-128x: for models trained with one shared KV head` */
function remarksOf(rows: readonly PlanRow[], remark: (row: PlanRow) => string | undefined): string[] {
  const levels = new Map<string, string[]>();
  for (const row of rows) {
    const text = remark(row);
    if (text !== undefined) levels.set(text, [...(levels.get(text) ?? []), row.level]);
  }
  return [...levels].map(([text, names]) => `${names.join(', ')}: ${text}`);
}

function cells(row: PlanRow): string[] {
  if (row.bytesPerToken === undefined) return [row.level, '–', '–', '–', '–', '–'];
  return [
    row.level,
    formatBytes(row.bytesPerToken),
    `${formatNumber(row.multiplierVsOwn16Bit ?? 1)}x`,
    count(row.largestBatch),
    count(row.concurrentUsers),
    `${count(row.longestContext)}${row.endsAtModel ? ' (model’s limit)' : ''}`,
  ];
}

const count = (value = 0): string => formatMetric(value, 'count');

function proofCells({ proof }: PlanRow): string[] {
  if (!proof) return ['–', '–', '–'];
  const off = proof.allocatedBytes > 0 ? proof.plannedBytes / proof.allocatedBytes - 1 : 0;
  return [count(proof.plannedSequences), count(proof.reachedSequences), `${(100 * off).toFixed(2)} %`];
}
