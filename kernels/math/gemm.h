// Dense matrix products, row-major, all cores, on the run-time chosen instruction set.
#pragma once
#include <cstdint>

namespace fastmqa {

/// C[m,n] = op(A)[m,k] op(B)[k,n], or += when `accumulate`; op transposes when the flag is set
/// (then A is stored [k,m], B [n,k]). Leading dimensions in elements. The same result for any thread count.
void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, bool transA, const float* b, int64_t ldb,
          bool transB, float* c, int64_t ldc, bool accumulate);
void gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, bool transA, const double* b, int64_t ldb,
          bool transB, double* c, int64_t ldc, bool accumulate);

}  // namespace fastmqa
