#include "latent.h"

#include <algorithm>

#include "comparison.h"

using namespace fastmqa;

namespace {

struct Shape {
  std::string name;
  int64_t d, heads, nopeDim, ropeDim, rank, valueDim, queryRank;
  bool interleaved;
};

/// Random weights, queries loud enough for attention that prefers some tokens.
LayerWeights weightsOf(const Shape& s, int seed) {
  check::Random random(seed);
  const auto matrix = [&](int64_t rows, int64_t columns, double loudness) {
    return random.normals(rows * columns, loudness / std::sqrt(static_cast<double>(columns)));
  };
  const auto norm = [&](int64_t n) {
    std::vector<float> weight = random.normals(n, 0.2);
    for (float& w : weight) w += 1;
    return weight;
  };
  LayerWeights w;
  w.d = s.d, w.heads = w.kvHeads = s.heads, w.headDim = s.nopeDim + s.ropeDim;
  w.latent.rank = s.rank, w.latent.ropeDim = s.ropeDim, w.latent.valueDim = s.valueDim;
  if (s.queryRank > 0) w.latent.queryDown = matrix(s.queryRank, s.d, 1), w.latent.queryNorm = norm(s.queryRank);
  w.wq = matrix(s.heads * w.headDim, s.queryRank > 0 ? s.queryRank : s.d, 3);
  w.latent.down = matrix(s.rank + s.ropeDim, s.d, 1);
  w.latent.norm = norm(s.rank);
  w.latent.up = matrix(s.heads * (s.nopeDim + s.valueDim), s.rank, 1);
  w.wo = matrix(s.d, s.heads * s.valueDim, 1);
  w.rope.rotaryDim = s.ropeDim, w.rope.interleaved = s.interleaved;
  return w;
}

struct Kind {
  std::string name;
  Technique technique;
  bool everyPhase = true;  ///< else decode
};

Technique direct(Dtype key, Dtype value, int64_t groupSize) {
  Technique t;
  t.keyDtype = key, t.valueDtype = value;
  t.keyGroupSize = t.valueGroupSize = groupSize;
  return t;
}

Kind plain(const char* name, Dtype type) { return {name, direct(type, type, 32)}; }

/// Every way through the kernels.
std::vector<Kind> kinds() {
  std::vector<Kind> out{plain("f32", Dtype::f32), plain("f16", Dtype::f16), plain("bf16", Dtype::bf16)};
  Technique t = direct(Dtype::int8, Dtype::int8, 16);
  t.symmetric = true;
  out.push_back({"int8", t});
  t.keyGrouping = Technique::Grouping::channel;
  out.push_back({"int8, keys by channel", t, false});
  t.sinks = 3, t.window = 40;
  out.push_back({"int8, keys by channel, window, sinks", t});
  out.push_back({"fp8", direct(Dtype::e4m3, Dtype::e4m3, 32), false});
  out.push_back({"int4", direct(Dtype::int4, Dtype::int4, 16), false});
  out.push_back({"16-bit keys, int4 latents", direct(Dtype::f16, Dtype::int4, 16), false});
  t = direct(Dtype::f16, Dtype::f16, 32);
  t.window = 40, t.sinks = 3;
  out.push_back({"f16, window, sinks", t, false});
  t.residual = 20;
  out.push_back({"f16, window, sinks, residual", t});
  t.window = 0;
  t.keysBeforeRope = true;
  out.push_back({"f16, before rope, sinks, residual", t, false});
  t = direct(Dtype::int4, Dtype::int3, 16);
  t.keysBeforeRope = true;
  out.push_back({"int4 before rope, int3 latents", t, false});
  return out;
}

/// What weights and activations of the type cost by themselves, as relative L2 of these layers.
double roundingOf(const Technique& t) {
  if (t.keyDtype == Dtype::f32) return 2e-6;
  constexpr double half = 1.5e-3;
  return t.keyDtype == Dtype::bf16 ? 8 * half : half;
}

}  // namespace

void testOwnLatents(const Accelerator& accelerator, int device, const std::vector<std::string>& names) {
  struct Case {
    Shape shape;
    int64_t tokens;
    std::vector<Kind> kinds;
  };
  const Case cases[] = {
      {{"own latent 32+16", 48, 4, 16, 16, 32, 24, 40, true}, 110, kinds()},
      {{"own latent 48+8, odd heads", 64, 3, 24, 8, 48, 32, 0, false}, 70, {plain("f16", Dtype::f16)}},
      {{"own latent 512+64", 64, 8, 128, 64, 512, 128, 96, true}, 40, {plain("f16", Dtype::f16)}},  // DeepSeek's heads, by the latent kernel
  };
  for (const auto& [s, tokens, kinds] : cases) {
    if (!names.empty() && std::find(names.begin(), names.end(), s.name) == names.end()) continue;
    const auto model = std::make_shared<const ReferenceModel>(weightsOf(s, 5), CalibrationStreams{});
    const LayerWeights stranger = weightsOf(s, 6);
    for (const int64_t batch : {int64_t{2}, int64_t{1}}) {
      std::vector<std::vector<float>> x;
      for (int64_t b = 0; b < batch; b++) x.push_back(check::Random(static_cast<int>(20 + b)).normals((tokens + 3) * s.d));
      const auto workload = workloadOf(model->weights(), stranger, std::move(x), tokens, tokens + 3);
      for (const Kind& kind : kinds)
        for (const Phase phase : {Phase::decode, Phase::prefill, Phase::verify}) {
          if ((batch == 2) != (phase == Phase::decode) || (phase != Phase::decode && !kind.everyPhase)) continue;
          constexpr const char* phases[] = {"prefill", "decode", "verify"};
          const std::string name = s.name + ", " + kind.name + ", " + phases[static_cast<int>(phase)];
          PointSpec spec;
          spec.technique = kind.technique;
          spec.technique.kvHeads = s.heads;
          spec.phase = phase;
          spec.seqLen = tokens, spec.batch = batch, spec.verifyTokens = 3;
          try {
            MeasuredPoint cpu(spec, model, workload, nullptr);
            spec.device = device;
            MeasuredPoint gpu(spec, model, workload, &accelerator, nullptr);
            // Codes differ where numbers were rounded before; what a window forgets is the same.
            const bool isCoded = bitsOf(kind.technique.valueDtype) <= 8;
            comparePoints(name, gpu, cpu, roundingOf(kind.technique) + (isCoded ? 0.1 * std::min(0.1, cpu.error().relativeL2) : 0));
          } catch (const std::exception& error) {
            check::report(false, name + ": " + error.what(), NAN, "", 0);
          }
        }
    }
  }
}
