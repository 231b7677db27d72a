// The attention layer in fp64, from the definition (attention-spec B.0). Everything else is measured against it.
#pragma once
#include <cstdint>
#include <vector>

#include "../math/rope.h"

namespace fastmqa {

/// f32 weights of one attention layer, row-major, y = x W^T. The values are exact: the reference uses them in fp64.
struct LayerWeights {
  int64_t d = 0, heads = 0, kvHeads = 0, headDim = 0;
  std::vector<float> wq;  ///< [heads * headDim][d]
  std::vector<float> wk;  ///< [kvHeads * headDim][d]
  std::vector<float> wv;  ///< [kvHeads * headDim][d]
  std::vector<float> wo;  ///< [d][heads * headDim]
  // What some trained models add; empty or zero where a model has none.
  std::vector<float> bq, bk, bv, bo;
  std::vector<float> queryNorm, keyNorm;  ///< [headDim] RMSNorm of every head, before the rotary embedding
  double normEpsilon = 1e-6;
  double scale = 0;    ///< of the scores; 0: 1 / sqrt(headDim)
  double softcap = 0;  ///< scores become softcap * tanh(score / softcap)
  int64_t window = 0;  ///< keys a query sees in the model itself: such a layer is not windowed further and has no sinks
  RopeParameters rope;  ///< rotaryDim 0: no rotary embedding
};

/// y at the given ascending query positions, causal: y_t = sum_h W_o,h sum_s softmax_s(scale q_t,h . k_s) v_s, with all that
/// the weights bring: biases, norms of heads, rotary embedding, soft cap, window.
/// @param x [tokens][d]
/// @param room positions in use, which some rotary embeddings depend on
/// @param uniform equal weights on all keys that are seen instead of the softmax (a control)
/// @returns [positions][d]
std::vector<double> referenceOutput(const LayerWeights& layer, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, int64_t room, bool uniform);

}  // namespace fastmqa
