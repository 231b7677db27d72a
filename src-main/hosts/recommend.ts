/** Recommends a level for an error budget on a model, every candidate measured on the real backend. */
import type { Point } from '../contract/metrics.ts';
import type { Budget, MemoryLimits, Recommendation } from '../contract/recommendation.ts';
import type { PointConfig } from '../contract/sweep.ts';
import { failedPoint, measuredPoint, skippedPoint } from '../engine/measure.ts';
import { defaultMeasuring, pointId } from '../engine/plan.ts';
import { BackendFailure, type MeasuringBackend } from '../engine/ports.ts';
import { recommend, type SearchProgress } from '../engine/recommend.ts';

export interface RecommendOptions {
  readonly model: string;
  readonly context: number;
  readonly batch: number;
  readonly budgets: readonly Budget[];
  readonly limits: MemoryLimits;
  /** Records everything measured on the way as a session. */
  readonly out?: string;
  readonly tokenFile?: string;
  /** `cpu` or `cuda:N`. */
  readonly backend: string;
}

/** Enough to tell fast from slow; budgets are about errors and bytes. */
const sampleSeconds = 0.1;
const deadlineSeconds = 600;

export function recommendLevel(
  base: Readonly<Record<string, string | number>>,
  asked: Pick<RecommendOptions, 'budgets' | 'limits'>,
  backend: MeasuringBackend,
  record: (point: Point) => Promise<void>,
  onProgress?: (progress: SearchProgress) => void,
): Promise<Recommendation> {
  return recommend({
    base,
    ...asked,
    ...(onProgress && { onProgress }),
    measure: async (config) => {
      const point = await measure(config, backend);
      await record(point);
      return point;
    },
  });
}

async function measure(config: PointConfig, backend: MeasuringBackend): Promise<Point> {
  const planned = { id: pointId(config), config };
  try {
    const prepared = await backend.prepare(config, deadlineSeconds);
    try {
      await backend.sample(prepared, sampleSeconds / 4, 3, deadlineSeconds);
      const samples = await backend.sample(prepared, sampleSeconds, 100, deadlineSeconds);
      return measuredPoint(planned, prepared, samples, defaultMeasuring);
    } finally {
      await backend.release(prepared).catch(() => undefined); // it died with its worker
    }
  } catch (error) {
    if (!(error instanceof BackendFailure) || error.kind === 'cancelled') throw error;
    return (error.kind === 'refused' ? skippedPoint : failedPoint)(planned, error.message);
  }
}
