// Fewer KV heads from the weights of a trained layer: MHA or GQA to GQA or MQA (attention-spec B.1).
#pragma once
#include <cstdint>
#include <vector>

namespace fastmqa {

/// fp64 weights by head; q_h = query[h] x, k_g = key[g] x, v_g = value[g] x, y = sum_h output[h] o_h.
/// Query head h uses KV head floor(h / (heads / kvHeads)).
struct HeadWeights {
  int64_t heads = 0, kvHeads = 0, headDim = 0, hiddenDim = 0;
  std::vector<double> query;   ///< [heads, headDim, hiddenDim]
  std::vector<double> key;     ///< [kvHeads, headDim, hiddenDim]
  std::vector<double> value;   ///< [kvHeads, headDim, hiddenDim]
  std::vector<double> output;  ///< [heads, hiddenDim, headDim]
};

enum class HeadMerge {
  mean,     ///< the mean of a group's heads (Ainslie et al. 2023)
  first,    ///< the first head of a group
  aligned,  ///< the mean after removing the heads' gauges by generalised Procrustes analysis (Jin et al. 2024)
};

struct HeadMergeOptions {
  HeadMerge how = HeadMerge::aligned;
  int64_t kvHeads = 1;    ///< wanted, a divisor of the layer's; groups are contiguous
  int64_t rotaryDim = -1; ///< aligned: channels that rotate (rotate-half, the first ones of a head); -1 = all, 0 = no RoPE
  int iterations = 10;    ///< aligned
};

/// Merges the KV heads of a layer in contiguous groups.
/// `aligned` changes all four weights, and the gauges it removes leave the layer's function unchanged: keys and queries
/// turn by one phase per RoPE pair, the only orthogonal maps that commute with the rotations (by any orthogonal map on
/// channels that do not rotate), values by an orthogonal map T_h that is folded into the output.
/// It maximises the energy of the group means over the calibration inputs, starting from each group's first head.
/// The others leave query and output as they are.
/// @param calibration [tokens, hiddenDim] layer inputs for `aligned`, headDim tokens at the least; else null
/// @throws std::invalid_argument on shapes that do not match
HeadWeights mergeHeads(const HeadWeights& weights, const HeadMergeOptions& options, const double* calibration,
                       int64_t tokens);

}  // namespace fastmqa
