/** A sweep whose points misbehave, each in its way, run by the engine and the supervisor over real processes. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunEvent } from '../../src-main/contract/api.ts';
import type { Point } from '../../src-main/contract/metrics.ts';
import { expandSweep, type PlannedPoint, resolveMeasuring } from '../../src-main/engine/plan.ts';
import { startRun } from '../../src-main/engine/run.ts';
import { forkWorker, type SpawnWorker } from '../../src-main/worker/spawn.ts';
import { Supervisor } from '../../src-main/worker/supervisor.ts';
import { environment } from '../fakes/points.ts';

export const fakeWorker = join(import.meta.dirname, '../fakes/misbehaving-worker.mjs');

export interface Trouble {
  readonly rows: readonly Point[];
  readonly events: readonly RunEvent[];
  /** Rows whose samples came from a process that had been found faulty before they were taken. */
  readonly sticky: readonly string[];
  readonly processes: number;
  readonly how: string;
}

export interface TroubleOptions {
  /** One point each; an empty text is a point that behaves. */
  readonly behaviours: readonly string[];
  readonly spawn?: SpawnWorker;
  readonly timeoutSeconds?: number;
  readonly graceSeconds?: number;
}

/** Points of layers of their own, so that each is a group of its own; the behaviour rides on the level. */
export function planOfTrouble(behaviours: readonly string[]): PlannedPoint[] {
  const seqLen = behaviours.map((_, i) => i + 1);
  const plan = expandSweep({ name: 'trouble', axes: { level: ['baseline'], hiddenDim: [64], heads: [2], seqLen } });
  return plan.map((planned, i) => ({ ...planned, config: { ...planned.config, level: behaviours[i] || 'baseline' } }));
}

export async function sweepTrouble({
  behaviours,
  spawn = forkWorker(fakeWorker),
  timeoutSeconds = 20,
  graceSeconds = 0.1,
}: TroubleOptions): Promise<Trouble> {
  process.env.FASTMQA_FAKE_TELLS_PROCESS = '1';
  let processes = 0;
  const supervisor = new Supervisor({
    graceSeconds,
    spawn: (listener) => {
      processes += 1;
      return spawn(listener);
    },
  });
  const measuring = resolveMeasuring({
    name: 'x',
    axes: {},
    measuring: { minSeconds: 0, minSamples: 5, timeoutSeconds },
  });
  const events: RunEvent[] = [];
  const recorded: Point[] = [];
  const run = startRun({
    plan: planOfTrouble(behaviours),
    backend: supervisor,
    clock: { now: () => performance.now() / 1000 },
    measuring,
    environment,
    record: async (point) => void recorded.push(point),
    onEvent: (event) => {
      events.push(event);
      if (event.type === 'paused') queueMicrotask(() => run.continue());
    },
  });
  try {
    const { points, how } = await run.finished;
    return { rows: recorded, events, sticky: stickyRows(behaviours, points), processes, how };
  } finally {
    await supervisor.close();
  }
}

/** After these the worker is as good as before. */
const sound = ['', 'out of memory', 'refused', 'failed', 'huge delay'];

/** Rows that came from a process after it had been found faulty. */
function stickyRows(behaviours: readonly string[], points: readonly Point[]): string[] {
  const faulty = new Set<number>();
  let last = 0;
  return points.flatMap(({ id, outcome, memory }, i) => {
    const isSound = sound.includes(behaviours[i]);
    if (!isSound) faulty.add(last); // it served the point before, and then this one
    if (outcome !== 'measured') return [];
    last = memory?.extraWeightBytes ?? 0; // where the scripted worker tells its process
    return isSound && faulty.has(last) ? [id] : [];
  });
}

/** Processes of ours that are still there, zombies included, by what they are. */
export function childrenLeft(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [state, parent] = status.slice(status.lastIndexOf(')') + 2).split(' ');
        if (Number(parent) !== process.pid) return [];
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        return state === 'Z' || command.includes('misbehaving-worker') ? [`${pid} ${state} ${command}`] : [];
      } catch {
        return []; // it ended while we looked
      }
    });
}
