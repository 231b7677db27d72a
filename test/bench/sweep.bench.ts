/**
 * Where the wall time of a sweep of small points goes: `node test/run-program.mjs test/bench/sweep.bench.ts [SEEDS]`, after
 * `npm run build`; a hundred points a seed, 10 seeds where none is given. The engine's own run, a real worker, a real session file.
 * In kernels and their warm-up are the calls that take samples, the discarded first ones included, less what an empty call to the
 * worker takes: not building a layer, nor comparing it with the reference, nor the way there and back. The aim: at least 0.80.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SessionHeader } from '../../src-main/contract/session.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import type { PlannedPoint } from '../../src-main/engine/plan.ts';
import type { MeasuringBackend } from '../../src-main/engine/ports.ts';
import type { RunPlan } from '../../src-main/engine/run.ts';
import type { Recording } from '../../src-main/sessions/recording.ts';

const built = (path: string): string => join(import.meta.dirname, '../../dist/src-main', path);
const { startRun } = await import(/* @vite-ignore */ built('engine/run.js'));
const { expandSweep, resolveMeasuring } = await import(/* @vite-ignore */ built('engine/plan.js'));
const { describeEnvironment } = await import(/* @vite-ignore */ built('hosts/environment.js'));
const { createRecording } = await import(/* @vite-ignore */ built('sessions/recording.js'));
const { Supervisor } = await import(/* @vite-ignore */ built('worker/supervisor.js'));
const { forkWorker } = await import(/* @vite-ignore */ built('worker/spawn.js'));
const { workerScript } = await import(/* @vite-ignore */ built('worker/location.js'));

const seeds = Number(process.argv[3] ?? 10);
if (!Number.isInteger(seeds) || seeds < 1)
  throw new Error(`expected a count from 1 for SEEDS but received ${process.argv[3]}`);
const small: Sweep['axes'] = {
  hiddenDim: [128],
  heads: [4],
  seqLen: [64, 128, 256, 512, 1024],
  seed: Array.from({ length: seeds }, (_, i) => i + 1),
  phase: ['prefill', 'decode'],
};
const sweep: Sweep = {
  name: 'small',
  axes: {
    ...small,
    level: ['custom'],
    cacheDtype: ['f32', 'bf16', 'f16', 'fp8-e4m3', 'fp8-e5m2', 'int8', 'int4', 'int3', 'int2'],
    sinkTokens: [0],
  },
  also: [{ axes: { ...small, level: ['conservative'] } }],
  measuring: { minSeconds: 0.05, maxSeconds: 0.05 },
};

const spent: Record<string, { seconds: number; calls: number }> = {};
async function timed<T>(name: string, call: () => Promise<T>): Promise<T> {
  const before = performance.now();
  try {
    return await call();
  } finally {
    spent[name] ??= { seconds: 0, calls: 0 };
    spent[name].seconds += (performance.now() - before) / 1000;
    spent[name].calls += 1;
  }
}
const supervisor: MeasuringBackend = new Supervisor({ spawn: forkWorker(workerScript) });
const backend = new Proxy(supervisor, {
  get:
    (target, name: keyof MeasuringBackend) =>
    (...args: never[]) =>
      timed(name, async () => (target[name] as (...args: never[]) => unknown).apply(target, args)),
});

const folder = await mkdtemp(join(tmpdir(), 'fastmqa-bench-'));
try {
  const plan: PlannedPoint[] = expandSweep(sweep);
  const measuring = resolveMeasuring(sweep);
  const environment = await describeEnvironment(await supervisor.info(), await supervisor.ceilings());
  const header: SessionHeader = {
    ...{ kind: 'header', schemaVersion: 1, id: 'bench', name: 'bench' },
    ...{ sweep, measuring, environment },
  };
  const recording: Recording = await createRecording(join(folder, 'bench.fmqa'), header);
  const record: RunPlan['record'] = (point) => timed('record', () => recording.append({ kind: 'point', point }));
  const clock = { now: () => performance.now() / 1000 };
  const before = performance.now();
  const wallSeconds = (): number => (performance.now() - before) / 1000;
  const onEvent: RunPlan['onEvent'] = (event) => {
    if (event.type !== 'point' || event.done % 100 !== 0) return;
    const sampling = (spent.sample.seconds / wallSeconds()).toFixed(3);
    process.stderr.write(
      `${event.done} of ${event.total} points in ${wallSeconds().toFixed(1)} s, ${sampling} in samples\n`,
    );
  };
  const { points } = await startRun({ plan, backend, clock, measuring, environment, record, onEvent }).finished;
  const wall = wallSeconds();
  await recording.close();
  const calls = 500;
  const beforeCalls = performance.now();
  for (let i = 0; i < calls; i++) await supervisor.info();
  const roundTrip = (performance.now() - beforeCalls) / 1000 / calls;
  const measured = points.filter(({ outcome }: { outcome: string }) => outcome === 'measured').length;
  const inKernels = spent.sample.seconds - spent.sample.calls * roundTrip;
  console.log(`${measured} of ${points.length} points measured in ${wall.toFixed(1)} s`);
  console.log(`an empty call to the worker takes ${(1000 * roundTrip).toFixed(2)} ms`);
  console.log(`in kernels and their warm-up: ${(inKernels / wall).toFixed(3)}`);
  for (const [name, { seconds, calls }] of Object.entries(spent))
    console.log(
      `${name.padEnd(10)}${seconds.toFixed(1).padStart(8)} s ${(seconds / wall).toFixed(3)}${String(calls).padStart(8)} calls`,
    );
} finally {
  await supervisor.close();
  await rm(folder, { recursive: true, force: true });
}
