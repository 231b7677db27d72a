#include "calibrate.h"

#include <algorithm>
#include <cmath>

#include "math/eigen.h"
#include "math/gemm.h"

namespace fastmqa {
namespace {

constexpr int64_t triangleBlock = 256;  // rows of a triangle that are computed as a rectangle

// Lower triangular L with L L^T = a for a positive semi-definite [n][n]; directions without variance become zeros.
std::vector<double> cholesky(std::vector<double> a, int64_t n) {
  constexpr int64_t block = 64;
  double largest = 0;
  for (int64_t i = 0; i < n; i++) largest = std::max(largest, a[static_cast<size_t>(i * n + i)]);
  const double tiny = largest * 1e-13;
  for (int64_t k0 = 0; k0 < n; k0 += block) {
    const int64_t k1 = std::min(n, k0 + block);
    for (int64_t k = k0; k < k1; k++) {
      double* column = a.data() + k;
      const double pivot = column[k * n];
      const double root = pivot > tiny ? std::sqrt(pivot) : 0;
      for (int64_t i = k; i < n; i++) column[i * n] = root > 0 ? column[i * n] / root : 0;
      for (int64_t i = k + 1; i < n; i++)
        for (int64_t j = k + 1; j < std::min(i + 1, k1); j++)
          a[static_cast<size_t>(i * n + j)] -= column[i * n] * column[j * n];
    }
    if (k1 < n) {  // the rest at once: a22 -= l21 l21^T
      const int64_t rest = n - k1, width = k1 - k0;
      std::vector<double> minus(static_cast<size_t>(rest * width));
      for (int64_t i = 0; i < rest; i++)
        for (int64_t j = 0; j < width; j++) minus[static_cast<size_t>(i * width + j)] = -a[static_cast<size_t>((k1 + i) * n + k0 + j)];
      gemm(rest, rest, width, minus.data(), width, false, a.data() + k1 * n + k0, n, true, a.data() + k1 * n + k1, n, true);
    }
  }
  for (int64_t i = 0; i < n; i++) std::fill(a.begin() + i * n + i + 1, a.begin() + (i + 1) * n, 0.0);
  return a;
}

// Fills a projection from orthonormal directions u (rows of [rank][channels]) of weighted outputs.
Projection fromDirections(const std::vector<double>& u, int64_t rank, int64_t channels, const std::vector<double>& weight,
                          const std::vector<double>& mean) {
  Projection p;
  p.channels = channels;
  p.rank = rank;
  p.mean = mean;
  p.up.resize(static_cast<size_t>(channels * rank));
  p.bias.assign(static_cast<size_t>(rank), 0.0);
  for (int64_t i = 0; i < rank; i++)
    for (int64_t c = 0; c < channels; c++) {
      const double direction = u[static_cast<size_t>(i * channels + c)];
      p.up[static_cast<size_t>(c * rank + i)] = direction / weight[static_cast<size_t>(c)];
      p.bias[static_cast<size_t>(i)] -= direction * weight[static_cast<size_t>(c)] * mean[static_cast<size_t>(c)];
    }
  return p;
}

}  // namespace

Projection principalProjection(const std::vector<double>& w, int64_t channels, int64_t d, const Calibration& calibration,
                               const std::vector<double>& weight, bool centred, bool white, int64_t rank) {
  std::vector<double> weighted(w);
  for (int64_t c = 0; c < channels; c++)
    for (int64_t i = 0; i < d; i++) weighted[static_cast<size_t>(c * d + i)] *= weight[static_cast<size_t>(c)];
  std::vector<double> moment(calibration.moment);
  std::vector<double> mean(static_cast<size_t>(channels), 0.0);
  if (white) {
    std::fill(moment.begin(), moment.end(), 0.0);
    for (int64_t i = 0; i < d; i++) moment[static_cast<size_t>(i * d + i)] = 1;
  } else if (centred) {
    for (int64_t i = 0; i < d; i++)
      for (int64_t j = 0; j < d; j++)
        moment[static_cast<size_t>(i * d + j)] -= calibration.mean[static_cast<size_t>(i)] * calibration.mean[static_cast<size_t>(j)];
    gemm(channels, 1, d, w.data(), d, false, calibration.mean.data(), 1, false, mean.data(), 1, false);
  }
  const int64_t most = std::min(channels, d);
  std::vector<double> values(static_cast<size_t>(most)), vectors(static_cast<size_t>(most * most));
  std::vector<double> u;  // [rank][channels]
  const int64_t kept = std::min(rank, most);
  // A direction that the calibration stream never took is none: its coordinate is zero. It keeps its place, because the
  // size of a cache follows from the level and not from data.
  const auto isTaken = [&](int64_t i) { return i == 0 || values[static_cast<size_t>(i)] > values[0] * 1e-13; };
  if (channels <= d) {  // eigenvectors of W M W^T
    std::vector<double> wm(static_cast<size_t>(channels * d)), c(static_cast<size_t>(channels * channels));
    gemm(channels, d, d, weighted.data(), d, false, moment.data(), d, false, wm.data(), d, false);
    gemm(channels, channels, d, wm.data(), d, false, weighted.data(), d, true, c.data(), channels, false);
    symmetricEigen(channels, c.data(), values.data(), vectors.data());
    u.assign(vectors.begin(), vectors.begin() + kept * channels);
    for (int64_t i = 0; i < kept; i++)
      if (!isTaken(i)) std::fill_n(u.begin() + i * channels, channels, 0.0);
  } else {  // the same spectrum from the smaller side: A = W L, eigenvectors of A^T A, u = A v / sigma
    const std::vector<double> l = cholesky(std::move(moment), d);
    std::vector<double> a(static_cast<size_t>(channels * d)), c(static_cast<size_t>(d * d));
    for (int64_t j = 0; j < d; j += triangleBlock)  // above the diagonal l is zero
      gemm(channels, std::min(triangleBlock, d - j), d - j, weighted.data() + j, d, false, l.data() + j * d + j, d, false, a.data() + j, d, false);
    addGram(channels, d, a.data(), c.data());
    symmetricEigen(d, c.data(), values.data(), vectors.data());
    u.resize(static_cast<size_t>(kept * channels));
    gemm(kept, channels, d, vectors.data(), d, false, a.data(), d, true, u.data(), channels, false);
    for (int64_t i = 0; i < kept; i++) {
      const double sigma = std::sqrt(std::max(values[static_cast<size_t>(i)], 0.0)), scale = isTaken(i) && sigma > 0 ? 1 / sigma : 0;
      for (int64_t c2 = 0; c2 < channels; c2++) u[static_cast<size_t>(i * channels + c2)] *= scale;
    }
  }
  Projection p = fromDirections(u, kept, channels, weight, mean);
  p.down.resize(static_cast<size_t>(kept * d));
  gemm(kept, d, channels, u.data(), channels, false, weighted.data(), d, false, p.down.data(), d, false);
  p.energy = std::move(values);
  return p;
}

Projection principalOfSamples(const std::vector<double>& samples, int64_t rows, int64_t channels, bool centred, int64_t rank) {
  std::vector<double> mean(static_cast<size_t>(channels), 0.0), c(static_cast<size_t>(channels * channels));
  addGram(rows, channels, samples.data(), c.data());
  if (centred)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < channels; i++) mean[static_cast<size_t>(i)] += samples[static_cast<size_t>(r * channels + i)] / static_cast<double>(rows);
  for (int64_t i = 0; i < channels; i++)
    for (int64_t j = 0; j < channels; j++) {
      double& x = c[static_cast<size_t>(i * channels + j)];
      x = x / static_cast<double>(rows) - mean[static_cast<size_t>(i)] * mean[static_cast<size_t>(j)];
    }
  std::vector<double> values(static_cast<size_t>(channels)), vectors(static_cast<size_t>(channels * channels));
  symmetricEigen(channels, c.data(), values.data(), vectors.data());
  const int64_t kept = std::min(rank, channels);
  Projection p = fromDirections(vectors, kept, channels, std::vector<double>(static_cast<size_t>(channels), 1.0), mean);
  p.down.assign(vectors.begin(), vectors.begin() + kept * channels);
  p.energy = std::move(values);
  return p;
}

void addGram(int64_t rows, int64_t n, const double* a, double* c) {
  for (int64_t i = 0; i < n; i += triangleBlock) {
    const int64_t count = std::min(triangleBlock, n - i);
    gemm(count, i + count, rows, a + i, n, true, a, n, false, c + i * n, n, true);
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) c[j * n + i] = c[i * n + j];
}

int64_t rankForEnergy(const std::vector<double>& energy, double share) {
  double total = 0, sum = 0;
  for (double e : energy) total += std::max(e, 0.0);
  for (size_t i = 0; i < energy.size(); i++) {
    sum += std::max(energy[i], 0.0);
    if (sum >= share * total) return static_cast<int64_t>(i) + 1;
  }
  return static_cast<int64_t>(energy.size());
}

}  // namespace fastmqa
