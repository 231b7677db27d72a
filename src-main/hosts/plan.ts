/** Plans memory for a model, and proves the plan by allocating. */
import { join } from 'node:path';
import type { MemoryPlan, PlanRow } from '../contract/model.ts';
import { levelOnModel, planMemory } from '../engine/memory-plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import { findModel } from '../models/find.ts';
import { packageRoot } from '../worker/location.ts';
import type { Supervisor } from '../worker/supervisor.ts';

export const builtinFolder = join(packageRoot, 'src-main/models/builtin');

export interface PlanOptions {
  readonly memoryBytes: number;
  readonly context: number;
  readonly weightBytes?: number;
  /** Limit under which every level's caches are allocated for real; its fraction of the plan's memory is the cache alone. */
  readonly proveBytes?: number;
  /** Only this one. */
  readonly level?: string;
}

/** Keeps a proof short: so many sequences show the figure. */
const mostSequences = 4096;
const deadlineSeconds = 3600;

export async function planModel(name: string, options: PlanOptions, backend: Supervisor): Promise<MemoryPlan> {
  const { config } = await findModel(name, builtinFolder);
  const { memoryBytes, context, weightBytes, proveBytes } = options;
  const request = { name, config, context };
  const whole = planMemory({ ...request, memoryBytes, ...(weightBytes !== undefined && { weightBytes }) });
  const ofLevel = ({ level }: PlanRow): boolean => options.level === undefined || level === options.level;
  const plan = { ...whole, rows: whole.rows.filter(ofLevel) };
  if (proveBytes === undefined) return plan;
  const limited = planMemory({ ...request, memoryBytes: proveBytes, weightBytes: 0 }).rows.filter(ofLevel);
  const rows: PlanRow[] = [];
  for (const [i, row] of plan.rows.entries())
    rows.push(await proven(row, limited[i] as PlanRow, { config, context, limitBytes: proveBytes }, backend));
  return { ...plan, rows };
}

async function proven(
  row: PlanRow,
  limited: PlanRow,
  { config, context, limitBytes }: { config: Parameters<typeof levelOnModel>[0]; context: number; limitBytes: number },
  backend: Supervisor,
): Promise<PlanRow> {
  const kinds = levelOnModel(config, row.level, context);
  if (typeof kinds === 'string' || limited.bytesPerSequence === undefined) return row;
  try {
    const reached = await backend.reach(kinds, context, limitBytes, mostSequences, deadlineSeconds);
    const proof = {
      limitBytes,
      context,
      plannedSequences: Math.min(mostSequences, limited.largestBatch ?? 0),
      reachedSequences: reached.sequences,
      allocatedBytes: reached.allocatedBytes,
      plannedBytes: reached.sequences * limited.bytesPerSequence,
    };
    return { ...row, proof };
  } catch (error) {
    if (error instanceof BackendFailure && error.kind === 'refused')
      return { level: row.level, refused: error.message };
    throw error;
  }
}
