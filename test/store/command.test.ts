/** What the window copies, a real shell and the real parser of the command line read back as the same sweep. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { expect, test } from 'vitest';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { expandSweep, resolveMeasuring } from '../../src-main/engine/plan.ts';
import { sweeps } from '../../src-main/engine/sweeps.ts';
import { addSweep } from '../../src-main/hosts/cli/sweep.ts';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { commandOf, fileNameOf, sweepOfPoint } from '../../src-renderer/store/command.ts';
import { draftOf, firstDraft, sweepOf } from '../../src-renderer/store/draft.ts';
import { readSweepText } from '../../src-renderer/store/sweeps.ts';
import { startCli } from '../hosts/run-cli.ts';

const profiler = createProfiler();
const start = 'npm run -s fastmqa -- ';

/** As if it had been pasted into a terminal. */
async function pasted(command: string): Promise<Sweep> {
  expect(command.startsWith(start)).toBe(true);
  let words = command.slice(start.length);
  const folder = mkdtempSync(join(tmpdir(), 'fastmqa-command-'));
  try {
    if (words.startsWith('sweep - <<')) {
      const file = join(folder, 'stdin.json');
      writeFileSync(file, execFileSync('bash', ['-c', words.replace('sweep -', 'cat')]));
      words = `sweep ${file}`;
    }
    const shown = execFileSync('bash', ['-c', `printf '%s\\0' ${words}`], { encoding: 'utf8' });
    const args = shown.split('\0').slice(0, -1);
    let read: Sweep | undefined;
    const program = new Command().exitOverride();
    const preview = (sweep: Sweep) => {
      read = sweep;
      throw new Error('read');
    };
    addSweep(program, { profiler: { ...profiler, readSweep: profiler.readSweep, preview }, exitCode: 0 });
    await expect(program.parseAsync([...args, '--dry-run'], { from: 'user' })).rejects.toThrow(/^read$/);
    if (!read) throw new Error('nothing was read');
    return read;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Order of axes counts: it is the order of measuring. */
const exactly = async (sweep: Sweep): Promise<void> => {
  const read = await pasted(commandOf(sweep));
  expect(read).toEqual(sweep);
  expect(Object.keys(read.axes)).toEqual(Object.keys(sweep.axes));
};

const drafted = (change: Parameters<typeof sweepOf>[0] | object): Sweep => {
  const { sweep, errors } = sweepOf({ ...firstDraft, ...change });
  if (!sweep) throw new Error(JSON.stringify(errors));
  return sweep;
};

test.each<[string, object]>([
  ['the first draft', {}],
  ['a name that a shell would misread', { name: `it's "mine"; $HOME \`ls\` * & — ✓` }],
  ['ranges', { axes: { ...firstDraft.axes, seqLen: '512-4096*2', batch: '1-9+4' } }],
  [
    'techniques',
    { axes: { ...firstDraft.axes, latentBands: '256x8+768x4', symmetric: 'true,false', window: 'default,64' } },
  ],
  ['small numbers', { axes: { ...firstDraft.axes, adaptiveEnergy: '0.0000001,0.99', ropeTheta: '1e6' } }],
  ['another machine and phase', { axes: { ...firstDraft.axes, backend: 'cuda:0' }, phases: ['verify', 'decode'] }],
  ['no times', { minSeconds: '', maxSeconds: '' }],
  ['only a least time, above the usual most', { minSeconds: '9', maxSeconds: '9' }],
  ['all of measuring', { kept: { measuring: { maxNoise: 0.1, minSamples: 3, maxSamples: 50, timeoutSeconds: 20 } } }],
])('%s', async (_, change) => {
  const sweep = drafted(change);
  expect(commandOf(sweep)).not.toContain('<<');
  await exactly(sweep);
});

test.each<[string, object]>([
  [
    'axes that advance together',
    { kept: { zip: [['seqLen', 'batch']] }, axes: { ...firstDraft.axes, seqLen: '64,128', batch: '4,2' } },
  ],
  ['further grids', { kept: { also: [{ axes: { seqLen: [64], level: ['custom'] } }] } }],
])('%s: whole, as JSON', async (_, change) => {
  const sweep = drafted(change);
  expect(commandOf(sweep)).toContain('<<');
  await exactly(sweep);
});

test('a value with a comma in it is not cut in two', () =>
  exactly({ name: 'paths', axes: { tokenFile: ['/tmp/a,b'], seqLen: [64], phase: ['decode'], level: ['baseline'] } }));

test.each(Object.entries(sweeps))('the sweep %s', (_, sweep) => exactly(sweep));

test.each(Object.entries(sweeps))('every point of %s, measured again, is the same point', async (_, sweep) => {
  const points = expandSweep(sweep).filter(({ refused }) => refused === undefined);
  for (const { id, config } of points) {
    const again = expandSweep(sweepOfPoint({ config }, sweep.measuring));
    expect(again.map((point) => [point.id, point.refused])).toEqual([[id, undefined]]);
  }
  await exactly(sweepOfPoint(points[0], sweep.measuring));
});

const idsOf = (sweep: Sweep): string[] =>
  expandSweep(sweep)
    .map(({ id }) => id)
    .sort();

test.each(Object.values(sweeps))('$name: opened in the form it stands for the same points', (sweep) => {
  const { sweep: again, errors } = sweepOf(draftOf(sweep));
  expect(errors).toEqual({});
  expect(idsOf(again as Sweep)).toEqual(idsOf(sweep));
  expect(resolveMeasuring(again as Sweep)).toEqual(resolveMeasuring(sweep));
});

test('phases that advance together with another axis stay beside their neighbours', () => {
  const axes = { seqLen: [64, 128], phase: ['prefill', 'decode'], level: ['baseline'] };
  const sweep = { name: 'pairs', axes, zip: [['seqLen', 'phase']] };
  expect(idsOf(sweepOf(draftOf(sweep)).sweep as Sweep)).toEqual(idsOf(sweep));
});

test('exported as JSON, a sweep is imported as it was', () => {
  expect(fileNameOf({ name: 'quick look!', axes: {} })).toBe('quick-look.json');
  expect(readSweepText(JSON.stringify(sweeps.levels), 'x.json')).toEqual(sweeps.levels);
});

test.each([
  ['{', /^x\.json is no JSON: /],
  ['[]', /^x\.json is no sweep: /],
  ['{"name":"a","axes":{"batch":[]}}', /^x\.json is no sweep: axes\.batch: /],
  ['{"name":"a","axes":{},"colour":1}', /^x\.json is no sweep: Unrecognized key: "colour"$/],
  ['{"name":"","axes":{"batch":[]}}', /^x\.json is no sweep: name: [^;]+; axes\.batch: /],
  [
    '{"name":"a","axes":{"phase":["nap"]}}',
    /^x\.json is no sweep: axes\.phase: expected one of prefill, .* received nap$/,
  ],
])('what is wrong with a file is said, field by field: %s', (text, sentence) => {
  expect(() => readSweepText(text, 'x.json')).toThrow(sentence);
});

test('a sweep is read from stdin; what is no sweep is one sentence', async () => {
  const asked = (sweep: object) => startCli(['sweep', '-', '--dry-run'], {}, JSON.stringify(sweep)).ended;
  const sweep = { name: 'piped', axes: { seqLen: [64, 128], batch: [2, 1] }, zip: [['seqLen', 'batch']] };
  expect(await asked(sweep)).toMatchObject({ code: 0, stdout: expect.stringMatching(/^piped: 2 points, /) });
  const bad = await asked({ ...sweep, axes: { seqLen: [64] } });
  expect(bad).toMatchObject({ code: 2, stderr: expect.stringContaining('for zip but received batch') });
});
