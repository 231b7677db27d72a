/** The rotary embedding that a configuration describes (attention-spec B.2). */
import { expected } from '../contract/input-error.ts';
import type { Rope } from '../contract/model.ts';
import type { Fields } from './fields.ts';

/** @param fraction of the head that rotates */
export function ropeOf(
  fields: Fields,
  headDim: number,
  fraction = 1,
  thetaNames = ['rope_theta'],
  layerType?: string,
): Rope {
  const parameters = fields.object('rope_parameters');
  const own = (layerType && parameters?.object(layerType)) || parameters;
  const rotaryDim = Math.floor(fraction * headDim);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0 || rotaryDim > headDim)
    throw expected('an even number of rotating channels', `rotary part of a head in ${fields.path}`, rotaryDim);
  const theta = own?.has('rope_theta') ? own.figure(['rope_theta'], undefined, 1) : fields.figure(thetaNames, 10000, 1);
  const scaling = scalingOf(own?.has('rope_type') || own?.has('type') ? own : fields.object('rope_scaling'), fields);
  return { theta, rotaryDim, ...(scaling && { scaling }) };
}

function scalingOf(scaling: Fields | undefined, fields: Fields): Rope['scaling'] {
  const kind = scaling?.text(['rope_type', 'type']) ?? 'default';
  if (!scaling || kind === 'default') return undefined;
  const inConfig = fields.optionalFigure('original_max_position_embeddings');
  const longest = fields.optionalFigure('max_position_embeddings');
  const original = scaling.optionalFigure('original_max_position_embeddings') ?? inConfig;
  const optional = (name: string, field: string): Record<string, number> =>
    scaling.has(field) ? { [name]: scaling.figure([field]) } : {};
  switch (kind) {
    case 'linear':
      return { kind, factor: scaling.figure(['factor']) };
    case 'dynamic':
      return { kind, factor: scaling.figure(['factor']), originalMaxPositions: original ?? required(longest, fields) };
    case 'llama3':
      return {
        kind,
        factor: scaling.figure(['factor']),
        originalMaxPositions: original ?? required(undefined, scaling),
        lowFrequencyFactor: scaling.figure(['low_freq_factor']),
        highFrequencyFactor: scaling.figure(['high_freq_factor']),
      };
    case 'yarn':
      return {
        kind,
        factor: scaling.figure(['factor']),
        originalMaxPositions: original ?? required(longest, fields),
        ...optional('betaFast', 'beta_fast'),
        ...optional('betaSlow', 'beta_slow'),
        ...optional('mscale', 'mscale'),
        ...optional('mscaleAllDim', 'mscale_all_dim'),
        ...optional('attentionFactor', 'attention_factor'),
      };
    case 'longrope':
    case 'su': {
      const trained = original ?? required(undefined, fields);
      return {
        kind: 'longrope',
        factor: scaling.optionalFigure('factor') ?? (longest ? longest / trained : 1),
        originalMaxPositions: trained,
        shortFactors: scaling.figures('short_factor'),
        longFactors: scaling.figures('long_factor'),
        ...optional('attentionFactor', 'attention_factor'),
      };
    }
    default:
      throw scaling.wrong(
        'one of default, linear, dynamic, yarn, longrope, llama3',
        scaling.has('rope_type') ? 'rope_type' : 'type',
      );
  }
}

function required(value: number | undefined, fields: Fields): number {
  if (value === undefined) throw fields.wrong('a number above 0', 'original_max_position_embeddings');
  return value;
}

/** DeepSeek multiplies the scores by the square of YaRN's magnitude scale (attention-spec B.2). */
export function yarnScale({ scaling }: Rope): number {
  if (scaling?.kind !== 'yarn' || !scaling.mscaleAllDim || scaling.factor <= 1) return 1;
  return (0.1 * scaling.mscaleAllDim * Math.log(scaling.factor) + 1) ** 2;
}
