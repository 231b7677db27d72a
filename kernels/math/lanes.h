// Eight doubles at a time for the few inner loops of this room that are not matrix products.
// The compiler maps a Lanes value onto whatever registers the chosen instruction set has.
#pragma once
#include <cstdint>
#include <cstring>

// Functions marked so are compiled three times and picked at load time. Sanitizers cannot run the picker.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FASTMQA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTMQA_CLONES
#endif

namespace fastmqa {

constexpr int64_t laneCount = 8;

#if defined(__GNUC__)
#define FASTMQA_INLINE inline __attribute__((always_inline))
typedef double Lanes __attribute__((vector_size(64), aligned(8), may_alias));
#else
#define FASTMQA_INLINE inline
struct Lanes {
  double v[laneCount];
  Lanes& operator+=(const Lanes& b) {
    for (int i = 0; i < laneCount; i++) v[i] += b.v[i];
    return *this;
  }
  friend Lanes operator+(Lanes a, const Lanes& b) { return a += b; }
  friend Lanes operator-(Lanes a, const Lanes& b) {
    for (int i = 0; i < laneCount; i++) a.v[i] -= b.v[i];
    return a;
  }
  friend Lanes operator*(Lanes a, const Lanes& b) {
    for (int i = 0; i < laneCount; i++) a.v[i] *= b.v[i];
    return a;
  }
  friend Lanes operator*(double s, Lanes b) {
    for (int i = 0; i < laneCount; i++) b.v[i] *= s;
    return b;
  }
  double operator[](int i) const { return v[i]; }
};
#endif

/// The eight doubles at p (any alignment) as one value that can be read and written.
FASTMQA_INLINE Lanes& lanesAt(double* p) { return *reinterpret_cast<Lanes*>(p); }
FASTMQA_INLINE const Lanes& lanesAt(const double* p) { return *reinterpret_cast<const Lanes*>(p); }
FASTMQA_INLINE double sumOf(const Lanes& x) {
  return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]));
}

}  // namespace fastmqa
