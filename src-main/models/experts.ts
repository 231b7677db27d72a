/** Mixtures of experts that a configuration describes. */
import type { Experts, ModelConfig } from '../contract/model.ts';
import { type Fields, mostLayers } from './fields.ts';

const widest = 2 ** 20;
const mostExperts = 65536;

/** DeepSeek: in some layers, beside shared ones. */
export function expertsOf(fields: Fields, family: string): Experts | undefined {
  const count = fields.optionalCount('n_routed_experts', mostExperts);
  if (count === undefined) return undefined;
  const third = family === 'deepseek_v3';
  const choose = (name: string, otherwise: string, ...known: readonly string[]): string => {
    const value = fields.text([name]) ?? otherwise;
    if (!known.includes(value)) throw fields.wrong(`one of ${known.join(', ')}`, name);
    return value;
  };
  const method = third
    ? choose('topk_method', 'noaux_tc', 'noaux_tc')
    : choose('topk_method', 'greedy', 'greedy', 'group_limited_greedy');
  const sigmoid = choose('scoring_func', third ? 'sigmoid' : 'softmax', third ? 'sigmoid' : 'softmax') === 'sigmoid';
  const groups = method === 'greedy' ? 1 : fields.count(['n_group'], count, 1);
  if (count % groups !== 0 || (sigmoid && groups > 1 && count / groups < 2))
    throw fields.wrong(`a divisor of ${count} experts`, 'n_group');
  const chosenGroups = groups === 1 ? 1 : fields.count(['topk_group'], groups);
  const mlpDim = fields.count(['moe_intermediate_size'], widest);
  const dense = fields.has('first_k_dense_replace') ? fields.figure(['first_k_dense_replace'], undefined, -1) : 0;
  if (!Number.isInteger(dense) || dense > mostLayers)
    throw fields.wrong(`a whole number from 0 to ${mostLayers}`, 'first_k_dense_replace');
  return {
    ...{ count, mlpDim, sigmoid, groups, chosenGroups, firstLayer: dense },
    chosen: fields.count(['num_experts_per_tok'], (count / groups) * chosenGroups),
    sharedMlpDim: (fields.optionalCount('n_shared_experts', 4096) ?? 0) * mlpDim,
    everyLayers: fields.count(['moe_layer_freq'], mostLayers, 1),
    normalises: fields.flag('norm_topk_prob', third),
    scaling: fields.figure(['routed_scaling_factor'], 1),
  };
}

export const hasExperts = ({ experts }: Pick<ModelConfig, 'experts'>, layer: number): boolean =>
  experts !== undefined && layer >= experts.firstLayer && layer % experts.everyLayers === 0;

/** Weights of the layers that have experts, beyond those of a dense MLP in their place. */
export function expertWeights(config: Pick<ModelConfig, 'experts' | 'layers' | 'mlpDim'>, hiddenDim: number): number {
  if (!config.experts) return 0;
  const layers = config.layers.filter((_, layer) => hasExperts(config, layer)).length;
  const { count, mlpDim, sharedMlpDim } = config.experts;
  return layers * hiddenDim * (3 * (count * mlpDim + sharedMlpDim - config.mlpDim) + count);
}

/** Experts in every layer, chosen by a softmax: Mixtral and Qwen3-MoE. */
export function everyMlp(fields: Fields, family: string): Experts {
  const isMixtral = family === 'mixtral';
  const count = fields.count(['num_local_experts', 'num_experts'], mostExperts); // transformers 5 writes the former for both
  return {
    ...{
      count,
      sharedMlpDim: 0,
      firstLayer: 0,
      everyLayers: 1,
      sigmoid: false,
      groups: 1,
      chosenGroups: 1,
      scaling: 1,
    },
    chosen: fields.count(['num_experts_per_tok'], count),
    mlpDim: fields.count([isMixtral ? 'intermediate_size' : 'moe_intermediate_size'], widest),
    normalises: isMixtral || fields.flag('norm_topk_prob', false),
  };
}
