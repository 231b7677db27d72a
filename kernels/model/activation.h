// What an MLP does between its products.
#pragma once
#include <cstdint>

namespace fastmqa {

enum class Activation { silu, gelu, geluTanh };

/// x[i] = activation(x[i]), or with a gate activation(gate[i]) * x[i]. A gate is overwritten.
void activate(Activation activation, int64_t n, float* gate, float* x);

}  // namespace fastmqa
