// What lies between the two products of an MLP, number by number.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

/// e^x
FASTMQA_DEVICE float exponential(float x) { return exp2Fast(x * log2OfE); }
FASTMQA_DEVICE float hyperbolicTangent(float x) { return 1 - 2 * reciprocal(1 + exponential(2 * x)); }

enum class ActivationKind : int { silu, gelu, geluTanh };

FASTMQA_DEVICE float activated(ActivationKind kind, float x) {
  switch (kind) {
    case ActivationKind::silu: return x * reciprocal(1 + exponential(-x));
    case ActivationKind::gelu: return 0.5f * x * (1 + erff(x * 0.70710678118654752f));
    case ActivationKind::geluTanh: return 0.5f * x * (1 + hyperbolicTangent(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace fastmqa::gpu
