// What the parts of test-engine share: reporting, random numbers, sizes of vectors.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "fastmqa/dtype.h"

namespace check {

inline int checks = 0, failures = 0;
/// Rounds of the random parts: few under a sanitizer, many when asked for.
enum class Length { quick, usual, thorough };
inline Length length = Length::usual;
inline int rounds(int quick, int usual, int thorough) {
  return length == Length::quick ? quick : length == Length::usual ? usual : thorough;
}

/// `good` is computed so that NaN fails.
inline void report(bool good, const std::string& name, double got, const char* relation, double expected) {
  if (good)
    std::printf("ok %s\n", name.c_str());
  else
    std::printf("FAIL %s got %.12g expected %s%.12g\n", name.c_str(), got, relation, expected);
  checks++, failures += !good;
}
inline void isTrue(const std::string& name, bool good) { report(good, name, good, "", 1); }
inline void equal(const std::string& name, double got, double expected) { report(got == expected, name, got, "", expected); }
inline void atMost(const std::string& name, double got, double most) { report(got <= most, name, got, "at most ", most); }
inline void atLeast(const std::string& name, double got, double least) { report(got >= least, name, got, "at least ", least); }
/// Relative.
inline void near(const std::string& name, double got, double expected, double tolerance) {
  report(std::fabs(got - expected) <= tolerance * std::fabs(expected), name, got, "about ", expected);
}
template <class Error, class Body>
void throws(const std::string& name, Body body) {
  bool thrown = false;
  try {
    body();
  } catch (const Error&) {
    thrown = true;
  }
  isTrue(name, thrown);
}

/// SplitMix64; the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1)); }
  bool oneIn(int64_t n) { return between(1, n) == 1; }
  template <class T>
  T oneOf(const std::vector<T>& list) { return list[static_cast<size_t>(between(0, static_cast<int64_t>(list.size()) - 1))]; }
  std::vector<float> normals(int64_t n, double magnitude = 1) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = static_cast<float>(normal() * magnitude);
    return out;
  }

 private:
  uint64_t state_;
};

template <class A, class B>
double relativeL2(const A& a, const B& reference) {
  double error = a.size() == reference.size() ? 0 : INFINITY, energy = 0;
  for (size_t i = 0; i < reference.size() && i < a.size(); i++) {
    const double e = static_cast<double>(a[i]) - static_cast<double>(reference[i]);
    error += e * e, energy += static_cast<double>(reference[i]) * static_cast<double>(reference[i]);
  }
  return energy > 0 ? std::sqrt(error / energy) : std::sqrt(error);
}
template <class A>
bool allFinite(const A& a) {
  for (const auto x : a)
    if (!std::isfinite(x)) return false;
  return true;
}

inline std::string nameOf(fastmqa::Dtype t) {
  constexpr const char* names[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "int8", "int4", "int3", "int2"};
  return names[static_cast<int>(t)];
}
inline std::string operator+(const std::string& a, int64_t b) { return a + std::to_string(b); }
inline const std::vector<fastmqa::Dtype> everyDtype{fastmqa::Dtype::f32,  fastmqa::Dtype::f16,  fastmqa::Dtype::bf16,
                                                    fastmqa::Dtype::e4m3, fastmqa::Dtype::e5m2, fastmqa::Dtype::int8,
                                                    fastmqa::Dtype::int4, fastmqa::Dtype::int3, fastmqa::Dtype::int2};

}  // namespace check

void testCodecs();
void testStores();
void testAttention();
void testLatentAttention();
void testCaches();
void testLayers();
