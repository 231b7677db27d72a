#include "layer.h"

#include <algorithm>
#include <cmath>

#include "../math/gemm.h"
#include "../math/threads.h"

namespace fastmqa {
namespace {

std::vector<double> widened(const float* x, int64_t n) { return std::vector<double>(x, x + n); }

// out[rows][n] = x[rows][d] W[n][d]^T + bias in fp64.
std::vector<double> project(const std::vector<double>& x, int64_t rows, int64_t d, const std::vector<float>& w,
                            const std::vector<float>& bias) {
  const auto n = static_cast<int64_t>(w.size()) / d;
  const std::vector<double> wide = widened(w.data(), n * d);
  std::vector<double> out(static_cast<size_t>(rows * n));
  gemm(rows, n, d, x.data(), d, false, wide.data(), d, true, out.data(), n, false);
  if (!bias.empty())
    for (size_t i = 0; i < out.size(); i++) out[i] += static_cast<double>(bias[i % bias.size()]);
  return out;
}

// RMSNorm of every head: z / rms(z) * weight.
void normalise(std::vector<double>& heads, const std::vector<float>& weight, double epsilon) {
  if (weight.empty()) return;
  for (size_t head = 0; head < heads.size(); head += weight.size()) {
    double squares = 0;
    for (size_t c = 0; c < weight.size(); c++) squares += heads[head + c] * heads[head + c];
    const double rms = std::sqrt(squares / static_cast<double>(weight.size()) + epsilon);
    for (size_t c = 0; c < weight.size(); c++) heads[head + c] *= static_cast<double>(weight[c]) / rms;
  }
}

void rotate(std::vector<double>& heads, int64_t width, int64_t headDim, const RopeFrequencies& frequencies,
            const std::vector<int64_t>& positions) {
  parallelFor(static_cast<int64_t>(positions.size()), [&](int64_t r) {
    for (int64_t h = 0; h < width / headDim; h++)
      ropeRotate(frequencies, positions[static_cast<size_t>(r)], false, &heads[static_cast<size_t>(r * width + h * headDim)]);
  });
}

}  // namespace

std::vector<double> referenceOutput(const LayerWeights& l, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, int64_t room, bool uniform) {
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t seen = rows > 0 ? std::min(tokens, positions.back() + 1) : 0;
  const int64_t queryWidth = l.heads * l.headDim, keyWidth = l.kvHeads * l.headDim;
  const std::vector<double> all = widened(x, seen * l.d);
  std::vector<double> asked(static_cast<size_t>(rows * l.d));
  for (int64_t r = 0; r < rows; r++)
    std::copy_n(all.begin() + positions[static_cast<size_t>(r)] * l.d, l.d, asked.begin() + r * l.d);
  const std::vector<double> values = project(all, seen, l.d, l.wv, l.bv);
  std::vector<double> keys, queries;
  if (!uniform) {
    keys = project(all, seen, l.d, l.wk, l.bk);
    queries = project(asked, rows, l.d, l.wq, l.bq);
    normalise(keys, l.keyNorm, l.normEpsilon);
    normalise(queries, l.queryNorm, l.normEpsilon);
    if (l.rope.rotaryDim > 0) {
      const RopeFrequencies frequencies = ropeFrequencies(l.rope, room);
      std::vector<int64_t> every(static_cast<size_t>(seen));
      for (int64_t t = 0; t < seen; t++) every[static_cast<size_t>(t)] = t;
      rotate(keys, keyWidth, l.headDim, frequencies, every);
      rotate(queries, queryWidth, l.headDim, frequencies, positions);
    }
  }
  const double scale = l.scale > 0 ? l.scale : 1 / std::sqrt(static_cast<double>(l.headDim));
  std::vector<double> mixed(static_cast<size_t>(rows * queryWidth), 0.0);
  parallelFor(rows * l.heads, [&](int64_t item) {
    const int64_t r = item / l.heads, h = item % l.heads, g = h / (l.heads / l.kvHeads);
    const int64_t end = std::min(seen, positions[static_cast<size_t>(r)] + 1);
    const int64_t first = l.window > 0 ? std::max<int64_t>(0, end - l.window) : 0;
    std::vector<double> p(static_cast<size_t>(end - first), 1.0);
    if (!uniform) {
      const double* q = &queries[static_cast<size_t>(r * queryWidth + h * l.headDim)];
      double top = -INFINITY;
      for (int64_t s = first; s < end; s++) {
        const double* k = &keys[static_cast<size_t>(s * keyWidth + g * l.headDim)];
        double dot = 0;
        for (int64_t c = 0; c < l.headDim; c++) dot += q[c] * k[c];
        const double score = l.softcap > 0 ? l.softcap * std::tanh(dot * scale / l.softcap) : dot * scale;
        p[static_cast<size_t>(s - first)] = score;
        top = std::max(top, score);
      }
      for (double& w : p) w = std::exp(w - top);
    }
    double total = 0;
    for (double w : p) total += w;
    double* out = &mixed[static_cast<size_t>(r * queryWidth + h * l.headDim)];
    for (int64_t s = first; s < end; s++) {
      const double* v = &values[static_cast<size_t>(s * keyWidth + g * l.headDim)];
      const double w = p[static_cast<size_t>(s - first)] / total;
      for (int64_t c = 0; c < l.headDim; c++) out[c] += w * v[c];
    }
  });
  return project(mixed, rows, queryWidth, l.wo, l.bo);
}

}  // namespace fastmqa
