#include "activation.h"

#include <algorithm>
#include <cmath>

#include "math/threads.h"
#include "simd/simd.h"

namespace fastmqa {
namespace {

constexpr int64_t chunk = 4096;  // numbers of a work item: fewer are not worth a hand-over

void applied(Activation activation, int64_t n, float* x) {
  switch (activation) {
    case Activation::silu: return simd().silu(x, n);
    case Activation::gelu:
      for (int64_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1 + std::erf(x[i] * 0.70710678118654752f));
      return;
    case Activation::geluTanh:
      for (int64_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1 + std::tanh(0.79788456080286536f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
      return;
  }
}

}  // namespace

void activate(Activation activation, int64_t n, float* gate, float* x) {
  parallelFor((n + chunk - 1) / chunk, [&](int64_t k) {
    const int64_t first = k * chunk, end = std::min(n, first + chunk);
    applied(activation, end - first, (gate ? gate : x) + first);
    for (int64_t i = first; gate && i < end; i++) x[i] *= gate[i];
  });
}

}  // namespace fastmqa
