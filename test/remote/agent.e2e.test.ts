/** Real ssh, a real sshd on the loopback, a real agent; points sleep instead of computing. */
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync as readlink,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { createProfiler } from '../../src-main/hosts/compose.ts';
import { createWindowHost } from '../../src-main/hosts/window-host.ts';
import { readSession } from '../../src-main/sessions/recovery.ts';
import { type CliRun, fakeWorker, mainScript, startCli } from '../hosts/run-cli.ts';
import { type SshServer, sshdProgram, startSshd } from './sshd.ts';

const why = sshdProgram ? '' : ' (skipped: sshd is not installed)';

describe.skipIf(!sshdProgram)(`remote agent${why}`, () => {
  let server: SshServer;
  /** Data of the server, and of the desk. */
  let there: string;
  let here: string;

  beforeAll(async () => {
    server = await startSshd(mkdtempSync(join(tmpdir(), 'fastmqa-sshd-')));
    there = mkdtempSync(join(tmpdir(), 'fastmqa-there-'));
    here = mkdtempSync(join(tmpdir(), 'fastmqa-here-'));
    allow(Number.POSITIVE_INFINITY);
  });
  afterAll(async () => {
    endAgent('SIGKILL');
    server.end();
    for (const folder of [there, here]) rmSync(folder, { recursive: true, force: true });
  });

  const shortest = 16;
  const leash = (): string => join(there, 'leash');
  /** How many points of a sweep the server may measure so far. */
  const allow = (points: number): void => {
    writeFileSync(`${leash()}.new`, String(shortest + points - 1));
    renameSync(`${leash()}.new`, leash()); // nobody reads half of it
  };
  const command = (): string =>
    `echo a login script that talks; env FASTMQA_HOME=${there} FASTMQA_WORKER=${fakeWorker} FASTMQA_FAKE_SECONDS=0.15 FASTMQA_FAKE_LEASH=${leash()} ${process.execPath} ${mainScript}`;
  /** Everything started, so that a test that fails leaves nothing at work. */
  let runs: CliRun[] = [];
  const cli = (args: readonly string[]): CliRun => {
    const run = startCli(args, {
      FASTMQA_HOME: here,
      FASTMQA_SSH_CONFIG: server.config,
      FASTMQA_WORKER: '/nonexistent',
    });
    runs.push(run);
    return run;
  };
  afterEach(async () => {
    allow(Number.POSITIVE_INFINITY);
    for (const { child } of runs) child.kill('SIGKILL');
    await Promise.all(runs.map(({ ended }) => ended));
    runs = [];
  });
  const sweep = (count: number, more: readonly string[] = []): string[] => {
    const file = join(here, `${count}.json`);
    const axes = {
      hiddenDim: [64],
      heads: [1],
      phase: ['decode'],
      seqLen: Array.from({ length: count }, (_, i) => shortest + i),
    };
    writeFileSync(file, JSON.stringify({ name: `remote ${count}`, axes }));
    const remote = ['--remote', 'server', '--remote-command', command()];
    return ['sweep', file, '--min-time', '0.1', ...remote, '--out', join(here, `${count}.fmqa`), ...more];
  };
  const recorded = (count: number): string[] => {
    const path = join(here, `${count}.fmqa`);
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    return text.split('\n').flatMap((line) => /"point":\{"id":"([^"]+)"/.exec(line)?.[1] ?? []);
  };
  const kept = (): string[] => readdirSync(join(there, 'agent')).filter((file) => file.endsWith('.fmqa'));
  const agentPid = (): number | undefined => {
    const lock = join(there, 'agent/agent.lock');
    return existsSync(lock) ? Number.parseInt(readFileSync(lock, 'utf8'), 10) : undefined;
  };
  const endAgent = (signal: NodeJS.Signals): void => {
    const pid = agentPid();
    if (pid !== undefined) process.kill(pid, signal);
  };
  const childrenOf = (pid: number | undefined): number[] =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  const isSsh = (pid: number): boolean => {
    try {
      return readFileSync(`/proc/${pid}/comm`, 'utf8') === 'ssh\n';
    } catch {
      return false; // it ended while we looked
    }
  };

  test('a connection that drops ten times in mid-sweep, and an agent that is killed: every point once', async () => {
    allow(0);
    const run = cli(sweep(60));
    const running = <T>(value: T): T => {
      expect(run.child.exitCode).toBeNull();
      return value;
    };
    const dropped = new Set<number>();
    const line = () => childrenOf(run.child.pid).find((pid) => isSsh(pid) && !dropped.has(pid));
    for (let drops = 0; drops < 10; drops += 1) {
      // So that some are left for the last drop, however long this machine takes to come to it.
      const before = recorded(60).length;
      allow(5 * (drops + 1));
      while (running(recorded(60).length) < before + 3) await sleep(20);
      let ssh = line();
      for (; running(ssh) === undefined; ssh = line()) await sleep(20);
      dropped.add(ssh as number);
      process.kill(ssh as number, 'SIGKILL'); // before its agent, without which it ends by itself
      if (drops === 5) endAgent('SIGKILL');
    }
    allow(Number.POSITIVE_INFINITY);
    const { code, stdout, stderr } = await run.ended;
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const ids = recorded(60);
    expect(ids).toHaveLength(60);
    expect(new Set(ids).size).toBe(60);
    expect(stdout).toContain('ceilings measured now: 100 GFLOP/s');
    const { points, header, how } = await readSession(join(here, '60.fmqa'));
    const outcomes = [...points.values()].map(({ outcome, device }) => `${outcome} ${device?.fmaFlopsPerSecond}`);
    expect(new Set(outcomes)).toEqual(new Set(['measured 100000000000']));
    expect({ how, instructionSet: header.environment.instructionSet }).toEqual({
      how: 'done',
      instructionSet: 'scripted',
    });
    expect(kept()).toEqual([]); // acknowledged, and forgotten there
  });

  test('the desk is killed: the agent goes on alone, and --resume collects what it measured', async () => {
    const first = cli(sweep(30));
    while (recorded(30).length < 3) await sleep(20);
    first.child.kill('SIGKILL');
    await first.ended;
    const before = recorded(30).length;
    expect(kept()).toHaveLength(1);
    const listed = JSON.parse((await cli(['agents', '--format', 'json']).ended).stdout);
    expect(listed).toMatchObject([
      {
        host: 'server',
        reachable: true,
        fits: true,
        runs: [{ name: 'remote 30' }],
        devices: [{ backend: 'cpu', usable: true }, {}],
      },
    ]);
    const { code } = await cli(sweep(30, ['--resume'])).ended;
    expect({ code, isMore: before < 30 }).toEqual({ code: 0, isMore: true });
    expect(recorded(30)).toHaveLength(30);
    expect(new Set(recorded(30)).size).toBe(30);
    expect(kept()).toEqual([]);
  });

  test('Ctrl+C lets the point at hand finish there; --resume measures the rest', async () => {
    const first = cli(sweep(25));
    while (recorded(25).length < 3) await sleep(20);
    first.child.kill('SIGINT');
    const stopped = await first.ended;
    expect(stopped.code).toBe(130);
    expect(kept()).toEqual([]);
    const before = recorded(25).length;
    expect(before).toBeLessThan(25);
    expect((await cli(sweep(25, ['--resume'])).ended).code).toBe(0);
    expect(new Set(recorded(25)).size).toBe(25);
    expect(recorded(25)).toHaveLength(25);
  });

  test('a window sends a sweep to a server that was reached before, and nowhere else; what it left there it collects', async () => {
    expect((await cli(['agents', 'server', '--remote-command', command()]).ended).code).toBe(0);
    vi.stubEnv('FASTMQA_HOME', here);
    vi.stubEnv('FASTMQA_SSH_CONFIG', server.config);
    const folder = join(here, 'sessions');
    const profiler = createProfiler({ workerScript: '/nonexistent' });
    const open = () => createWindowHost({ profiler, folder });
    const place = { kind: 'agent', host: 'server' } as const;
    const axes = {
      hiddenDim: [64],
      heads: [1],
      phase: ['decode'],
      seqLen: Array.from({ length: 30 }, (_, i) => 16 + i),
    };
    const small = { name: 'from a window', axes, measuring: { minSeconds: 0.1 } };
    const first = open();
    await expect(first.api.startRun({ sweep: small, place: { ...place, host: 'stranger' } })).rejects.toThrow(
      'no agent is known as stranger',
    );
    expect((await first.api.places({})).agents).toContain('server');
    const { id } = await first.api.startRun({ sweep: small, place });
    await expect.poll(() => first.hub.snapshot().done).toBeGreaterThan(0);
    await first.close(); // the window is shut: the server goes on
    expect(kept()).toHaveLength(1);
    const second = open();
    await second.api.continueSession({ id, place });
    await expect.poll(() => second.hub.snapshot().how).toBe('done');
    const { points, environment } = second.hub.snapshot();
    expect(points.map(({ device }) => device?.instructionSet)).toEqual(Array.from({ length: 30 }, () => 'scripted'));
    expect(environment?.instructionSet).toBe('scripted');
    await second.close();
    await profiler.close();
    expect(kept()).toEqual([]);
    vi.unstubAllEnvs();
  });

  test('only the user gets to the agent, and no secret is anywhere', async () => {
    expect((await cli(['agents', 'server', '--remote-command', command()]).ended).code).toBe(0);
    expect(statSync(join(there, 'agent')).mode & 0o777).toBe(0o700);
    expect(statSync(join(there, 'agent/agent.sock')).mode & 0o777).toBe(0o600);
    expect(statSync(join(there, 'agent/agent.log')).mode & 0o777).toBe(0o600);
    const pid = agentPid();
    const ports = readFileSync(`/proc/${pid}/net/tcp`, 'utf8');
    const inodes = new Set(
      readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
        try {
          return /socket:\[(\d+)\]/.exec(readlink(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
        } catch {
          return [];
        }
      }),
    );
    const listening = ports.split('\n').filter((line) => inodes.has(line.trim().split(/\s+/)[9] ?? ''));
    expect(listening).toEqual([]); // no port is opened
    expect(existsSync(join(here, 'agents.json'))).toBe(true);
  });

  test.each([
    ['stranger', /^no agent can be reached at stranger: ssh ended with exit code 255 \(.*Host key verification failed/],
    ['-oProxyCommand=x', /unknown option|^expected HOST or USER@HOST/],
    ['a b', /^expected HOST or USER@HOST, as ssh knows it, for --remote but received a b$/],
  ])('a server that cannot be trusted or named is one sentence: %s', async (host, sentence) => {
    const { code, stderr } = await cli(['sweep', 'quick', '--remote', host]).ended;
    expect(stderr.trim()).toMatch(sentence);
    expect(code).toBe(2);
  });

  test('a server without FastMQA is one sentence', async () => {
    const { code, stderr } = await cli(['sweep', 'quick', '--remote', 'server', '--remote-command', 'nonesuch']).ended;
    expect(stderr).toMatch(/^no agent can be reached at server: ssh ended with exit code 127 \(.*nonesuch.*not found/);
    expect(code).toBe(2);
  });
});
