/** Points of a GPU in a run: their own ceilings, and what the device showed while they were sampled. */
import { expect, it } from 'vitest';
import { defaultMeasuring, expandSweep } from '../../src-main/engine/plan.ts';
import type { Conditions } from '../../src-main/engine/ports.ts';
import { startRun } from '../../src-main/engine/run.ts';
import { FakeBackend, FakeClock } from '../fakes/backend.ts';
import { environment } from '../fakes/points.ts';

const gpu = {
  backend: 'cuda:1',
  name: 'fake GPU',
  computeCapability: '9.0',
  driverCudaVersion: '13.0',
  memoryBytes: 8e10,
  matrixFlopsPerSecond: 1e12,
  copyBytesPerSecond: 1e9,
};

async function measured(backendName: string, conditions: Conditions) {
  const clock = new FakeClock();
  let asked = 0;
  const backend = Object.assign(new FakeBackend(clock, () => ({ step: () => 1 / 64 })), {
    conditions: () => {
      asked += 1;
      return Promise.resolve(conditions);
    },
  });
  const plan = expandSweep({ name: 'test', axes: { level: ['baseline'], backend: [backendName] } });
  const { points } = await startRun({
    ...{ plan, backend, clock, measuring: defaultMeasuring, record: async () => undefined },
    environment: { ...environment, fmaFlopsPerSecond: 1e11, readBytesPerSecond: 1e10, gpus: [gpu] },
  }).finished;
  return { point: points[0], asked };
}

it('takes the ceilings of the device that a point ran on', async () => {
  const quiet = { throttledSamples: 0, foreignProcesses: 0, graphNodes: 55 };
  const onGpu = await measured('cuda:1', quiet);
  // 1e8 FLOP and 1e7 bytes a step of 1/64 s: on the GPU the bytes take 10 ms, on the CPU both take 1 ms.
  expect(onGpu.point.throughput?.rooflineFraction).toBeCloseTo(0.64, 6);
  expect((await measured('cpu', quiet)).point.throughput?.rooflineFraction).toBeCloseTo(0.064, 6);
  expect((await measured('cuda:0', quiet)).point.throughput).not.toHaveProperty('rooflineFraction');
});

it('flags and counts what the device showed', async () => {
  const { point } = await measured('cuda:1', { throttledSamples: 12, foreignProcesses: 1, graphNodes: 0 });
  expect(point.throughput?.flags).toEqual(expect.arrayContaining(['throttled', 'foreign-load']));
  expect(point.throughput?.throttledSamples).toBe(12);
  expect(point.throughput).not.toHaveProperty('graphNodes');
  const quiet = await measured('cuda:1', { throttledSamples: 0, foreignProcesses: 0, graphNodes: 55 });
  expect(quiet.point.throughput?.flags).not.toEqual(expect.arrayContaining(['throttled']));
  expect(quiet.point.throughput).not.toHaveProperty('throttledSamples');
  expect(quiet.point.throughput?.graphNodes).toBe(55);
});

it('asks the CPU nothing', async () => {
  expect((await measured('cpu', { throttledSamples: 1, foreignProcesses: 1, graphNodes: 0 })).asked).toBe(0);
});
