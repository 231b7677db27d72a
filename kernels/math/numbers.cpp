#include "numbers.h"

#include <algorithm>

#include "../simd/simd.h"

namespace fastmqa {

void widen(Dtype type, const uint16_t* halves, int64_t count, float* to) {
  const int64_t whole = count / 8 * 8;
  const auto decode = [&](const uint16_t* from, int64_t n, float* out) {
    simd().decode(static_cast<int>(type), reinterpret_cast<const uint8_t*>(from), n, out);
  };
  if (whole > 0) decode(halves, whole, to);
  if (whole == count) return;
  uint16_t rest[8] = {};
  float wide[8];
  std::copy_n(halves + whole, count - whole, rest);
  decode(rest, 8, wide);
  std::copy_n(wide, count - whole, to + whole);
}

float Numbers::operator[](size_t i) const {
  if (!isHalf()) return wide_[i];
  float x;
  widen(type_, halves_.data() + i, 1, &x);
  return x;
}

void Numbers::read(size_t first, size_t count, float* to) const {
  if (isHalf())
    widen(type_, halves_.data() + first, static_cast<int64_t>(count), to);
  else
    std::copy_n(wide_.data() + first, count, to);
}

std::vector<float> Numbers::floats() const {
  std::vector<float> out(size());
  read(0, size(), out.data());
  return out;
}

std::vector<double> Numbers::doubles() const {
  const std::vector<float> wide = floats();
  return std::vector<double>(wide.begin(), wide.end());
}

}  // namespace fastmqa
