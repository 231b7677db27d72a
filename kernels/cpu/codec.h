// Number formats of caches (attention-spec B.5): conversions of single values and of groups that share a scale.
#pragma once
#include <cstdint>

#include "fastmqa/dtype.h"

namespace fastmqa {

uint16_t halfFromFloat(float x);      ///< round to nearest even, saturating at +-65504
float floatFromHalf(uint16_t bits);
uint16_t bfloatFromFloat(float x);    ///< round to nearest even, saturating at the largest finite number
uint8_t e4m3FromFloat(float x);       ///< round to nearest even, saturating at +-448
uint8_t e5m2FromFloat(float x);       ///< round to nearest even, saturating at +-57344
float floatFromE4m3(uint8_t bits);
float floatFromE5m2(uint8_t bits);

/// Scale and shift of one group: stored value = code * scale + shift, codes unsigned, 0 .. 2^bits - 1.
struct GroupScale {
  float scale, shift;
  bool fitsHalf;  ///< false: an f16 scale or minimum would be subnormal or overflow, store both in f32
};

/// Scale for values in [lowest, highest]. Symmetric: shift = -2^(bits-1) * scale and only scale is stored.
/// With `half` the scale (and minimum) are rounded to f16 first, and the rounded ones are used.
GroupScale groupScale(int bits, bool symmetric, float lowest, float highest, bool half);

/// Code of x under a group scale: round half to even, clamped to the codes the format uses.
uint32_t quantise(float x, const GroupScale& g, int bits, bool symmetric);

/// Writes code i of a packed row (int8, int4, int3, int2: little-endian bit order, low bits = even index).
void putCode(Dtype dtype, uint8_t* row, int64_t i, uint32_t code);

/// Writes value i of a row of a floating type.
void putFloat(Dtype dtype, uint8_t* row, int64_t i, float x);

}  // namespace fastmqa
