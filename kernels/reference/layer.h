// The attention layer in fp64, from the definition (attention-spec B.0). Everything else is measured against it.
#pragma once
#include <cstdint>
#include <vector>

#include "../math/numbers.h"
#include "../math/rope.h"

namespace fastmqa {

/// Multi-head latent attention (DeepSeek-V2, attention-spec B.3): what a layer has in place of wk and wv. A key of a head is
/// made of the latent, its last `ropeDim` channels are one rotated key that all heads share. Queries are split alike.
struct LatentWeights {
  int64_t rank = 0;  ///< of the latent, which the layer itself caches beside the rotated key; 0: no latent attention
  int64_t ropeDim = 0, valueDim = 0;
  Numbers queryDown;             ///< [query rank][d]; empty: wq acts on x itself
  std::vector<float> queryNorm;  ///< [query rank] RMSNorm
  Numbers down;                  ///< [rank + ropeDim][d]
  std::vector<float> norm;       ///< [rank] RMSNorm of the latent, before it is cached
  Numbers up;                    ///< [heads][headDim - ropeDim key channels, then valueDim][rank]
  /// DeepSeek's code gives these two norms its default, whatever the configuration says of the others.
  static constexpr double normEpsilon = 1e-6;
};

/// Weights of one attention layer, row-major, y = x W^T. The values are exact: the reference uses them in fp64.
struct LayerWeights {
  int64_t d = 0, heads = 0, kvHeads = 0, headDim = 0;
  Numbers wq;  ///< [heads * headDim][d, or the rank of the queries' own latent]
  Numbers wk;  ///< [kvHeads * headDim][d]
  Numbers wv;  ///< [kvHeads * headDim][d]
  Numbers wo;  ///< [d][heads * headDim, or the latent's valueDim]
  LatentWeights latent;
  // What some trained models add; empty or zero where a model has none.
  std::vector<float> bq, bk, bv, bo;
  std::vector<float> queryNorm, keyNorm;  ///< [headDim] RMSNorm of every head, before the rotary embedding
  double normEpsilon = 1e-6;
  double scale = 0;    ///< of the scores; 0: 1 / sqrt(headDim)
  double softcap = 0;  ///< scores become softcap * tanh(score / softcap)
  int64_t window = 0;  ///< keys a query sees in the model itself: such a layer is not windowed further and has no sinks
  RopeParameters rope;  ///< rotaryDim 0: no rotary embedding
};

/// How many numbers the projections of a layer are, and their bytes: what the model itself keeps.
int64_t weightCount(const LayerWeights& layer);
int64_t weightBytes(const LayerWeights& layer);

/// y at the given ascending query positions, causal: y_t = sum_h W_o,h sum_s softmax_s(scale q_t,h . k_s) v_s, with all that
/// the weights bring: biases, norms of heads, rotary embedding, soft cap, window, keys and values out of a latent.
/// @param x [tokens][d]
/// @param room positions in use, which some rotary embeddings depend on
/// @param uniform equal weights on all keys that are seen instead of the softmax (a control)
/// @returns [positions][d]
std::vector<double> referenceOutput(const LayerWeights& layer, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, int64_t room, bool uniform);

}  // namespace fastmqa
