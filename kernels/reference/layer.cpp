#include "layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../math/gemm.h"
#include "../math/threads.h"

namespace fastmqa {
namespace {

constexpr int64_t blockRows = 64;  // query rows that share a pass over the keys and values of a head

std::vector<double> widened(const float* x, int64_t n) { return std::vector<double>(x, x + n); }

// out[rows][n] = x[rows][d] W[n][d]^T + bias in fp64.
std::vector<double> project(const std::vector<double>& x, int64_t rows, int64_t d, const Numbers& w,
                            const std::vector<float>& bias) {
  const auto n = static_cast<int64_t>(w.size()) / d;
  const std::vector<double> wide = w.doubles();
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

/// Rotates the first channels of every `stride` numbers of a row, from `offset` on. rows [positions][width].
void rotate(std::vector<double>& rows, int64_t width, int64_t stride, int64_t offset, const LayerWeights& l, const RopeFrequencies& frequencies,
            const std::vector<int64_t>& positions) {
  parallelFor(static_cast<int64_t>(positions.size()), [&](int64_t r) {
    for (int64_t at = offset; at < width; at += stride)
      ropeRotate(frequencies, positions[static_cast<size_t>(r)], l.rope.interleaved, &rows[static_cast<size_t>(r * width + at)]);
  });
}

std::vector<int64_t> firstPositions(int64_t count) {
  std::vector<int64_t> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

/// Rows of one head after the other, as the softmax meets them. No queries and keys where only values count.
struct Heads {
  std::vector<double> queries, keys, values;  // [rows][heads][keyDim], [tokens][kvHeads][keyDim], [tokens][kvHeads][valueDim]
  int64_t kvHeads, keyDim, valueDim;
};

Heads plainHeads(const LayerWeights& l, const std::vector<double>& all, const std::vector<double>& asked, const std::vector<int64_t>& positions,
                 int64_t room, bool onlyValues) {
  const auto seen = static_cast<int64_t>(all.size()) / l.d, rows = static_cast<int64_t>(positions.size());
  Heads h{{}, {}, project(all, seen, l.d, l.wv, l.bv), l.kvHeads, l.headDim, l.headDim};
  if (onlyValues) return h;
  h.queries = project(asked, rows, l.d, l.wq, l.bq);
  h.keys = project(all, seen, l.d, l.wk, l.bk);
  normalise(h.keys, l.keyNorm, l.normEpsilon);
  normalise(h.queries, l.queryNorm, l.normEpsilon);
  if (l.rope.rotaryDim > 0) {
    const RopeFrequencies frequencies = ropeFrequencies(l.rope, room);
    rotate(h.keys, l.kvHeads * l.headDim, l.headDim, 0, l, frequencies, firstPositions(seen));
    rotate(h.queries, l.heads * l.headDim, l.headDim, 0, l, frequencies, positions);
  }
  return h;
}

/// Keys and values of every head, made out of the latent: nothing is absorbed.
Heads headsOfLatent(const LayerWeights& l, const std::vector<double>& all, const std::vector<double>& asked, const std::vector<int64_t>& positions,
                    int64_t room) {
  const LatentWeights& m = l.latent;
  const auto seen = static_cast<int64_t>(all.size()) / l.d, rows = static_cast<int64_t>(positions.size());
  const int64_t nope = l.headDim - m.ropeDim, width = m.rank + m.ropeDim, each = nope + m.valueDim;
  const RopeFrequencies frequencies = ropeFrequencies(l.rope, room);
  Heads h;
  h.kvHeads = l.heads, h.keyDim = l.headDim, h.valueDim = m.valueDim;
  if (m.queryDown.empty()) {
    h.queries = project(asked, rows, l.d, l.wq, {});
  } else {
    std::vector<double> low = project(asked, rows, l.d, m.queryDown, {});
    normalise(low, m.queryNorm, LatentWeights::normEpsilon);
    h.queries = project(low, rows, static_cast<int64_t>(m.queryNorm.size()), l.wq, {});
  }
  rotate(h.queries, l.heads * l.headDim, l.headDim, nope, l, frequencies, positions);
  std::vector<double> down = project(all, seen, l.d, m.down, {}), latent(static_cast<size_t>(seen * m.rank));
  rotate(down, width, width, m.rank, l, frequencies, firstPositions(seen));
  for (int64_t s = 0; s < seen; s++) std::copy_n(down.begin() + s * width, m.rank, latent.begin() + s * m.rank);
  normalise(latent, m.norm, LatentWeights::normEpsilon);
  const std::vector<double> up = project(latent, seen, m.rank, m.up, {});
  h.keys.resize(static_cast<size_t>(seen * l.heads * h.keyDim));
  h.values.resize(static_cast<size_t>(seen * l.heads * h.valueDim));
  for (int64_t s = 0; s < seen; s++)
    for (int64_t head = 0; head < l.heads; head++) {
      const auto from = up.begin() + (s * l.heads + head) * each;
      std::copy_n(from, nope, h.keys.begin() + (s * l.heads + head) * h.keyDim);
      std::copy_n(down.begin() + s * width + m.rank, m.ropeDim, h.keys.begin() + (s * l.heads + head) * h.keyDim + nope);
      std::copy_n(from + nope, m.valueDim, h.values.begin() + (s * l.heads + head) * h.valueDim);
    }
  return h;
}

}  // namespace

namespace {

template <class Of>
int64_t sumOfMatrices(const LayerWeights& l, const Of& of) {
  int64_t sum = 0;
  for (const Numbers* w : {&l.wq, &l.wk, &l.wv, &l.wo, &l.latent.queryDown, &l.latent.down, &l.latent.up}) sum += of(*w);
  return sum;
}

}  // namespace

int64_t weightCount(const LayerWeights& l) {
  return sumOfMatrices(l, [](const Numbers& w) { return static_cast<int64_t>(w.size()); });
}

int64_t weightBytes(const LayerWeights& l) {
  return sumOfMatrices(l, [](const Numbers& w) { return w.bytes(); });
}

std::vector<double> referenceOutput(const LayerWeights& l, const float* x, int64_t tokens,
                                    const std::vector<int64_t>& positions, int64_t room, bool uniform) {
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t seen = rows > 0 ? std::min(tokens, positions.back() + 1) : 0;
  const std::vector<double> all = widened(x, seen * l.d);
  std::vector<double> asked(static_cast<size_t>(rows * l.d));
  for (int64_t r = 0; r < rows; r++)
    std::copy_n(all.begin() + positions[static_cast<size_t>(r)] * l.d, l.d, asked.begin() + r * l.d);
  const Heads heads = l.latent.rank > 0 ? headsOfLatent(l, all, asked, positions, room) : plainHeads(l, all, asked, positions, room, uniform);
  const int64_t keyDim = heads.keyDim, valueDim = heads.valueDim, keyWidth = heads.kvHeads * keyDim, valueWidth = heads.kvHeads * valueDim;
  const int64_t queryWidth = l.heads * keyDim, mixedWidth = l.heads * valueDim;
  const double scale = l.scale > 0 ? l.scale : 1 / std::sqrt(static_cast<double>(l.headDim));
  std::vector<double> mixed(static_cast<size_t>(rows * mixedWidth), 0.0);
  const int64_t blocks = (rows + blockRows - 1) / blockRows;
  parallelFor(blocks * l.heads, [&](int64_t item) {
    const int64_t r0 = item / l.heads * blockRows, h = item % l.heads, g = h / (l.heads / heads.kvHeads);
    const int64_t count = std::min(blockRows, rows - r0);
    const auto endOf = [&](int64_t i) { return std::min(seen, positions[static_cast<size_t>(r0 + i)] + 1); };
    const auto firstOf = [&](int64_t i) { return l.window > 0 ? std::max<int64_t>(0, endOf(i) - l.window) : 0; };
    // Tokens that some row of the block sees; a row's own are [firstOf, endOf), all others weigh nothing.
    const int64_t from = firstOf(0), width = endOf(count - 1) - from;
    std::vector<double> p(static_cast<size_t>(count * width));
    if (!uniform)
      gemm(count, width, keyDim, &heads.queries[static_cast<size_t>(r0 * queryWidth + h * keyDim)], queryWidth, false,
           &heads.keys[static_cast<size_t>(from * keyWidth + g * keyDim)], keyWidth, true, p.data(), width, false);
    for (int64_t i = 0; i < count; i++) {
      double* const row = p.data() + i * width;
      double* const first = row + (firstOf(i) - from);
      double* const end = row + (endOf(i) - from);
      if (uniform) {
        std::fill(first, end, 1.0);
      } else {
        double top = -INFINITY;
        for (double* w = first; w < end; w++) {
          *w = l.softcap > 0 ? l.softcap * std::tanh(*w * scale / l.softcap) : *w * scale;
          top = std::max(top, *w);
        }
        for (double* w = first; w < end; w++) *w = std::exp(*w - top);
      }
      std::fill(row, first, 0.0);
      std::fill(end, row + width, 0.0);
      const double total = std::accumulate(first, end, 0.0);
      for (double* w = first; w < end; w++) *w /= total;
    }
    gemm(count, valueDim, width, p.data(), width, false, &heads.values[static_cast<size_t>(from * valueWidth + g * valueDim)],
         valueWidth, false, &mixed[static_cast<size_t>(r0 * mixedWidth + h * valueDim)], mixedWidth, false);
  });
  return project(mixed, rows, mixedWidth, l.wo, l.bo);
}

}  // namespace fastmqa
