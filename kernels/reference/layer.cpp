#include "layer.h"

#include <algorithm>
#include <cmath>

#include "../math/gemm.h"
#include "../math/threads.h"

namespace fastmqa {
namespace {

std::vector<double> widened(const float* x, int64_t n) { return std::vector<double>(x, x + n); }

// out[rows][n] = x[rows][d] W[n][d]^T in fp64.
std::vector<double> project(const std::vector<double>& x, int64_t rows, int64_t d, const float* w, int64_t n) {
  const std::vector<double> wide = widened(w, n * d);
  std::vector<double> out(static_cast<size_t>(rows * n));
  gemm(rows, n, d, x.data(), d, false, wide.data(), d, true, out.data(), n, false);
  return out;
}

void rotate(std::vector<double>& heads, int64_t rows, int64_t width, int64_t headDim, double theta,
            const std::vector<int64_t>& positions) {
  const int64_t pairs = headDim / 2;
  parallelFor(rows, [&](int64_t r) {
    for (int64_t h = 0; h < width / headDim; h++)
      for (int64_t j = 0; j < pairs; j++) {
        const double angle = static_cast<double>(positions[static_cast<size_t>(r)]) *
                             std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(headDim));
        double* a = &heads[static_cast<size_t>(r * width + h * headDim + j)];
        double* b = a + pairs;
        const double x = *a, y = *b;
        *a = x * std::cos(angle) - y * std::sin(angle);
        *b = x * std::sin(angle) + y * std::cos(angle);
      }
  });
}

}  // namespace

std::vector<double> referenceOutput(const ReferenceLayer& l, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, bool uniform) {
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t seen = rows > 0 ? std::min(tokens, positions.back() + 1) : 0;
  const int64_t queryWidth = l.heads * l.headDim, keyWidth = l.kvHeads * l.headDim;
  const std::vector<double> all = widened(x, seen * l.d);
  std::vector<double> asked(static_cast<size_t>(rows * l.d));
  for (int64_t r = 0; r < rows; r++)
    std::copy_n(all.begin() + positions[static_cast<size_t>(r)] * l.d, l.d, asked.begin() + r * l.d);
  const std::vector<double> values = project(all, seen, l.d, l.wv, keyWidth);
  std::vector<double> keys, queries;
  if (!uniform) {
    keys = project(all, seen, l.d, l.wk, keyWidth);
    queries = project(asked, rows, l.d, l.wq, queryWidth);
    if (l.ropeTheta > 0) {
      std::vector<int64_t> every(static_cast<size_t>(seen));
      for (int64_t t = 0; t < seen; t++) every[static_cast<size_t>(t)] = t;
      rotate(keys, seen, keyWidth, l.headDim, l.ropeTheta, every);
      rotate(queries, rows, queryWidth, l.headDim, l.ropeTheta, positions);
    }
  }
  const double scale = 1 / std::sqrt(static_cast<double>(l.headDim));
  std::vector<double> mixed(static_cast<size_t>(rows * queryWidth), 0.0);
  parallelFor(rows * l.heads, [&](int64_t item) {
    const int64_t r = item / l.heads, h = item % l.heads, g = h / (l.heads / l.kvHeads);
    const int64_t n = std::min(seen, positions[static_cast<size_t>(r)] + 1);
    std::vector<double> p(static_cast<size_t>(n), 1.0);
    if (!uniform) {
      const double* q = &queries[static_cast<size_t>(r * queryWidth + h * l.headDim)];
      double top = -INFINITY;
      for (int64_t s = 0; s < n; s++) {
        const double* k = &keys[static_cast<size_t>(s * keyWidth + g * l.headDim)];
        double dot = 0;
        for (int64_t c = 0; c < l.headDim; c++) dot += q[c] * k[c];
        p[static_cast<size_t>(s)] = dot * scale;
        top = std::max(top, dot * scale);
      }
      for (double& w : p) w = std::exp(w - top);
    }
    double total = 0;
    for (double w : p) total += w;
    double* out = &mixed[static_cast<size_t>(r * queryWidth + h * l.headDim)];
    for (int64_t s = 0; s < n; s++) {
      const double* v = &values[static_cast<size_t>(s * keyWidth + g * l.headDim)];
      const double w = p[static_cast<size_t>(s)] / total;
      for (int64_t c = 0; c < l.headDim; c++) out[c] += w * v[c];
    }
  });
  return project(mixed, rows, queryWidth, l.wo, l.d);
}

}  // namespace fastmqa
