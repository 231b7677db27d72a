/** Answers the calls of a window: what was asked, then whether the values fit, then the handler. Shared by all hosts. */
import type { SweepPreview } from '../contract/api.ts';
import { type AppApi, type CallName, calls, type PreviewSummary, type Reply } from '../contract/calls.ts';
import { InputError } from '../contract/input-error.ts';
import { BackendFailure } from '../engine/ports.ts';
import type { Profiler } from './compose.ts';
import type { RunHub } from './run-hub.ts';

export function createAppCalls(profiler: Pick<Profiler, 'levels' | 'devices' | 'preview'>, hub: RunHub): AppApi {
  const steer = (verb: 'pause' | 'continue' | 'stop' | 'cancel') => async () => {
    hub.steer(verb);
    return null;
  };
  return {
    levels: async () => profiler.levels(),
    devices: () => profiler.devices(),
    preview: async ({ sweep }) => summarise(profiler.preview(sweep)),
    startRun: ({ sweep }) => hub.start(sweep),
    pause: steer('pause'),
    continue: steer('continue'),
    stop: steer('stop'),
    cancel: steer('cancel'),
    snapshot: async () => hub.snapshot(),
    samples: async ({ pointId }) => hub.samples(pointId),
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
  const byReason = new Map<string, { levels: Set<string>; points: number }>();
  for (const { config, reason } of skipped) {
    const entry = byReason.get(reason) ?? { levels: new Set(), points: 0 };
    entry.levels.add(config.level);
    entry.points += 1;
    byReason.set(reason, entry);
  }
  return {
    points: points.length,
    impossible: [...byReason].map(([reason, { levels, points }]) => ({ reason, levels: [...levels], points })),
    estimatedSeconds,
    estimatedPeakBytes,
  };
}
