#include "gemm.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <type_traits>

#include "../simd/simd.h"
#include "threads.h"

namespace fastmqa {
namespace {

constexpr int64_t depthBlock = 256;  // k block: the columns of it that a register tile reads stay in L1
constexpr int64_t rowBlock = 96;     // rows of A per work item: the packed block stays in L2
constexpr int64_t fewRows = 12;      // two register tiles: to widen weights in both takes no longer than to store and load them

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

constexpr int64_t widestPanel = 64;  // of weights: a row of them in registers, and sums enough to hide the latency of adding
int64_t panelFor(int64_t n) { return std::min(widestPanel, padded(n)); }

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
    : n_(n), k_(k), panel_(panelFor(n)), packed_(arena, panels() * panel_ * k) {
  parallelFor(panels(), [&](int64_t j) {
    float* out = packed_.data() + j * panel_ * k;
    for (int64_t q = 0; q < std::min(panel_, n - j * panel_); q++)
      for (int64_t p = 0; p < k; p++) out[p * panel_ + q] = w[(j * panel_ + q) * ldw + p];
  });
}

PackedWeights::PackedWeights(Arena& arena, int64_t n, int64_t k, const Numbers& w, int64_t first, int64_t rowStride, int64_t columnStride)
    : n_(n), k_(k), panel_(panelFor(n)), type_(w.type()) {
  const auto pack = [&](auto& to, const auto* from) {
    to = std::decay_t<decltype(to)>(arena, panels() * panel_ * k);
    parallelFor(panels(), [&](int64_t j) {
      auto* out = to.data() + j * panel_ * k;
      for (int64_t q = 0; q < std::min(panel_, n - j * panel_); q++)
        for (int64_t p = 0; p < k; p++) out[p * panel_ + q] = from[first + (j * panel_ + q) * rowStride + p * columnStride];
    });
  };
  if (w.isHalf())
    pack(halves_, w.halves());
  else
    pack(packed_, w.wide());
}

const float* PackedWeights::widened(int64_t j, int64_t k0, int64_t count, float* tile) const {
  const int64_t at = (j * k_ + k0) * panel_;
  if (type_ == Dtype::f32) return packed_.data() + at;
  widen(type_, halves_.data() + at, count * panel_, tile);
  return tile;
}

std::vector<float> PackedWeights::unpacked() const {
  std::vector<float> w(static_cast<size_t>(n_ * k_));
  parallelFor(panels(), [&](int64_t j) {
    alignas(64) float tile[depthBlock * widestPanel];
    for (int64_t k0 = 0; k0 < k_; k0 += depthBlock) {
      const int64_t count = std::min(depthBlock, k_ - k0);
      const float* from = widened(j, k0, count, tile);
      for (int64_t q = 0; q < std::min(panel_, n_ - j * panel_); q++)
        for (int64_t p = 0; p < count; p++) w[static_cast<size_t>((j * panel_ + q) * k_ + k0 + p)] = from[p * panel_ + q];
    }
  });
  return w;
}

void PackedWeights::multiply(int64_t m, const float* x, int64_t ldx, float* y, int64_t ldy) const {
  fastmqa::multiply({{*this, y, ldy}}, m, x, ldx);
}

void PackedWeights::multiplyPanel(int64_t j, int64_t rows, const float* x, int64_t ldx, float* y, int64_t ldy) const {
  alignas(64) float tile[rowBlock * widestPanel];
  float keep[rowBlock];
  std::fill_n(keep, rowBlock, 1.0f);
  for (int64_t k0 = 0; k0 < k_; k0 += depthBlock) {
    const int64_t count = std::min(depthBlock, k_ - k0), at = (j * k_ + k0) * panel_, size = numberBytes();
    const void* weights = type_ == Dtype::f32 ? static_cast<const void*>(packed_.data() + at) : halves_.data() + at;
    const float* beta = k0 ? keep : nullptr;
    if (rows <= fewRows) {
      const PackedBlock block{static_cast<int>(type_), static_cast<const uint8_t*>(weights), panel_ * size, count, panel_,
                              PackedBlock::Scales::none, 1, 0, nullptr, nullptr};
      simd().gemmPacked(rows, x + k0, ldx, block, tile, panel_, beta);
    } else {
      alignas(64) float wide[depthBlock * widestPanel];
      // What is read next lies behind, and the product asks for it as it goes.
      const Ahead next{static_cast<const char*>(weights) + count * panel_ * size, count * panel_ * size};
      simd().gemmF32(rows, panel_, count, x + k0, ldx, widened(j, k0, count, wide), panel_, tile, panel_, beta, next);
    }
  }
  const int64_t width = std::min(panel_, n_ - j * panel_);
  for (int64_t r = 0; r < rows; r++) std::copy_n(tile + r * panel_, width, y + r * ldy + j * panel_);
}

void multiply(const std::vector<Product>& products, int64_t m, const float* x, int64_t ldx) {
  struct Part {
    const Product* product;
    int64_t firstPanel, lastPanel;
  };
  const int64_t blocks = (m + rowBlock - 1) / rowBlock;
  std::vector<Part> parts;
  for (const Product& product : products) {
    // Few rows: split the columns so that every core reads its share of the weights.
    const int64_t panels = product.weights.panels(), groups = blocks >= 8 ? 1 : std::min<int64_t>(panels, 16);
    for (int64_t g = 0; g < groups; g++) parts.push_back({&product, panels * g / groups, panels * (g + 1) / groups});
  }
  const auto count = static_cast<int64_t>(parts.size());
  parallelFor(blocks * count, [&](int64_t item) {
    const auto [product, first, last] = parts[static_cast<size_t>(item % count)];
    const int64_t i0 = item / count * rowBlock, rows = std::min(rowBlock, m - i0);
    for (int64_t j = first; j < last; j++)
      product->weights.multiplyPanel(j, rows, x + i0 * ldx, ldx, product->y + i0 * product->ldy, product->ldy);
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
