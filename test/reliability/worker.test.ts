/** R5 a worker that misbehaves, R6 poisoned workers, R7 hangs, R9 quarantine and pause. */
import { expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { resolveMeasuring } from '../../src-main/engine/plan.ts';
import { startRun } from '../../src-main/engine/run.ts';
import type { SpawnWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { FakeBackend, FakeClock } from '../fakes/backend.ts';
import { environment } from '../fakes/points.ts';
import { takesLessThan } from '../load.ts';
import { counted, grouped, longestTest, reached, tries } from './effort.ts';
import { childrenLeft, planOfTrouble, sweepTrouble } from './sweep-of-trouble.ts';

/** Behaviour → what its row says. A behaviour that ends in a time-out costs that time. */
const troubles: Readonly<Record<string, RegExp>> = {
  crash: /^the backend crashed: worker ended by SIGSEGV$/,
  abort: /^the backend crashed: worker ended by SIGABRT/,
  throw: /^the backend crashed: worker ended with exit code \d+ \(.+\)$/,
  'silent exit': /^the backend crashed: worker ended with exit code 0$/,
  'half message': /^the backend crashed: worker ended with exit code 0$/,
  'nonsense of the right length': /^worker sent a message that cannot be understood$/,
  'malformed message': /^worker sent a message that cannot be understood$/,
  'NaN samples': /^worker answered with an impossible value in sample/,
  'NaN error': /^worker answered with an impossible value in prepare.error.relativeL2/,
  'wrong id': /^worker answered a question that was not asked$/,
  'wrong generation': /^worker answered a question that was not asked$/,
  disconnect: /^the backend crashed: worker hung up without ending$/,
  'unknown error code': /^an illegal memory access was encountered \(cuda-700\)$/,
  poisoned: /^an illegal memory access was encountered \(poisoned\)$/,
  'out of memory': /^out of memory: 80 GiB were asked for$/,
  refused: /^this combination is not built$/,
  failed: /^the eigenvalues did not converge$/,
  'double answer': /^(the backend crashed: )?worker answered a question that was not asked$/,
  hang: /^timed out: no result within [\d.]+ s; the worker did not stop and was killed$/,
  'ignores SIGTERM': /^timed out: no result within [\d.]+ s; the worker did not stop and was killed$/,
  'endless message': /^timed out: no result within [\d.]+ s; the worker did not stop and was killed$/,
  'huge delay': /^timed out: no result within [\d.]+ s/,
};
const slow: readonly string[] = ['hang', 'ignores SIGTERM', 'endless message', 'huge delay'];
/** Long enough for a process to start on a busy machine, though even one that has not started must end as a time-out. */
const slowTimeoutSeconds = 0.3;

test.for([
  ['at once', Object.keys(troubles).filter((kind) => !slow.includes(kind))],
  ['only after its time', slow],
] as const)(
  'R5, R6: a worker that misbehaves, found out %s, costs one row and nothing else',
  { timeout: longestTest },
  async ([when, kinds], context) => {
    const each = tries(100, 100, 5);
    // Behind every bad point stands a good one, which must not suffer. Most of the time is waiting: several sweeps at once.
    const options = kinds === slow ? { timeoutSeconds: slowTimeoutSeconds } : {};
    let waiting: string[] = [];
    const lane = async (): Promise<void> => {
      for (let kind = waiting.shift(); kind !== undefined; kind = waiting.shift()) {
        const behaviours = Array.from({ length: each }, () => [kind as string, '']).flat();
        const { rows, sticky, how } = await sweepTrouble({ behaviours, ...options });
        expect({ kind, how, rows: rows.length, sticky }).toEqual({ kind, how: 'done', rows: each * 2, sticky: [] });
        for (const [i, { outcome, reason }] of rows.entries()) {
          const isBad = i % 2 === 0;
          if (isBad) expect({ kind, outcome }).toEqual({ kind, outcome: kind === 'refused' ? 'skipped' : 'failed' });
          if (isBad) expect(reason).toMatch(troubles[kind]);
          else if (outcome !== 'measured' && kinds === slow)
            expect(reason).toMatch(/^timed out/); // a machine that is slower still
          else expect(outcome, `after ${kind}: ${reason}`).toBe('measured');
        }
      }
    };
    let tried = 0;
    for (const _ of counted(tries(1, 10, 1))) {
      waiting = [...kinds];
      await Promise.all([lane(), lane(), lane(), lane()]);
      tried += each;
    }
    await expect.poll(childrenLeft).toEqual([]);
    const failures = grouped(kinds.length * tried);
    reached(
      context,
      `R5  misbehaving worker, found out ${when}: ${kinds.length} kinds x ${tried}: ${failures} rows failed, every sweep finished`,
    );
    reached(context, `R6  rows from a worker found faulty, found out ${when}: 0 of ${failures}`);
  },
);

test('R7: a process that cannot be killed costs its device, and the program lives on', async (context) => {
  let end = (): void => undefined;
  let spawned = 0;
  /** Hangs in the kernel: takes every question, answers none, and outlives its kill. */
  const spawn: SpawnWorker = ({ onEnd }) => {
    spawned += 1;
    end = () => onEnd('worker ended at last');
    return { send: () => undefined, kill: () => undefined };
  };
  const supervisor = new Supervisor({ spawn, graceSeconds: 0.05, endSeconds: 0.1 });
  const [{ config }] = planOfTrouble(['hang']);
  await expect(supervisor.prepare(config, 0.05)).rejects.toMatchObject({ kind: 'timeout', poisoned: true });
  await new Promise((resolve) => setTimeout(resolve, 150));
  for (let i = 0; i < 3; i += 1)
    await expect(supervisor.info()).rejects.toThrow(/^the device is lost: a worker did not end when it was killed/);
  expect(spawned).toBe(1);
  end();
  await expect(supervisor.prepare(config, 0.05)).rejects.toMatchObject({ kind: 'timeout' });
  expect(spawned).toBe(2);
  await takesLessThan(4000, () => supervisor.close());
  reached(
    context,
    'R7  hang: killed at deadline + grace; unkillable: device lost until the process is gone, program ends all the same',
  );
});

test('R7: the grace time of the product is five seconds', async () => {
  const supervisor = new Supervisor({ spawn: () => ({ send: () => undefined, kill: () => undefined }) });
  const [{ config }] = planOfTrouble(['hang']);
  await takesLessThan(15_000, async () => {
    const since = performance.now();
    await expect(supervisor.prepare(config, 0.1)).rejects.toThrow(/did not stop and was killed$/);
    expect((performance.now() - since) / 1000).toBeGreaterThan(5.05);
  });
  await supervisor.close();
});

test('R9: a point that crashed is not tried again, not even by a later run', async (context) => {
  const { rows, processes } = await sweepTrouble({ behaviours: ['crash', ''] });
  expect(rows.map(({ outcome }) => outcome)).toEqual(['failed', 'measured']);
  expect(processes).toBe(2);
  const clock = new FakeClock();
  const backend = new FakeBackend(clock);
  const recorded: Point[] = [];
  const again = startRun({
    plan: planOfTrouble(['crash', '']),
    backend,
    clock,
    measuring: resolveMeasuring({ name: 'x', axes: {} }),
    environment,
    record: async (point) => void recorded.push(point),
    done: new Map(rows.map((row) => [row.id, row])),
  });
  expect((await again.finished).points).toEqual(rows);
  expect({ calls: backend.calls, recorded }).toEqual({ calls: [], recorded: [] });
  reached(context, 'R9  a point that crashed once is quarantined: 0 further tries');
});

test('R9: five points that crash in a row pause the sweep, with the reason; four do not', async (context) => {
  const crashes = (count: number) => Array.from({ length: count }, () => 'crash');
  const pauses = async (behaviours: readonly string[]) =>
    (await sweepTrouble({ behaviours })).events.flatMap((event) => (event.type === 'paused' ? [event.reason] : []));
  expect(await pauses([...crashes(4), '', ...crashes(4)])).toEqual([]);
  expect(await pauses([...crashes(5), ''])).toEqual([
    '5 points in a row crashed the backend, the last with: worker ended by SIGSEGV',
  ]);
  reached(context, 'R9  five crashes in a row: paused with the reason; four and a good one: not');
});
