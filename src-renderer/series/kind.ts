/** What the points of a sweep are about: it decides what they are judged by, and what is shown of them first. */
import type { Point } from '../../src-main/contract/metrics.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';

export type Kind = 'layer' | 'layer of a model' | 'model' | 'speculation' | 'capacity';

/** Of a layer how far its output is off, of a model what its words lose, of one that speculates what it gains, of memory how many fit. */
export const judgedBy: Readonly<Record<Kind, string>> = {
  layer: 'relativeL2',
  'layer of a model': 'relativeL2',
  model: 'logitKl',
  speculation: 'speedUp',
  capacity: 'reachedSequences',
};

type Axes = Readonly<Record<string, readonly unknown[] | undefined>>;

/** By what was asked for: nothing may change while points come in. */
export function kindOf(grids: readonly Axes[]): Kind {
  if (grids.length > 0 && grids.every(({ phase }) => isOnly(phase, 'capacity'))) return 'capacity';
  const ofModels = grids.filter(({ model }) => model && model.length > 0);
  if (ofModels.length === 0) return 'layer';
  if (ofModels.every(({ layer }) => layer && layer.length > 0)) return 'layer of a model';
  return ofModels.every(({ phase }) => isOnly(phase, 'speculate')) ? 'speculation' : 'model';
}

const isOnly = (phases: readonly unknown[] | undefined, phase: string): boolean =>
  phases !== undefined && phases.length > 0 && phases.every((value) => value === phase);

export const kindOfSweep = (sweep: Sweep): Kind => kindOf([sweep, ...(sweep.also ?? [])].map(({ axes }) => axes));

/** By what there is, where nobody says what was asked for. */
export const kindOfPoints = (points: readonly Point[]): Kind =>
  kindOf(
    points.map(({ config }) => ({
      model: [config.model].filter(Boolean),
      layer: [config.layer].filter((layer) => layer !== undefined),
      phase: [config.phase],
    })),
  );
