#include "codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fastmqa {
namespace {

uint32_t bitsFrom(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
float floatFrom(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

// Rounds |x| to a format with `mantissa` bits whose smallest normal is 2^minExponent, saturating at `largest`.
// The value returned is exact in the target format.
float roundTo(float x, int mantissa, int minExponent, float largest) {
  const float a = std::fabs(x);
  if (!(a < largest)) return std::copysign(largest, x);
  int exponent;
  std::frexp(a, &exponent);  // a = f * 2^exponent, f in [0.5, 1)
  const int step = std::max(exponent - 1, minExponent) - mantissa;
  const float rounded = std::ldexp(std::nearbyint(std::ldexp(a, -step)), step);
  return std::copysign(std::min(rounded, largest), x);
}

// Bits of a value that `roundTo` made exact: sign, exponent field of the given bias, mantissa.
uint32_t packFloat(float x, int exponentBits, int mantissa, int bias) {
  const uint32_t sign = std::signbit(x) ? 1u << (exponentBits + mantissa) : 0;
  const float a = std::fabs(x);
  const float smallestNormal = std::ldexp(1.0f, 1 - bias);
  if (a < smallestNormal) return sign | static_cast<uint32_t>(std::ldexp(a, bias - 1 + mantissa));
  int exponent;
  const float f = std::frexp(a, &exponent);
  const uint32_t field = static_cast<uint32_t>(exponent - 1 + bias);
  return sign | field << mantissa | (static_cast<uint32_t>(std::ldexp(f, mantissa + 1)) & ((1u << mantissa) - 1));
}

}  // namespace

uint16_t halfFromFloat(float x) {
  const uint32_t u = bitsFrom(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7bffu);  // saturates (and keeps NaN out)
  if (magnitude < 0x38800000u) {  // below the smallest normal: align to the subnormal step 2^-24
    const float aligned = floatFrom(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bitsFrom(aligned) - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}

float floatFromHalf(uint16_t h) {
  return std::copysign(floatFrom((h & 0x7fffu) << 13) * 0x1p112f, (h & 0x8000u) ? -1.0f : 1.0f);
}

uint16_t bfloatFromFloat(float x) {
  const uint32_t u = bitsFrom(x);
  if ((u & 0x7fffffffu) >= 0x7f7f8000u) return static_cast<uint16_t>((u >> 16 & 0x8000u) | 0x7f7fu);  // saturates (and keeps NaN out)
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

uint8_t e4m3FromFloat(float x) { return static_cast<uint8_t>(packFloat(roundTo(x, 3, -6, 448.0f), 4, 3, 7)); }
uint8_t e5m2FromFloat(float x) { return static_cast<uint8_t>(packFloat(roundTo(x, 2, -14, 57344.0f), 5, 2, 15)); }

float floatFromE4m3(uint8_t b) {
  if ((b & 0x7fu) == 0x7fu) return NAN;
  return std::copysign(floatFrom((b & 0x7fu) << 20) * 0x1p120f, (b & 0x80u) ? -1.0f : 1.0f);
}
float floatFromE5m2(uint8_t b) {
  const uint32_t magnitude = b & 0x7fu;
  if (magnitude > 0x7cu) return NAN;
  if (magnitude == 0x7cu) return (b & 0x80u) ? -INFINITY : INFINITY;
  return std::copysign(floatFrom(magnitude << 21) * 0x1p112f, (b & 0x80u) ? -1.0f : 1.0f);
}

GroupScale groupScale(int bits, bool symmetric, float lowest, float highest, bool half) {
  constexpr float smallest = 0x1p-14f, largest = 65504.0f;
  GroupScale g{1, 0, true};
  const auto rounded = [half](float x) { return half ? floatFromHalf(halfFromFloat(x)) : x; };
  const auto awkward = [](float x) { return x != 0 && (std::fabs(x) < smallest || std::fabs(x) > largest); };
  if (symmetric) {
    const float step = std::max(std::fabs(lowest), std::fabs(highest)) / static_cast<float>((1 << (bits - 1)) - 1);
    g.fitsHalf = !awkward(step);
    g.scale = rounded(step);
    if (g.scale == 0) g.scale = 1;
    g.shift = -static_cast<float>(1 << (bits - 1)) * g.scale;
  } else {
    g.shift = rounded(lowest);
    const float step = (highest - g.shift) / static_cast<float>((1 << bits) - 1);
    g.fitsHalf = !awkward(step) && std::fabs(lowest) <= largest;
    g.scale = rounded(step);
    if (!(g.scale > 0)) g.scale = 1;
  }
  return g;
}

uint32_t quantise(float x, const GroupScale& g, int bits, bool symmetric) {
  const float top = static_cast<float>((1 << bits) - 1);
  const float code = std::nearbyint((x - g.shift) / g.scale);
  return static_cast<uint32_t>(std::min(std::max(symmetric ? 1.0f : 0.0f, code), top));  // in this order NaN becomes the lowest code
}

void putCode(Dtype dtype, uint8_t* row, int64_t i, uint32_t code) {
  switch (dtype) {
    case Dtype::int8: row[i] = static_cast<uint8_t>(code); return;
    case Dtype::int4: {
      uint8_t& b = row[i >> 1];
      b = static_cast<uint8_t>((i & 1) ? (b & 0x0f) | code << 4 : (b & 0xf0) | code);
      return;
    }
    case Dtype::int2: {
      uint8_t& b = row[i >> 2];
      const int shift = 2 * (i & 3);
      b = static_cast<uint8_t>((b & ~(3 << shift)) | code << shift);
      return;
    }
    case Dtype::int3: {
      const int64_t bit = 3 * i;
      for (int k = 0; k < 3; k++) {
        uint8_t& b = row[(bit + k) >> 3];
        const int shift = (bit + k) & 7;
        b = static_cast<uint8_t>((b & ~(1 << shift)) | ((code >> k) & 1) << shift);
      }
      return;
    }
    default: return putFloat(dtype, row, i, static_cast<float>(code));
  }
}

void putFloat(Dtype dtype, uint8_t* row, int64_t i, float x) {
  switch (dtype) {
    case Dtype::f32: std::memcpy(row + 4 * i, &x, 4); return;
    case Dtype::f16: {
      const uint16_t h = halfFromFloat(x);
      std::memcpy(row + 2 * i, &h, 2);
      return;
    }
    case Dtype::bf16: {
      const uint16_t h = bfloatFromFloat(x);
      std::memcpy(row + 2 * i, &h, 2);
      return;
    }
    case Dtype::e4m3: row[i] = e4m3FromFloat(x); return;
    case Dtype::e5m2: row[i] = e5m2FromFloat(x); return;
    default: return;
  }
}

}  // namespace fastmqa
