import { fork } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { resolvePoint } from '../../src-main/engine/plan.ts';
import { BackendFailure, type FailureKind, type Prepared } from '../../src-main/engine/ports.ts';
import { forkWorker, type SpawnWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { takesLessThan } from '../load.ts';

const script = join(import.meta.dirname, '../fakes/misbehaving-worker.mjs');
const config = (level: string) => ({ ...resolvePoint({ hiddenDim: 64, heads: 2, seqLen: 16 }).config, level });
/** Of what must end by itself, however slowly this machine starts a process; and of what must not. */
const [enoughSeconds, overdueSeconds] = [60, 0.5];
const graceSeconds = 0.3;

let supervisor: Supervisor;
const started: number[] = [];
let ended = 0;
/** Counts the processes that were started, and those that are gone. */
const counting: SpawnWorker = (listener) => {
  started.push(started.length);
  const onEnd = (how: string): void => {
    ended += 1;
    listener.onEnd(how);
  };
  return forkWorker(script)({ ...listener, onEnd });
};
const open = (spawn: SpawnWorker = counting, seconds = graceSeconds): Supervisor => {
  started.length = 0;
  ended = 0;
  supervisor = new Supervisor({ spawn, graceSeconds: seconds });
  return supervisor;
};
afterEach(() => supervisor.close());

/** A point from beginning to end, as the engine takes it. */
async function measure(level: string, deadlineSeconds = enoughSeconds): Promise<readonly number[]> {
  const prepared = await supervisor.prepare(config(level), deadlineSeconds);
  if (level === 'double answer') await vi.waitUntil(() => ended > 0, { timeout: 120_000 }); // the second one is found out
  const first = await supervisor.sample(prepared, 0.01, 5, deadlineSeconds);
  if (level === 'exit while idle') await vi.waitUntil(() => ended > 0, { timeout: 120_000 });
  const second = await supervisor.sample(prepared, 0.01, 5, deadlineSeconds);
  await supervisor.release(prepared);
  return [...first, ...second];
}

const failureOf = async (work: Promise<unknown>): Promise<BackendFailure> => {
  const error = await work.then(
    () => expect.fail('it succeeded'),
    (cause: unknown) => cause,
  );
  expect(error).toBeInstanceOf(BackendFailure);
  return error as BackendFailure;
};

const cases: [level: string, kind: FailureKind, message: RegExp, poisoned: boolean][] = [
  ['crash', 'crashed', /^worker ended by SIGSEGV$/, true],
  ['abort', 'crashed', /^worker ended by SIGABRT/, true],
  ['throw', 'crashed', /^worker ended with exit code \d+ \(.+\)$/, true],
  ['hang', 'timeout', /^no result within 0.5 s; the worker did not stop and was killed$/, true],
  ['ignores SIGTERM', 'timeout', /was killed$/, true],
  ['silent exit', 'crashed', /^worker ended with exit code 0$/, true],
  ['half message', 'crashed', /^worker ended with exit code 0$/, true],
  ['endless message', 'timeout', /was killed$/, true],
  ['nonsense of the right length', 'failed', /^worker sent a message that cannot be understood$/, true],
  ['malformed message', 'failed', /^worker sent a message that cannot be understood$/, true],
  ['NaN samples', 'failed', /^worker answered with an impossible value in sample: a sample is no time$/, true],
  ['NaN error', 'failed', /^worker answered with an impossible value in prepare.error.relativeL2/, true],
  ['wrong id', 'failed', /^worker answered a question that was not asked$/, true],
  ['wrong generation', 'failed', /^worker answered a question that was not asked$/, true],
  ['huge delay', 'timeout', /^no result within 0.5 s$/, false],
  ['disconnect', 'crashed', /^worker hung up without ending$/, true],
  ['unknown error code', 'failed', /^an illegal memory access was encountered \(cuda-700\)$/, true],
  ['poisoned', 'failed', /^an illegal memory access was encountered \(poisoned\)$/, true],
  ['out of memory', 'out-of-memory', /^80 GiB were asked for$/, false],
  ['refused', 'refused', /^this combination is not built$/, false],
  ['failed', 'failed', /^the eigenvalues did not converge$/, false],
  ['double answer', 'crashed', /^worker answered a question that was not asked$/, true],
  ['exit while idle', 'crashed', /^worker ended with exit code 7$/, true],
];

describe('a worker that misbehaves costs one call', () => {
  test.each(cases)('%s', async (level, kind, message, poisoned) => {
    const mustLookUp = kind === 'timeout' && !poisoned;
    open(counting, mustLookUp ? enoughSeconds : graceSeconds);
    const neighbour = await supervisor.prepare(config('baseline'), enoughSeconds);
    const failure = await failureOf(measure(level, kind === 'timeout' ? overdueSeconds : enoughSeconds));
    expect(failure.message).toMatch(message);
    expect({ kind: failure.kind, poisoned: failure.poisoned }).toEqual({ kind, poisoned });

    // Nothing of a poisoned generation may be used; the rest of a sound one stays.
    const again = supervisor.sample(neighbour, 0.01, 5, enoughSeconds);
    if (poisoned) expect((await failureOf(again)).poisoned).toBe(true);
    else expect((await again).length).toBeGreaterThan(0);

    expect(await measure('baseline')).toHaveLength(10);
    const next = await supervisor.prepare(config('baseline'), enoughSeconds);
    expect(next.generation).toBe(poisoned ? 2 : 1);
    expect(started).toHaveLength(next.generation);
  });

  test('twenty crashes in a row cost twenty calls', async () => {
    open();
    for (let i = 0; i < 20; i += 1) expect((await failureOf(measure('crash'))).kind).toBe('crashed');
    expect(await measure('baseline')).toHaveLength(10);
  });
});

describe('cancel', () => {
  test('a call that looks up gives way, and the worker lives on', async () => {
    open(counting, enoughSeconds);
    await supervisor.info();
    const call = failureOf(supervisor.prepare(config('huge delay'), 60));
    await sleep(300);
    supervisor.cancel();
    expect(await call).toMatchObject({ kind: 'cancelled', poisoned: false });
    await measure('baseline');
    expect(started).toHaveLength(1);
  });

  test('a call that does not is killed after the grace time', async () => {
    open();
    const call = failureOf(supervisor.prepare(config('hang'), 60));
    await sleep(300);
    await takesLessThan(graceSeconds * 1000 + 5000, async () => {
      supervisor.cancel();
      expect(await call).toMatchObject({ kind: 'cancelled', poisoned: true });
    });
  });
});

describe('the process', () => {
  test('is started by the first call, not before', async () => {
    open();
    expect(started).toHaveLength(0);
    expect(await supervisor.info()).toEqual({
      name: 'cpu',
      threads: 2,
      instructionSet: 'scripted',
      buildFlags: 'none',
    });
    expect(started).toHaveLength(1);
  });

  test('that cannot be started is a failure in words', async () => {
    open(forkWorker('/no/such/worker.mjs'));
    expect((await failureOf(supervisor.info())).message).toMatch(/^worker ended with exit code 1/);
  });

  test('that is killed while it describes the machine is asked again, once', async () => {
    let kills = 0;
    const killed =
      (most: number): SpawnWorker =>
      (listener) => {
        const child = counting(listener);
        const send = (request: Parameters<typeof child.send>[0]): void => {
          if (kills === most) child.send(request);
          else {
            kills += 1;
            child.kill();
          }
        };
        return { ...child, send };
      };
    open(killed(1));
    expect((await supervisor.info()).instructionSet).toBe('scripted');
    expect(started).toHaveLength(2);
    await supervisor.close();
    kills = 0;
    open(killed(2));
    expect(await failureOf(supervisor.ceilings())).toMatchObject({ kind: 'crashed' });
    expect(started).toHaveLength(2);
  });

  test('is gone after close, and calls are refused', async () => {
    open();
    const prepared: Prepared = await supervisor.prepare(config('baseline'), enoughSeconds);
    const pending = failureOf(supervisor.prepare(config('hang'), 60));
    await supervisor.close();
    expect((await pending).kind).toBe('cancelled');
    expect((await failureOf(supervisor.info())).kind).toBe('cancelled');
    await supervisor.release(prepared);
  });

  test('dies with its parent, even in the middle of a call', async () => {
    supervisor = new Supervisor({ spawn: forkWorker(script) });
    const parent = fork(join(import.meta.dirname, '../fakes/parent-of-worker.mjs'), [script], { execArgv: [] });
    const worker = await new Promise<number>((resolve) => parent.once('message', (pid) => resolve(pid as number)));
    expect(isAlive(worker)).toBe(true);
    parent.kill('SIGKILL');
    await expect.poll(() => isAlive(worker)).toBe(false);
  });
});

/** A zombie counts as dead: nothing of it runs. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    const status = `/proc/${pid}/status`;
    return !(existsSync(status) && /^State:\s*Z/m.test(readFileSync(status, 'utf8')));
  } catch {
    return false;
  }
}
