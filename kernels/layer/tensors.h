// Attention on tensors given from outside (`fastmqa attend`), through the same cache and kernels as a sweep.
#pragma once
#include <cstdint>
#include <vector>

#include "cpu/attention.h"
#include "fastmqa/dtype.h"

namespace fastmqa {

/// Row-major; an empty tensor has no data and no shape.
template <class T>
struct TensorView {
  const T* data = nullptr;
  std::vector<int64_t> shape;
  explicit operator bool() const { return !shape.empty(); }
};

struct TensorAttention {
  TensorView<float> q;             ///< [B, H, Sq, D]
  TensorView<float> k, v;          ///< [B, G, Skv, D], [B, G, Skv, Dv]
  TensorView<float> pastK, pastV;  ///< [B, G, past, D], [B, G, past, Dv]
  TensorView<float> additiveMask;  ///< broadcastable to [B, H, Sq, past + Skv]
  TensorView<uint8_t> booleanMask;
  TensorView<float> cosine, sine;  ///< [positions, pairs]: rotates q and k, not the past
  TensorView<int32_t> positionIds; ///< [B, Sq] or [Sq] rows of cosine/sine; default past + index
  bool causal = false, interleaved = false, naive = false;
  double scale = 0;    ///< 0: 1 / sqrt(D)
  double softcap = 0;  ///< 0: none
  int64_t windowLeft = -1, windowRight = -1, sinks = 0;  ///< -1: unlimited
  Dtype cacheDtype = Dtype::f32;
  int device = -1;  ///< -1: the CPU; else the number of a CUDA device, which takes no mask
};

struct TensorAttentionResult {
  std::vector<float> out;                  ///< [B, H, Sq, Dv]
  std::vector<float> presentK, presentV;   ///< [B, G, past + Skv, D or Dv], as the cache holds them
};

/// The last query is aligned with the last key: query i is at position past + Skv - Sq + i.
/// @throws Failure refused, with one sentence, for shapes that do not fit together
TensorAttentionResult attendTensors(const TensorAttention& request, const CancelFlag* cancel);

}  // namespace fastmqa
