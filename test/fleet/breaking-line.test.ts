/** Submitter and worker of one process, each on a line that breaks between the answers to commands sent together. */
import { expect, test } from 'vitest';
import type { Point } from '../../src-main/contract/metrics.ts';
import { defaultMeasuring, expandSweep } from '../../src-main/engine/plan.ts';
import { type Connection, connect } from '../../src-main/fleet/queue.ts';
import { startFleetRun } from '../../src-main/fleet/run.ts';
import { work } from '../../src-main/fleet/worker.ts';
import { FakeBackend, FakeClock } from '../fakes/backend.ts';
import { environment } from '../fakes/points.ts';
import { breakingLine } from './breaking-line.ts';
import { redisProgram, startRedis } from './redis.ts';

test.skipIf(!redisProgram)('200 points while both lines break again and again: every point once', async () => {
  const redis = await startRedis();
  // Past the greeting of Redis, about 6 kB, at ever other places of the answers.
  const lines = await Promise.all(
    [997, 1499].map((prime) =>
      breakingLine(
        Number(new URL(redis.url).port),
        Array.from({ length: 12 }, (_, n) => 9000 + ((n * prime) % 6000)),
      ),
    ),
  );
  const notices: string[] = [];
  const connections: Connection[] = [];
  const stop = new AbortController();
  try {
    for (const { port } of lines)
      connections.push(await connect({ url: `redis://127.0.0.1:${port}` }, (line) => notices.push(line)));
    const [ours, theirs] = connections as [Connection, Connection];
    const plan = expandSweep({
      name: 'lines',
      axes: { hiddenDim: [64], heads: [1], phase: ['decode'], seqLen: Array.from({ length: 200 }, (_, i) => 16 + i) },
    });
    const clock = new FakeClock();
    const working = work({
      connection: theirs,
      backend: new FakeBackend(clock),
      clock,
      environment,
      device: { backend: 'cpu', name: 'a device', memoryBytes: 2 ** 34 },
      version: 'x',
      leaseSeconds: 1,
      signal: stop.signal,
    });
    const recorded: Point[] = [];
    const { finished } = startFleetRun({
      connection: ours,
      version: 'x',
      plan,
      measuring: { ...defaultMeasuring, minSeconds: 0 },
      environment,
      run: 'lines',
      clock: { now: () => performance.now() / 1000 },
      record: async (point) => void recorded.push(point),
    });
    const { how } = await finished;
    stop.abort();
    await working;
    expect(how).toBe('done');
    expect(recorded.flatMap(({ outcome, reason }) => (outcome === 'measured' ? [] : reason))).toEqual([]);
    expect(recorded.map(({ id }) => id).sort()).toEqual(plan.map(({ id }) => id).sort());
    for (const { breaks } of lines) expect(breaks()).toBeGreaterThanOrEqual(5);
    expect(notices.filter((line) => line.endsWith('trying again')).length).toBeGreaterThanOrEqual(10);
  } finally {
    for (const { close } of connections) close();
    for (const { end } of lines) end();
    redis.end();
  }
});
