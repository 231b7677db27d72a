// Element types of caches. The order is part of the SIMD tables.
#pragma once
#include <cstdint>

namespace fastmqa {

enum class Dtype : int { f32 = 0, f16 = 1, bf16 = 2, e4m3 = 3, e5m2 = 4, int8 = 5, int4 = 6, int3 = 7, int2 = 8 };

inline int bitsOf(Dtype t) {
  constexpr int bits[] = {32, 16, 16, 8, 8, 8, 4, 3, 2};
  return bits[static_cast<int>(t)];
}
inline bool isInteger(Dtype t) { return t >= Dtype::int8; }
/// Bytes of n packed elements.
inline int64_t packedBytes(Dtype t, int64_t n) { return (n * bitsOf(t) + 7) / 8; }

}  // namespace fastmqa
