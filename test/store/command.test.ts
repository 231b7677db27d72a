/** What is copied measures the same points: read by the program itself, not by a reader of our own. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { expandSweep, resolveMeasuring } from '../../src-main/engine/plan.ts';
import { sweeps } from '../../src-main/engine/sweeps.ts';
import { readSweep } from '../../src-main/hosts/sweep-source.ts';
import { commandOf, commandOfFile, fileNameOf, sweepOfPoint } from '../../src-renderer/store/command.ts';
import { draftOf, firstDraft, sweepOf } from '../../src-renderer/store/draft.ts';
import { readSweepText } from '../../src-renderer/store/sweeps.ts';
import { runCli } from '../hosts/run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-command-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const idsOf = (sweep: Sweep): string[] =>
  expandSweep(sweep)
    .map(({ id }) => id)
    .sort();

/** Words of a command as a shell would see them. */
const words = (command: string): string[] =>
  [...command.matchAll(/(?:[^\s']|'[^']*')+/g)].map(([word]) => word.replaceAll("'", ''));

/** What the program makes of the options of a command. */
async function sweepOfCommand(command: string): Promise<Sweep> {
  const [npm, run, silent, name, dashes, sweep, ...options] = words(command);
  expect([npm, run, silent, name, dashes, sweep]).toEqual(['npm', 'run', '-s', 'fastmqa', '--', 'sweep']);
  const given = (flag: string): string[] => options.flatMap((option, i) => (options[i - 1] === flag ? [option] : []));
  const measuring = {
    minSeconds: '--min-time',
    maxSeconds: '--max-time',
    maxNoise: '--max-noise',
    timeoutSeconds: '--timeout',
  };
  const limits = Object.entries(measuring).flatMap(([field, flag]) =>
    given(flag).map((value) => [field, Number(value)]),
  );
  expect(2 * (given('--set').length + limits.length)).toBe(options.length);
  return readSweep(undefined, { set: given('--set'), measuring: Object.fromEntries(limits) });
}

const drafted = sweepOf(firstDraft).sweep as Sweep;
const plain = [drafted, ...Object.values(sweeps)].filter((sweep) => commandOf(sweep) !== undefined);

test('sweeps without grids that a command line cannot hold have a command', () => {
  expect(plain.map(({ name }) => name)).toEqual(['quick look', 'kv-dtype', 'scaling']);
});

test.each(plain)('the command of $name measures its points, in its way', async (sweep) => {
  const read = await sweepOfCommand(commandOf(sweep) as string);
  expect(idsOf(read)).toEqual(idsOf(sweep));
  expect(resolveMeasuring(read)).toEqual(resolveMeasuring(sweep));
});

test('the command of any point of any sweep measures that point', async () => {
  const points = Object.values(sweeps).flatMap(expandSweep);
  expect(points.length).toBeGreaterThan(100);
  for (const { id, config, refused } of points) {
    if (refused !== undefined) continue;
    const sweep = await sweepOfCommand(commandOf(sweepOfPoint({ config }, { minSeconds: 0.1 })) as string);
    expect(expandSweep(sweep).map((point) => point.id)).toEqual([id]);
  }
});

test('the program takes the command as it is', async () => {
  const { code, stdout } = await runCli([
    ...words(commandOf(drafted) as string).slice(5),
    '--dry-run',
    '--format',
    'json',
  ]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ points: 12 });
});

test.each(Object.values(sweeps))('$name: opened in the form it stands for the same points', (sweep) => {
  const { sweep: again, errors } = sweepOf(draftOf(sweep));
  expect(errors).toEqual({});
  expect(idsOf(again as Sweep)).toEqual(idsOf(sweep));
  expect(resolveMeasuring(again as Sweep)).toEqual(resolveMeasuring(sweep));
});

test('exported, a sweep is the file that its command names', async () => {
  const { levels } = sweeps;
  const file = join(folder, fileNameOf(levels as Sweep));
  writeFileSync(file, JSON.stringify(levels));
  const name = words(commandOfFile(file)).at(-1) as string;
  expect(idsOf(await readSweep(name))).toEqual(idsOf(levels as Sweep));
  expect(readSweepText(JSON.stringify(levels), 'x.json')).toEqual(levels);
});

test.each([
  ['{', /^x\.json is no JSON: /],
  ['[]', /^x\.json is no sweep: /],
  ['{"name":"a","axes":{"batch":[]}}', /^x\.json is no sweep: axes\.batch: /],
  ['{"name":"a","axes":{},"colour":1}', /^x\.json is no sweep: Unrecognized key: "colour"$/],
])('what is wrong with a file is said: %s', (text, sentence) => {
  expect(() => readSweepText(text, 'x.json')).toThrow(sentence);
});
