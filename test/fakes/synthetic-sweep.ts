/** A sweep as large as one likes, with figures that behave like measured ones, behind the real web host. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { levelNames, levels } from '../../src-main/engine/levels.ts';
import { expandSweep, type PlannedPoint } from '../../src-main/engine/plan.ts';
import { serve } from '../../src-main/hosts/web/serve.ts';
import { environment } from './points.ts';
import { FakeProfiler } from './profiler.ts';

const names = levelNames.filter((name) => name !== 'custom');
const bytesOf: Readonly<Record<string, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  int8: 1.03,
  int4: 0.56,
  int3: 0.43,
  int2: 0.31,
};

/** The same numbers in every run of a test. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export const sweepOf = (axes: Sweep['axes']): Sweep => ({ name: 'synthetic', axes: { level: names, ...axes } });

export const tenThousand = sweepOf({
  hiddenDim: [512, 1024, 2048, 4096],
  heads: [8],
  seqLen: [128, 256, 512, 1024, 2048, 4096, 8192, 16384],
  batch: [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64],
  phase: ['decode', 'prefill'],
});

function pointOf({ id, config, refused }: PlannedPoint & { refused?: string }, random: () => number): Point {
  if (refused) return { id, config, outcome: 'skipped', reason: refused };
  if (random() < 0.01) return { id, config, outcome: 'failed', reason: 'expected 12 GiB of memory but 8 GiB are free' };
  const { batch, seqLen, kvHeads, headDim, heads, hiddenDim } = config;
  const rank = config.latentRank ?? 2 * kvHeads * headDim;
  const bytesPerToken = rank * (bytesOf[config.keyDtype] ?? 1);
  const f32Mha = 2 * heads * headDim * 4;
  const kept = Math.min(seqLen, config.window ?? seqLen);
  const logical = Math.ceil(bytesPerToken * kept * batch);
  const rows = config.phase === 'decode' ? 1 : seqLen;
  const flops = batch * rows * (4 * hiddenDim * hiddenDim + 2 * heads * headDim * kept);
  const bytes = logical + 8 * hiddenDim * hiddenDim;
  const seconds = Math.max(flops / 0.6e11, bytes / 0.8e10) * (1.2 + 0.5 * random());
  const multiplier = (f32Mha * seqLen) / (bytesPerToken * kept);
  const relativeL2 = 2e-7 * multiplier ** 3.1 * (0.6 + 0.8 * random());
  const samplesSeconds = Array.from({ length: 60 }, (_, i) => seconds * (1 + 0.03 * random() + 0.0004 * i));
  return {
    id,
    config,
    outcome: 'measured',
    samplesSeconds,
    memory: {
      kvLogicalBytes: logical,
      kvAllocatedBytes: logical,
      kvParts: { payloadBytes: logical, scaleBytes: 0, sinkBytes: 0, residualBytes: 0, slackBytes: 0, tableBytes: 0 },
      differenceExplained: 'allocated is what the formula says',
      peakBytes: logical * 2,
      extraWeightBytes: 0,
      bytesPerToken,
      reductionVsF32MhaPercent: 100 * (1 - 1 / multiplier),
      multiplierVsF32Mha: multiplier,
      reductionVsOwn16BitPercent: 100 * (1 - 2 / multiplier),
      multiplierVsOwn16Bit: multiplier / 2,
    },
    throughput: {
      medianSeconds: seconds,
      p05Seconds: seconds * 0.98,
      p95Seconds: seconds * 1.05,
      iqrSeconds: seconds * 0.02,
      samples: samplesSeconds.length,
      tokensPerSecond: (batch * rows) / seconds,
      flopsPerSecond: flops / seconds,
      bytesPerSecond: bytes / seconds,
      rooflineFraction: 0.7,
      flags: [],
    },
    error: {
      relativeL2,
      cosine: 1 - relativeL2 ** 2 / 2,
      rms: relativeL2,
      maxAbs: relativeL2 * 4,
      referenceRms: 1,
      tokenP95: relativeL2 * 1.5,
      tokenMedian: relativeL2,
      grade:
        relativeL2 < 1e-5 ? 'exact' : relativeL2 < 1e-2 ? 'near-lossless' : relativeL2 < 0.3 ? 'moderate' : 'destroyed',
      positions: [0],
    },
  };
}

export const pointsOf = (sweep: Sweep, most = Number.POSITIVE_INFINITY): Point[] => {
  const random = randomFrom(1);
  return expandSweep(sweep)
    .slice(0, most)
    .map((planned) => pointOf(planned, random));
};

/** The window's host with a sweep that has just been measured. */
export async function startSynthetic(sweep: Sweep, points: readonly Point[]) {
  const folder = await mkdtemp(join(tmpdir(), 'fastmqa-synthetic-'));
  const fake = new FakeProfiler();
  fake.levels = () =>
    names.map((name) => ({ name, summary: levels[name].summary, techniques: levels[name].techniques }));
  fake.devices = async () => [
    { backend: 'cpu', usable: true, name: 'Test CPU', threads: 2, instructionSet: 'avx2', memoryBytes: 8e9 },
  ];
  fake.preview = () => ({ points: [], skipped: [], estimatedSeconds: 1, estimatedPeakBytes: 1 });
  const host = await serve({
    profiler: fake,
    port: 0,
    sessionsFolder: folder,
    print: () => undefined,
    say: () => undefined,
  });
  await host.hub.start(sweep);
  fake.emit({ type: 'started', total: points.length, done: 0, environment });
  const tell = (point: Point, i: number): void =>
    fake.emit({ type: 'point', point, done: i + 1, total: points.length, etaSeconds: 0 });
  points.forEach(tell);
  fake.end('done');
  return {
    folder,
    host,
    close: async () => {
      await host.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
