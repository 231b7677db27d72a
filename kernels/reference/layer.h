// The attention layer in fp64, from the definition (attention-spec B.0). Everything else is measured against it.
#pragma once
#include <cstdint>
#include <vector>

namespace fastmqa {

struct ReferenceLayer {
  int64_t d, heads, kvHeads, headDim;
  const float *wq, *wk, *wv, *wo;  ///< as LayerWeights
  double ropeTheta;                ///< rotate-half on all channels; 0 = none
};

/// y at the given ascending query positions, causal: y_t = sum_h W_o,h sum_s softmax_s(q_t,h . k_s / sqrt(D)) v_s.
/// @param x [tokens][d]
/// @param uniform attention weights 1 / (t + 1) instead of the softmax (a control)
/// @returns [positions][d]
std::vector<double> referenceOutput(const ReferenceLayer& layer, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, bool uniform);

}  // namespace fastmqa
