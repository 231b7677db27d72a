import { describe, expect, it } from 'vitest';
import { fullHeadLevelNames, sharedLevelNames } from '../../src-main/engine/levels.ts';
import { BackendFailure } from '../../src-main/engine/ports.ts';
import { benchLevels } from '../../src-main/hosts/bench-levels.ts';
import { FakeBackend, FakeClock } from '../fakes/backend.ts';

const phases = ['prefill', 'decode', 'verify'];

describe('bench of whole layers', () => {
  it('prepares every level in every phase before it is timed, and releases it', async () => {
    const backend = new FakeBackend(new FakeClock());
    const told: string[] = [];
    const cases = await benchLevels(
      backend,
      {},
      'cpu',
      () => backend.ceilings(),
      (name) => told.push(name),
    );
    const names = [...fullHeadLevelNames, ...sharedLevelNames].flatMap((level) =>
      phases.map((phase) => `level ${level} ${phase}`),
    );
    expect(cases.map(({ name }) => name).sort()).toEqual(names.sort());
    expect(told).toEqual(cases.map(({ name }) => name));
    expect(backend.live.size).toBe(0);
    expect(backend.calls.filter((call) => call.startsWith('prepare'))).toHaveLength(names.length);
    expect(new Set(cases.map(({ shape }) => shape))).toEqual(new Set(['B4 H32 d2048 S1024']));
  });

  it('gives the median without the warm-up, beside the work and the ceilings of the same rounds', async () => {
    // The warm-up, then 64 samples of 1/64 s in three rounds; one of them is an outlier.
    const step = (n: number): number => (n === 0 ? 0.5 : n === 7 ? 0.25 : 1 / 64);
    const backend = new FakeBackend(new FakeClock(), () => ({ step }));
    let read = 0;
    const ceilings = () => {
      read += 1;
      return Promise.resolve({ fmaFlopsPerSecond: read * 1e11, readBytesPerSecond: read * 1e10 });
    };
    const cases = await benchLevels(backend, { only: 'level four-bit decode', secondsPerCase: 1 }, 'cpu', ceilings);
    expect(cases).toEqual([
      {
        name: 'level four-bit decode',
        shape: 'B4 H32 d2048 S1024',
        flops: 1e8,
        bytes: 1e7,
        medianSeconds: 1 / 64,
        fmaFlopsPerSecond: 2e11,
        readBytesPerSecond: 2e10,
      },
    ]);
    expect(read).toBe(3);
    expect(backend.calls.filter((call) => call.startsWith('sample'))).toHaveLength(1 + 3);
  });

  it('says why a level could not be measured, releases it, and goes on with the others', async () => {
    const backend = new FakeBackend(new FakeClock(), ({ phase }) =>
      phase === 'prefill' ? { failSample: [2, 'out-of-memory'] } : {},
    );
    const cases = await benchLevels(backend, { only: 'level baseline' }, 'cpu', () => backend.ceilings());
    expect(cases.map((result) => [result.name, 'failed' in result])).toEqual([
      ['level baseline prefill', true],
      ['level baseline decode', false],
      ['level baseline verify', false],
    ]);
    expect(backend.calls.filter((call) => call.startsWith('release'))).toHaveLength(3);
    expect(backend.live.size).toBe(0);
  });

  it('ends where it is cancelled', async () => {
    const backend = new FakeBackend(new FakeClock(), () => ({ failSample: [2, 'cancelled'] }));
    await expect(benchLevels(backend, { only: 'level baseline' }, 'cpu', () => backend.ceilings())).rejects.toThrow(
      BackendFailure,
    );
    expect(backend.live.size).toBe(0);
  });
});
