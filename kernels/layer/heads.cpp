#include "heads.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <stdexcept>
#include <string>

#include "math/eigen.h"
#include "math/gemm.h"
#include "math/threads.h"

namespace fastmqa {
namespace {

using Complex = std::complex<double>;

constexpr int64_t chunkTokens = 1024;  // calibration tokens projected at a time

void require(bool condition, const char* expected, int64_t received) {
  if (!condition) throw std::invalid_argument(std::string("expected ") + expected + " but received " + std::to_string(received));
}

/// The gauges of the KV heads, as found; index by KV head of the original layer.
struct Gauges {
  int64_t pairs, unrotated;       // of a head's channels
  std::vector<Complex> phases;    // [G, pairs] multiply the pairs of keys and queries
  std::vector<double> keyMaps;    // [G, unrotated, unrotated] S_h: the other channels of k_h are S_h times the shared ones
  std::vector<double> valueMaps;  // [G, D, D] T_h: v_h is T_h times the shared value
};

/// Second moments over calibration, within each group of n KV heads.
struct Moments {
  std::vector<std::vector<Complex>> pairs;         // per group and pair [n, n]: sum_t conj(z_h) z_h'
  std::vector<std::vector<double>> keys, values;  // per group [n width, n width]: sum_t u_h u_h'^T
};

/// y [tokens, rows] = x W^T.
std::vector<double> project(const double* x, int64_t tokens, int64_t d, const std::vector<double>& weights) {
  const auto rows = static_cast<int64_t>(weights.size()) / d;
  std::vector<double> y(static_cast<size_t>(tokens * rows));
  gemm(tokens, rows, d, x, d, false, weights.data(), d, true, y.data(), rows, false);
  return y;
}

Moments gatherMoments(const HeadWeights& w, int64_t groups, int64_t rotaryDim, const double* x, int64_t tokens) {
  const int64_t D = w.headDim, n = w.kvHeads / groups, width = w.kvHeads * D, pairs = rotaryDim / 2, rest = D - rotaryDim;
  Moments moments;
  moments.pairs.assign(static_cast<size_t>(groups * pairs), std::vector<Complex>(static_cast<size_t>(n * n)));
  moments.keys.assign(static_cast<size_t>(groups), std::vector<double>(static_cast<size_t>(n * rest * n * rest)));
  moments.values.assign(static_cast<size_t>(groups), std::vector<double>(static_cast<size_t>(n * D * n * D)));

  for (int64_t first = 0; first < tokens; first += chunkTokens) {
    const int64_t count = std::min(chunkTokens, tokens - first);
    const std::vector<double> keys = project(x + first * w.hiddenDim, count, w.hiddenDim, w.key);
    parallelFor(groups * pairs, [&](int64_t item) {
      const int64_t group = item / pairs, j = item % pairs;
      // Columns: the real parts of the n heads, then the imaginary parts.
      std::vector<double> z(static_cast<size_t>(count * 2 * n)), gram(static_cast<size_t>(4 * n * n));
      for (int64_t t = 0; t < count; t++)
        for (int64_t h = 0; h < n; h++) {
          const double* const k = keys.data() + t * width + (group * n + h) * D;
          z[t * 2 * n + h] = k[j];
          z[t * 2 * n + n + h] = k[j + pairs];
        }
      gemm(2 * n, 2 * n, count, z.data(), 2 * n, true, z.data(), 2 * n, false, gram.data(), 2 * n, false);
      const auto at = [&](int64_t a, int64_t b) { return gram[a * 2 * n + b]; };
      for (int64_t a = 0; a < n; a++)
        for (int64_t b = 0; b < n; b++)
          moments.pairs[item][a * n + b] += Complex(at(a, b) + at(n + a, n + b), at(a, n + b) - at(n + a, b));
    });
    if (rest > 0) {
      std::vector<double> others(static_cast<size_t>(count * n * rest));
      for (int64_t group = 0; group < groups; group++) {
        for (int64_t t = 0; t < count; t++)
          for (int64_t h = 0; h < n; h++)
            std::copy_n(keys.data() + t * width + (group * n + h) * D + rotaryDim, rest, others.data() + (t * n + h) * rest);
        gemm(n * rest, n * rest, count, others.data(), n * rest, true, others.data(), n * rest, false,
             moments.keys[group].data(), n * rest, true);
      }
    }
    const std::vector<double> values = project(x + first * w.hiddenDim, count, w.hiddenDim, w.value);
    for (int64_t group = 0; group < groups; group++) {
      const double* const v = values.data() + group * n * D;
      gemm(n * D, n * D, count, v, width, true, v, width, false, moments.values[group].data(), n * D, true);
    }
  }
  return moments;
}

/// Phases that maximise | sum_h phase_h z_h |^2: alternately the mean m and phase_h = unit(sum_t conj(z_h) m), which
/// need only the moments sum_t conj(z_h) z_h'.
void alignPhases(int64_t n, const std::vector<Complex>& moments, int iterations, Complex* phases, int64_t stride) {
  std::vector<Complex> current(static_cast<size_t>(n)), next(current.size());
  current[0] = 1;  // the first mean is the first head
  for (int step = 0; step < iterations; step++) {
    for (int64_t h = 0; h < n; h++) {
      Complex sum = 0;
      for (int64_t k = 0; k < n; k++) sum += moments[h * n + k] * current[k];
      const double size = std::abs(sum);
      next[h] = size > 0 ? sum / size : Complex(1);
    }
    std::swap(current, next);
  }
  for (int64_t h = 0; h < n; h++) phases[h * stride] = current[h];
}

/// Orthogonal maps T_h [width, width] that maximise | sum_h T_h^T u_h |^2: alternately the mean m and
/// T_h = polar(sum_t u_h m^T), from the moments sum_t u_h u_h'^T.
void alignMaps(int64_t n, int64_t width, const std::vector<double>& moments, int iterations, double* maps) {
  const int64_t size = width * width;
  std::fill_n(maps, n * size, 0.0);
  for (int64_t c = 0; c < width; c++) maps[c * width + c] = 1;
  std::vector<double> correlations(static_cast<size_t>(n * size));
  for (int step = 0; step < iterations; step++) {
    gemm(n * width, width, n * width, moments.data(), n * width, false, maps, width, false, correlations.data(), width, false);
    std::copy(correlations.begin(), correlations.end(), maps);
    parallelFor(n, [&](int64_t h) { polarFactor(width, maps + h * size); });
  }
}

Gauges findGauges(const HeadWeights& w, int64_t groups, int64_t rotaryDim, int iterations, const double* x, int64_t tokens) {
  const int64_t D = w.headDim, n = w.kvHeads / groups;
  Gauges gauges;
  gauges.pairs = rotaryDim / 2;
  gauges.unrotated = D - rotaryDim;
  gauges.phases.resize(static_cast<size_t>(w.kvHeads * gauges.pairs));
  gauges.keyMaps.resize(static_cast<size_t>(w.kvHeads * gauges.unrotated * gauges.unrotated));
  gauges.valueMaps.resize(static_cast<size_t>(w.kvHeads * D * D));
  const Moments moments = gatherMoments(w, groups, rotaryDim, x, tokens);
  parallelFor(groups * gauges.pairs, [&](int64_t item) {
    const int64_t group = item / gauges.pairs, j = item % gauges.pairs;
    alignPhases(n, moments.pairs[item], iterations, gauges.phases.data() + group * n * gauges.pairs + j, gauges.pairs);
  });
  for (int64_t group = 0; group < groups; group++) {
    const int64_t rest = gauges.unrotated;
    if (rest > 0) alignMaps(n, rest, moments.keys[group], iterations, gauges.keyMaps.data() + group * n * rest * rest);
    alignMaps(n, D, moments.values[group], iterations, gauges.valueMaps.data() + group * n * D * D);
  }
  return gauges;
}

/// out [D, d] += scale * (the gauge of KV head g undone on a key or query projection [D, d]).
void addInSharedGauge(const Gauges& gauges, int64_t g, int64_t d, double scale, const double* in, double* out) {
  const int64_t pairs = gauges.pairs, rest = gauges.unrotated;
  for (int64_t j = 0; j < pairs; j++) {
    const Complex phase = scale * gauges.phases[g * pairs + j];
    const double *re = in + j * d, *im = in + (j + pairs) * d;
    double *outRe = out + j * d, *outIm = out + (j + pairs) * d;
    for (int64_t i = 0; i < d; i++) {
      outRe[i] += phase.real() * re[i] - phase.imag() * im[i];
      outIm[i] += phase.imag() * re[i] + phase.real() * im[i];
    }
  }
  if (rest == 0) return;
  std::vector<double> map(gauges.keyMaps.begin() + g * rest * rest, gauges.keyMaps.begin() + (g + 1) * rest * rest);
  for (double& x : map) x *= scale;
  gemm(rest, d, rest, map.data(), rest, true, in + 2 * pairs * d, d, false, out + 2 * pairs * d, d, true);
}

/// The means of n consecutive heads [size] each.
std::vector<double> groupMeans(const std::vector<double>& weights, int64_t groups, int64_t n, int64_t size) {
  std::vector<double> out(static_cast<size_t>(groups * size), 0.0);
  parallelFor(groups, [&](int64_t group) {
    for (int64_t h = 0; h < n; h++)
      for (int64_t i = 0; i < size; i++) out[group * size + i] += weights[(group * n + h) * size + i] / static_cast<double>(n);
  });
  return out;
}

std::vector<double> groupFirsts(const std::vector<double>& weights, int64_t groups, int64_t n, int64_t size) {
  std::vector<double> out;
  for (int64_t group = 0; group < groups; group++)
    out.insert(out.end(), weights.begin() + group * n * size, weights.begin() + (group * n + 1) * size);
  return out;
}

/// Fills key and value with the means in the shared gauges, and folds the gauges into query and output.
void mergeAligned(const HeadWeights& w, const Gauges& gauges, HeadWeights& out) {
  const int64_t D = w.headDim, d = w.hiddenDim, size = D * d;
  const int64_t groups = out.kvHeads, n = w.kvHeads / groups, queriesPerKey = w.heads / w.kvHeads;
  const double share = 1 / static_cast<double>(n);
  out.key.assign(static_cast<size_t>(groups * size), 0.0);
  out.value.assign(static_cast<size_t>(groups * size), 0.0);
  out.query.assign(w.query.size(), 0.0);
  parallelFor(groups, [&](int64_t group) {
    std::vector<double> turned(static_cast<size_t>(size));
    for (int64_t g = group * n; g < (group + 1) * n; g++) {
      addInSharedGauge(gauges, g, d, share, w.key.data() + g * size, out.key.data() + group * size);
      gemm(D, d, D, gauges.valueMaps.data() + g * D * D, D, true, w.value.data() + g * size, d, false, turned.data(), d, false);
      for (int64_t i = 0; i < size; i++) out.value[group * size + i] += share * turned[i];
    }
  });
  parallelFor(w.heads, [&](int64_t h) {
    const int64_t g = h / queriesPerKey;
    addInSharedGauge(gauges, g, d, 1, w.query.data() + h * size, out.query.data() + h * size);
    gemm(d, D, D, w.output.data() + h * size, D, false, gauges.valueMaps.data() + g * D * D, D, false,
         out.output.data() + h * size, D, false);
  });
}

}  // namespace

HeadWeights mergeHeads(const HeadWeights& weights, const HeadMergeOptions& options, const double* calibration, int64_t tokens) {
  const HeadWeights& w = weights;
  const int64_t size = w.headDim * w.hiddenDim;
  require(w.kvHeads >= 1 && w.heads % w.kvHeads == 0, "a divisor of the heads for the KV heads", w.kvHeads);
  require(options.kvHeads >= 1 && w.kvHeads % options.kvHeads == 0, "a divisor of the KV heads for the merged KV heads",
          options.kvHeads);
  require(static_cast<int64_t>(w.query.size()) == w.heads * size && w.output.size() == w.query.size(),
          "heads * headDim * hiddenDim values for the query and output weights", static_cast<int64_t>(w.query.size()));
  require(static_cast<int64_t>(w.key.size()) == w.kvHeads * size && w.value.size() == w.key.size(),
          "kvHeads * headDim * hiddenDim values for the key and value weights", static_cast<int64_t>(w.key.size()));
  HeadWeights out = w;
  out.kvHeads = options.kvHeads;
  const int64_t n = w.kvHeads / options.kvHeads;
  if (n == 1) return out;

  switch (options.how) {
    case HeadMerge::mean:
      out.key = groupMeans(w.key, options.kvHeads, n, size);
      out.value = groupMeans(w.value, options.kvHeads, n, size);
      break;
    case HeadMerge::first:
      out.key = groupFirsts(w.key, options.kvHeads, n, size);
      out.value = groupFirsts(w.value, options.kvHeads, n, size);
      break;
    case HeadMerge::aligned: {
      const int64_t rotaryDim = options.rotaryDim < 0 ? w.headDim : options.rotaryDim;
      require(rotaryDim <= w.headDim && rotaryDim % 2 == 0, "an even rotary dimension up to the head dimension", rotaryDim);
      require(calibration != nullptr && tokens >= w.headDim, "at least headDim calibration tokens", calibration ? tokens : 0);
      require(options.iterations >= 1, "at least one iteration", options.iterations);
      mergeAligned(w, findGauges(w, options.kvHeads, rotaryDim, options.iterations, calibration, tokens), out);
      break;
    }
  }
  return out;
}

}  // namespace fastmqa
