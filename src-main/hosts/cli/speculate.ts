import { type Command, Option } from 'commander';
import { formatBytes, formatNumber } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { SpeculationRow } from '../../contract/model.ts';
import { exitCodes, onInterrupt } from './exit.ts';
import { columns, legend } from './layout.ts';
import { backendOption, choiceOption, json, numberOption, print, say } from './output.ts';
import { clearLine, showLine } from './progress.ts';
import type { Session } from './session.ts';

interface Options {
  readonly model: string;
  readonly target: string;
  readonly draft: readonly string[];
  readonly draftTokens: readonly number[];
  readonly context: readonly number[];
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
  readonly backend: string;
  readonly format: string;
}

/** `1,2,4` */
const countsOption =
  (name: string, most: number) =>
  (text: string): number[] =>
    text.split(',').map((part) => {
      const value = Number(part);
      if (!Number.isInteger(value) || value < 1 || value > most)
        throw expected(`whole numbers from 1 to ${most}`, name, text);
      return value;
    });

const defaultDrafts = ['near-lossless', 'four-bit', 'custom cacheDtype=f16 window=128 sinkTokens=4', 'conservative'];

export const addSpeculate = (program: Command, session: Session): Command =>
  program
    .command('speculate')
    .description(
      'speculative decoding: the same model with a compressed cache drafts, the target verifies; measured end to end',
    )
    .option('--model <name>', 'byte-mha or byte-mqa', 'byte-mha')
    .option('--target <level>', 'cache of the target', 'baseline')
    .addOption(
      new Option('--draft <level>', 'cache of the draft, e.g. "near-lossless window=128 sinkTokens=4"; repeatable')
        .argParser((value: string, before: readonly string[]) =>
          before === defaultDrafts ? [value] : [...before, value],
        )
        .default(defaultDrafts, defaultDrafts.join('; ')),
    )
    .addOption(
      new Option('--draft-tokens <n>', 'tokens proposed in a round: one number or several')
        .argParser(countsOption('--draft-tokens', 64))
        .default([1, 2, 4, 8], '1,2,4,8'),
    )
    .addOption(
      new Option('--context <n>', 'tokens of the prompt: one number or several')
        .argParser(countsOption('--context', 2 ** 20))
        .default([512, 1536], '512,1536'),
    )
    .option(
      '--tokens <n>',
      'tokens to make after each prompt',
      numberOption(
        '--tokens',
        'a whole number from 1 to 1048576',
        (n) => Number.isInteger(n) && n >= 1 && n <= 2 ** 20,
      ),
      128,
    )
    .option(
      '--temperature <t>',
      '0 = greedy',
      numberOption('--temperature', 'a number from 0 to 10', (t) => t >= 0 && t <= 10),
      0,
    )
    .option(
      '--seed <n>',
      'of the prompts and of sampling',
      numberOption('--seed', 'a whole number from 0 to 1000000', (n) => Number.isInteger(n) && n >= 0 && n <= 1e6),
      1,
    )
    .option('--backend <backend>', 'where both run, cpu or cuda:N', backendOption, 'cpu')
    .option('--format <format>', 'table or json', choiceOption('--format', ['table', 'json']), 'table')
    .action(async ({ draft, context, format, ...options }: Options) => {
      const rows: SpeculationRow[] = [];
      const total = context.length * draft.length * options.draftTokens.length;
      const stop = (): void => {
        session.exitCode = exitCodes.interrupted;
        session.profiler.cancel();
      };
      const release = onInterrupt({ onStop: stop, onCancel: stop });
      try {
        await session.profiler.speculate({ ...options, drafts: draft, contexts: context }, (row) => {
          rows.push(row);
          showLine(`${rows.length}/${total}  ${row.context} tokens, ${row.draft}, ${row.draftTokens} drafted`);
        });
      } catch (error) {
        if (session.exitCode !== exitCodes.interrupted) throw error;
        clearLine();
        say(`interrupted after ${rows.length} of ${total} rows`);
      } finally {
        release();
      }
      clearLine();
      if (format === 'json') await print(json({ rows }));
      else if (rows.length > 0) await print(table(rows, options).join('\n'));
    });

function table(
  rows: readonly SpeculationRow[],
  { model, target, temperature }: Pick<Options, 'model' | 'target' | 'temperature'>,
): string[] {
  const header = [
    'context',
    'draft',
    'drafted',
    'tokens/round',
    'kept by place',
    'draft',
    'verify',
    'plain',
    'speculative',
    'speed-up',
    'extra cache',
    '',
  ];
  const cells = rows.map((row) => {
    const head = [String(row.context), row.draft, String(row.draftTokens)];
    if (row.refused !== undefined) return [...head, ...Array<string>(8).fill('–'), row.refused];
    return [
      ...head,
      (row.tokensPerRound ?? 0).toFixed(2),
      (row.acceptedByPlace ?? []).map((share) => Math.round(100 * share)).join(' '),
      (row.draftCost ?? 0).toFixed(2),
      (row.verifyCost ?? 0).toFixed(2),
      formatNumber(row.plainTokensPerSecond ?? 0),
      formatNumber(row.tokensPerSecond ?? 0),
      `${(row.speedUp ?? 0).toFixed(2)}x`,
      formatBytes(row.draftCacheBytes ?? 0),
      row.differing ? `${row.differing} tokens differ from the target’s` : '',
    ];
  });
  return [
    `${model}, target \`${target}\`, ${temperature === 0 ? 'greedy' : `temperature ${temperature}`}.`,
    ...legend(
      'drafted: tokens proposed in a round. kept by place: per cent of the proposals checked there. draft, verify: time of a draft token, of a verification, in tokens of the target alone. plain, speculative: tokens/s. The draft’s cache comes on top of the target’s: speculation never saves memory.',
    ),
    '',
    ...columns([header, ...cells], 'rlrrrrrrrrrl', 3),
  ];
}
