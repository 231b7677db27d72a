/**
 * Where the wall time of a sweep of a thousand small points goes: `node test/run-program.mjs test/bench/sweep.bench.ts`, after
 * `npm run build`. The engine's own run, a real worker, a real session file; only the calls to the worker are timed. The aim:
 * at least 0.80 in samples, warm-up included. Comparing with the reference and building the layer do not count as such.
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

const sweep: Sweep = {
  name: 'small',
  axes: {
    hiddenDim: [128],
    heads: [4],
    seqLen: [64, 128, 256, 512, 1024],
    seed: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    phase: ['prefill', 'decode'],
    level: ['custom'],
    cacheDtype: ['f32', 'bf16', 'f16', 'fp8-e4m3', 'fp8-e5m2', 'int8', 'int4', 'int3', 'int2'],
    sinkTokens: [0],
  },
  also: [
    {
      axes: {
        hiddenDim: [128],
        heads: [4],
        seqLen: [64, 128, 256, 512, 1024],
        seed: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        phase: ['prefill', 'decode'],
        level: ['conservative'],
      },
    },
  ],
  measuring: { minSeconds: 0.05, maxSeconds: 0.05 },
};

const spent: Record<string, number> = {};
const supervisor: MeasuringBackend = new Supervisor({ spawn: forkWorker(workerScript) });
const timed = new Proxy(supervisor, {
  get:
    (target, name: keyof MeasuringBackend) =>
    async (...args: never[]) => {
      const before = performance.now();
      try {
        return await (target[name] as (...args: never[]) => unknown).apply(target, args);
      } finally {
        spent[name] = (spent[name] ?? 0) + (performance.now() - before) / 1000;
      }
    },
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
  const record: RunPlan['record'] = async (point) => {
    const before = performance.now();
    await recording.append({ kind: 'point', point });
    spent.record = (spent.record ?? 0) + (performance.now() - before) / 1000;
  };
  const clock = { now: () => performance.now() / 1000 };
  const before = performance.now();
  const { points } = await startRun({ plan, backend: timed, clock, measuring, environment, record }).finished;
  const wall = (performance.now() - before) / 1000;
  await recording.close();
  const calls = 500;
  const beforeCalls = performance.now();
  for (let i = 0; i < calls; i++) await supervisor.info();
  const roundTrip = (performance.now() - beforeCalls) / calls;
  const measured = points.filter(({ outcome }: { outcome: string }) => outcome === 'measured').length;
  console.log(
    `${measured} of ${points.length} points measured in ${wall.toFixed(1)} s; a call to the worker takes ${roundTrip.toFixed(2)} ms`,
  );
  for (const [name, seconds] of Object.entries(spent))
    console.log(`${name.padEnd(10)}${seconds.toFixed(1).padStart(8)} s ${(seconds / wall).toFixed(3)}`);
} finally {
  await supervisor.close();
  await rm(folder, { recursive: true, force: true });
}
