/** Whole layers at every level against the ceilings of this machine, which are read between their samples. */
import { fullHeadLevelNames, sharedLevelNames } from '../engine/levels.ts';
import { expandSweep } from '../engine/plan.ts';
import { BackendFailure, type Ceilings, type MeasuringBackend, type Prepared } from '../engine/ports.ts';
import { median } from '../engine/statistics.ts';
import type { BenchCase, BenchOptions } from '../worker/addon-types.ts';

/** The larger layer of the tables. Levels stand last: the backend keeps the reference of the layer that it prepared before. */
const layer = { hiddenDim: [2048], heads: [32], seqLen: [1024], batch: [4], phase: ['prefill', 'decode', 'verify'] };
const rounds = 3;
const mostSamples = 50;
const deadlineSeconds = 600;

/** A case, or why it could not be measured. */
export type BenchOutcome = BenchCase | (Pick<BenchCase, 'name' | 'shape'> & { readonly failed: string });

/** Nothing is timed before `prepare` has compared it with the reference. `told` hears the name of each case as it begins. */
export async function benchLevels(
  backend: MeasuringBackend,
  { only = '', secondsPerCase = 1 }: BenchOptions,
  place: string,
  ceilings: () => Promise<Ceilings>,
  told: (name: string) => void = () => {},
): Promise<BenchOutcome[]> {
  const everywhere = { ...layer, backend: [place] };
  const plan = expandSweep({
    name: 'bench',
    axes: { ...everywhere, level: fullHeadLevelNames },
    also: [{ axes: { ...everywhere, referenceKvHeads: [1], level: sharedLevelNames } }],
  });
  const cases: BenchOutcome[] = [];
  for (const { config } of plan) {
    const name = `level ${config.level} ${config.phase}`;
    if (!name.includes(only)) continue;
    told(name);
    const { batch, heads, hiddenDim, seqLen } = config;
    const shape = `B${batch} H${heads} d${hiddenDim} S${seqLen}`;
    try {
      const prepared = await backend.prepare(config, deadlineSeconds);
      try {
        cases.push({ name, shape, ...(await timed(backend, ceilings, prepared, secondsPerCase / rounds)) });
      } finally {
        await backend.release(prepared);
      }
    } catch (error) {
      if (!(error instanceof BackendFailure) || error.kind === 'cancelled') throw error;
      cases.push({ name, shape, failed: error.message });
    }
  }
  return cases;
}

async function timed(
  backend: MeasuringBackend,
  ceilingsNow: () => Promise<Ceilings>,
  prepared: Prepared,
  seconds: number,
): Promise<Omit<BenchCase, 'name' | 'shape'>> {
  const samples: number[] = [];
  const ceilings: Ceilings[] = [];
  await backend.sample(prepared, 0, 1, deadlineSeconds); // warm-up
  for (let round = 0; round < rounds; round++) {
    ceilings.push(await ceilingsNow());
    samples.push(...(await backend.sample(prepared, seconds, mostSamples, deadlineSeconds)));
  }
  const { flops, bytes } = prepared.work;
  return {
    flops,
    bytes,
    medianSeconds: median(samples),
    fmaFlopsPerSecond: median(ceilings.map(({ fmaFlopsPerSecond }) => fmaFlopsPerSecond)),
    readBytesPerSecond: median(ceilings.map(({ readBytesPerSecond }) => readBytesPerSecond)),
  };
}
