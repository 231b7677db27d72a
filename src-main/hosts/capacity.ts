/** How many sequences memory holds for real, beside what the plan says: for a point of a sweep, and for a row of a plan. */
import { formatBytes } from '../contract/format.ts';
import { expected, InputError } from '../contract/input-error.ts';
import type { Capacity } from '../contract/metrics.ts';
import type { LevelOnModel, ModelConfig } from '../contract/model.ts';
import type { PointConfig } from '../contract/sweep.ts';
import { sequenceBytes, stackOnModel } from '../engine/memory-plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import { findModel } from '../models/find.ts';
import type { Supervisor } from '../worker/supervisor.ts';
import { builtinFolder } from './folders.ts';

/** Keeps it short: so many sequences show the figure. A device is filled whatever it holds. */
const mostSequences = { cpu: 4096, device: 1 << 17 };

/** A sequence of a whole model, or of one synthetic layer. */
export async function capacityOf(config: PointConfig, backend: Supervisor, deadlineSeconds: number): Promise<Capacity> {
  const model = config.model === undefined ? undefined : await configOf(config.model);
  // The worker knows a layer's phases only.
  const layer: PointConfig = { ...config, phase: 'decode' };
  const kinds = model ? stackOnModel(model, layer) : [{ config: layer, layers: 1 }];
  if (typeof kinds === 'string') throw new BackendFailure('refused', kinds, false);
  const weightBytes = model ? model.parameters * model.weightBytes : 0;
  return fillMemory(
    kinds,
    config.seqLen,
    { limitBytes: config.cacheLimitBytes, weightBytes },
    backend,
    deadlineSeconds,
  );
}

/** What is wrong with a model is a row, not the end of the sweep. */
async function configOf(name: string): Promise<ModelConfig> {
  try {
    return (await findModel(name, builtinFolder)).config;
  } catch (error) {
    if (error instanceof InputError) throw new BackendFailure('refused', error.message, false);
    throw error;
  }
}

export interface Room {
  /** Of caches. Undefined: what the device has beside the weights. */
  readonly limitBytes: number | undefined;
  /** Taken on a device where there is no limit. */
  readonly weightBytes: number;
}

/** Allocates and fills whole sequences of `tokens` tokens until memory is refused. */
export async function fillMemory(
  kinds: LevelOnModel,
  tokens: number,
  { limitBytes, weightBytes }: Room,
  backend: Supervisor,
  deadlineSeconds: number,
): Promise<Capacity> {
  const isOnCpu = kinds[0]?.config.backend === 'cpu';
  if (isOnCpu && limitBytes !== undefined) refuseMoreThanFree(limitBytes);
  const most = isOnCpu ? mostSequences.cpu : mostSequences.device;
  const reservedBytes = limitBytes === undefined ? Math.ceil(weightBytes) : 0;
  const limits = { tokens, ...(limitBytes !== undefined && { limitBytes }), mostSequences: most, reservedBytes };
  const reached = await backend.reach(kinds, limits, deadlineSeconds);
  const bytes = sequenceBytes(kinds, tokens);
  return {
    limitBytes: reached.limitBytes,
    reservedBytes,
    plannedSequences: Math.min(most, Math.floor(reached.limitBytes / bytes)),
    reachedSequences: reached.sequences,
    allocatedBytes: reached.allocatedBytes,
    plannedBytes: reached.sequences * bytes,
    ...(reached.sequences === most && { endedAtSequences: most }),
  };
}

/** Where a system lends memory that it does not have, filling it would end in the death of some process. */
export function refuseMoreThanFree(limitBytes: number): void {
  const free = process.availableMemory();
  if (limitBytes <= free) return;
  const most = `at most ${formatBytes(free)}, which is what this machine has free now,`;
  throw new BackendFailure(
    'refused',
    expected(most, 'the limit of the caches', formatBytes(limitBytes)).message,
    false,
  );
}
