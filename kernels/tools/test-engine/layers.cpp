// Whole layers: every kind of cache against the layer in fp64, latents and their bases, adaptive allocation.
#include <algorithm>
#include <functional>
#include <memory>

#include "checks.h"
#include "definition.h"
#include "layer/calibrate.h"
#include "layer/layer.h"
#include "math/threads.h"

using namespace fastmqa;
using check::Random;
using Matrix = std::vector<double>;

namespace {

constexpr uint64_t inputSeed = 100;

ModelSpec modelOf(int64_t d, int64_t heads, int64_t headDim, int64_t kvHeads, double theta, uint64_t seed = 3) {
  ModelSpec m;
  m.hiddenDim = d, m.heads = heads, m.headDim = headDim, m.kvHeads = kvHeads, m.ropeTheta = theta, m.seed = seed;
  return m;
}

Technique plainTechnique(const ModelSpec& m) {
  Technique t;
  t.kvHeads = m.kvHeads;
  return t;
}

/// The layer by its definition, at all positions: [tokens][d].
Matrix layerByDefinition(const ReferenceModel& model, const float* x, int64_t tokens, int64_t window = 0, int64_t sinks = 0) {
  const LayerWeights& w = model.weights();
  const auto projected = [&](const Numbers& weights, int64_t n) {
    Matrix out(static_cast<size_t>(tokens * n));
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t r = 0; r < n; r++) {
        double sum = 0;
        for (int64_t c = 0; c < w.d; c++) sum += static_cast<double>(weights[static_cast<size_t>(r * w.d + c)]) * static_cast<double>(x[t * w.d + c]);
        out[static_cast<size_t>(t * n + r)] = sum;
      }
    return out;
  };
  const auto rotated = [&](Matrix rows, int64_t heads) {
    for (int64_t t = 0; t < tokens && model.spec().ropeTheta > 0; t++)
      for (int64_t h = 0; h < heads; h++)
        for (int64_t j = 0; j < w.headDim / 2; j++) {
          const double angle = static_cast<double>(t) * std::pow(model.spec().ropeTheta, -2.0 * static_cast<double>(j) / static_cast<double>(w.headDim));
          double *a = &rows[static_cast<size_t>((t * heads + h) * w.headDim + j)], *b = a + w.headDim / 2;
          const double first = *a * std::cos(angle) - *b * std::sin(angle);
          *b = *a * std::sin(angle) + *b * std::cos(angle);
          *a = first;
        }
    return rows;
  };
  definition::Attention a;
  a.heads = w.heads, a.kvHeads = w.kvHeads, a.keyDim = a.valueDim = w.headDim, a.keys = a.queries = tokens;
  a.scale = 1 / std::sqrt(static_cast<double>(w.headDim));
  if (window > 0) a.left = window - 1, a.sinks = sinks;
  a.q = rotated(projected(w.wq, w.heads * w.headDim), w.heads);
  a.k = rotated(projected(w.wk, w.kvHeads * w.headDim), w.kvHeads);
  a.v = projected(w.wv, w.kvHeads * w.headDim);
  const Matrix mixed = a.output();
  Matrix y(static_cast<size_t>(tokens * w.d));
  const int64_t width = w.heads * w.headDim;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t i = 0; i < w.d; i++) {
      double sum = 0;
      for (int64_t c = 0; c < width; c++) sum += static_cast<double>(w.wo[static_cast<size_t>(i * width + c)]) * mixed[static_cast<size_t>(t * width + c)];
      y[static_cast<size_t>(t * w.d + i)] = sum;
    }
  return y;
}

/// A model, a stream and its outputs.
struct Setting {
  explicit Setting(const ModelSpec& spec, int64_t n = 192) : model(spec), tokens(n), x(model.inputs(n, evaluationSeed(inputSeed, 0))), y(layerByDefinition(model, x.data(), n)) {}
  ReferenceModel model;
  int64_t tokens;
  std::vector<float> x;
  Matrix y;
};

/// Decodes the stream in steps of `most` tokens or fewer, everything before a step settled.
std::vector<float> decoded(const AttentionLayer& layer, const std::vector<float>& x, int64_t most) {
  Arena arena;
  const auto cache = layer.newCache(arena);
  const int64_t d = layer.hiddenDim(), tokens = static_cast<int64_t>(x.size()) / d;
  std::vector<float> y(x.size());
  for (int64_t t = 0, n = 1; t < tokens; t += n, n = n % most + 1) {
    n = std::min(n, tokens - t);
    layer.step({cache.get()}, x.data() + t * d, n, y.data() + t * d);
    cache->settle();
  }
  return y;
}

std::vector<float> prefilled(const AttentionLayer& layer, const std::vector<float>& x) {
  Arena arena;
  const auto cache = layer.newCache(arena);
  std::vector<float> y(x.size());
  layer.prefill(*cache, x.data(), static_cast<int64_t>(x.size()) / layer.hiddenDim(), y.data());
  return y;
}

double errorOf(const Setting& s, const Technique& t) {
  Arena arena;
  const AttentionLayer layer(arena, s.model, t, s.tokens, 2048, inputSeed, nullptr);
  return check::relativeL2(decoded(layer, s.x, 4), s.y);
}

void exactLayers() {
  const std::vector<std::pair<std::string, ModelSpec>> models{{"MHA", modelOf(128, 8, 16, 8, 10000)},       {"GQA", modelOf(128, 8, 16, 2, 10000)},  {"MQA", modelOf(96, 4, 32, 1, 500000)},
                                                              {"without RoPE", modelOf(128, 8, 16, 8, 0)}, {"wide heads", modelOf(100, 3, 40, 3, 10000)}};
  for (const auto& [name, spec] : models) {
    const Setting s(spec);
    for (const bool naive : {false, true})
      for (const bool beforeRope : {false, true})
        for (const bool hadamard : {false, true}) {
          if (hadamard && (beforeRope || (spec.headDim & (spec.headDim - 1)))) continue;
          Technique t = plainTechnique(spec);
          t.naiveKernel = naive, t.keysBeforeRope = beforeRope, t.hadamard = hadamard;
          Arena arena;
          const AttentionLayer layer(arena, s.model, t, s.tokens, 1024, inputSeed, nullptr);
          const std::string how = name + (naive ? " naive" : " flash") + (beforeRope ? " pre-RoPE" : "") + (hadamard ? " hadamard" : "");
          const std::vector<float> steps = decoded(layer, s.x, 5), whole = prefilled(layer, s.x);
          check::atMost("f32 decode, " + how, check::relativeL2(steps, s.y), 1e-5);
          check::atMost("f32 prefill, " + how, check::relativeL2(whole, s.y), 1e-5);
          check::atMost("f32 prefill equals decode, " + how, check::relativeL2(whole, steps), 1e-5);
        }
    Technique t = plainTechnique(spec);
    t.window = 50;
    const Matrix windowed = layerByDefinition(s.model, s.x.data(), s.tokens, 50, 0);
    check::atMost("f32 in a window of 50, " + name, [&] {
      Arena arena;
      return check::relativeL2(decoded(AttentionLayer(arena, s.model, t, s.tokens, 1024, inputSeed, nullptr), s.x, 6), windowed);
    }(), 1e-5);
    // Full-rank latents lose nothing.
    const int64_t width = spec.kvHeads * spec.headDim, most = std::min(spec.hiddenDim, width), mostJoint = std::min(spec.hiddenDim, 2 * width);
    for (const bool centred : {false, true})
      for (const bool weightBasis : {false, true})
        for (const bool beforeRope : {false, true}) {
          Technique l = plainTechnique(spec);
          l.centred = centred, l.weightBasis = weightBasis, l.keysBeforeRope = beforeRope;
          const std::string how = name + (centred ? " centred" : "") + (weightBasis ? " weight basis" : "") + (beforeRope ? " pre-RoPE" : " post-RoPE");
          l.cacheKind = CacheKind::latentSeparate;
          l.rankKey = l.rankValue = most;
          // Rotated keys span all their channels, also where the layer input has fewer.
          if (width <= spec.hiddenDim || beforeRope || spec.ropeTheta == 0) check::atMost("separate latents of full rank are exact, " + how, errorOf(s, l), 1e-4);
          if (beforeRope || spec.ropeTheta == 0) {
            l.cacheKind = CacheKind::latentJoint;
            l.rank = mostJoint, l.rankKey = l.rankValue = 0;
            check::atMost("a joint latent of full rank is exact, " + how, errorOf(s, l), 1e-4);
            Arena arena;
            const AttentionLayer layer(arena, s.model, l, s.tokens, 2048, inputSeed, nullptr);
            check::atMost("and its prefill, " + how, check::relativeL2(prefilled(layer, s.x), s.y), 1e-4);
          }
        }
    Technique input = plainTechnique(spec);
    input.cacheKind = CacheKind::input;
    check::atMost("the cached layer input is exact, " + name, errorOf(s, input), 1e-5);
    if (spec.ropeTheta > 0) {
      input.keysBeforeRope = true;
      check::atMost("the cached layer input is exact, keyRope pre, " + name, errorOf(s, input), 1e-5);
    }
  }
}

/// Prefill with a compressed cache leaves the cache that decoding fills.
void filledAlike() {
  const Setting s(modelOf(128, 8, 16, 4, 10000));
  for (const CacheKind kind : {CacheKind::direct, CacheKind::input, CacheKind::latentJoint, CacheKind::latentSeparate})
    for (const int64_t sinks : {0, 4})
      for (const int64_t window : {0, 64}) {
        Technique t = plainTechnique(s.model.spec());
        t.cacheKind = kind, t.sinks = sinks, t.window = window, t.keysBeforeRope = true;
        t.keyDtype = t.valueDtype = Dtype::f16;
        t.rank = 64;
        Arena arena;
        const AttentionLayer layer(arena, s.model, t, s.tokens, 1024, inputSeed, nullptr);
        const auto a = layer.newCache(arena), b = layer.newCache(arena), c = layer.newCache(arena);
        const int64_t d = 128, before = s.tokens - 2;
        std::vector<float> y(static_cast<size_t>(s.tokens * d)), last[3];
        layer.prefill(*a, s.x.data(), before, y.data());
        layer.fill(*b, s.x.data(), before, true);
        for (int64_t i = 0; i < before; i += 2) {
          layer.step({c.get()}, s.x.data() + i * d, 2, y.data());
          c->settle();
        }
        int i = 0;
        for (SequenceCache* cache : {a.get(), b.get(), c.get()}) {
          last[i].resize(static_cast<size_t>(2 * d));
          layer.step({cache}, s.x.data() + before * d, 2, last[i++].data());
        }
        const std::string name = std::to_string(static_cast<int>(kind)) + " sinks " + std::to_string(sinks) + " window " + std::to_string(window);
        check::atMost("prefill, fill and steps leave the same cache, kind " + name, std::max(check::relativeL2(last[1], last[0]), check::relativeL2(last[2], last[0])), 1e-3);
        check::isTrue("and the same bytes, kind " + name, a->bytes().allocated == b->bytes().allocated && b->bytes().allocated == c->bytes().allocated);
      }
}

void batches() {
  const Setting s(modelOf(128, 8, 16, 2, 10000), 80);
  for (const CacheKind kind : {CacheKind::direct, CacheKind::input, CacheKind::latentJoint, CacheKind::latentSeparate})
    for (const int64_t sinks : {0, 6}) {
      Technique t = plainTechnique(s.model.spec());
      t.cacheKind = kind, t.sinks = sinks, t.keysBeforeRope = true, t.rank = 24;
      Arena arena;
      const AttentionLayer layer(arena, s.model, t, 128, 1024, inputSeed, nullptr);
      constexpr int64_t batch = 3, d = 128, tokens = 80;
      std::vector<std::vector<float>> x;
      std::vector<std::unique_ptr<SequenceCache>> caches;
      std::vector<SequenceCache*> together;
      for (int64_t b = 0; b < batch; b++) {
        x.push_back(s.model.inputs(tokens, evaluationSeed(inputSeed, b)));
        caches.push_back(layer.newCache(arena));
        together.push_back(caches.back().get());
      }
      double worst = 0;
      std::vector<std::vector<float>> alone;
      for (const auto& stream : x) alone.push_back(decoded(layer, stream, 4));
      for (int64_t done = 0, n = 1; done < tokens; done += n, n = n % 4 + 1) {
        n = std::min(n, tokens - done);
        std::vector<float> in, out(static_cast<size_t>(batch * n * d));
        for (const auto& stream : x) in.insert(in.end(), stream.begin() + done * d, stream.begin() + (done + n) * d);
        layer.step(together, in.data(), n, out.data());
        for (int64_t b = 0; b < batch; b++) {
          const auto& own = alone[static_cast<size_t>(b)];
          worst = std::max(worst, check::relativeL2(std::vector<float>(out.begin() + b * n * d, out.begin() + (b + 1) * n * d), std::vector<float>(own.begin() + done * d, own.begin() + (done + n) * d)));
          caches[static_cast<size_t>(b)]->settle();
        }
      }
      check::atMost("a batch equals its sequences, kind " + std::to_string(static_cast<int>(kind)) + " sinks " + std::to_string(sinks), worst, 2e-6);
    }
}

void latentQuality() {
  const Setting s(modelOf(128, 8, 16, 8, 10000));
  Technique t = plainTechnique(s.model.spec());
  t.keysBeforeRope = true;
  const auto decreasing = [&](const std::string& name, const std::function<void(int64_t)>& set) {
    double before = INFINITY;
    for (const int64_t rank : {8, 16, 32, 64, 96, 128}) {
      set(rank);
      const double error = errorOf(s, t);
      check::atMost(name + " error falls with rank, " + std::to_string(rank), error, before);
      before = error;
    }
  };
  t.cacheKind = CacheKind::latentSeparate;
  decreasing("separate", [&](int64_t rank) { t.rankKey = t.rankValue = rank; });
  t.cacheKind = CacheKind::latentJoint;
  t.rankKey = t.rankValue = 0;
  decreasing("joint", [&](int64_t rank) { t.rank = rank; });
  t.centred = true, t.sinks = 4;  // the first token is far from the mean
  decreasing("joint centred", [&](int64_t rank) { t.rank = rank; });
  for (const bool centred : {false, true})
    for (const int64_t rank : {16, 32, 64}) {
      Technique pre = plainTechnique(s.model.spec());
      pre.cacheKind = CacheKind::latentSeparate, pre.centred = centred;
      pre.rankKey = rank, pre.rankValue = 128, pre.sinks = 1;
      Technique post = pre;
      pre.keysBeforeRope = true;
      check::atMost("pre-RoPE keys beat post-RoPE keys at rank " + std::to_string(rank) + (centred ? " centred" : ""), errorOf(s, pre), errorOf(s, post));
    }
}

/// Singular directions by one-sided Jacobi rotations: rows of a [m][n] become orthogonal; returns U of a = U S V^T,
/// [rank][m], of the largest singular values.
Matrix leftSingular(Matrix a, int64_t m, int64_t n, int64_t rank) {
  Matrix u(static_cast<size_t>(m * m), 0.0);
  for (int64_t i = 0; i < m; i++) u[static_cast<size_t>(i * m + i)] = 1;
  const auto dot = [n](const double* x, const double* y) {
    double sum = 0;
    for (int64_t c = 0; c < n; c++) sum += x[c] * y[c];
    return sum;
  };
  const auto turn = [](double* x, double* y, int64_t count, double c, double s) {
    for (int64_t i = 0; i < count; i++) {
      const double first = c * x[i] - s * y[i];
      y[i] = s * x[i] + c * y[i];
      x[i] = first;
    }
  };
  for (int sweep = 0; sweep < 40; sweep++) {
    double off = 0;
    for (int64_t p = 0; p < m; p++)
      for (int64_t q = p + 1; q < m; q++) {
        double *x = &a[static_cast<size_t>(p * n)], *y = &a[static_cast<size_t>(q * n)];
        const double xx = dot(x, x), yy = dot(y, y), xy = dot(x, y);
        if (std::fabs(xy) <= 1e-14 * std::sqrt(xx * yy)) continue;
        off = std::max(off, std::fabs(xy) / std::sqrt(xx * yy));
        const double zeta = (yy - xx) / (2 * xy), tangent = std::copysign(1, zeta) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta)), c = 1 / std::sqrt(1 + tangent * tangent);
        turn(x, y, n, c, c * tangent);
        turn(&u[static_cast<size_t>(p * m)], &u[static_cast<size_t>(q * m)], m, c, c * tangent);
      }
    if (off < 1e-13) break;
  }
  std::vector<std::pair<double, int64_t>> order;
  for (int64_t i = 0; i < m; i++) order.emplace_back(-dot(&a[static_cast<size_t>(i * n)], &a[static_cast<size_t>(i * n)]), i);
  std::sort(order.begin(), order.end());
  Matrix out;
  for (int64_t i = 0; i < rank; i++) out.insert(out.end(), u.begin() + order[static_cast<size_t>(i)].second * m, u.begin() + (order[static_cast<size_t>(i)].second + 1) * m);
  return out;
}

/// PCA of the outputs spans what the SVD of W S spans, S S^T = E[x x^T] by Cholesky ("whitening").
void whitening() {
  Random r(41);
  for (const auto& [channels, d] : std::vector<std::pair<int64_t, int64_t>>{{24, 40}, {40, 24}, {32, 32}})
    for (const bool weighted : {false, true})
      for (const bool centred : {false, true})
        for (const bool white : {false, true})
          for (const int64_t rank : {1, 7, 20}) {
            if (white && centred) continue;  // a basis of the weights alone knows no mean
            Matrix w, weight, mixing;
            for (int64_t i = 0; i < channels * d; i++) w.push_back(r.normal());
            for (int64_t c = 0; c < channels; c++) weight.push_back(weighted ? 0.5 + r.uniform() : 1);
            for (int64_t i = 0; i < d * d; i++) mixing.push_back(r.normal() / (1 + static_cast<double>(i / d)));
            Calibration calibration;
            calibration.mean.assign(static_cast<size_t>(d), 0.0);
            for (double& m : calibration.mean) m = centred ? r.normal() : 0;
            Matrix covariance(static_cast<size_t>(d * d), 0.0);
            for (int64_t i = 0; i < d; i++)
              for (int64_t j = 0; j < d; j++)
                for (int64_t k = 0; k < d; k++) covariance[static_cast<size_t>(i * d + j)] += mixing[static_cast<size_t>(i * d + k)] * mixing[static_cast<size_t>(j * d + k)];
            calibration.moment = covariance;
            for (int64_t i = 0; i < d; i++)
              for (int64_t j = 0; j < d; j++) calibration.moment[static_cast<size_t>(i * d + j)] += calibration.mean[static_cast<size_t>(i)] * calibration.mean[static_cast<size_t>(j)];
            Matrix lower(static_cast<size_t>(d * d), 0.0);  // Cholesky, row by row
            for (int64_t i = 0; i < d; i++)
              for (int64_t j = 0; j <= i; j++) {
                double sum = white ? (i == j) : covariance[static_cast<size_t>(i * d + j)];
                for (int64_t k = 0; k < j; k++) sum -= lower[static_cast<size_t>(i * d + k)] * lower[static_cast<size_t>(j * d + k)];
                lower[static_cast<size_t>(i * d + j)] = i == j ? std::sqrt(std::max(sum, 0.0)) : sum / lower[static_cast<size_t>(j * d + j)];
              }
            Matrix a(static_cast<size_t>(channels * d), 0.0);
            for (int64_t c = 0; c < channels; c++)
              for (int64_t j = 0; j < d; j++)
                for (int64_t k = j; k < d; k++) a[static_cast<size_t>(c * d + j)] += weight[static_cast<size_t>(c)] * w[static_cast<size_t>(c * d + k)] * lower[static_cast<size_t>(k * d + j)];
            const Matrix u = leftSingular(a, channels, d, rank);
            const Projection p = principalProjection(w, channels, d, calibration, weight, centred, white, rank);
            // y' = up (down x + bias) + mean at random x, and its twin from U: D^-1 U U^T D (W x - m) + m.
            double worst = 0;
            for (int trial = 0; trial < 3; trial++) {
              Matrix x, y(static_cast<size_t>(channels)), mine(static_cast<size_t>(channels)), twin(static_cast<size_t>(channels));
              for (int64_t i = 0; i < d; i++) x.push_back(r.normal());
              Matrix mean(static_cast<size_t>(channels), 0.0);
              for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < d; i++) {
                  y[static_cast<size_t>(c)] += w[static_cast<size_t>(c * d + i)] * x[static_cast<size_t>(i)];
                  mean[static_cast<size_t>(c)] += w[static_cast<size_t>(c * d + i)] * calibration.mean[static_cast<size_t>(i)];
                }
              mine = p.mean, twin = mean;
              for (int64_t i = 0; i < rank; i++) {
                double latent = p.bias[static_cast<size_t>(i)], other = 0;
                for (int64_t k = 0; k < d; k++) latent += p.down[static_cast<size_t>(i * d + k)] * x[static_cast<size_t>(k)];
                for (int64_t c = 0; c < channels; c++) other += u[static_cast<size_t>(i * channels + c)] * weight[static_cast<size_t>(c)] * (y[static_cast<size_t>(c)] - mean[static_cast<size_t>(c)]);
                for (int64_t c = 0; c < channels; c++) {
                  mine[static_cast<size_t>(c)] += p.up[static_cast<size_t>(c * p.rank + i)] * latent;
                  twin[static_cast<size_t>(c)] += u[static_cast<size_t>(i * channels + c)] / weight[static_cast<size_t>(c)] * other;
                }
              }
              worst = std::max(worst, check::relativeL2(mine, twin));
            }
            check::atMost("PCA equals whitened SVD, " + std::to_string(channels) + "x" + std::to_string(d) + (weighted ? " weighted" : "") + (centred ? " centred" : "") + (white ? " white" : "") + " rank " + std::to_string(rank), worst, 1e-7);
          }
}

double bytesPerToken(const AttentionLayer& layer) {
  const CacheSpec& s = layer.cacheSpec();
  double bytes = s.keys.payloadBytesPerToken() + s.keys.scaleBytesPerToken();
  if (s.values) bytes += s.values->payloadBytesPerToken() + s.values->scaleBytesPerToken();
  return bytes;
}

void adaptive() {
  const ModelSpec spec = modelOf(128, 8, 16, 8, 10000);
  {  // One token repeated has one direction; a stream with a steep spectrum has fewer than one with a flat spectrum.
    Random r(42);
    Matrix w;
    for (int64_t i = 0; i < 64 * 48; i++) w.push_back(r.normal());
    const auto rankOf = [&](bool constant) {
      Calibration c;
      c.mean.assign(48, 0.0), c.moment.assign(48 * 48, 0.0);
      Matrix x(48);
      for (int t = 0; t < 300; t++) {
        for (double& v : x)
          if (t == 0 || !constant) v = r.normal();
        for (int i = 0; i < 48; i++)
          for (int j = 0; j < 48; j++) c.moment[static_cast<size_t>(i * 48 + j)] += x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)] / 300;
      }
      return static_cast<double>(rankForEnergy(principalProjection(w, 64, 48, c, Matrix(64, 1.0), false, false, 48).energy, 0.99));
    };
    check::equal("a constant sequence keeps one coordinate", rankOf(true), 1);
    check::atLeast("a random one keeps many", rankOf(false), 40);
    GeneratorParameters steep, flat;
    steep.a_x = 1, steep.p_k = 1, steep.p_v = 1;
    flat.a_x = 0, flat.p_k = 0, flat.p_v = 0;
    const ReferenceModel compressible(spec, steep), plain(spec), incompressible(spec, flat);
    for (const CacheKind kind : {CacheKind::latentSeparate, CacheKind::latentJoint}) {
      Technique t = plainTechnique(spec);
      t.cacheKind = kind, t.keysBeforeRope = true, t.adaptiveEnergy = 0.95;
      std::vector<double> ranks;
      for (const ReferenceModel* model : {&compressible, &plain, &incompressible}) {
        Arena arena;
        const AttentionLayer layer(arena, *model, t, 64, 2048, inputSeed, nullptr);
        ranks.push_back(static_cast<double>(layer.rankKey() + layer.rankValue()));
      }
      const std::string name = kind == CacheKind::latentJoint ? ", joint" : ", separate";
      check::atMost("a compressible stream gets a smaller rank" + name, ranks[0], ranks[1] - 1);
      check::atMost("an incompressible one a larger" + name, ranks[1], ranks[2] - 1);
    }
  }
  const Setting s(spec);
  const std::vector<float> stream = s.model.inputs(512, calibrationSeed(inputSeed, 0));
  const Matrix target = layerByDefinition(s.model, stream.data(), 512);
  const auto onCalibration = [&](const Technique& t) {
    Arena arena;
    const AttentionLayer layer(arena, s.model, t, 1024, 2048, inputSeed, nullptr);
    return check::relativeL2(decoded(layer, stream, 8), target);
  };
  for (const Dtype dtype : {Dtype::f16, Dtype::int8})
    for (const double budget : {40.0, 64.0, 100.0, 128.0, 190.0}) {
      Technique t = plainTechnique(spec);
      t.cacheKind = CacheKind::latentSeparate, t.keysBeforeRope = true, t.keyDtype = t.valueDtype = dtype;
      t.adaptiveBudgetBytes = dtype == Dtype::int8 ? budget / 2 : budget;
      Arena arena;
      const AttentionLayer layer(arena, s.model, t, 64, 2048, inputSeed, nullptr);
      const double bytes = bytesPerToken(layer), unit = 4.0 * bitsOf(dtype) / 8 + (isInteger(dtype) ? 4 : 0);
      const std::string name = check::nameOf(dtype) + " " + std::to_string(static_cast<int>(t.adaptiveBudgetBytes)) + " bytes";
      check::atMost("the budget is not exceeded, " + name, bytes, t.adaptiveBudgetBytes);
      check::atLeast("and spent to within a unit, " + name, bytes, t.adaptiveBudgetBytes - unit);
      Technique even = t;
      even.adaptiveBudgetBytes = 0;
      for (even.rank = 4;; even.rank += 4) {
        Technique more = even;
        more.rank += 4;
        Arena room;
        if (bytesPerToken(AttentionLayer(room, s.model, more, 64, 2048, inputSeed, nullptr)) > t.adaptiveBudgetBytes) break;
      }
      // The layer judges by a sample of positions, this by all of them.
      check::atMost("not worse than the even split on the calibration stream, " + name, onCalibration(t), 1.02 * onCalibration(even));
    }
  for (const int64_t groupSize : {16, 32, 64})
    for (const double budget : {14.0, 30.0, 47.0, 64.0, 99.0, 130.0}) {
      Technique t = plainTechnique(spec);
      t.cacheKind = CacheKind::latentJoint, t.keysBeforeRope = true, t.keyGroupSize = groupSize, t.adaptiveBudgetBytes = budget, t.sinks = 4, t.centred = true;
      Arena arena;
      const std::string name = std::to_string(static_cast<int>(budget)) + " bytes, groups of " + std::to_string(groupSize);
      try {
        const AttentionLayer layer(arena, s.model, t, 64, 2048, inputSeed, nullptr);
        check::atMost("bands keep to the budget, " + name, bytesPerToken(layer), budget);
      } catch (const Failure& failure) {
        check::isTrue("a budget too small for one run is refused, " + name, failure.kind == FailureKind::refused && budget < 17);
      }
    }
}

void sameForAnyThreads() {
  const ModelSpec spec = modelOf(128, 8, 16, 4, 10000);
  for (const CacheKind kind : {CacheKind::direct, CacheKind::input, CacheKind::latentJoint, CacheKind::latentSeparate})
    for (const bool budget : {false, true}) {
      if (budget && (kind == CacheKind::direct || kind == CacheKind::input)) continue;
      Technique t = plainTechnique(spec);
      t.cacheKind = kind, t.keysBeforeRope = true, t.keyDtype = t.valueDtype = Dtype::int8, t.sinks = 4, t.centred = true;
      (budget ? t.adaptiveBudgetBytes : t.adaptiveEnergy) = budget ? 60 : 0.9;
      std::vector<float> first;
      bool same = true;
      for (const int threads : {1, 2, 3, 2}) {
        setThreadCount(threads);
        const ReferenceModel model(spec);  // bases are kept with the model: a new one computes its own
        Arena arena;
        const AttentionLayer layer(arena, model, t, 128, 1024, inputSeed, nullptr);
        const std::vector<float> x = model.inputs(100, evaluationSeed(inputSeed, 0));
        std::vector<float> y = decoded(layer, x, 3);
        for (const float v : prefilled(layer, x)) y.push_back(v);
        if (first.empty()) first = y;
        same = same && y == first;
      }
      setThreadCount(0);
      check::isTrue("bit-identical layers for 1, 2 and 3 threads, kind " + std::to_string(static_cast<int>(kind)) + (budget ? " budget" : ""), same);
    }
}

}  // namespace

void testLayers() {
  exactLayers();
  filledAlike();
  batches();
  whitening();
  sameForAnyThreads();
  if (check::length == check::Length::quick) return;
  latentQuality();
  adaptive();
}
