// Checks of the cache: number formats against their closed forms (attention-spec B.5) and their definitions, stores,
// windows, roll-back, byte accounting, and that results depend on neither threads nor instruction set.
// One line a check: "ok name" or "FAIL name got ... expected ..."; the exit code is 1 if any failed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cpu/attention.h"
#include "cpu/codec.h"
#include "layer/calibrate.h"
#include "layer/layer.h"
#include "layer/point.h"
#include "layer/tensors.h"
#include "math/threads.h"
#include "reference/synthetic.h"
#include "simd/simd.h"

using namespace fastmqa;

namespace {

int failures = 0;

void check(const std::string& name, bool good, double got, double expected) {
  if (good)
    std::printf("ok %s\n", name.c_str());
  else
    std::printf("FAIL %s got %.9g expected %.9g\n", name.c_str(), got, expected);
  failures += !good;
}
// Written so that NaN fails.
void checkNear(const std::string& name, double got, double expected, double tolerance) {
  check(name, std::abs(got - expected) <= tolerance, got, expected);
}
void checkAtMost(const std::string& name, double got, double most) { check(name, got <= most, got, most); }
void checkTrue(const std::string& name, bool good) { check(name, good, good, 1); }

constexpr const char* dtypeNames[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "int8", "int4", "int3", "int2"};
std::string nameOf(Dtype t) { return dtypeNames[static_cast<int>(t)]; }

std::vector<float> normals(const char* stream, int64_t n) {
  std::vector<double> wide(static_cast<size_t>(n));
  RandomStream(7, stream).normals(0, n, wide.data());
  return std::vector<float>(wide.begin(), wide.end());
}

StoreSpec store(Dtype dtype, int64_t heads, int64_t channels, Layout layout, Grouping grouping, int64_t groupSize, bool symmetric) {
  StoreSpec spec;
  spec.heads = heads;
  spec.channels = channels;
  spec.bands = {{channels, dtype, symmetric}};
  spec.layout = layout;
  spec.grouping = grouping;
  spec.groupSize = groupSize;
  return spec;
}

/// Relative RMS error of n-value Gaussian groups through a real store.
double storedError(const StoreSpec& spec, const std::vector<float>& rows, int64_t tokens) {
  Arena arena;
  PanelStore s(arena, spec);
  s.reserve(tokens);
  s.write(0, tokens, rows.data(), spec.channels);
  std::vector<float> back(rows.size());
  s.readRows(0, 0, tokens, back.data(), spec.channels);
  double error = 0, energy = 0;
  for (size_t i = 0; i < rows.size(); i++) {
    const double e = static_cast<double>(back[i]) - static_cast<double>(rows[i]);
    error += e * e;
    energy += static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
  }
  return std::sqrt(error / energy);
}

void closedForms() {
  struct Form {
    Dtype dtype;
    bool symmetric;
    double error[4];  // groups of 16, 32, 64, 128
  };
  const Form forms[] = {{Dtype::int8, false, {.0038, .0046, .0053, .0059}}, {Dtype::int8, true, {.0047, .0054, .0059, .0065}},
                        {Dtype::int4, false, {.065, .078, .090, .100}},     {Dtype::int4, true, {.085, .097, .108, .117}},
                        {Dtype::int3, false, {.139, .168, .192, .214}},     {Dtype::int3, true, {.199, .227, .251, .274}},
                        {Dtype::int2, false, {.327, .393, .450, .500}},     {Dtype::int2, true, {.585, .658, .717, .767}}};
  constexpr int64_t tokens = 2048, channels = 128;
  const std::vector<float> rows = normals("codec", tokens * channels);
  for (const Form& form : forms)
    for (int i = 0; i < 4; i++) {
      const int64_t n = 16 << i;
      const double expected = form.error[i];
      // 3 %, and half a unit of the last digit that the table prints.
      const double tolerance = 0.03 * expected + (expected < 0.01 ? 0.00005 : 0.0005);
      const std::string name = "closed form " + nameOf(form.dtype) + (form.symmetric ? " sym n=" : " asym n=") + std::to_string(n);
      checkNear(name + " per token", storedError(store(form.dtype, 1, channels, Layout::tokenRows, Grouping::token, n, form.symmetric), rows, tokens), expected, tolerance);
      if (n <= 64)
        checkNear(name + " per channel", storedError(store(form.dtype, 1, channels, Layout::channelRows, Grouping::channel, n, form.symmetric), rows, tokens), expected, tolerance);
    }
  const std::pair<Dtype, double> floats[] = {{Dtype::f16, 2.1e-4}, {Dtype::bf16, 1.66e-3}, {Dtype::e4m3, .0265}, {Dtype::e5m2, .0528}};
  std::vector<float> scaled(rows);
  for (float& x : scaled) x *= 8;  // well inside the normal range
  for (const auto& [dtype, expected] : floats)
    checkNear("closed form " + nameOf(dtype), storedError(store(dtype, 1, channels, Layout::tokenRows, Grouping::token, 32, false), scaled, tokens), expected, 0.03 * expected);
  for (const float magnitude : {1e-6f, 1e6f}) {
    std::vector<float> far(rows);
    for (float& x : far) x *= magnitude;
    checkNear("int8 keeps its error at magnitude " + std::to_string(magnitude), storedError(store(Dtype::int8, 1, channels, Layout::tokenRows, Grouping::token, 32, false), far, tokens), .0046, .0002);
  }
  const std::vector<float> constant(64 * 64, 0.7312f);
  for (const Dtype dtype : {Dtype::int8, Dtype::int4, Dtype::int3, Dtype::int2})
    checkAtMost("a constant group is exact to its f16 minimum, " + nameOf(dtype), storedError(store(dtype, 1, 64, Layout::tokenRows, Grouping::token, 32, false), constant, 64), 5e-4);
}

void conversions() {
  int wrong = 0;
  for (uint32_t b = 0; b < 65536; b++) {
    const auto h = static_cast<uint16_t>(b);
    if ((b & 0x7c00) == 0x7c00) continue;  // infinities and NaN are never stored
    wrong += halfFromFloat(floatFromHalf(h)) != h;
    float decoded[8];
    const uint16_t eight[8] = {h, h, h, h, h, h, h, h};
    simd().decode(static_cast<int>(Dtype::f16), reinterpret_cast<const uint8_t*>(eight), 8, decoded);
    wrong += decoded[3] != floatFromHalf(h);
  }
  check("f16 round trip, all finite codes", wrong == 0, wrong, 0);
  wrong = 0;
  for (uint32_t b = 0; b < 256; b++) {
    const auto code = static_cast<uint8_t>(b);
    const uint8_t eight[8] = {code, code, code, code, code, code, code, code};
    float decoded[8];
    // From the definition: sign, exponent, mantissa.
    const auto value = [&](int exponentBits, int mantissaBits, int bias) {
      const int e = (b >> mantissaBits) & ((1 << exponentBits) - 1), m = b & ((1 << mantissaBits) - 1);
      const double magnitude = e ? std::ldexp(1 + std::ldexp(m, -mantissaBits), e - bias) : std::ldexp(m, 1 - bias - mantissaBits);
      return (b & 0x80) ? -magnitude : magnitude;
    };
    if ((b & 0x7f) != 0x7f) {
      simd().decode(static_cast<int>(Dtype::e4m3), eight, 8, decoded);
      wrong += static_cast<double>(decoded[5]) != value(4, 3, 7) || e4m3FromFloat(decoded[5]) != code || floatFromE4m3(code) != decoded[5];
    }
    if ((b & 0x7f) < 0x7c) {
      simd().decode(static_cast<int>(Dtype::e5m2), eight, 8, decoded);
      wrong += static_cast<double>(decoded[5]) != value(5, 2, 15) || e5m2FromFloat(decoded[5]) != code || floatFromE5m2(code) != decoded[5];
    }
    for (const Dtype dtype : {Dtype::int4, Dtype::int2}) {  // every byte pattern: low bits are the even index
      const int bits = bitsOf(dtype), perByte = 8 / bits;
      float out[32];
      uint8_t again[8] = {};
      simd().decode(static_cast<int>(dtype), eight, 8 * perByte, out);
      for (int i = 0; i < perByte; i++) {
        wrong += out[i] != static_cast<float>((b >> (bits * i)) & ((1 << bits) - 1));
        putCode(dtype, again, i, static_cast<uint32_t>(out[i]));
      }
      wrong += again[0] != code;
    }
  }
  check("fp8 and packed integers, all codes", wrong == 0, wrong, 0);
  checkTrue("saturation", e4m3FromFloat(1e9f) == e4m3FromFloat(448) && e5m2FromFloat(-1e9f) == e5m2FromFloat(-57344) && floatFromHalf(halfFromFloat(1e9f)) == 65504);
}

/// A direct cache of G heads and what went into it.
struct Filled {
  Arena arena;
  std::unique_ptr<SequenceCache> cache;
  std::vector<float> k, v;
};

CacheSpec directSpec(Dtype dtype, int64_t heads, int64_t dim, int64_t window, int64_t sinks, int64_t residual) {
  CacheSpec spec;
  spec.kvHeads = heads;
  spec.keyDim = spec.valueDim = dim;
  spec.keys = store(dtype, heads, dim, Layout::channelRows, isInteger(dtype) ? Grouping::channel : Grouping::token, 32, false);
  spec.values = store(dtype, heads, dim, Layout::tokenRows, Grouping::token, 16, false);
  spec.window = window;
  spec.sinks = sinks;
  spec.residual = residual;
  return spec;
}

void append(SequenceCache& cache, const std::vector<float>& k, const std::vector<float>& v, int64_t from, int64_t n, int64_t width) {
  cache.append(n, {k.data() + from * width, v.data() + from * width, k.data() + from * width, v.data() + from * width, width, width});
}

std::vector<float> attendLast(const SequenceCache& cache, const std::vector<float>& q, int64_t heads, int64_t tokens, int64_t window, int64_t sinks) {
  const CacheSpec& spec = cache.spec();
  AttentionShape shape;
  shape.heads = heads;
  shape.kvHeads = spec.kvHeads;
  shape.keyDim = shape.valueDim = spec.keyDim;
  shape.scale = 1 / std::sqrt(static_cast<float>(spec.keyDim));
  if (window > 0) shape.left = window - 1;
  shape.sinks = sinks;
  const int64_t d = spec.keyDim;
  std::vector<float> out(static_cast<size_t>(tokens * heads * d));
  attend(shape, {{&cache, q.data(), tokens, cache.length() - tokens, heads * d, d, out.data(), heads * d, d, {}}}, nullptr, nullptr, Kernel::flash, nullptr);
  return out;
}

double relative(const std::vector<float>& a, const std::vector<float>& b) {
  double e = 0, n = 0;
  for (size_t i = 0; i < a.size(); i++) {
    e += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    n += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(e / n);
}

void windowsAndRollback() {
  constexpr int64_t heads = 4, kvHeads = 2, d = 24, width = kvHeads * d, total = 700, window = 100, sinks = 4;
  const std::vector<float> k = normals("k", (total + 16) * width), v = normals("v", (total + 16) * width), q = normals("q", 8 * heads * d);
  Arena arena;

  // A ring that has wrapped several times equals the mask over everything.
  SequenceCache ring(arena, directSpec(Dtype::f32, kvHeads, d, window, 0, 0)), whole(arena, directSpec(Dtype::f32, kvHeads, d, 0, 0, 0));
  append(whole, k, v, 0, total, width);
  for (int64_t t = 0; t < total; t++) {
    append(ring, k, v, t, 1, width);
    if (t + 1 < total) ring.settle();
  }
  checkAtMost("ring buffer after wraps equals the mask", relative(attendLast(ring, q, heads, 1, window, 0), attendLast(whole, q, heads, 1, window, 0)), 1e-6);
  checkTrue("the ring holds its window and no more", ring.bodyKeys().allocatedBytes() <= (window / 64 + 2) * 64 * width * 4);
  checkAtMost("a window of at least the context is full attention", relative(attendLast(whole, q, heads, 1, total, 0), attendLast(whole, q, heads, 1, 0, 0)), 1e-7);
  const std::vector<float> own = attendLast(whole, q, heads, 1, 1, 0);
  checkAtMost("a window of 1 returns the value of the token itself", std::abs(static_cast<double>(own[0] - v[(total - 1) * width])), 1e-6);
  SequenceCache sinkRing(arena, directSpec(Dtype::f32, kvHeads, d, window, sinks, 0));
  for (int64_t t = 0; t < total; t += 7) {
    append(sinkRing, k, v, t, std::min<int64_t>(7, total - t), width);
    if (t + 7 < total) sinkRing.settle();
  }
  checkAtMost("sinks and window merged equal the mask (sinks are f16)", relative(attendLast(sinkRing, q, heads, 1, window, sinks), attendLast(whole, q, heads, 1, window, sinks)), 1e-3);

  // Roll-back leaves what a cache that never drafted has, to the bit, for every format.
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::e5m2, Dtype::int8, Dtype::int4, Dtype::int3, Dtype::int2})
    for (const int64_t w : {int64_t{0}, window})
      for (const int64_t residual : {0, 40}) {
        SequenceCache drafted(arena, directSpec(dtype, kvHeads, d, w, sinks, residual)), plain(arena, directSpec(dtype, kvHeads, d, w, sinks, residual));
        for (int64_t t = 0; t < 300; t++) {
          append(plain, k, v, t, 1, width);
          plain.settle();
          append(drafted, k, v, t, 1, width);
          append(drafted, v, k, t, 5, width);  // a draft of other tokens, all rejected
          (void)attendLast(drafted, q, heads, 5, w, sinks);
          drafted.rollback(t + 1);
          drafted.settle();
        }
        checkTrue("roll-back leaves no trace, " + nameOf(dtype) + " window " + std::to_string(w) + " residual " + std::to_string(residual),
                  attendLast(drafted, q, heads, 1, w, sinks) == attendLast(plain, q, heads, 1, w, sinks) && drafted.bytes().allocated == plain.bytes().allocated);
      }
  bool refused = false;
  try {
    whole.settle();
    whole.rollback(total - 1);
  } catch (const Failure& failure) {
    refused = failure.kind == FailureKind::refused;
  }
  checkTrue("a roll-back beyond what was settled is refused", refused);
}

void accounting() {
  constexpr int64_t kvHeads = 3, d = 40, width = kvHeads * d;
  const std::vector<float> k = normals("k", 1100 * width), v = normals("v", 1100 * width);
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::int8, Dtype::int4, Dtype::int3})
    for (const int64_t tokens : {1, 63, 64, 65, 100, 511, 1000})
      for (const int64_t residual : {0, 50}) {
        Arena arena;
        SequenceCache cache(arena, directSpec(dtype, kvHeads, d, 0, 4, residual));
        append(cache, k, v, 0, tokens, width);
        cache.settle();
        const CacheBytes b = cache.bytes();
        const std::string name = nameOf(dtype) + " " + std::to_string(tokens) + " tokens, residual " + std::to_string(residual);
        checkTrue("parts add up to what is allocated, " + name, b.payload + b.scales + b.sinks + b.residual + b.slack + b.table == b.allocated);
        checkTrue("allocated is at least the formula, " + name, static_cast<double>(b.allocated) >= b.logical);
        // One page of the body, one of the tail, the sinks' page, each in full; 64 bytes for each buffer; page tables.
        const double page = 64 * 2.0 * width * 4, tail = 2 * 16 * 2.0 * width * 2 + 48 * 2.0 * width * 2;
        checkAtMost("and at most pages more, " + name, static_cast<double>(b.allocated), b.logical + page + tail + 64.0 * 4 * (tokens / 16.0 + 4) + static_cast<double>(b.table) + 8 * 2.0 * width * 2);
        checkTrue("the arena agrees, " + name, arena.currentBytes() == b.allocated - b.table);
      }
}

void sameEverywhere() {
  constexpr int64_t heads = 8, kvHeads = 2, d = 64, width = kvHeads * d, tokens = 3000;
  const std::vector<float> k = normals("k", tokens * width), v = normals("v", tokens * width), q = normals("q", 5 * heads * d);
  const char* const usual = simd().name;
  const char* names[4];
  const int variants = availableSimd(names, 4);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::int8, Dtype::int4, Dtype::int3}) {
    std::vector<float> first;
    for (int i = 0; i < variants; i++) {
      forceSimd(names[i]);
      Arena arena;
      SequenceCache cache(arena, directSpec(dtype, kvHeads, d, 0, 0, 0));
      append(cache, k, v, 0, tokens, width);
      cache.settle();
      std::vector<float> one;
      for (const int threads : {1, 2, 2}) {
        setThreadCount(threads);
        const std::vector<float> out = attendLast(cache, q, heads, 5, 0, 0);
        if (one.empty()) one = out;
        checkTrue("bit for bit the same with " + std::to_string(threads) + " threads, " + nameOf(dtype) + " " + names[i], out == one);
      }
      if (first.empty()) first = one;
      checkAtMost("instruction sets agree, " + nameOf(dtype) + " " + names[i], relative(one, first), 1e-6);
    }
    forceSimd(usual);
  }
  setThreadCount(0);
}

void latentsAdapt() {
  // attention-spec B.6: constant data compress further than random data, and the budget is never exceeded.
  ModelSpec spec;
  spec.hiddenDim = 256, spec.heads = 4, spec.kvHeads = 1, spec.headDim = 64;
  const ReferenceModel model(spec);
  const auto built = [&](double budget, double energy, Dtype dtype) {
    Technique t;
    t.kvHeads = 1;
    t.cacheKind = CacheKind::latentSeparate;
    t.keysBeforeRope = true;
    t.keyDtype = t.valueDtype = dtype;
    t.symmetric = true;
    t.adaptiveBudgetBytes = budget;
    t.adaptiveEnergy = energy;
    auto arena = std::make_unique<Arena>();
    auto layer = std::make_unique<AttentionLayer>(*arena, model, t, 1024, 2048, 100, nullptr);
    const CacheSpec& c = layer->cacheSpec();
    const double bytes = c.keys.payloadBytesPerToken() + c.keys.scaleBytesPerToken() + c.values->payloadBytesPerToken() + c.values->scaleBytesPerToken();
    return std::make_tuple(bytes, layer->rankKey() + layer->rankValue());
  };
  for (const double budget : {20.0, 52.0, 96.0, 131.0})
    for (const Dtype dtype : {Dtype::f16, Dtype::int8}) {
      if (dtype == Dtype::f16 && budget < 32) continue;
      const auto [bytes, rank] = built(budget, 0, dtype);
      checkAtMost("budget of " + std::to_string(budget) + " bytes kept, " + nameOf(dtype), bytes, budget);
      checkTrue("and spent, " + nameOf(dtype) + " " + std::to_string(budget), budget - bytes < 4 * bitsOf(dtype) / 8.0 + 4 || rank == 128);
    }
  const auto [loose, few] = built(0, 0.5, Dtype::f16);
  const auto [tight, many] = built(0, 0.99, Dtype::f16);
  checkTrue("more energy asks for more coordinates", few < many && loose < tight);

  constexpr int64_t d = 64, channels = 32, tokens = 512;
  std::vector<double> w(channels * d), unit(channels, 1.0);
  RandomStream(3, "w").normals(0, channels * d, w.data());
  const auto rankOf = [&](bool constant) {
    Calibration c;
    std::vector<double> x(tokens * d);
    RandomStream(4, "x").normals(0, tokens * d, x.data());
    if (constant)
      for (int64_t t = 1; t < tokens; t++) std::copy_n(x.begin(), d, x.begin() + t * d);
    c.mean.assign(d, 0.0);
    c.moment.assign(d * d, 0.0);
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t i = 0; i < d; i++) {
        c.mean[static_cast<size_t>(i)] += x[static_cast<size_t>(t * d + i)] / tokens;
        for (int64_t j = 0; j < d; j++) c.moment[static_cast<size_t>(i * d + j)] += x[static_cast<size_t>(t * d + i)] * x[static_cast<size_t>(t * d + j)] / tokens;
      }
    return rankForEnergy(principalProjection(w, channels, d, c, unit, false, false, channels).energy, 0.95);
  };
  check("a constant sequence needs one coordinate", rankOf(true) == 1, static_cast<double>(rankOf(true)), 1);
  checkTrue("a random one needs many", rankOf(false) > 8);
}

/// The tiled kernel against the naive one, which shares none of its tiling, masking or softmax.
void kernelsAgree() {
  const RandomStream random(11, "shapes");
  uint64_t draw = 0;
  const auto pick = [&](int64_t low, int64_t high) { return low + static_cast<int64_t>(random.uniform(draw++) * static_cast<double>(high - low + 1)); };
  for (int round = 0; round < 60; round++) {
    const int64_t batch = pick(1, 2), kvHeads = pick(1, 3), heads = kvHeads * pick(1, 4), d = pick(1, 130), dv = pick(1, 130);
    const int64_t fresh = pick(1, 150), past = pick(0, 1) * pick(1, 100), queries = pick(0, 2) == 0 ? 1 : pick(1, 160), total = past + fresh;
    const auto tensor = [&](const char* name, int64_t h, int64_t s, int64_t c, std::vector<float>& hold) {
      hold = normals(name, batch * h * s * c);
      return TensorView<float>{hold.data(), {batch, h, s, c}};
    };
    std::vector<float> q, k, v, pk, pv, additive;
    std::vector<uint8_t> boolean;
    TensorAttention r;
    r.q = tensor("q", heads, queries, d, q);
    r.k = tensor("k", kvHeads, fresh, d, k);
    r.v = tensor("v", kvHeads, fresh, dv, v);
    if (past > 0) r.pastK = tensor("pk", kvHeads, past, d, pk), r.pastV = tensor("pv", kvHeads, past, dv, pv);
    r.causal = pick(0, 1);
    if (pick(0, 2) == 0) r.windowLeft = pick(0, 80);
    if (pick(0, 3) == 0) r.windowRight = pick(0, 80);
    if (pick(0, 3) == 0) r.sinks = pick(1, 8);
    if (pick(0, 3) == 0) r.softcap = 5;
    const int64_t mask = pick(0, 3);
    if (mask == 1) additive = normals("mask", queries * total), r.additiveMask = {additive.data(), {queries, total}};
    if (mask == 2) {
      for (int64_t i = 0; i < batch * total; i++) boolean.push_back(pick(0, 3) > 0);
      r.booleanMask = {boolean.data(), {batch, 1, 1, total}};
    }
    const Dtype dtypes[] = {Dtype::f32, Dtype::f32, Dtype::f16, Dtype::e4m3, Dtype::int8, Dtype::int4};
    r.cacheDtype = dtypes[pick(0, 5)];
    const std::vector<float> tiled = attendTensors(r, nullptr).out;
    r.naive = true;
    const std::vector<float> naive = attendTensors(r, nullptr).out;
    double largest = 0, scale = 1e-30;
    for (size_t i = 0; i < tiled.size(); i++) {
      largest = std::max(largest, std::abs(static_cast<double>(tiled[i]) - naive[i]));
      scale = std::max(scale, std::abs(static_cast<double>(naive[i])));
      if (!std::isfinite(tiled[i])) largest = INFINITY;
    }
    checkAtMost("flash equals naive, shape " + std::to_string(round), largest / scale, 4e-6);
  }
}

/// Every kind of cache as a whole point: built, compared, timed.
void pointsRun() {
  PointSpec base;
  base.model.hiddenDim = 128, base.model.heads = 4, base.model.kvHeads = 4, base.model.headDim = 32;
  base.technique.kvHeads = 4;
  base.batch = 2, base.seqLen = 150, base.calibrationTokens = 1024;
  const auto errorOf = [](const PointSpec& p) {
    MeasuredPoint point(p, nullptr);
    const std::vector<double> seconds = point.sample(0.001, 3);
    checkTrue("a step takes time", !seconds.empty() && seconds[0] > 0);
    checkTrue("allocated covers the formula", static_cast<double>(point.memory().cache.allocated) >= point.memory().cache.logical);
    return point.error().relativeL2;
  };
  for (const Phase phase : {Phase::prefill, Phase::decode, Phase::verify}) {
    PointSpec p = base;
    p.phase = phase;
    p.verifyTokens = phase == Phase::verify ? 5 : 1;
    checkAtMost("f32 point", errorOf(p), 1e-5);
    p.technique.cacheKind = CacheKind::input;
    checkAtMost("f32 cache of the layer input", errorOf(p), 1e-5);
    p.technique.keyDtype = p.technique.valueDtype = Dtype::int8;
    p.technique.sinks = 4;
    checkAtMost("int8 cache of the layer input", errorOf(p), 0.03);
    p.technique.cacheKind = CacheKind::latentJoint;
    p.technique.keysBeforeRope = p.technique.centred = true;
    p.technique.bands = {{64, 8}, {32, 4}, {32, 3}};
    checkAtMost("mixed joint latent", errorOf(p), 0.6);
    p.technique.bands.clear();
    p.technique.adaptiveBudgetBytes = 60;
    checkAtMost("joint latent under a budget", errorOf(p), 1.1);
    p.technique.cacheKind = CacheKind::latentSeparate;
    p.technique.keyDtype = p.technique.valueDtype = Dtype::f16;
    p.technique.window = 70;
    p.technique.adaptiveBudgetBytes = 200;
    checkAtMost("separate latents, adaptive, in a window", errorOf(p), 1.1);
    p.technique.keysBeforeRope = false;
    p.technique.adaptiveBudgetBytes = 0;
    p.technique.rank = 128;
    p.technique.window = 0;
    checkAtMost("full post-RoPE latents", errorOf(p), 0.01);
    p.technique.kvHeads = 1;
    p.technique.rank = 16;
    for (const Conversion conversion : {Conversion::mean, Conversion::aligned, Conversion::first}) {
      p.technique.conversion = conversion;
      checkAtMost("merged heads", errorOf(p), 1.5);
    }
  }
}

}  // namespace

int main() {
  closedForms();
  conversions();
  windowsAndRollback();
  accounting();
  sameEverywhere();
  latentsAdapt();
  kernelsAgree();
  pointsRun();
  std::printf("%d failed\n", failures);
  return failures ? 1 : 0;
}
