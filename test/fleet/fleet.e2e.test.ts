/** Real workers, a real Redis, and points that take time without computing. */
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { defaultMeasuring, expandSweep } from '../../src-main/engine/plan.ts';
import { connect, versionOf } from '../../src-main/fleet/queue.ts';
import { startFleetRun } from '../../src-main/fleet/run.ts';
import { kernelsFingerprint } from '../../src-main/hosts/environment.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { environment as machine } from '../fakes/points.ts';
import { type CliRun, fakeWorker, startCli } from '../hosts/run-cli.ts';
import { hasTls, type RedisServer, redisProgram, startRedis, startTlsRedis } from './redis.ts';

const why = redisProgram ? '' : ' (skipped: neither redis-server nor valkey-server is installed)';

describe.skipIf(!redisProgram)(`fleet${why}`, () => {
  let redis: RedisServer;
  let folder: string;
  let fleet: CliRun[];

  beforeAll(async () => {
    redis = await startRedis('a password');
  });
  afterAll(() => redis.end());
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fastmqa-fleet-'));
    fleet = [];
  });
  afterEach(async () => {
    for (const { child } of fleet) child.kill('SIGKILL');
    await Promise.all(fleet.map(({ ended }) => ended));
    rmSync(folder, { recursive: true, force: true });
  });

  const shape = { hiddenDim: [64], heads: [1], headDim: [64] };
  const environment = { FASTMQA_WORKER: fakeWorker, FASTMQA_QUEUE_PASSWORD: 'a password' };
  const cli = (args: readonly string[], more: Readonly<Record<string, string>> = {}): CliRun =>
    startCli([...args, '--queue', redis.url], { ...environment, ...more });

  async function hire(count: number, more?: Readonly<Record<string, string>>): Promise<CliRun[]> {
    const hired = Array.from({ length: count }, () => cli(['worker', '--lease', '3'], more));
    fleet.push(...hired);
    await Promise.all(hired.map(({ heard }) => heard(/ready/)));
    return hired;
  }

  /** Decoding of `count` lengths; every point asks for three calls of a fifth of `--min-time` each, at most 20 ms unless told. */
  const sweep = (count: number, minTime: number): string[] => {
    const file = join(folder, `${count}.json`);
    const axes = { level: ['baseline'], phase: ['decode'], seqLen: Array.from({ length: count }, (_, i) => 16 + i) };
    writeFileSync(file, JSON.stringify({ name: 'fleet', axes: { ...shape, ...axes } }));
    return ['sweep', file, '--min-time', String(minTime), '--out', join(folder, `${count}.fmqa`)];
  };

  /** Ids of the points in a session, each line counted. */
  const recorded = (file: string): string[] => {
    const path = join(folder, file);
    if (!existsSync(path)) return [];
    return readFileSync(path, 'utf8')
      .split('\n')
      .flatMap((line) => /"point":\{"id":"([^"]+)"/.exec(line)?.[1] ?? []);
  };

  test('2,000 points over 4 workers, of which some are killed while Redis crashes: each point is in the session, once', async () => {
    await hire(4);
    const submitted = cli(sweep(2000, 0));
    let kills = 0;
    const harm = (async () => {
      while (recorded('2000.fmqa').length < 100) await sleep(50);
      for (let round = 0; round < 4; round++) {
        fleet[round]?.child.kill('SIGKILL');
        kills += 1;
        if (round === 1 || round === 2) await redis.crash();
        await hire(1);
      }
    })();
    const { code, stderr } = await submitted.ended;
    await harm;
    const ids = recorded('2000.fmqa');
    expect(ids.length, `exit code ${code}; ${stderr}`).toBe(2000);
    expect(new Set(ids).size).toBe(2000);
    const { points } = await readSession(join(folder, '2000.fmqa'));
    expect([...points.values()].flatMap(({ outcome, reason }) => (outcome === 'measured' ? [] : reason))).toEqual([]);
    expect(stderr).toMatch(/out of reach/);
    expect({ code, kills }).toEqual({ code: 0, kills: 4 });
    expect([...points.values()][0]?.device).toMatchObject({ instructionSet: 'scripted', fmaFlopsPerSecond: 1e11 });
    // Jobs that were done are gone; at most those of the killed wait for their leases to end.
    const { redis: queue, close } = await connect({ url: redis.url, password: 'a password' }, () => undefined);
    const lists = await queue.keys('fastmqa:*:active');
    const left = await Promise.all(lists.map((list) => queue.llen(list)));
    close();
    expect(left.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(kills);
  });

  test('four workers do the work of four', async () => {
    const connection = await connect({ url: redis.url, password: 'a password' }, () => undefined);
    await connection.redis.flushall(); // jobs of workers that were killed would come back
    const gathering = join(folder, 'gathering');
    mkdirSync(gathering);
    // No point ends before four are being measured: sixteen end only if each worker has one of every four.
    await hire(4, { FASTMQA_FAKE_GATHERS: '4', FASTMQA_FAKE_GATHERING: gathering });
    const axes = { phase: ['decode'], seqLen: Array.from({ length: 16 }, (_, i) => 16 + i) };
    const { finished } = startFleetRun({
      connection,
      plan: expandSweep({ name: 'sharing', axes: { ...shape, ...axes } }),
      environment: machine,
      version: versionOf(kernelsFingerprint()),
      measuring: { ...defaultMeasuring, minSeconds: 0 },
      run: 'sharing',
      clock: { now: () => performance.now() / 1000 },
      record: async () => undefined,
    });
    const { points } = await finished;
    connection.close();
    expect(points.map(({ outcome, reason }) => reason ?? outcome)).toEqual(points.map(() => 'measured'));
    const measuredBy = readdirSync(gathering).map((arrival) => readlinkSync(join(gathering, arrival)));
    expect(measuredBy).toHaveLength(16);
    expect(new Set(measuredBy).size).toBe(4);
  });

  test('a point that takes its worker down is quarantined, and the others are measured', async () => {
    const file = join(folder, 'poison.json');
    const axes = { level: ['baseline', 'near-lossless'], phase: ['decode'], seqLen: [16, 17, 18] };
    writeFileSync(file, JSON.stringify({ name: 'poison', axes: { ...shape, ...axes } }));
    const script = join(folder, 'poisoned-worker.mjs');
    const honest = readFileSync(fakeWorker, 'utf8');
    writeFileSync(
      script,
      honest
        .replace(
          "config?.level ?? ''",
          "(config?.level === 'near-lossless' && config.seqLen === 17 ? 'kills its host' : '')",
        )
        // It stands elsewhere than the script it was made from.
        .replace(/'(\.\.?\/[^']+)'/g, (_, path: string) => `'${new URL(path, pathToFileURL(fakeWorker))}'`),
    );
    await hire(1, { FASTMQA_WORKER: script });
    const submitted = cli(['sweep', file, '--min-time', '0', '--format', 'json']);
    let hired = 1;
    let over = false;
    void submitted.ended.then(() => {
      over = true;
    });
    while (!over) {
      await sleep(100);
      if (fleet.at(-1)?.child.signalCode === null) continue;
      await hire(1, { FASTMQA_WORKER: script });
      hired += 1;
    }
    const { code, stdout } = await submitted.ended;
    const { points } = JSON.parse(stdout) as { points: { outcome: string; reason?: string }[] };
    expect(points.filter(({ outcome }) => outcome === 'measured')).toHaveLength(5);
    expect(points.flatMap(({ reason }) => reason ?? [])).toEqual(['quarantined: every worker that took it was lost']);
    expect({ code, hired }).toEqual({ code: 1, hired: 4 });
  });

  test('an interrupted sweep is taken up again: what the fleet measured meanwhile is not measured again', async () => {
    await hire(1);
    const args = sweep(60, 0.1);
    const first = cli(args);
    while (recorded('60.fmqa').length < 5) await sleep(50);
    first.child.kill('SIGKILL');
    await first.ended;
    const before = recorded('60.fmqa').length;
    await sleep(1000);
    const { code, stdout } = await cli([...args, '--resume', '--format', 'json']).ended;
    expect(code).toBe(0);
    expect((JSON.parse(stdout) as { points: unknown[] }).points).toHaveLength(60);
    expect(new Set(recorded('60.fmqa')).size).toBe(60);
    expect(recorded('60.fmqa')).toHaveLength(60);
    expect(before).toBeLessThan(60);
  });

  test('workers with other kernels are refused, by name', async () => {
    const { Redis } = await import('ioredis');
    const connection = new Redis(redis.url, { password: 'a password' });
    const host = {
      id: 'x',
      version: '1-other',
      host: 'x',
      device: 'x',
      backend: 'cpu',
      memoryBytes: 1,
      queues: [],
      startedAt: '',
      done: 0,
      pointsPerMinute: 0,
    };
    for (const key of await connection.keys('fastmqa:host:*')) await connection.del(key);
    await connection.set('fastmqa:host:x', JSON.stringify(host), 'EX', 600); // longer than any machine takes to look
    const { code, stderr } = await cli(sweep(1, 0)).ended;
    await connection.del('fastmqa:host:x');
    connection.disconnect();
    expect(stderr).toMatch(
      /^refused: no worker of the queue has the kernels of this program \(.*\); theirs: 1-other$/m,
    );
    expect(code).toBe(2);
  });

  test('the password is in no argument, no log and no session; without it nobody gets in', async () => {
    const [worker] = (await hire(1)) as [CliRun];
    const arguments_ = readFileSync(`/proc/${worker.child.pid}/cmdline`, 'utf8');
    await cli(sweep(3, 0)).ended;
    worker.child.kill('SIGINT');
    const { stdout, stderr } = await worker.ended;
    const written = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'));
    for (const text of [arguments_, stdout, stderr, ...written]) expect(text).not.toContain('a password');
    const refused = await cli(['fleet'], { FASTMQA_QUEUE_PASSWORD: 'wrong' }).ended;
    expect(refused.stderr).toMatch(/^the queue at .* cannot be reached: .*(WRONGPASS|invalid username-password)/);
    expect(refused.code).toBe(2);
  });
});

test.skipIf(!hasTls)('rediss: reaches a queue over TLS, if its authority is trusted', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'fastmqa-tls-'));
  const redis = await startTlsRedis(folder);
  try {
    const ask = (trust: Readonly<Record<string, string>>) =>
      startCli(['fleet', '--queue', redis.url], { FASTMQA_QUEUE_PASSWORD: 'a password', ...trust }).ended;
    const trusted = await ask({ NODE_EXTRA_CA_CERTS: join(folder, 'ca.pem') });
    expect(trusted).toMatchObject({ code: 0, stdout: 'no worker is at work for this queue\nno point waits\n' });
    const foreign = await ask({});
    expect(foreign.stderr).toMatch(/^the queue at rediss:.* cannot be reached: .*certificate/);
    expect(foreign.code).toBe(2);
  } finally {
    redis.end();
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a server that takes the call and says nothing is one sentence, with the reason', async () => {
  const silent = createServer().listen(0, '127.0.0.1');
  try {
    await once(silent, 'listening');
    const { port } = silent.address() as AddressInfo;
    expect(await startCli(['fleet', '--queue', `redis://127.0.0.1:${port}`]).ended).toEqual({
      code: 2,
      stdout: '',
      stderr: `the queue at redis://127.0.0.1:${port} cannot be reached: no answer within 5 s\n`,
    });
  } finally {
    silent.close();
  }
});

test.each([
  ['http://x', /^expected redis:\/\/HOST or rediss:\/\/HOST for --queue but received http:\/\/x$/],
  ['redis://user:secret@x', /holds a password, which others can read there: set FASTMQA_QUEUE_PASSWORD instead$/],
  ['redis://127.0.0.1:1', /^the queue at redis:\/\/127\.0\.0\.1:1 cannot be reached: connect ECONNREFUSED/],
])('a queue that cannot be used is one sentence: %s', async (queue, sentence) => {
  const { code, stderr } = await startCli(['fleet', '--queue', queue], {}).ended;
  expect(stderr.trim()).toMatch(sentence);
  expect(stderr).not.toContain('secret');
  expect(code).toBe(2);
});
