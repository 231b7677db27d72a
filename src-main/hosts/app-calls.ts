/** Answers the calls of a window: what was asked, then whether the values fit, then the handler. Shared by all hosts. */
import type { SweepPreview } from '../contract/api.ts';
import { type AppApi, type CallName, calls, type PreviewSummary, type Reply } from '../contract/calls.ts';
import { expected, InputError } from '../contract/input-error.ts';
import { isActive } from '../contract/run-state.ts';
import { byReason } from '../engine/plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import type { Profiler } from './compose.ts';
import type { PlaceBook } from './place-book.ts';
import type { RunHub } from './run-hub.ts';
import type { SessionLibrary } from './session-library.ts';
import type { SweepShelf } from './sweep-shelf.ts';

export function createAppCalls(
  profiler: Pick<Profiler, 'levels' | 'devices' | 'vitals' | 'preview' | 'models' | 'plan'>,
  hub: RunHub,
  library: SessionLibrary,
  shelf: SweepShelf,
  places: PlaceBook,
): AppApi {
  const steer = (verb: 'pause' | 'continue' | 'stop' | 'cancel') => async () => {
    hub.steer(verb);
    return null;
  };
  let proofs = 0;
  return {
    levels: async () => profiler.levels(),
    devices: () => profiler.devices(),
    vitals: () => profiler.vitals(),
    preview: async ({ sweep }) => summarise(profiler.preview(sweep)),
    startRun: async ({ sweep, place }) => {
      if (proofs > 0 && !place)
        throw new InputError('a plan is being proven: the sweep would share its machine with that');
      return hub.start(sweep, await places.resolve(place));
    },
    sweeps: () => shelf.list(),
    saveSweep: ({ sweep }) => shelf.save(sweep),
    deleteSweep: ({ name }) => shelf.remove(name),
    pause: steer('pause'),
    continue: steer('continue'),
    stop: steer('stop'),
    cancel: steer('cancel'),
    snapshot: async () => hub.snapshot(),
    samples: async ({ pointId }) => hub.samples(pointId),
    library: () => library.list(),
    labelSession: async ({ id, label }) => {
      await library.label(id, label);
      if (label.name !== undefined) hub.rename(id, label.name);
      return null;
    },
    trashSession: ({ id }) => library.throwAway(id),
    restoreSession: ({ id }) => library.restore(id),
    emptyTrash: () => library.emptyTrash(),
    openSession: async ({ id }) => {
      const { file, session } = await library.read(id);
      const opened = hub.open(file, session);
      await library.acceptCrash(id);
      return opened;
    },
    places: () => places.list(),
    fleet: () => places.lookAtFleet(),
    agents: () => places.askAgents(),
    continueSession: async ({ id, place }) => {
      const { file, session } = await library.read(id);
      return hub.continueSession(file, session, await places.resolve(place));
    },
    acceptCrash: async ({ id }) => {
      await library.acceptCrash(id);
      return null;
    },
    exportSession: ({ id, format }) => library.export(id, format),
    importSession: ({ fileName, base64 }) => library.import(fileName, base64),
    sessionPoints: ({ id }) => library.points(id),
    models: async () => profiler.models(),
    plan: ({ model, memoryBytes, weightBytes, context }) =>
      profiler.plan(model, { memoryBytes, context, ...(weightBytes !== undefined && { weightBytes }) }),
    provePlan: async ({ model, level, context, limitBytes }) => {
      if (isActive(hub.snapshot())) throw new InputError('a sweep is running: a proof would disturb its samples');
      proofs += 1;
      try {
        const prove = { backend: 'cpu', limitBytes };
        const asked = { memoryBytes: limitBytes, weightBytes: 0, context, prove, level };
        const { rows } = await profiler.plan(model, asked);
        if (rows[0]) return rows[0];
        throw expected('a level of the plan', 'level', level);
      } finally {
        proofs -= 1;
      }
    },
    compareSessions: ({ before, after }) => library.compare(before, after),
  };
}

/** Never rejects: whatever goes wrong is a reply. */
export async function answer(api: AppApi, name: string, input: unknown): Promise<Reply> {
  if (!Object.hasOwn(calls, name)) return { ok: false, failure: 'malformed', message: 'there is no such call' };
  const parsed = calls[name as CallName].input.safeParse(input);
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues;
    const subject = path.map(String).at(-1);
    return { ok: false, failure: 'malformed', message, ...(subject === undefined ? {} : { subject }) };
  }
  try {
    return { ok: true, value: await api[name as CallName](parsed.data as never) };
  } catch (error) {
    if (error instanceof InputError) {
      const { message, subject } = error;
      return { ok: false, failure: 'input', message, ...(subject === undefined ? {} : { subject }) };
    }
    if (error instanceof BackendFailure) return { ok: false, failure: 'engine', message: error.message };
    return { ok: false, failure: 'fault', message: error instanceof Error ? error.message : String(error) };
  }
}

/** A sweep may hold 100,000 points; a form needs to know how many. */
function summarise({ points, skipped, estimatedSeconds, estimatedPeakBytes }: SweepPreview): PreviewSummary {
  return { points: points.length, impossible: byReason(skipped), estimatedSeconds, estimatedPeakBytes };
}
