/** The command line over a scripted worker: everything a user meets before the first kernel runs. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { type Point, pointSchema } from '../../src-main/contract/metrics.ts';
import { environmentSchema } from '../../src-main/contract/session.ts';
import { encodeSafetensors } from '../../src-main/models/safetensors.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { takesLessThan } from '../load.ts';
import { type CliResult, fakeWorker, mainScript, runCli, startCli } from './run-cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'fastmqa-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string): string => join(folder, name);

const scripted = (behaviour?: string) => ({
  FASTMQA_WORKER: fakeWorker,
  ...(behaviour ? { FASTMQA_FAKE: behaviour } : {}),
});
const fastmqa = (...args: string[]): Promise<CliResult> => runCli(args, scripted());
const small = ['--set', 'hiddenDim=64', '--set', 'heads=2', '--set', 'seqLen=16', '--min-time', '0'];

const parsePoints = (stdout: string): Point[] => {
  const { environment, points, ...rest } = JSON.parse(stdout);
  expect(rest).toEqual({});
  environmentSchema.parse(environment);
  return points.map((point: unknown) => pointSchema.parse(point));
};

describe('help and listings', () => {
  test.each([['levels'], ['devices'], ['sweep'], ['attend'], ['export']])('%s --help', async (command) => {
    const { code, stdout, stderr } = await fastmqa(command, '--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^Usage: fastmqa ${command}`));
  });

  test('levels: the four presets and custom, as table and as JSON', async () => {
    const table = await fastmqa('levels');
    for (const name of ['baseline', 'conservative', 'balanced', 'aggressive', 'custom'])
      expect(table.stdout).toMatch(new RegExp(`^${name} `, 'm'));
    const levels = JSON.parse((await fastmqa('levels', '--format', 'json')).stdout);
    expect(levels[0]).toEqual({ name: 'baseline', summary: expect.any(String), techniques: expect.any(Array) });
  });

  test('devices: the CPU with its ceilings, CUDA with the reason', async () => {
    const devices = JSON.parse((await fastmqa('devices', '--format', 'json')).stdout);
    expect(devices[0]).toMatchObject({ backend: 'cpu', usable: true, threads: 2, fmaFlopsPerSecond: 1e11 });
    expect(devices[1]).toMatchObject({ backend: 'cuda:0', usable: false, reason: expect.stringContaining('CUDA') });
    expect((await fastmqa('devices')).stdout).toMatch(/^cpu +yes .*100 GFLOP\/s/m);
  });

  test('devices says why the engine cannot be used', async () => {
    const { code, stdout } = await runCli(['devices'], { FASTMQA_WORKER: '/no/such/worker.mjs' });
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringMatching(/^cpu: worker ended/m) });
  });
});

describe('sweep', () => {
  test('--format json holds the environment and the points, and nothing else', async () => {
    const { code, stdout, stderr } = await fastmqa('sweep', 'quick', '--format', 'json', '--min-time', '0');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const points = parsePoints(stdout);
    expect(points).toHaveLength(15);
    expect(points.every(({ outcome }) => outcome === 'measured')).toBe(true);
  });

  test('the table: one row a level, controls, both baselines, and what converted and shared heads give', async () => {
    const { stdout } = await fastmqa('sweep', 'levels', '--min-time', '0');
    expect(stdout.match(/^balanced /gm)).toHaveLength(2);
    expect(stdout.match(/^\(all-zero output\) .* 1\.00 +control$/gm)).toHaveLength(4);
    expect(stdout).toMatch(
      /^shared-64x +2048\/32\/1024\/4 shared KV +2 MiB +96\.9 % +32x +-100\.0 % +0\.5x +0\.0200 +mild/m,
    );
    expect(stdout).toMatch(/^Converted heads: averaging the 32 heads .* relative L2 about 0\.02/m);
    expect(stdout).toMatch(/^Natively shared heads: .*shared-64x 32x at 0\.0200/m);
  });

  test('what an axis varies within a level stands beside its name', async () => {
    const { stdout } = await fastmqa(
      'sweep',
      'custom',
      ...small,
      '--set',
      'cacheDtype=f16,int8',
      '--set',
      'window=default,8',
      '--set',
      'phase=decode',
    );
    expect(stdout.match(/^custom /gm)).toHaveLength(4);
    expect(stdout).toMatch(/^custom f16 +64/m);
    expect(stdout).toMatch(/^custom int8 window 8 +64/m);
    expect(stdout).toMatch(/ decode$/m);
    expect(stdout).not.toContain('prefill'); // a column of nothing
  });

  test.each(['csv', 'md'])('--format %s', async (format) => {
    const { code, stdout } = await fastmqa('sweep', 'baseline', ...small, '--format', format);
    expect(code).toBe(0);
    expect(stdout).toMatch(format === 'csv' ? /^id,level,model,layers,layer,tokenFile,hiddenDim/ : /^\| level \|/);
  });

  test('--dry-run counts and measures nothing', async () => {
    const { code, stdout } = await runCli(['sweep', 'levels', '--dry-run'], { FASTMQA_WORKER: '/no/such/worker.mjs' });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^levels: 56 points, about .*, at most about .* of memory$/m);
    const preview = JSON.parse((await fastmqa('sweep', 'quick', '--dry-run', '--format', 'json')).stdout);
    expect(preview).toEqual({
      points: 15,
      skipped: [],
      estimatedSeconds: expect.any(Number),
      estimatedPeakBytes: expect.any(Number),
    });
  });

  test('--dry-run for a backend that is not here gives the plan, and says so; for another machine it does not look', async () => {
    const args = ['sweep', 'levels', '--backend', 'cuda:0', '--dry-run'];
    const here = await fastmqa(...args);
    expect(here.stdout).toMatch(/^levels: 56 points, about /);
    expect(here.stderr).toMatch(/^expected a usable backend for backend but received cuda:0: .*\n$/);
    expect(here.code).toBe(2);
    expect(await fastmqa(...args, '--remote', 'nowhere.invalid')).toEqual({ code: 0, stdout: here.stdout, stderr: '' });
  });

  test('an impossible point is a row with its reason, and no failure', async () => {
    const { code, stdout } = await fastmqa('sweep', 'baseline', ...small, '--set', 'kvHeads=1,2,3');
    expect(code).toBe(0);
    expect(stdout).toMatch(/skipped: the reference has 2 KV heads, so 3 cannot be cached$/m);
  });

  test('--set replaces an axis and takes it out of its zip group; levels are kept where a grid has them', async () => {
    const args = [
      'sweep',
      'levels',
      '--set',
      'seqLen=16',
      '--set',
      'level=balanced,shared-64x',
      '--format',
      'json',
      '--min-time',
      '0',
    ];
    const points = parsePoints((await fastmqa(...args)).stdout);
    const shapes = new Set(
      points.map(({ config: c }) => `${c.level} ${c.hiddenDim}/${c.heads}/${c.referenceKvHeads} ${c.seqLen}`),
    );
    expect([...shapes].sort()).toEqual([
      'balanced 1024/16/16 16',
      'balanced 2048/32/32 16',
      'shared-64x 1024/16/1 16',
      'shared-64x 1024/16/16 16',
      'shared-64x 2048/32/1 16',
      'shared-64x 2048/32/32 16',
    ]);
  });

  test("a sweep of one's own, from a file", async () => {
    const file = path('own.json');
    writeFileSync(
      file,
      JSON.stringify({ name: 'own', axes: { hiddenDim: [64], heads: [2], seqLen: [16, 32], level: ['baseline'] } }),
    );
    const points = parsePoints(
      (await fastmqa('sweep', file, '--format', 'json', '--min-time', '0', '--seed', '7')).stdout,
    );
    expect(points.map(({ config }) => [config.seqLen, config.seed])).toEqual([
      [16, 7],
      [32, 7],
    ]);
  });

  test('--verbose reports each point on stderr', async () => {
    const { stderr } = await fastmqa('sweep', 'baseline', ...small, '--verbose');
    expect(stderr).toMatch(/^1\/2 {2}baseline prefill 64\/2\/16\/1 {2}.* tokens\/s {2}error 1\.00e-7$/m);
  });
});

describe('a worker that fails costs rows, not the sweep', () => {
  test.each([
    ['crash', /failed: the backend crashed: worker ended by SIGSEGV$/m],
    ['out of memory', /failed: out of memory: 80 GiB were asked for$/m],
    ['unknown error code', /failed: an illegal memory access was encountered \(cuda-700\)$/m],
    ['NaN samples', /failed: worker answered with an impossible value in sample/m],
  ])('%s', async (behaviour, row) => {
    const { code, stdout } = await runCli(['sweep', 'baseline', ...small], scripted(behaviour));
    expect(code).toBe(1);
    expect(stdout).toMatch(row);
  });

  test('a hang costs its time-out', async () => {
    const { code, stdout } = await runCli(['sweep', 'baseline', ...small, '--timeout', '0.3'], scripted('huge delay'));
    expect(code).toBe(1);
    expect(stdout).toMatch(/failed: timed out: no result within 0\.3 s$/m);
  });

  test('five crashes in a row end it, and what was measured is kept', async () => {
    const session = path('crashes.fmqa');
    const { code, stderr } = await runCli(
      ['sweep', 'scaling', ...small, '--set', 'seqLen=16,32,64,128,256,512', '--out', session],
      scripted('crash'),
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/giving up: 5 points in a row crashed the backend/);
    expect((await readSession(session)).points.size).toBeGreaterThanOrEqual(5);
  });
});

describe('a session', () => {
  const twenty = ['sweep', 'scaling', ...small, '--set', 'seqLen=16,32,64,128,256', '--min-time', '0.3'];
  /** A point takes a second: what is to be interrupted is not over before a machine that pauses comes to it. */
  const unhurried = { ...scripted(), FASTMQA_FAKE_SECONDS: '0.3' };

  test('holds what was reported, and exports it', async () => {
    const session = path('plain.fmqa');
    const reported = parsePoints(
      (await fastmqa('sweep', 'baseline', ...small, '--out', session, '--format', 'json')).stdout,
    );
    const exported = await fastmqa('export', session, '--format', 'json');
    expect(parsePoints(exported.stdout)).toEqual(reported);
    expect((await fastmqa('export', session, '--format', 'csv')).stdout.split('\r\n')).toHaveLength(4);
    expect((await fastmqa('export', session, '--format', 'md')).stdout).toMatch(/^Controls, relative L2/m);
    const records = readFileSync(session, 'utf8').trim().split('\n');
    expect(records.at(-1)).toMatch(/"kind":"ended","how":"done"/);
  });

  test('Ctrl+C ends cleanly with 130, and --resume measures nothing twice', async () => {
    const session = path('stopped.fmqa');
    const args = [...twenty, '--out', session];
    const run = startCli([...args, '--verbose'], unhurried);
    await run.heard(/^1\/20 /m);
    const pressed = performance.now();
    run.child.kill('SIGINT');
    await sleep(10);
    // npm passes on what the terminal has sent already: one interrupt, not two. A machine that paused meanwhile would make it two.
    if (performance.now() - pressed < 100) run.child.kill('SIGINT');
    const { code, stdout, stderr } = await run.ended;
    expect(code).toBe(130);
    expect(stdout).toContain('baseline');
    expect(stderr).toMatch(
      /stopped after \d+ points?, which (is|are) in .*stopped\.fmqa; continue with --resume --out/,
    );

    const before = (await readSession(session)).points;
    expect(before.size).toBeGreaterThan(0);
    expect(before.size).toBeLessThan(20);
    const resumed = await fastmqa('sweep', '--resume', '--out', session, '--format', 'json');
    expect(resumed.code).toBe(0);
    expect(parsePoints(resumed.stdout)).toHaveLength(20);
    const after = await readSession(session);
    const ids = after.records.flatMap((record) => (record.kind === 'point' ? [record.point.id] : []));
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toHaveLength(20);
    for (const [id, point] of before) expect(after.points.get(id)).toEqual(point);
  });

  test('--resume of a damaged session says what it leaves out, and where the file is as it was found', async () => {
    const session = path('torn.fmqa');
    await fastmqa('sweep', 'baseline', ...small, '--out', session);
    const torn = readFileSync(session, 'utf8').split('\n').slice(0, 3).join('\n').slice(0, -40);
    writeFileSync(session, torn);
    const { code, stderr } = await fastmqa('sweep', '--resume', '--out', session);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `${session}: damaged and left out: line 3; as it was found it is in ${session}.damaged-1\n`,
    });
    expect(readFileSync(`${session}.damaged-1`, 'utf8')).toBe(torn);
    expect((await readSession(session)).points.size).toBe(2);
    expect((await fastmqa('export', session, '--format', 'csv')).code).toBe(0); // what was lost was measured again
  });

  test('a second Ctrl+C ends at once', async () => {
    const session = path('cancelled.fmqa');
    const run = startCli(['sweep', 'baseline', ...small, '--out', session], scripted('hang'));
    await expect.poll(() => existsSync(session)).toBe(true); // it listens to signals by then
    run.child.kill('SIGINT');
    // Again, and again: a busy machine may deliver one together with the first, which makes it an echo of that.
    const pressing = setInterval(() => run.child.kill('SIGINT'), 400);
    await takesLessThan(8000, () => run.ended);
    clearInterval(pressing);
    expect((await run.ended).code).toBe(130);
    expect((await readSession(session)).records.at(-1)).toMatchObject({ kind: 'ended', how: 'interrupted' });
  });

  test('SIGTERM ends at once and saves', async () => {
    const session = path('terminated.fmqa');
    const run = startCli([...twenty, '--out', session, '--verbose'], unhurried);
    await run.heard(/^1\/20 /m);
    run.child.kill('SIGTERM');
    expect((await run.ended).code).toBe(130);
    expect((await readSession(session)).points.size).toBeGreaterThan(0);
  });

  test('kill -9 loses no point that was reported', async () => {
    const session = path('killed.fmqa');
    const run = startCli(
      ['sweep', 'scaling', ...small, '--min-time', '0.1', '--out', session, '--verbose'],
      scripted(),
    );
    await run.heard(/^4\//m);
    run.child.kill('SIGKILL');
    await run.ended;
    expect((await readSession(session)).points.size).toBeGreaterThanOrEqual(4);
    expect((await fastmqa('sweep', '--resume', '--out', session)).code).toBe(0);
  });
});

describe('bad input is one sentence and exit code 2', () => {
  const session = path('good.fmqa');
  const tensors = (
    name: string,
    change: Record<string, { shape: number[]; data: Float32Array } | undefined> = {},
  ): string => {
    const of = (...shape: number[]) => ({ shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) });
    const all = { q: of(1, 2, 3, 4), k: of(1, 1, 3, 4), v: of(1, 1, 3, 5), ...change };
    const given = Object.entries(all).filter(([, tensor]) => tensor !== undefined) as [
      string,
      { shape: number[]; data: Float32Array },
    ][];
    writeFileSync(path(name), encodeSafetensors(Object.fromEntries(given)));
    return path(name);
  };
  const of = (shape: number[], value = 0.5) => ({
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
  });
  const attend = (input: string, ...more: string[]) => [
    'attend',
    '--in',
    input,
    '--out',
    path('never.safetensors'),
    ...more,
  ];
  const pipe = (name: string): string => {
    spawnSync('mkfifo', [path(name)]);
    return path(name);
  };
  const text = (name: string, content: string): string => {
    writeFileSync(path(name), content);
    return path(name);
  };

  const cases: [what: string, args: () => string[], sentence: RegExp][] = [
    ['unknown command', () => ['swep'], /^unknown command 'swep' \(Did you mean sweep\?\)$/],
    ['unknown option', () => ['sweep', '--formt', 'csv'], /^unknown option '--formt' \(Did you mean --format\?\)$/],
    ['an argument too many', () => ['levels', 'all'], /^too many arguments for 'levels'/],
    ['option without value', () => ['sweep', '--out'], /^option '--out <file>' argument missing$/],
    ['unknown sweep', () => ['sweep', 'fast'], /^expected one of quick, .* for sweep but received fast$/],
    [
      'unknown level',
      () => ['sweep', '--set', 'level=best'],
      /^expected one of baseline, .* for level but received best$/,
    ],
    [
      'unknown axis',
      () => ['sweep', '--set', 'colour=red'],
      /^expected one of level, .* for axis but received colour$/,
    ],
    [
      'an axis of another name',
      () => ['sweep', '--set', 'numHeads=8'],
      /^expected one of level, .* for axis but received numHeads \(Did you mean heads\?\)$/,
    ],
    [
      'a server’s command without a server',
      () => ['sweep', '--remote-command', 'fastmqa'],
      /^expected --remote HOST beside it for --remote-command but received fastmqa$/,
    ],
    [
      'fewer samples at most than at least',
      () => ['sweep', '--min-samples', '9', '--max-samples', '5', '--dry-run'],
      /^expected at least minSamples, 9, for maxSamples but received 5$/,
    ],
    [
      'a model without weights to recommend for',
      () => ['recommend', '--model', 'Llama-3.1-8B'],
      /^nothing could be measured: model Llama-3.1-8B is a configuration without weights$/,
    ],
    [
      'a model that is not here to speculate on',
      () => ['speculate', '--model', 'Llama-3.1-8B'],
      /^expected byte-mha or byte-mqa for model but received Llama-3.1-8B$/,
    ],
    [
      'impossible axis value',
      () => ['sweep', '--set', 'heads=0'],
      /^expected an integer from 1 to 256 for heads but received 0$/,
    ],
    ['axis without values', () => ['sweep', '--set', 'heads'], /^expected AXIS=VALUES for --set but received heads$/],
    ['empty list', () => ['sweep', '--set', 'heads='], /^expected values like .* for heads but received nothing$/],
    [
      'falling range',
      () => ['sweep', '--set', 'seqLen=512-64*2'],
      /^expected a rising range .* for seqLen but received 512-64\*2$/,
    ],
    [
      'too many points',
      () => ['sweep', '--set', 'seqLen=1-9999+1', '--set', 'seed=1-9999+1'],
      /^expected at most 100000 points for sweep/,
    ],
    [
      'unknown format',
      () => ['sweep', '--format', 'xml'],
      /^expected one of table, json, csv, md for --format but received xml$/,
    ],
    [
      'no number',
      () => ['sweep', '--seed', 'x'],
      /^expected a whole number from 0 to 2147483648 for --seed but received x$/,
    ],
    [
      'noise out of range',
      () => ['sweep', '--max-noise', '2'],
      /^expected a number above 0, at most 1 for --max-noise but received 2$/,
    ],
    [
      'negative time-out',
      () => ['sweep', '--timeout', '-1'],
      /^expected a number of seconds above 0, at most 86400, for --timeout but received -1$/,
    ],
    ['unknown backend', () => ['sweep', '--backend', 'tpu'], /^expected cpu or cuda:N for backend but received tpu$/],
    [
      'backend that is not there',
      () => ['sweep', '--backend', 'cuda:0'],
      /^expected a usable backend for backend but received cuda:0: /,
    ],
    [
      'resume without file',
      () => ['sweep', '--resume'],
      /^expected --out FILE\.fmqa beside it for --resume but received nothing$/,
    ],
    [
      'resume of nothing',
      () => ['sweep', '--resume', '--out', path('none.fmqa')],
      /^cannot read .*none\.fmqa: no such file or folder$/,
    ],
    [
      'resume with another sweep',
      () => ['sweep', 'quick', '--resume', '--out', session],
      /^expected the sweep that .*good\.fmqa holds for --resume but received another one$/,
    ],
    [
      'resume with another noise target',
      () => ['sweep', '--max-noise', '0.5', '--resume', '--out', session],
      /^expected 0\.02, as in .*good\.fmqa, for maxNoise but received 0\.5$/,
    ],
    [
      'a session that exists',
      () => ['sweep', 'baseline', ...small, '--out', session],
      /^expected a new file for session but received .*good\.fmqa, which exists; --resume continues a sweep$/,
    ],
    [
      'a folder that does not exist',
      () => ['sweep', 'baseline', ...small, '--out', path('no/x.fmqa')],
      /^cannot write .*x\.fmqa: no such file or folder$/,
    ],
    [
      'a place where nothing may be written',
      () => ['sweep', 'baseline', ...small, '--out', '/proc/x.fmqa'],
      /^cannot write \/proc\/x\.fmqa: /,
    ],
    [
      'a sweep file that is none',
      () => ['sweep', text('list.json', '[]')],
      /^expected a sweep for .*list\.json but received \[\]$/,
    ],
    [
      'a sweep file that is no JSON',
      () => ['sweep', text('broken.json', '{')],
      /^expected JSON for .*broken\.json but received/,
    ],
    [
      'a sweep file with an unknown axis',
      () => ['sweep', text('axis.json', '{"name":"x","axes":{"y":[1]}}')],
      /^expected one of level, .* for axis but received y$/,
    ],
    [
      'a sweep file with an unknown field',
      () => ['sweep', text('field.json', '{"name":"x","axes":{},"zap":1}')],
      /^expected the fields of a sweep for .*field\.json but received zap$/,
    ],
    [
      'a sweep file without a name',
      () => ['sweep', text('name.json', '{"axes":{"level":["baseline"]}}')],
      /^expected string for name of .*name\.json but received nothing$/,
    ],
    [
      'a sweep file with a value out of range',
      () => ['sweep', text('range.json', '{"name":"x","axes":{},"measuring":{"maxNoise":7}}')],
      /^expected number to be <=1 for measuring\.maxNoise of .*range\.json but received 7$/,
    ],
    [
      'a session that is none',
      () => ['export', text('x.fmqa', 'hello\n'), '--format', 'csv'],
      /^expected a session file \(\*\.fmqa\) for session but received .*, which is none$/,
    ],
    ['a folder as session', () => ['export', folder, '--format', 'csv'], /^cannot read .*: it is a folder$/],
    ['a command that does not exist', () => ['conquer'], /^unknown command 'conquer': --help lists the commands$/],
    [
      'an agent to forget that nobody knows',
      () => ['agents', '--forget', 'nowhere.invalid'],
      /^expected a host that `agents` lists for --forget but received nowhere\.invalid$/,
    ],
    [
      'a plan proven on a GPU that is not there',
      () => ['plan', '--model', 'byte-mha', '--prove', '1MiB', '--backend', 'cuda:0'],
      /^expected a usable backend for backend but received cuda:0: ./,
    ],
    [
      'a plan for too long a context',
      () => ['plan', '--model', 'byte-mha', '--context', '999999999999'],
      /^expected a whole number from 1 to 134217728 for --context but received 999999999999$/,
    ],
    [
      'a recommendation beyond the model',
      () => ['recommend', '--context', '100000'],
      /^expected at most 2048, the model's positions, for context but received 100000$/,
    ],
    ['export without format', () => ['export', session], /^required option '--format <format>' not specified$/],
    [
      'export to an unknown format',
      () => ['export', session, '--format', 'pdf'],
      /^expected one of csv, json, md, html, parquet for --format but received pdf$/,
    ],
    ['attend without input', () => ['attend', '--out', path('y')], /^required option '--in <file>' not specified$/],
    [
      'attend without tensors',
      () => attend(tensors('empty', { q: undefined })),
      /^expected a tensor q for .*empty but received "k", "v"$/,
    ],
    [
      'attend on no safetensors',
      () => attend(text('no.safetensors', 'hello world')),
      /^expected a safetensors file, with a header of .* for .*no\.safetensors but received one that says it has \d+$/,
    ],
    [
      'attend on a missing file',
      () => attend(path('none.safetensors')),
      /^expected a readable file for safetensors but received .*\(ENOENT\)$/,
    ],
    [
      'rank of q',
      () => attend(tensors('rank', { q: of([2, 3, 4]) })),
      /^expected \[B, H, Sq, D\] for shape of q but received \[2, 3, 4\]$/,
    ],
    [
      'head size of k',
      () => attend(tensors('dim', { k: of([1, 1, 3, 8]) })),
      /^expected \[1, G, Skv, 4\] for shape of k but received \[1, 1, 3, 8\]$/,
    ],
    [
      'length of v',
      () => attend(tensors('len', { v: of([1, 1, 9, 5]) })),
      /^expected \[1, 1, 3, Dv\] for shape of v but received \[1, 1, 9, 5\]$/,
    ],
    [
      'heads that do not divide',
      () => attend(tensors('heads', { q: of([1, 3, 3, 4]), k: of([1, 2, 3, 4]), v: of([1, 2, 3, 5]) })),
      /^expected a divisor of the 3 heads of q for heads of k but received 2$/,
    ],
    [
      'an empty dimension',
      () => attend(tensors('zero', { q: of([1, 2, 0, 4]) })),
      /^expected no empty dimension for shape of q but received \[1, 2, 0, 4\]$/,
    ],
    [
      'NaN',
      () => attend(tensors('nan', { k: of([1, 1, 3, 4], Number.NaN) })),
      /^expected finite values for k but received NaN at \[0, 0, 0, 0\]$/,
    ],
    [
      'infinity',
      () => attend(tensors('inf', { v: of([1, 1, 3, 5], Number.POSITIVE_INFINITY) })),
      /^expected finite values for v but received Infinity at/,
    ],
    [
      'half a past',
      () => attend(tensors('past', { past_k: of([1, 1, 2, 4]) })),
      /^expected past_k and past_v together for .* but received no past_v$/,
    ],
    [
      'a mask that does not fit',
      () => attend(tensors('mask', { mask: of([2, 3]) })),
      /^expected a shape that broadcasts to \[1, 2, 3, 3\] for mask but received \[2, 3\]$/,
    ],
    [
      'a mask with NaN',
      () => attend(tensors('masknan', { mask: of([3, 3], Number.NaN) })),
      /^expected finite values or minus infinity for mask but received NaN/,
    ],
    [
      'cos without sin',
      () => attend(tensors('cos', { cos: of([3, 2]) })),
      /^expected cos and sin together for .* but received no sin$/,
    ],
    [
      'too few rows of cos',
      () => attend(tensors('rows', { cos: of([2, 2]), sin: of([2, 2]) })),
      /^expected at least 3 rows for shape of cos but received 2$/,
    ],
    [
      'too wide a cos',
      () => attend(tensors('wide', { cos: of([3, 3]), sin: of([3, 3]) })),
      /^expected 1 to 2 columns for shape of cos but received 3$/,
    ],
    [
      'positions that are no whole numbers',
      () => attend(tensors('pos', { cos: of([3, 2]), sin: of([3, 2]), position_ids: of([3]) })),
      /^expected I32 or I64 for dtype of position_ids but received F32$/,
    ],
    [
      'positions without cos',
      () => attend(tensors('lost', { position_ids: of([3]) })),
      /^expected cos and sin for position_ids but received neither$/,
    ],
    [
      'softcap of nothing',
      () => attend(tensors('cap'), '--softcap', '0'),
      /^expected a number above 0 for --softcap but received 0$/,
    ],
    [
      'scale that is none',
      () => attend(tensors('scale'), '--scale', 'big'),
      /^expected a number other than 0 for --scale but received big$/,
    ],
    [
      'negative window',
      () => attend(tensors('window'), '--window-left', '-1'),
      /^expected a whole number of tokens for --window-left but received -1$/,
    ],
    [
      'unknown cache type',
      () => attend(tensors('type'), '--cache-dtype', 'int7'),
      /^expected one of f32, .* for --cache-dtype but received int7$/,
    ],
    [
      'unknown kernel',
      () => attend(tensors('kernel'), '--kernel', 'fast'),
      /^expected one of flash, naive for --kernel but received fast$/,
    ],
    [
      'attend that would replace what it reads',
      () => [...attend(tensors('same')), '--out', path('same')],
      /^expected another file than --in for --out but received .*same$/,
    ],
    [
      'attend into a folder',
      () => [...attend(tensors('folder')), '--out', folder],
      /^cannot write .*: it is a folder$/,
    ],
    [
      'attend into what is no file, and would be replaced',
      () => [...attend(tensors('pipe')), '--out', pipe('full.pipe')],
      /^cannot write .*full\.pipe: it is a device or a pipe$/,
    ],
    [
      'a file without an end',
      () => ['export', '/dev/zero', '--format', 'csv'],
      /^cannot read \/dev\/zero: it is a device$/,
    ],
    [
      'attend on a GPU',
      () => attend(tensors('gpu'), '--backend', 'cuda:0'),
      /^expected a usable backend for backend but received cuda:0: ./,
    ],
  ];

  test.each(cases)('%s', async (_, args, sentence) => {
    if (statSync(session, { throwIfNoEntry: false }) === undefined)
      await fastmqa('sweep', 'baseline', ...small, '--out', session);
    const { code, stdout, stderr } = await fastmqa(...args());
    expect(stderr.trimEnd()).toMatch(sentence);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  test('a full disk under stderr ends nothing', () => {
    const { status, stdout } = spawnSync(process.execPath, [mainScript, 'sweep', 'baseline', ...small, '--verbose'], {
      stdio: ['ignore', 'pipe', openSync('/dev/full', 'w')],
      encoding: 'utf8',
      env: { ...process.env, FASTMQA_WORKER: fakeWorker },
    });
    expect(stdout).toMatch(/^baseline /m);
    expect(status).toBe(0);
  });

  test('a sweep file that begins with the mark of Windows editors', async () => {
    writeFileSync(
      path('mark.json'),
      '\ufeff{"name":"mark","axes":{"level":["baseline"],"hiddenDim":[64],"heads":[2],"seqLen":[16]}}',
    );
    expect((await fastmqa('sweep', path('mark.json'), '--dry-run')).stdout).toMatch(/^mark: 1 points, /);
  });

  test('a full disk under stdout', async () => {
    const { status, stderr } = spawnSync(process.execPath, [mainScript, 'levels'], {
      stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 2, stderr: 'cannot write the result: the disk is full\n' });
  });
});
