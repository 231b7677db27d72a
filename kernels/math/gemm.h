// Dense matrix products, row-major, all cores, on the run-time chosen instruction set.
#pragma once
#include <cstdint>
#include <vector>

#include "fastmqa/memory.h"

namespace fastmqa {

/// C[m,n] = op(A)[m,k] op(B)[k,n], or += when `accumulate`; op transposes when the flag is set
/// (then A is stored [k,m], B [n,k]). Leading dimensions in elements. The same result for any thread count.
void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, bool transA, const float* b, int64_t ldb,
          bool transB, float* c, int64_t ldc, bool accumulate);
void gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, bool transA, const double* b, int64_t ldb,
          bool transB, double* c, int64_t ldc, bool accumulate);

/// A weight matrix W [n,k] packed once for y = x W^T; fast for one row (decode) and for thousands (prefill).
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(Arena& arena, int64_t n, int64_t k, const float* w, int64_t ldw);
  /// y[m, n] = x[m, k] W^T.
  void multiply(int64_t m, const float* x, int64_t ldx, float* y, int64_t ldy) const;
  /// W again, [n][k].
  std::vector<float> unpacked() const;
  int64_t rows() const { return n_; }
  int64_t columns() const { return k_; }
  int64_t bytes() const { return packed_.bytes(); }

 private:
  static constexpr int64_t panel = 32;
  int64_t n_ = 0, k_ = 0;
  Buffer<float> packed_;  // [ceil(n / 32)][k][32]
};

}  // namespace fastmqa
