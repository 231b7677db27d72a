/** Points and environments for tests that only need some. */

import type { Point } from '../../src-main/contract/metrics.ts';
import type { Environment, SessionHeader } from '../../src-main/contract/session.ts';
import { measuredPoint } from '../../src-main/engine/measure.ts';
import { defaultMeasuring, expandSweep, type PlannedPoint } from '../../src-main/engine/plan.ts';
import { FakeBackend, FakeClock } from './backend.ts';

export const environment: Environment = {
  fastmqaVersion: '0.1.0',
  nodeVersion: 'v20',
  os: 'Linux',
  cpu: 'Test CPU',
  logicalCores: 2,
  threads: 2,
  instructionSet: 'avx2',
  buildFlags: '-O3',
  memoryBytes: 8e9,
  loadAverage1m: 0.1,
  startedAt: '2026-01-01T00:00:00Z',
  fmaFlopsPerSecond: 1e11,
  readBytesPerSecond: 1e10,
};

/** One planned point per level, all of one layer. */
export const planOf = (...level: string[]): PlannedPoint[] => expandSweep({ name: 'test', axes: { level } });

export async function measured(planned: PlannedPoint): Promise<Point> {
  const prepared = await new FakeBackend(new FakeClock()).prepare(planned.config, 100);
  return measuredPoint(
    planned,
    prepared,
    Array.from({ length: 12 }, (_, i) => 0.01 + i * 1e-5),
    defaultMeasuring,
    {
      fmaFlopsPerSecond: 1e11,
      readBytesPerSecond: 1e10,
    },
  );
}

export const header: SessionHeader = {
  kind: 'header',
  schemaVersion: 1,
  id: 'abc',
  name: 'test',
  sweep: { name: 'test', axes: { level: ['baseline'] } },
  measuring: defaultMeasuring,
  environment,
};
