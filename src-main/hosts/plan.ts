/** Plans memory for a model, and proves the plan by allocating. */
import type { MemoryPlan, ModelConfig, PlanRow } from '../contract/model.ts';
import { levelOnModel, planMemory } from '../engine/memory-plan.ts';
import { BackendFailure } from '../engine/ports.ts';
import { findModel } from '../models/find.ts';
import type { Supervisor } from '../worker/supervisor.ts';
import { fillMemory, refuseMoreThanFree } from './capacity.ts';
import { builtinFolder } from './folders.ts';

export interface PlanOptions {
  readonly memoryBytes: number;
  readonly context: number;
  readonly weightBytes?: number;
  /** Every level's caches are allocated for real until they would take so much, or until the device refuses beside the weights. */
  readonly prove?: { readonly backend: string; readonly limitBytes?: number };
  /** Only this one. */
  readonly level?: string;
  /** Told before each level that is proven: it takes a while. */
  readonly onProgress?: (level: string, done: number, of: number) => void;
}

const deadlineSeconds = 3600;

export async function planModel(name: string, options: PlanOptions, backend: Supervisor): Promise<MemoryPlan> {
  const { config } = await findModel(name, builtinFolder);
  const { memoryBytes, context, weightBytes, prove, level, onProgress } = options;
  const given = weightBytes === undefined ? {} : { weightBytes };
  const whole = planMemory({ name, config, context, memoryBytes, ...given });
  const plan = { ...whole, rows: whole.rows.filter((row) => level === undefined || row.level === level) };
  if (prove === undefined) return plan;
  if (prove.backend === 'cpu' && prove.limitBytes !== undefined) refuseMoreThanFree(prove.limitBytes);
  const rows: PlanRow[] = [];
  for (const row of plan.rows) {
    onProgress?.(row.level, rows.length, plan.rows.length);
    rows.push(await proven(row, { config, context, prove, weights: plan.weightBytes }, backend));
  }
  return { ...plan, rows };
}

interface Asked {
  readonly config: ModelConfig;
  readonly context: number;
  readonly prove: NonNullable<PlanOptions['prove']>;
  /** Bytes. */
  readonly weights: number;
}

async function proven(row: PlanRow, { config, context, prove, weights }: Asked, backend: Supervisor): Promise<PlanRow> {
  const kinds = levelOnModel(config, row.level, context);
  if (typeof kinds === 'string') return row;
  const there = kinds.map((kind) => ({ ...kind, config: { ...kind.config, backend: prove.backend } }));
  try {
    const room = { limitBytes: prove.limitBytes, weightBytes: weights };
    const { limitBytes, plannedSequences, reachedSequences, allocatedBytes, plannedBytes } = await fillMemory(
      there,
      context,
      room,
      backend,
      deadlineSeconds,
    );
    return {
      ...row,
      proof: { limitBytes, context, plannedSequences, reachedSequences, allocatedBytes, plannedBytes },
    };
  } catch (error) {
    if (error instanceof BackendFailure && error.kind === 'refused')
      return { level: row.level, refused: error.message };
    throw error;
  }
}
