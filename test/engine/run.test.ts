import { describe, expect, it } from 'vitest';
import type { RunEvent } from '../../src-main/contract/api.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Measuring } from '../../src-main/contract/sweep.ts';
import { measuredPoint } from '../../src-main/engine/measure.ts';
import { defaultMeasuring, expandSweep, type PlannedPoint } from '../../src-main/engine/plan.ts';
import { BackendFailure } from '../../src-main/engine/ports.ts';
import { startRun } from '../../src-main/engine/run.ts';
import { FakeBackend, FakeClock, type Script } from '../fakes/backend.ts';
import { environment, planOf } from '../fakes/points.ts';

interface Setup {
  readonly plan?: readonly PlannedPoint[];
  readonly scripts?: Record<string, Script>;
  readonly measuring?: Partial<Measuring>;
  readonly done?: ReadonlyMap<string, Point>;
  readonly record?: (point: Point) => Promise<void>;
}

const four = ['baseline', 'near-lossless', 'four-bit', 'balanced'];

function setUp({ plan = planOf(...four), scripts = {}, measuring = {}, done, record }: Setup = {}) {
  const clock = new FakeClock();
  const backend = new FakeBackend(clock, (config) => scripts[config.level] ?? {});
  const events: RunEvent[] = [];
  const recorded: Point[] = [];
  const start = () =>
    startRun({
      plan,
      backend,
      clock,
      environment,
      measuring: { ...defaultMeasuring, ...measuring },
      ...(done && { done }),
      record: record ?? (async (point) => void recorded.push(point)),
      onEvent: (event) => events.push(event),
    });
  return { clock, backend, events, recorded, start };
}

const outcomes = (points: readonly Point[]): string[] => points.map((p) => `${p.config.level} ${p.outcome}`);
const tick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

describe('a run', () => {
  it('fills memory where a point asks how much it holds, without a sample', async () => {
    const { backend, recorded, start } = setUp({
      plan: expandSweep({ name: 'x', axes: { phase: ['capacity'], level: ['baseline', 'four-bit', 'balanced'] } }),
    });
    const held = {
      ...{ limitBytes: 1000, reservedBytes: 0, plannedSequences: 10, reachedSequences: 9 },
      ...{ allocatedBytes: 990, plannedBytes: 900 },
    };
    const asked: string[] = [];
    Object.assign(backend, {
      capacity: async ({ level }: { level: string }) => {
        asked.push(level);
        if (level === 'four-bit') throw new BackendFailure('refused', 'not of this model', false);
        return held;
      },
    });
    const { points } = await start().finished;
    expect(asked).toEqual(['baseline', 'four-bit', 'balanced']);
    expect(outcomes(points)).toEqual(['baseline measured', 'four-bit skipped', 'balanced measured']);
    expect(points[0]).toMatchObject({ capacity: held });
    expect(points[1]?.reason).toBe('not of this model');
    expect(points[0]?.throughput).toBeUndefined();
    expect(recorded).toEqual(points);
    expect(backend.calls).toEqual([]);
  });

  it('keeps the time limit of steps so short that a sample is the mean of many', async () => {
    const { clock, start } = setUp({
      plan: planOf('baseline'),
      scripts: { baseline: { prepareSeconds: 0, step: (n) => 2 ** -15 * (1 + (n % 2)), stepsPerSample: 8 } }, // never quiet
      measuring: { minSeconds: 0.0625, maxSeconds: 0.125 },
    });
    const { points } = await start().finished;
    expect(points[0]).toMatchObject({ outcome: 'measured', throughput: { flags: ['noisy'] } });
    expect(clock.seconds).toBeLessThan(0.175); // warm-up, the limit, and what a round goes beyond it
  });

  it('prepares neighbours, warms up, samples in turn, and tells each row after recording it', async () => {
    const { backend, events, recorded, start } = setUp();
    const { points, how } = await start().finished;
    expect(how).toBe('done');
    expect(outcomes(points)).toEqual(four.map((level) => `${level} measured`));
    expect(recorded).toEqual(points);
    const rounds = 1 + 5; // one to warm up, then five of 0.1 s
    const round = (verb: string): string[] => four.map((level) => `${verb} ${level}`);
    expect(backend.calls.filter((call) => !call.startsWith('release'))).toEqual([
      ...round('prepare'),
      ...Array.from({ length: rounds }, () => round('sample')).flat(),
    ]);
    expect(backend.live.size).toBe(0);
    expect(points[0].samplesSeconds).toHaveLength(5 * 7);
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, i) => i + 1));
    expect(events[0]).toMatchObject({ type: 'started', total: 4, done: 0 });
    expect(events.at(-1)).toMatchObject({ type: 'ended', how: 'done' });
    const rows = events.filter((event) => event.type === 'point');
    expect(rows.map(({ done }) => done)).toEqual([1, 2, 3, 4]);
    expect(rows.at(-1)?.etaSeconds).toBe(0);
  });

  it('discards the warm-up', async () => {
    const { start } = setUp({
      plan: planOf('baseline'),
      scripts: { baseline: { step: (n) => (n < 5 ? 0.02 : 0.01) } },
    });
    const { points } = await start().finished;
    expect(Math.max(...(points[0].samplesSeconds ?? []))).toBe(0.01);
  });

  it('measures different layers apart and at most four points together', async () => {
    const plan = expandSweep({ name: 'test', axes: { seqLen: [64, 128], level: [...four, 'conservative'] } });
    const { backend, start } = setUp({ plan });
    let most = 0;
    backend.onSample = () => {
      most = Math.max(most, backend.live.size);
      expect(new Set([...backend.live.values()].map(({ config }) => config.seqLen)).size).toBe(1);
    };
    const { points } = await start().finished;
    expect(most).toBe(4);
    expect(points.map(({ id }) => id)).toEqual(plan.map(({ id }) => id));
    // The first row of a long run waits for one neighbour only.
    expect(backend.calls.findIndex((call) => call.startsWith('sample'))).toBe(2);
  });

  it('derives the figures of a point from what the backend counted', async () => {
    const { start } = setUp({ plan: planOf('near-lossless') });
    const [point] = (await start().finished).points;
    const mha = 512 * 2 * 16 * 64 * 4;
    expect(point.memory).toMatchObject({ multiplierVsF32Mha: mha / 1100, multiplierVsOwn16Bit: mha / 2 / 1100 });
    expect(point.memory?.bytesPerToken).toBe(1100 / 512);
    expect(point.memory).not.toHaveProperty('cachedTokens');
    expect(point.memory?.differenceExplained).toBe(
      '512 cached tokens take 1,100 B (payload 900 B, scales 100 B, unused room in pages 100 B), ' +
        '100 B above the formula: unused room in pages.',
    );
    expect(point.throughput).toMatchObject({
      medianSeconds: 1 / 64,
      tokensPerSecond: 64,
      rooflineFraction: 0.064,
      flags: [],
    });
    expect(point.error?.grade).toBe('near-lossless');
  });

  it('makes no row of contradicting bytes or of NaN', async () => {
    const { start } = setUp({
      plan: planOf('baseline', 'four-bit'),
      scripts: { baseline: { allocatedBytes: 1200 }, 'four-bit': { relativeL2: Number.NaN } },
    });
    const { points } = await start().finished;
    expect(points.map(({ reason }) => reason)).toEqual([
      'the backend allocated 1200 B of cache but accounts for 1100 B',
      'the backend returned a figure that is not finite or not plausible: error.relativeL2',
    ]);
    const [planned] = planOf('baseline');
    const prepared = await new FakeBackend(new FakeClock()).prepare(planned.config, 9);
    expect(measuredPoint(planned, prepared, [0, 0, 0], defaultMeasuring).outcome).toBe('failed');
  });

  it('records impossible points as skipped, in their place', async () => {
    const plan = expandSweep({ name: 'test', axes: { kvHeads: [16, 3, 8] } });
    const { start, backend } = setUp({ plan });
    const { points } = await start().finished;
    expect(points.map(({ outcome }) => outcome)).toEqual(['measured', 'skipped', 'measured']);
    expect(backend.calls.filter((call) => call.startsWith('prepare'))).toHaveLength(2);
  });
});

describe('failures', () => {
  it.each([
    ['crashed', 'failed', 'the backend crashed: scripted crashed'],
    ['timeout', 'failed', 'timed out: scripted timeout'],
    ['out-of-memory', 'failed', 'out of memory: scripted out-of-memory'],
    ['refused', 'skipped', 'scripted refused'],
    ['failed', 'failed', 'scripted failed'],
    ['cancelled', 'failed', 'scripted cancelled'],
  ] as const)('%s while preparing or sampling costs one row', async (kind, outcome, reason) => {
    for (const script of [{ failPrepare: kind }, { failSample: [3, kind] }] as Script[]) {
      // An out-of-memory beside others is tried once more alone, where the script fails only in preparation.
      if (kind === 'out-of-memory' && script.failSample) continue;
      const { backend, start, recorded } = setUp({ scripts: { 'near-lossless': script } });
      const { points, how } = await start().finished;
      expect(how).toBe('done');
      expect(outcomes(points)).toEqual(four.map((l) => `${l} ${l === 'near-lossless' ? outcome : 'measured'}`));
      expect(points[1].reason).toBe(reason);
      expect(recorded).toEqual(points);
      expect(backend.staleSamples).toBe(0);
      expect(backend.live.size).toBe(0);
    }
  });

  it('discards the samples of the survivors with the worker that died', async () => {
    // Slow before the crash of its neighbour, fast in the new worker.
    let generation = 1;
    const { backend, start } = setUp({
      plan: planOf('baseline', 'four-bit'),
      scripts: {
        baseline: { step: () => (generation === 1 ? 0.02 : 0.01) },
        'four-bit': { failSample: [4, 'crashed'] },
      },
    });
    backend.onSample = () => {
      generation = backend.generation;
    };
    const { points } = await start().finished;
    expect(outcomes(points)).toEqual(['baseline measured', 'four-bit failed']);
    expect(new Set(points[0].samplesSeconds)).toEqual(new Set([0.01]));
    expect(backend.calls.filter((call) => call === 'prepare baseline')).toHaveLength(2);
    expect(backend.calls.filter((call) => call === 'prepare four-bit')).toHaveLength(1);
  });

  it('notices a worker that was replaced in silence', async () => {
    const { backend, start } = setUp({ plan: planOf('baseline', 'four-bit'), scripts: {} });
    const prepare = backend.prepare.bind(backend);
    backend.prepare = (config, deadline) => {
      if (config.level === 'four-bit' && backend.generation === 1) {
        backend.generation = 2;
        backend.live.clear();
      }
      return prepare(config, deadline);
    };
    const { points } = await start().finished;
    expect(outcomes(points)).toEqual(['baseline measured', 'four-bit measured']);
    expect(backend.staleSamples).toBe(0);
  });

  it('tries a point alone that does not fit beside its neighbours', async () => {
    const { backend, start } = setUp({ scripts: { 'near-lossless': { greedy: true } } });
    const { points } = await start().finished;
    expect(outcomes(points)).toEqual(four.map((level) => `${level} measured`));
    expect(backend.calls.filter((call) => call === 'prepare near-lossless')).toHaveLength(2);
  });

  it('fails a point that uses up its time', async () => {
    const { start } = setUp({
      plan: planOf('baseline', 'four-bit'),
      measuring: { timeoutSeconds: 2, maxSeconds: 100 },
      scripts: { 'four-bit': { step: (n) => 0.01 * (1 + (n % 3)) } },
    });
    const { points } = await start().finished;
    expect(outcomes(points)).toEqual(['baseline measured', 'four-bit failed']);
    expect(points[1].reason).toMatch(/^timed out: /);
  });

  it('pauses with a reason after five crashes in a row, and goes on when told to', async () => {
    const plan = expandSweep({ name: 'test', axes: { seqLen: [1, 2, 3, 4, 5, 6, 7], level: ['baseline'] } });
    const { backend, events, start } = setUp({ plan });
    const prepare = backend.prepare.bind(backend);
    backend.prepare = (config, deadline) =>
      config.seqLen <= 5 ? prepare(config, deadline).then(() => Promise.reject(crash())) : prepare(config, deadline);
    const crash = () => new BackendFailure('crashed', 'SIGSEGV', true);
    const run = start();
    await expect.poll(() => events.at(-1)?.type).toBe('paused');
    expect(events.at(-1)).toMatchObject({
      reason: '5 points in a row crashed the backend, the last with: SIGSEGV',
    });
    run.continue();
    const { points } = await run.finished;
    expect(points.map(({ outcome }) => outcome)).toEqual([...Array(5).fill('failed'), 'measured', 'measured']);
  });

  it('ends when a row cannot be recorded, and tells no row that is not durable', async () => {
    const { backend, events, start } = setUp({ record: () => Promise.reject(new Error('the disk is full')) });
    await expect(start().finished).rejects.toThrow('the disk is full');
    expect(events.some((event) => event.type === 'point')).toBe(false);
    expect(backend.live.size).toBe(0);
  });
});

describe('pause, stop, cancel, resume', () => {
  const twoLayers = expandSweep({ name: 'test', axes: { seqLen: [64, 128], level: ['baseline', 'four-bit'] } });

  it('rests while paused and then finishes', async () => {
    const { backend, events, start } = setUp();
    const run = start();
    backend.onSample = () => run.pause();
    await expect.poll(() => events.at(-1)?.type).toBe('paused');
    const calls = backend.calls.length;
    await tick();
    expect(backend.calls.length).toBe(calls);
    backend.onSample = () => undefined;
    run.continue();
    expect((await run.finished).points).toHaveLength(4);
    expect(events.map(({ type }) => type).filter((type) => type === 'paused' || type === 'continued')).toEqual([
      'paused',
      'continued',
    ]);
  });

  it('stops after the points at hand', async () => {
    const { backend, start } = setUp({ plan: twoLayers });
    const run = start();
    backend.onSample = () => run.stop();
    const { points, how } = await run.finished;
    expect(how).toBe('stopped');
    expect(points.map(({ config }) => config.seqLen)).toEqual([64, 64]);
    expect(backend.live.size).toBe(0);
  });

  it('begins nothing new after a stop', async () => {
    const { backend, start } = setUp();
    const prepare = backend.prepare.bind(backend);
    backend.prepare = (config, deadline) => {
      run.stop();
      return prepare(config, deadline);
    };
    const run = start();
    expect(await run.finished).toMatchObject({ points: [{ outcome: 'measured' }], how: 'stopped' });
    expect(backend.calls.filter((call) => call.startsWith('prepare'))).toHaveLength(1);
  });

  it('cancels at once; the point at hand leaves no row', async () => {
    for (const how of ['cancelled', 'interrupted'] as const) {
      const { backend, events, recorded, start } = setUp({ plan: twoLayers });
      const run = start();
      backend.onSample = (config) => config.seqLen === 128 && run.cancel(how);
      expect(await run.finished).toMatchObject({ points: [{}, {}], how });
      expect(recorded).toHaveLength(2);
      expect(events.at(-1)).toMatchObject({ type: 'ended', how });
    }
  });

  it('cancels a run that is paused', async () => {
    const { start } = setUp();
    const run = start();
    run.pause();
    await tick();
    run.cancel();
    expect(await run.finished).toMatchObject({ points: [], how: 'cancelled' });
  });

  it('resumes without measuring a point twice', async () => {
    const first = setUp({ plan: twoLayers, scripts: { 'four-bit': { failPrepare: 'crashed' } } });
    const stopped = first.start();
    first.backend.onSample = () => stopped.stop();
    const { points } = await stopped.finished;
    const done = new Map(points.map((point) => [point.id, point]));
    const second = setUp({ plan: twoLayers, done });
    const resumed = await second.start().finished;
    expect(resumed.points.map(({ id }) => id)).toEqual(twoLayers.map(({ id }) => id));
    expect(resumed.how).toBe('done');
    expect(second.recorded).toHaveLength(2);
    expect(second.events[0]).toMatchObject({ type: 'started', total: 4, done: 2 });
    expect(resumed.points[1].outcome).toBe('failed');
  });
});
