// The vectorised inner loops, compiled once per instruction set from the same source (kernels.inl)
// and chosen at run time. Every buffer a kernel writes in whole vectors has rows padded to `padFloats`.
#pragma once
#include <cstdint>

namespace fastmqa {

/// Rows of f32 tiles are padded to this many elements, so kernels need no scalar tails.
constexpr int padFloats = 16;
inline int64_t padded(int64_t n) { return (n + padFloats - 1) / padFloats * padFloats; }

/// A block of packed rows: value = code * scale + shift, scales as f32 numbers beside it.
struct PackedBlock {
  int dtype;             ///< a Dtype
  const uint8_t* codes;  ///< first row
  int64_t rowBytes, rows;
  int64_t columns;  ///< a multiple of 8
  /// none: as stored. uniform: all use numbers[0]. alongRow: element c of row r uses numbers[r / span * stride + c].
  /// perRun: it uses numbers[c / span * stride + r], span a multiple of 8 or at least `columns`.
  enum class Scales { none, uniform, alongRow, perRun } scales;
  int64_t span, stride;
  const float* scale;
  const float* shift;  ///< null: symmetric, value = (code - 2^(bits - 1)) * scale; floats: value * scale
};

/// Rows of a packed block with scales that gemmPacked sums before they meet C. A span along rows is at most this, or all rows.
constexpr int64_t packedDepth = 128;
/// How far before their use gemmPacked asks for codes: the blocks of a page lie one behind the other.
constexpr int64_t fetchAhead = 8192;

/// Memory that the next step will read. Products ask the caches for it bit by bit as they go: all at once would fill the
/// queue of outstanding reads and stop them.
struct Ahead {
  const void* from = nullptr;
  int64_t bytes = 0;
};

struct Simd {
  const char* name;
  /// C[m,n] = A[m,k] B[k,n] (+ C * beta[row], beta == nullptr: C is overwritten). n a multiple of 16 (f32) or 8 (f64).
  void (*gemmF32)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                  int64_t ldc, const float* beta, Ahead ahead);
  void (*gemmF64)(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb, double* c,
                  int64_t ldc, const double* beta, Ahead ahead);
  /// The same product of f32 inputs accumulated in f64, for logits too large for f32. Result f64, [m][ldc].
  void (*gemmF32Wide)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
                      double* c, int64_t ldc);
  /// Column widths the two products like best.
  int panelF32, panelF64;
  /// One online-softmax step of each row: top[row] becomes the larger of itself and the row's scores, scores[row][0..n)
  /// become exp(score - top), sums[row] their sum, and keep[row] exp(old top - top), what earlier sums are to be multiplied
  /// by; n a multiple of 16. A row of -inf leaves its top, keeps all and gives zeros. `top` and `keep` are written in whole
  /// vectors, up to padFloats beyond the rows.
  void (*softmaxRows)(int64_t rows, float* scores, int64_t stride, int64_t n, float* top, float* keep, float* sums);
  /// x[i] = cap * tanh(x[i] / cap)
  void (*softcapRow)(float* x, int64_t n, float cap);
  /// x[i] = x[i] / (1 + exp(-x[i]))
  void (*silu)(float* x, int64_t n);
  /// Stored numbers to f32: n a multiple of 8. `dtype` is a Dtype; integers come as raw unsigned codes.
  void (*decode)(int dtype, const uint8_t* codes, int64_t n, float* out);
  /// A packed block to f32 rows of out[rows][ldo].
  void (*decodeBlock)(const PackedBlock& block, float* out, int64_t ldo);
  /// C[m, columns] = A[m, rows] B (+ C * beta[row]): the block B is dequantised in registers, its scales are folded into
  /// A or into the sums. For few rows; each result is the same whatever m is. columns: a multiple of 16.
  void (*gemmPacked)(int64_t m, const float* a, int64_t lda, const PackedBlock& b, float* c, int64_t ldc,
                     const float* beta);
  /// out[columns][ldo] = in[rows][ldi] turned; columns: a multiple of 16.
  void (*transpose)(int64_t rows, int64_t columns, const float* in, int64_t ldi, float* out, int64_t ldo);
  /// out[i] = out[i] * scale + shift
  void (*scaleByNumber)(float* out, int64_t n, float scale, float shift);
  /// Rotary on one pair of channel rows: (a, b) -> (a cos - b sin, a sin + b cos), n tokens.
  void (*rotateRows)(float* a, float* b, int64_t n, const float* cosine, const float* sine);
  /// Repeats fused multiply-adds on registers; returns operations done. For the ceiling.
  double (*burnFma)(int64_t iterations, float* sink);
  /// Sums n floats with wide loads. For the read ceiling.
  float (*readAll)(const float* data, int64_t n);
};

/// The variant in use: the best this machine runs, or the one named by forceSimd or the environment's FASTMQA_ISA; throws
/// Failure (refused) if that one cannot run here.
const Simd& simd();
/// Names that run here, best first.
int availableSimd(const char** names, int capacity);
/// Uses the named variant from now on; false if it cannot run here.
bool forceSimd(const char* name);

}  // namespace fastmqa
