import type { Command } from 'commander';
import { changesInWords, environmentInWords, tellingFieldsOf } from '../../contract/comparison-words.ts';
import type { DeviceSummary } from '../../contract/devices.ts';
import { formatMetric } from '../../contract/format.ts';
import { expected } from '../../contract/input-error.ts';
import type { ComparisonOfFiles } from '../compose.ts';
import { exitCodes } from './exit.ts';
import { columns, prose } from './layout.ts';
import { choiceOption, json, print } from './output.ts';
import { type Session, tellDamage } from './session.ts';

const formats = ['table', 'json'] as const;

export const addCompare = (program: Command, session: Session): Command =>
  program
    .command('compare')
    .description('two sessions, point by point: SAME, FASTER, SLOWER or UNSURE, memory and error, with the reason')
    .argument('<before>', 'session file, *.fmqa: the baseline')
    .argument('<after>', 'session file, *.fmqa')
    .option('--format <format>', formats.join(', '), choiceOption('--format', formats), 'table')
    .addHelpText(
      'after',
      '\nExit code 1: a point became slower, larger, less exact, or is no longer measured; 3: none did among what is whole, but lines of a session were damaged.',
    )
    .action(async (before: string, after: string, { format }: { format: (typeof formats)[number] }) => {
      const { damage, ...comparison } = await session.profiler.compare(before, after);
      tellDamage(session, damage);
      if (comparison.points.length === 0)
        throw expected('two sessions with points in common', 'compare', `${before} and ${after}, which have none`);
      await print(format === 'json' ? json(comparison) : comparisonTable(comparison));
      if (comparison.regressions > 0) session.exitCode = exitCodes.someFailed;
    });

function comparisonTable(comparison: Omit<ComparisonOfFiles, 'damage'>): string {
  const { points, counts, regressions, onlyBefore, onlyAfter, environment, devices } = comparison;
  const varying = tellingFieldsOf(points.map(({ config }) => config));
  const rows = [
    ['verdict', ...varying, 'time', 'memory and error', 'reason'],
    ...points.map((point) => [
      point.isRegression ? `${point.verdict} !` : point.verdict,
      ...varying.map((field) => String(point.config[field] ?? '')),
      point.timeRatio === undefined ? '' : `${point.timeRatio.toFixed(3)}x`,
      changesInWords(point),
      point.reason,
    ]),
  ];
  const total = Object.entries(counts).map(([verdict, count]) => `${count} ${verdict}`);
  const lone = [
    ...(onlyBefore.length > 0 ? [`${onlyBefore.length} points are in the first session only.`] : []),
    ...(onlyAfter.length > 0 ? [`${onlyAfter.length} points are in the second session only.`] : []),
  ];
  return [
    ...columns(rows, 'l'.repeat(rows[0].length), 1 + varying.length),
    '',
    ...prose(`${total.join(', ')}; ${regressions === 0 ? 'no regression' : `${regressions} regressed (!)`}.`),
    ...lone,
    ...devicesSideBySide(devices),
    ...environment.flatMap((change) => prose(`Environment: ${environmentInWords(change)}.`)),
  ].join('\n');
}

/** Nothing where one device measured both sides: its ceilings are among the differences of the environment. */
function devicesSideBySide({ before, after }: ComparisonOfFiles['devices']): string[] {
  const names = new Set([...before, ...after].map(({ name }) => name));
  if (names.size < 2) return [];
  const rows = [...before.map(rowOf('before')), ...after.map(rowOf('after'))];
  return ['', ...columns([['', 'device', 'machines', 'points', 'FMA ceiling', 'read ceiling'], ...rows], 'lllrrr'), ''];
}

const rowOf =
  (side: string) =>
  ({ name, hosts, points, fmaFlopsPerSecond, readBytesPerSecond }: DeviceSummary): string[] => [
    side,
    name,
    hosts.join(', '),
    String(points),
    rangeInWords(fmaFlopsPerSecond, 'FLOP/s'),
    rangeInWords(readBytesPerSecond, 'bytes/s'),
  ];

function rangeInWords(range: readonly [number, number] | undefined, unit: 'FLOP/s' | 'bytes/s'): string {
  if (!range) return 'not measured';
  const [least, most] = range.map((value) => formatMetric(value, unit));
  return least === most ? least : `${least} to ${most}`;
}
