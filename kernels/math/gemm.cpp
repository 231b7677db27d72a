#include "gemm.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <type_traits>

#include "../simd/simd.h"
#include "threads.h"

namespace fastmqa {
namespace {

constexpr int64_t depthBlock = 256;  // k block: a packed B panel of it stays in L1
constexpr int64_t rowBlock = 96;     // rows of A per work item: the packed block stays in L2

template <class T>
struct Dispatch;
template <>
struct Dispatch<float> {
  static int panel() { return simd().panelF32; }
  static void run(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                  int64_t ldc, const float* beta) {
    simd().gemmF32(m, n, k, a, lda, b, ldb, c, ldc, beta, {});
  }
};
template <>
struct Dispatch<double> {
  static int panel() { return simd().panelF64; }
  static void run(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b, int64_t ldb,
                  double* c, int64_t ldc, const double* beta) {
    simd().gemmF64(m, n, k, a, lda, b, ldb, c, ldc, beta, {});
  }
};

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
std::unique_ptr<T[], FreeDeleter> aligned(int64_t n) {
  return std::unique_ptr<T[], FreeDeleter>(
      static_cast<T*>(std::aligned_alloc(64, (static_cast<size_t>(n) * sizeof(T) + 63) / 64 * 64)));
}

template <class T>
void product(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, bool transA, const T* b, int64_t ldb,
             bool transB, T* c, int64_t ldc, bool accumulate) {
  if (m <= 0 || n <= 0) return;
  const int64_t panel = Dispatch<T>::panel();
  const int64_t panels = (n + panel - 1) / panel;
  const int64_t blocks = (m + rowBlock - 1) / rowBlock;
  if (k <= 0) {
    if (!accumulate)
      for (int64_t i = 0; i < m; i++) std::fill_n(c + i * ldc, n, T(0));
    return;
  }
  auto packedB = aligned<T>(panels * panel * std::min(k, depthBlock));
  const T ones[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

  for (int64_t k0 = 0; k0 < k; k0 += depthBlock) {
    const int64_t kb = std::min(depthBlock, k - k0);
    const bool add = accumulate || k0 > 0;
    parallelFor(panels, [&](int64_t j) {  // [panel][kb][panel width], zero padded
      T* out = packedB.get() + j * panel * kb;
      const int64_t width = std::min(panel, n - j * panel);
      if (transB) {
        for (int64_t q = 0; q < width; q++) {
          const T* source = b + (j * panel + q) * ldb + k0;
          for (int64_t p = 0; p < kb; p++) out[p * panel + q] = source[p];
        }
        for (int64_t q = width; q < panel; q++)
          for (int64_t p = 0; p < kb; p++) out[p * panel + q] = 0;
      } else {
        for (int64_t p = 0; p < kb; p++) {
          const T* source = b + (k0 + p) * ldb + j * panel;
          std::copy_n(source, width, out + p * panel);
          std::fill_n(out + p * panel + width, panel - width, T(0));
        }
      }
    });
    // Few row blocks (decode): split the columns too, so that every core has work.
    const int64_t columnGroups = blocks >= 4 * threadCount() ? 1 : std::min<int64_t>(panels, 4 * threadCount());
    parallelFor(blocks * columnGroups, [&](int64_t item) {
      const int64_t block = item / columnGroups, group = item % columnGroups;
      const int64_t i0 = block * rowBlock, rows = std::min(rowBlock, m - i0);
      const int64_t first = panels * group / columnGroups, last = panels * (group + 1) / columnGroups;
      thread_local std::unique_ptr<T[], FreeDeleter> packedA;
      const T* left = a + i0 * lda + k0;
      int64_t stride = lda;
      if (transA || columnGroups == 1) {
        if (!packedA) packedA = aligned<T>(rowBlock * depthBlock);
        T* out = packedA.get();
        for (int64_t i = 0; i < rows; i++)
          for (int64_t p = 0; p < kb; p++)
            out[i * kb + p] = transA ? a[(k0 + p) * lda + i0 + i] : a[(i0 + i) * lda + k0 + p];
        left = out;
        stride = kb;
      }
      alignas(64) T edge[12 * 64];
      for (int64_t j = first; j < last; j++) {
        const T* right = packedB.get() + j * panel * kb;
        const int64_t width = std::min(panel, n - j * panel);
        for (int64_t i = 0; i < rows; i += 12) {
          const int64_t height = std::min<int64_t>(12, rows - i);
          T* out = c + (i0 + i) * ldc + j * panel;
          if (width == panel) {
            Dispatch<T>::run(height, panel, kb, left + i * stride, stride, right, panel, out, ldc, add ? ones : nullptr);
          } else {
            Dispatch<T>::run(height, panel, kb, left + i * stride, stride, right, panel, edge, panel, nullptr);
            for (int64_t r = 0; r < height; r++)
              for (int64_t q = 0; q < width; q++) out[r * ldc + q] = edge[r * panel + q] + (add ? out[r * ldc + q] : T(0));
          }
        }
      }
    });
  }
}

}  // namespace

PackedWeights::PackedWeights(Arena& arena, int64_t n, int64_t k, const float* w, int64_t ldw)
    : n_(n), k_(k), packed_(arena, (n + panel - 1) / panel * panel * k) {
  parallelFor((n + panel - 1) / panel, [&](int64_t j) {
    float* out = packed_.data() + j * panel * k;
    for (int64_t q = 0; q < std::min(panel, n - j * panel); q++)
      for (int64_t p = 0; p < k; p++) out[p * panel + q] = w[(j * panel + q) * ldw + p];
  });
}

PackedWeights::PackedWeights(Arena& arena, int64_t n, int64_t k, const Numbers& w, int64_t first, int64_t rowStride, int64_t columnStride)
    : n_(n), k_(k), type_(w.type()) {
  const int64_t panels = (n + panel - 1) / panel;
  const auto pack = [&](auto& to, const auto* from) {
    to = std::decay_t<decltype(to)>(arena, panels * panel * k);
    parallelFor(panels, [&](int64_t j) {
      auto* out = to.data() + j * panel * k;
      for (int64_t q = 0; q < std::min(panel, n - j * panel); q++)
        for (int64_t p = 0; p < k; p++) out[p * panel + q] = from[first + (j * panel + q) * rowStride + p * columnStride];
    });
  };
  if (w.isHalf())
    pack(halves_, w.halves());
  else
    pack(packed_, w.wide());
}

const float* PackedWeights::widened(int64_t j, int64_t k0, int64_t count, float* tile) const {
  const int64_t at = (j * k_ + k0) * panel;
  if (type_ == Dtype::f32) return packed_.data() + at;
  widen(type_, halves_.data() + at, count * panel, tile);
  return tile;
}

std::vector<float> PackedWeights::unpacked() const {
  std::vector<float> w(static_cast<size_t>(n_ * k_));
  parallelFor((n_ + panel - 1) / panel, [&](int64_t j) {
    alignas(64) float tile[depthBlock * panel];
    for (int64_t k0 = 0; k0 < k_; k0 += depthBlock) {
      const int64_t count = std::min(depthBlock, k_ - k0);
      const float* from = widened(j, k0, count, tile);
      for (int64_t q = 0; q < std::min(panel, n_ - j * panel); q++)
        for (int64_t p = 0; p < count; p++) w[static_cast<size_t>((j * panel + q) * k_ + k0 + p)] = from[p * panel + q];
    }
  });
  return w;
}

void PackedWeights::multiply(int64_t m, const float* x, int64_t ldx, float* y, int64_t ldy) const {
  const int64_t panels = (n_ + panel - 1) / panel, blocks = (m + rowBlock - 1) / rowBlock;
  // Few rows: split the columns so that every core reads its share of the weights. Fixed, so results are too.
  const int64_t groups = blocks >= 8 ? 1 : std::min<int64_t>(panels, 16);
  parallelFor(blocks * groups, [&](int64_t item) {
    const int64_t i0 = item / groups * rowBlock, rows = std::min(rowBlock, m - i0), group = item % groups;
    alignas(64) float tile[rowBlock * panel];
    alignas(64) float wide[depthBlock * panel];
    float keep[rowBlock];
    std::fill_n(keep, rowBlock, 1.0f);
    for (int64_t j = panels * group / groups; j < panels * (group + 1) / groups; j++) {
      for (int64_t k0 = 0; k0 < k_; k0 += depthBlock) {
        const int64_t count = std::min(depthBlock, k_ - k0);
        // What is widened next: it lies behind, and the product asks for it as it goes.
        const Ahead next = type_ == Dtype::f32 ? Ahead{} : Ahead{halves_.data() + (j * k_ + k0 + count) * panel, count * panel * 2};
        simd().gemmF32(rows, panel, count, x + i0 * ldx + k0, ldx, widened(j, k0, count, wide), panel, tile, panel, k0 ? keep : nullptr, next);
      }
      const int64_t width = std::min(panel, n_ - j * panel);
      for (int64_t r = 0; r < rows; r++) std::copy_n(tile + r * panel, width, y + (i0 + r) * ldy + j * panel);
    }
  });
}

void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, bool transA, const float* b, int64_t ldb,
          bool transB, float* c, int64_t ldc, bool accumulate) {
  product(m, n, k, a, lda, transA, b, ldb, transB, c, ldc, accumulate);
}
void gemm(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, bool transA, const double* b, int64_t ldb,
          bool transB, double* c, int64_t ldc, bool accumulate) {
  product(m, n, k, a, lda, transA, b, ldb, transB, c, ldc, accumulate);
}

}  // namespace fastmqa
