// Dense matrix products, row-major, all cores, on the run-time chosen instruction set.
#pragma once
#include <cstdint>
#include <vector>

#include "fastmqa/memory.h"
#include "numbers.h"

namespace fastmqa {

/// C[m,n] = op(A)[m,k] op(B)[k,n], or += when `accumulate`; op transposes when the flag is set
/// (then A is stored [k,m], B [n,k]). Leading dimensions in elements. The same result for any thread count.
void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, bool transA, const float* b, int64_t ldb,
          bool transB, float* c, int64_t ldc, bool accumulate);
void gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, bool transA, const double* b, int64_t ldb,
          bool transB, double* c, int64_t ldc, bool accumulate);

struct Product;

/// A weight matrix W [n,k] packed once for y = x W^T; fast for one row (decode) and for thousands (prefill). Weights of 16 bits
/// stay so and are widened in registers, or tile by tile: the product is the same, bit for bit, as of their f32 values.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(Arena& arena, int64_t n, int64_t k, const float* w, int64_t ldw);
  /// W of numbers in rows of k.
  PackedWeights(Arena& arena, int64_t n, int64_t k, const Numbers& w) : PackedWeights(arena, n, k, w, 0, k, 1) {}
  /// W[r][c] = w[first + r * rowStride + c * columnStride]
  PackedWeights(Arena& arena, int64_t n, int64_t k, const Numbers& w, int64_t first, int64_t rowStride, int64_t columnStride);
  /// y[m, n] = x[m, k] W^T; a row's result is the same, bit for bit, whatever rows come with it.
  void multiply(int64_t m, const float* x, int64_t ldx, float* y, int64_t ldy) const;
  /// W again, [n][k].
  std::vector<float> unpacked() const;
  int64_t rows() const { return n_; }
  int64_t columns() const { return k_; }
  int64_t bytes() const { return packed_.bytes() + halves_.bytes(); }
  /// Of one weight.
  int64_t numberBytes() const { return type_ == Dtype::f32 ? 4 : 2; }

 private:
  friend void multiply(const std::vector<Product>& products, int64_t m, const float* x, int64_t ldx);
  int64_t panels() const { return (n_ + panel_ - 1) / panel_; }
  /// The product of at most rowBlock rows with panel j.
  void multiplyPanel(int64_t j, int64_t rows, const float* x, int64_t ldx, float* y, int64_t ldy) const;
  /// Weights of panel j from row k0 of it on; in `tile` where they are kept in 16 bits.
  const float* widened(int64_t j, int64_t k0, int64_t count, float* tile) const;

  int64_t n_ = 0, k_ = 0, panel_ = 1;  // panel: columns of y that lie together
  Dtype type_ = Dtype::f32;
  Buffer<float> packed_;      // [panels][k][panel]
  Buffer<uint16_t> halves_;   // the same, in its place
};

/// y[m, n] = x[m, k] W^T
struct Product {
  const PackedWeights& weights;
  float* y;
  int64_t ldy;
};
/// Products of the same rows, as one job: a step of decode is a chain of small ones, and between two of them threads wait.
void multiply(const std::vector<Product>& products, int64_t m, const float* x, int64_t ldx);

}  // namespace fastmqa
