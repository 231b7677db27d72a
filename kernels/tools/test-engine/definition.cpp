#include "definition.h"

#include <algorithm>
#include <cmath>

using fastmqa::Band;
using fastmqa::Dtype;
using fastmqa::Grouping;

namespace definition {

FloatFormat::FloatFormat(int exponentBits, int mantissaBits, bool infinities) : sign_(1u << (exponentBits + mantissaBits)) {
  const int bias = (1 << (exponentBits - 1)) - 1, topExponent = (1 << exponentBits) - 1, mantissas = 1 << mantissaBits;
  smallestNormal_ = std::ldexp(1.0, 1 - bias);
  for (int e = 0; e <= topExponent; e++)
    for (int m = 0; m < mantissas; m++) {
      if (e == topExponent && (infinities || m == mantissas - 1)) return;
      const double fraction = static_cast<double>(m) / mantissas;
      magnitudes_.push_back(e == 0 ? fraction * std::ldexp(1.0, 1 - bias) : (1 + fraction) * std::ldexp(1.0, e - bias));
    }
}

double FloatFormat::value(uint32_t code) const {
  const double magnitude = magnitudes_[code & (sign_ - 1)];
  return code & sign_ ? -magnitude : magnitude;
}

uint32_t FloatFormat::nearest(double x) const {
  const double a = std::fabs(x);
  const auto above = std::lower_bound(magnitudes_.begin(), magnitudes_.end(), a);
  auto code = static_cast<uint32_t>(above - magnitudes_.begin());
  if (above == magnitudes_.end()) {
    code--;
  } else if (code > 0 && *above != a) {
    const double up = *above - a, down = a - magnitudes_[code - 1];
    if (down < up || (down == up && (code & 1))) code--;
  }
  return std::signbit(x) ? code | sign_ : code;
}

const FloatFormat& formatOf(Dtype dtype) {
  static const FloatFormat half(5, 10, true), bfloat(8, 7, true), e4m3(4, 3, false), e5m2(5, 2, true);
  return dtype == Dtype::f16 ? half : dtype == Dtype::bf16 ? bfloat : dtype == Dtype::e4m3 ? e4m3 : e5m2;
}

void roundGroup(const std::vector<double*>& group, size_t firstValid, int bits, bool symmetric) {
  const FloatFormat& half = formatOf(Dtype::f16);
  const auto fits = [&](double x) { return x == 0 || (std::fabs(x) >= half.smallestNormal() && std::fabs(x) <= half.largest()); };
  double low = 0, high = 0;
  for (size_t i = firstValid; i < group.size(); i++) {
    low = i == firstValid ? *group[i] : std::min(low, *group[i]);
    high = i == firstValid ? *group[i] : std::max(high, *group[i]);
  }
  if (symmetric) {
    const double top = (1 << (bits - 1)) - 1;
    double scale = std::max(std::fabs(low), std::fabs(high)) / top;
    if (fits(scale)) scale = half.rounded(scale);
    if (scale == 0) scale = 1;
    for (double* x : group) *x = std::clamp(std::nearbyint(*x / scale), -top, top) * scale;
    return;
  }
  const double top = (1 << bits) - 1;
  double minimum = half.rounded(low), scale = (high - minimum) / top;
  if (fits(scale) && std::fabs(low) <= half.largest())
    scale = half.rounded(scale);
  else
    minimum = low, scale = (high - low) / top;
  if (!(scale > 0)) scale = 1;
  for (double* x : group) *x = std::clamp(std::nearbyint((*x - minimum) / scale), 0.0, top) * scale + minimum;
}

void roundStored(const fastmqa::StoreSpec& spec, std::vector<double>& x, int64_t tokens, int64_t firstValid) {
  const int64_t width = spec.heads * spec.channels;
  const auto at = [&](int64_t t, int64_t c) { return &x[static_cast<size_t>(t * width + c)]; };
  for (int64_t h = 0; h < spec.heads; h++) {
    int64_t first = h * spec.channels;
    for (const Band& band : spec.bands) {
      const int64_t end = first + band.channels;
      const int bits = fastmqa::bitsOf(band.dtype);
      if (spec.grouping == Grouping::tensor || !fastmqa::isInteger(band.dtype)) {
        const double scale = spec.grouping == Grouping::tensor ? static_cast<double>(spec.tensorScale) : 1, top = (1 << (std::min(bits, 16) - 1)) - 1;
        for (int64_t t = 0; t < tokens; t++)
          for (int64_t c = first; c < end; c++) {
            double& v = *at(t, c);
            if (fastmqa::isInteger(band.dtype))
              v = std::clamp(std::nearbyint(v / scale), -top, top) * scale;
            else if (band.dtype != Dtype::f32)
              v = formatOf(band.dtype).rounded(v / scale) * scale;
          }
      } else if (spec.grouping == Grouping::token) {
        for (int64_t t = 0; t < tokens; t++)
          for (int64_t c = first; c < end; c += spec.groupSize) {
            std::vector<double*> group;
            for (int64_t i = c; i < std::min(end, c + spec.groupSize); i++) group.push_back(at(t, i));
            roundGroup(group, 0, bits, band.symmetric);
          }
      } else {
        for (int64_t t = 0; t + spec.groupSize <= tokens; t += spec.groupSize)
          for (int64_t c = first; c < end; c++) {
            std::vector<double*> group;
            for (int64_t i = t; i < t + spec.groupSize; i++) group.push_back(at(i, c));
            roundGroup(group, static_cast<size_t>(std::clamp<int64_t>(firstValid - t, 0, spec.groupSize)), bits, band.symmetric);
          }
      }
      first = end;
    }
  }
}

std::vector<double> Attention::output() const {
  std::vector<double> out(static_cast<size_t>(queries * heads * valueDim), 0.0), p(static_cast<size_t>(keys));
  for (int64_t i = 0; i < queries; i++)
    for (int64_t h = 0; h < heads; h++) {
      const int64_t g = h / (heads / kvHeads), position = firstPosition + i;
      double top = -INFINITY, total = 0;
      for (int64_t s = 0; s < keys; s++) {
        double& logit = p[static_cast<size_t>(s)];
        logit = -INFINITY;
        if (s > position + right || (s < position - left && s >= sinks)) continue;
        logit = 0;
        for (int64_t c = 0; c < keyDim; c++) logit += q[static_cast<size_t>((i * heads + h) * keyDim + c)] * k[static_cast<size_t>((s * kvHeads + g) * keyDim + c)];
        logit *= scale;
        if (softcap > 0) logit = softcap * std::tanh(logit / softcap);
        if (mask) logit += mask(h, i, s);
        top = std::max(top, logit);
      }
      if (top == -INFINITY) continue;
      for (double& x : p) x = std::exp(x - top), total += x;
      double* row = &out[static_cast<size_t>((i * heads + h) * valueDim)];
      for (int64_t s = 0; s < keys; s++)
        if (p[static_cast<size_t>(s)] > 0)
          for (int64_t c = 0; c < valueDim; c++) row[c] += p[static_cast<size_t>(s)] / total * v[static_cast<size_t>((s * kvHeads + g) * valueDim + c)];
    }
  return out;
}

void rotate(double* x, int64_t pairs, bool interleaved, const float* cosine, const float* sine) {
  for (int64_t j = 0; j < pairs; j++) {
    double &a = x[interleaved ? 2 * j : j], &b = x[interleaved ? 2 * j + 1 : j + pairs];
    const double c = static_cast<double>(cosine[j]), s = static_cast<double>(sine[j]), rotated = a * c - b * s;
    b = a * s + b * c;
    a = rotated;
  }
}

}  // namespace definition
