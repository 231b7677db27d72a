// One attention layer in fp64, from matrices: the reference of the anchors, and the methods of section G that the
// engine does not have (controls, token budgets, per-head and RoPE-commuting latents, decoupled RoPE).
#pragma once
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "layer/calibrate.h"
#include "layer/model.h"
#include "math/eigen.h"
#include "math/gemm.h"
#include "math/rope.h"
#include "math/threads.h"

namespace anchors {

using fastmqa::Calibration;
using fastmqa::gemm;
using fastmqa::parallelFor;
using Matrix = std::vector<double>;
using Complex = std::complex<double>;

inline size_t at(int64_t i) { return static_cast<size_t>(i); }

/// a [m][k] times b [k][n], or times the transpose of b [n][k].
inline Matrix product(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, bool transB) {
  Matrix c(at(m * n));
  gemm(m, n, k, a.data(), k, false, b.data(), transB ? k : n, transB, c.data(), n, false);
  return c;
}

class Exact {
 public:
  /// Changes the softmax row [t + 1] of one head before it weighs the values; called in ascending t for each head.
  using Adjust = std::function<void(int64_t head, int64_t t, double* row)>;

  const int64_t heads, dim, width, d, tokens;  // width = heads * dim
  Matrix wq, wk, wv;                           // [width][d]
  Matrix inputs;                               // [tokens][d]
  Matrix queries, keys, values;                // [tokens][width], before the rotary embedding

  Exact(const fastmqa::ReferenceModel& model, const std::vector<float>& x, int64_t tokenCount)
      : heads(model.weights().heads), dim(model.weights().headDim), width(heads * dim), d(model.weights().d), tokens(tokenCount),
        wq(model.weights().wq.doubles()), wk(model.weights().wk.doubles()), wv(model.weights().wv.doubles()), inputs(x.begin(), x.begin() + tokenCount * d), wo_(model.weights().wo.doubles()) {
    queries = product(tokens, width, d, inputs, wq, true);
    keys = product(tokens, width, d, inputs, wk, true);
    values = product(tokens, width, d, inputs, wv, true);
    fastmqa::RopeParameters rope;
    rope.base = model.spec().ropeTheta;
    rope.rotaryDim = dim;
    theta_ = ropeFrequencies(rope, tokens).theta;
  }

  Matrix rotated(Matrix rows) const {
    parallelFor(tokens, [&](int64_t t) {
      for (int64_t j = 0; j < dim / 2; j++) {
        const double c = std::cos(static_cast<double>(t) * theta_[at(j)]), s = std::sin(static_cast<double>(t) * theta_[at(j)]);
        for (int64_t h = 0; h < heads; h++) {
          double* a = &rows[at(t * width + h * dim + j)];
          double* b = a + dim / 2;
          const double x = *a, y = *b;
          *a = x * c - y * s;
          *b = x * s + y * c;
        }
      }
    });
    return rows;
  }

  /// The layer's output from rotated queries and keys [tokens][heads * keyDim]; logits are scaled for `dim` channels.
  Matrix output(const Matrix& q, const Matrix& k, int64_t keyDim, const Matrix& v, const Adjust& adjust = nullptr) const {
    constexpr int64_t block = 64;
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    Matrix mixed(at(tokens * width));
    parallelFor(heads, [&](int64_t h) {
      Matrix p(at(block * tokens));
      for (int64_t t0 = 0; t0 < tokens; t0 += block) {
        const int64_t rows = std::min(block, tokens - t0), n = t0 + rows;
        gemm(rows, n, keyDim, q.data() + t0 * heads * keyDim + h * keyDim, heads * keyDim, false, k.data() + h * keyDim,
             heads * keyDim, true, p.data(), tokens, false);
        for (int64_t i = 0; i < rows; i++) {
          double* row = p.data() + i * tokens;
          const int64_t seen = t0 + i + 1;
          const double top = *std::max_element(row, row + seen);
          double total = 0;
          for (int64_t s = 0; s < seen; s++) total += row[s] = std::exp((row[s] - top) * scale);
          for (int64_t s = 0; s < seen; s++) row[s] /= total;
          std::fill(row + seen, row + n, 0.0);
          if (adjust) adjust(h, t0 + i, row);
        }
        gemm(rows, dim, n, p.data(), tokens, false, v.data() + h * dim, width, false, mixed.data() + t0 * width + h * dim, width, false);
      }
    });
    return product(tokens, d, width, mixed, wo_, true);
  }
  Matrix output(const Adjust& adjust = nullptr) const { return output(rotated(queries), rotated(keys), dim, values, adjust); }
  /// With other keys, given before the rotary embedding, and other values.
  Matrix outputWith(const Matrix& k, const Matrix& v) const { return output(rotated(queries), rotated(k), dim, v); }
  /// With keys of which one part rotates and the other, like the query that meets it, does not.
  Matrix outputWith(const Matrix& rotating, const Matrix& still, const Matrix& v) const {
    const auto beside = [&](const Matrix& a, const Matrix& b) {
      Matrix out(a.size() * 2);
      for (int64_t i = 0; i < tokens * heads; i++) {
        std::copy_n(a.begin() + i * dim, dim, out.begin() + 2 * i * dim);
        std::copy_n(b.begin() + i * dim, dim, out.begin() + (2 * i + 1) * dim);
      }
      return out;
    };
    return output(beside(rotated(queries), queries), beside(rotated(rotating), still), 2 * dim, v);
  }
  /// Weight of each value channel: the norm of the output column it feeds, 1 on average.
  Matrix valueWeights() const {
    Matrix w(at(width), 0.0);
    for (int64_t i = 0; i < d; i++)
      for (int64_t c = 0; c < width; c++) w[at(c)] += wo_[at(i * width + c)] * wo_[at(i * width + c)];
    double mean = 0;
    for (double& v : w) mean += (v = std::sqrt(v)) / static_cast<double>(width);
    for (double& v : w) v /= mean;
    return w;
  }

 private:
  Matrix wo_;  // [d][width]
  std::vector<double> theta_;
};

/// Every query gives all the keys it sees the same weight.
inline Exact::Adjust uniformAttention() {
  return [](int64_t, int64_t t, double* row) { std::fill(row, row + t + 1, 1.0 / static_cast<double>(t + 1)); };
}

/// Keeps the `recent` last tokens and, of the older ones, the budget - recent with the largest score; renormalises.
inline void keepBest(int64_t t, int64_t budget, int64_t recent, const double* score, double* row) {
  const int64_t older = t + 1 - recent, kept = budget - recent;
  if (older <= kept) return;
  std::vector<int64_t> order(at(older));
  for (int64_t s = 0; s < older; s++) order[at(s)] = s;
  std::nth_element(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) { return score[a] > score[b] || (score[a] == score[b] && a < b); });
  for (int64_t i = kept; i < older; i++) row[order[at(i)]] = 0;
  double total = 0;
  for (int64_t s = 0; s <= t; s++) total += row[s];
  for (int64_t s = 0; s <= t; s++) row[s] /= total;
}

/// H2O-like: ranks by the attention that earlier queries gave, over all tokens; an evicted token may return.
inline Exact::Adjust heavyHitters(const Exact& e, int64_t budget, int64_t recent) {
  auto sums = std::make_shared<Matrix>(at(e.heads * e.tokens), 0.0);
  return [sums, budget, recent, n = e.tokens](int64_t head, int64_t t, double* row) {
    double* sum = sums->data() + head * n;
    const Matrix whole(row, row + t + 1);
    keepBest(t, budget, recent, sum, row);
    for (int64_t s = 0; s <= t; s++) sum[s] += whole[at(s)];
  };
}

/// The true scores of the current query: a bound on what any choice of tokens can reach, not a memory saving.
inline Exact::Adjust oracle(int64_t budget, int64_t recent) {
  return [=](int64_t, int64_t t, double* row) {
    const Matrix score(row, row + t + 1);
    keepBest(t, budget, recent, score.data(), row);
  };
}

/// Second moments of the outputs of w [rows][d] on the calibration stream: W E[x x^T] W^T.
inline Matrix outputMoment(const Matrix& w, int64_t rows, const Calibration& calibration) {
  const auto d = static_cast<int64_t>(calibration.mean.size());
  return product(rows, rows, d, product(rows, d, d, w, calibration.moment, false), w, true);
}

/// Per-head latents (M-LRD): rows of every head projected onto that head's `rank` principal directions.
inline Matrix projectedPerHead(const Exact& e, const Matrix& rows, const Matrix& moment, int64_t rank) {
  Matrix out(rows.size());
  parallelFor(e.heads, [&](int64_t h) {
    const int64_t n = e.dim;
    Matrix c(at(n * n)), values(at(n)), vectors(at(n * n)), projector(at(n * n));
    for (int64_t i = 0; i < n; i++) std::copy_n(moment.begin() + (h * n + i) * e.width + h * n, n, c.begin() + i * n);
    fastmqa::symmetricEigen(n, c.data(), values.data(), vectors.data());
    gemm(n, n, rank, vectors.data(), n, true, vectors.data(), n, false, projector.data(), n, false);
    gemm(e.tokens, n, n, rows.data() + h * n, e.width, false, projector.data(), n, false, out.data() + h * n, e.width, false);
  });
  return out;
}

/// One complex PCA per rotary frequency across heads (attention-spec B.3, option C): it commutes with the rotation.
struct FrequencyBasis {
  int64_t heads, pairs;
  Matrix weight;                 // [pairs][heads] sqrt(lambda)
  Matrix energy;                 // [pairs][heads] eigenvalues, descending for each pair
  std::vector<Complex> vectors;  // [pairs][heads][heads], row i: eigenvector i

  FrequencyBasis(const Exact& e, const Matrix& keyMoment, const Calibration& calibration)
      : heads(e.heads), pairs(e.dim / 2), weight(at(pairs * heads)), energy(at(pairs * heads)), vectors(at(pairs * heads * heads)) {
    const Matrix qm = product(e.width, e.d, e.d, e.wq, calibration.moment, false);
    const auto power = [&](int64_t row) {
      double sum = 0;
      for (int64_t i = 0; i < e.d; i++) sum += qm[at(row * e.d + i)] * e.wq[at(row * e.d + i)];
      return sum;
    };
    parallelFor(pairs, [&](int64_t j) {
      const auto moment = [&](int64_t a, int64_t b) { return keyMoment[at(a * e.width + b)]; };
      for (int64_t h = 0; h < heads; h++)
        weight[at(j * heads + h)] = std::sqrt((power(h * e.dim + j) + power(h * e.dim + j + pairs)) / 2);
      std::vector<Complex> sigma(at(heads * heads));
      for (int64_t g = 0; g < heads; g++)
        for (int64_t h = 0; h < heads; h++) {  // E[z_g conj(z_h)]
          const int64_t a = g * e.dim + j, b = h * e.dim + j;
          sigma[at(g * heads + h)] = weight[at(j * heads + g)] * weight[at(j * heads + h)] *
                                     Complex(moment(a, b) + moment(a + pairs, b + pairs), moment(a + pairs, b) - moment(a, b + pairs));
        }
      fastmqa::hermitianEigen(heads, sigma.data(), &energy[at(j * heads)], &vectors[at(j * heads * heads)]);
    });
  }

  /// The most energetic `components` over all frequencies: how many of each frequency.
  std::vector<int64_t> allocation(int64_t components) const {
    Matrix sorted(energy);
    std::sort(sorted.begin(), sorted.end(), std::greater<double>());
    std::vector<int64_t> ranks;
    for (int64_t j = 0; j < pairs; j++)
      ranks.push_back(std::count_if(&energy[at(j * heads)], &energy[at(j * heads)] + heads, [&](double v) { return v >= sorted[at(components - 1)]; }));
    return ranks;
  }

  /// The real matrix [width][width] that maps keys (as columns) to what the first ranks[j] components of frequency j hold.
  Matrix projector(const std::vector<int64_t>& ranks) const {
    const int64_t dim = 2 * pairs, width = heads * dim;
    Matrix m(at(width * width), 0.0);
    parallelFor(pairs, [&](int64_t j) {
      const Complex* v = &vectors[at(j * heads * heads)];
      const double* w = &weight[at(j * heads)];
      for (int64_t g = 0; g < heads; g++)
        for (int64_t h = 0; h < heads; h++) {
          Complex c = 0;
          for (int64_t i = 0; i < ranks[at(j)]; i++) c += v[i * heads + g] * std::conj(v[i * heads + h]);
          c *= w[h] / w[g];
          const int64_t a = g * dim + j, b = h * dim + j;
          m[at(a * width + b)] = m[at((a + pairs) * width + b + pairs)] = c.real();
          m[at((a + pairs) * width + b)] = c.imag();
          m[at(a * width + b + pairs)] = -c.imag();
        }
    });
    return m;
  }
};

/// Keys and values that a joint latent of rank r gives back, for r the whole rank of `p` at the most: [tokens][2 width].
inline Matrix throughLatent(const Exact& e, const fastmqa::Projection& p, int64_t rank) {
  Matrix latent(at(e.tokens * rank)), out(at(e.tokens * p.channels));
  gemm(e.tokens, rank, e.d, e.inputs.data(), e.d, false, p.down.data(), e.d, true, latent.data(), rank, false);
  gemm(e.tokens, p.channels, rank, latent.data(), rank, false, p.up.data(), p.rank, true, out.data(), p.channels, false);
  return out;
}

}  // namespace anchors
