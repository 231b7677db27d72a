// Formats, attention and rotary embedding by their definitions (attention-spec B.2, B.5, B.8), in fp64 and nothing but
// loops. Shares no code with the engine.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/panel-store.h"

namespace definition {

/// A float format: sign, exponent, mantissa. What its bits mean is written down once, and rounding is a search among
/// all values that exist.
class FloatFormat {
 public:
  /// `infinities`: the largest exponent is taken by infinities and NaN; else only its last mantissa is NaN.
  FloatFormat(int exponentBits, int mantissaBits, bool infinities);
  uint32_t codes() const { return 2 * sign_; }
  bool finite(uint32_t code) const { return (code & (sign_ - 1)) < magnitudes_.size(); }
  double value(uint32_t code) const;
  /// The nearest value, of two equally near ones that with an even code; saturating.
  uint32_t nearest(double x) const;
  double rounded(double x) const { return value(nearest(x)); }
  double smallestNormal() const { return smallestNormal_; }
  double largest() const { return magnitudes_.back(); }

 private:
  uint32_t sign_;
  double smallestNormal_;
  std::vector<double> magnitudes_;
};
const FloatFormat& formatOf(fastmqa::Dtype dtype);

/// Rounds a group of values that share a scale, in place. Those before `firstValid` do not shape the scale.
void roundGroup(const std::vector<double*>& group, size_t firstValid, int bits, bool symmetric);
/// Rounds x [tokens][heads * channels] as a store does. Token groups that are not full are left as they are.
void roundStored(const fastmqa::StoreSpec& spec, std::vector<double>& x, int64_t tokens, int64_t firstValid);

struct Attention {
  int64_t heads = 1, kvHeads = 1, keyDim = 1, valueDim = 1, keys = 0, queries = 0, firstPosition = 0;
  double scale = 1, softcap = 0;
  int64_t left = INT64_MAX / 4, right = 0, sinks = 0;
  std::vector<double> q, k, v;  ///< [queries][heads][keyDim], [keys][kvHeads][..]
  /// What a mask adds to the logit of (head, query, key); -infinity hides. Empty: nothing.
  std::function<double(int64_t, int64_t, int64_t)> mask;
  std::vector<double> output() const;  ///< [queries][heads][valueDim]
};

/// Rotates the first 2 * pairs channels of x by angles given as cos and sin [pairs].
void rotate(double* x, int64_t pairs, bool interleaved, const float* cosine, const float* sine);

}  // namespace definition
