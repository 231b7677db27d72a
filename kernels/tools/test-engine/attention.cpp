// Attention through real caches against its definition, on random shapes.
#include <algorithm>
#include <memory>

#include "checks.h"
#include "cpu/attention.h"
#include "definition.h"
#include "math/threads.h"
#include "simd/simd.h"

using namespace fastmqa;
using check::nameOf;
using check::Random;

namespace {

std::vector<double> widened(const std::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); }

/// Angles of [positions][pairs], as f32 numbers: inputs of engine and definition alike.
struct Angles {
  std::vector<float> cosine, sine;
  Angles(int64_t positions, int64_t pairs) {
    for (int64_t p = 0; p < positions; p++)
      for (int64_t j = 0; j < pairs; j++) {
        const double angle = static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(std::max<int64_t>(pairs, 1)));
        cosine.push_back(static_cast<float>(std::cos(angle)));
        sine.push_back(static_cast<float>(std::sin(angle)));
      }
  }
};

struct Case {
  std::string name;
  CacheSpec spec;
  AttentionShape shape;
  int64_t length = 0, queries = 0, pairs = 0;
  bool interleaved = false, headsFirst = false;
  std::vector<float> q, k, v, additive;
  std::vector<uint8_t> boolean;
  MaskView mask;
};

StoreSpec randomStore(Random& r, Dtype dtype, int64_t heads, int64_t channels, Layout layout, bool anyPage) {
  StoreSpec s;
  s.heads = heads;
  s.channels = channels;
  s.bands = {{channels, dtype, r.oneIn(2)}};
  s.layout = layout;
  s.grouping = isInteger(dtype) && r.oneIn(2) ? Grouping::channel : Grouping::token;
  s.groupSize = r.oneOf<int64_t>({16, 32, 64});
  if (anyPage && s.grouping == Grouping::token) s.pageTokens = r.oneOf<int64_t>({8, 16, 32, 64, 64, 64});
  return s;
}

Case randomCase(Random& r, int number) {
  Case c;
  AttentionShape& s = c.shape;
  CacheSpec& spec = c.spec;
  c.length = r.oneOf<int64_t>({1, 2, 15, 16, 17, 63, 64, 65, 100, 129, 255, 500, 1000, 2049, 4097});
  c.queries = r.oneOf<int64_t>({1, 1, 1, 2, 5, 16, 300});
  const std::vector<int64_t> sizes{1, 2, 3, 7, 16, 17, 31, 33, 48, 64, 64, 80, 96, 127, 128, 200, 256};
  s.kvHeads = r.between(1, 4);
  int64_t group = r.oneOf<int64_t>({1, 1, 2, 3, 4, 7, 8, 16});
  s.keyDim = r.oneOf(sizes);
  s.valueDim = r.oneIn(3) ? r.oneOf(sizes) : s.keyDim;
  const int64_t most = check::rounds(3000000, 12000000, 80000000);
  const auto work = [&] { return s.kvHeads * group * c.queries * c.length * (s.keyDim + s.valueDim); };
  while (work() > most && s.kvHeads > 1) s.kvHeads--;
  while (work() > most && group > 1) group /= 2;
  while (work() > most && s.keyDim > 16) s.keyDim /= 2, s.valueDim = s.valueDim / 2 + 1;
  while (work() > most) c.length = c.length / 2 + 1, c.queries = c.queries / 2 + 1;
  s.heads = s.kvHeads * group;
  s.scale = 1 / std::sqrt(static_cast<float>(s.keyDim));
  spec.kvHeads = s.kvHeads;
  spec.keyDim = s.keyDim;
  spec.valueDim = s.valueDim;
  const Dtype dtype = r.oneIn(2) ? Dtype::f32 : r.oneOf(check::everyDtype);
  spec.keys = randomStore(r, dtype, s.kvHeads, s.keyDim, Layout::channelRows, true);
  spec.values = randomStore(r, r.oneIn(4) && dtype != Dtype::f32 ? r.oneOf(check::everyDtype) : dtype, s.kvHeads, s.valueDim, Layout::tokenRows, false);
  spec.values->pageTokens = spec.keys.pageTokens;
  if (spec.values->grouping == Grouping::channel && spec.keys.pageTokens % spec.values->groupSize) spec.values->grouping = Grouping::token;
  if (dtype != Dtype::f32) {
    if (r.oneIn(3)) spec.sinks = r.oneOf<int64_t>({1, 4, 8, 13, 64, 100});
    if (r.oneIn(3)) spec.residual = r.oneOf<int64_t>({1, 16, 50, 128});
  }
  if (r.oneIn(3)) {
    c.pairs = r.between(0, s.keyDim / 2);
    c.interleaved = r.oneIn(2);
  }
  // What may be seen.
  if (r.oneIn(3)) s.left = r.oneOf<int64_t>({0, 1, 15, 63, 64, 100, 700});
  s.right = r.oneOf<int64_t>({0, 0, 0, 3, 70, unlimited});
  if (r.oneIn(3)) s.sinks = r.oneOf<int64_t>({1, 4, 20, 70});
  if (r.oneIn(4)) s.softcap = r.oneOf<float>({2, 10, 50});
  // Magnitudes.
  const int64_t kind = r.between(1, 8);
  double ofQueries = 1, ofValues = 1;
  if (kind == 1) ofQueries = 1000, s.wideScores = true;
  if (kind == 2) ofQueries = 1e-12;
  if (kind == 3) ofValues = 1e-20;
  if (kind == 4 && dtype == Dtype::f32) ofValues = 1e20;
  if (r.oneIn(10)) s.wideScores = true;
  if (dtype != Dtype::f32) ofValues = 1;
  c.q = r.normals(c.queries * s.heads * s.keyDim, ofQueries);
  c.k = r.normals(c.length * s.kvHeads * s.keyDim);
  c.v = r.normals(c.length * s.kvHeads * s.valueDim, ofValues);
  c.headsFirst = r.oneIn(2);
  // Masks, each of their dimensions broadcast or not.
  const int64_t masks = r.between(1, 6);
  if (masks <= 3) {
    const bool perHead = r.oneIn(2), perQuery = r.oneIn(2), perKey = !r.oneIn(5);
    const int64_t keys = perKey ? c.length : 1, rows = perQuery ? c.queries : 1, heads = perHead ? s.heads : 1;
    c.mask.keyStride = perKey ? 1 : 0;
    c.mask.queryStride = perQuery ? keys : 0;
    c.mask.headStride = perHead ? keys * rows : 0;
    const int64_t n = heads * rows * keys;
    if (masks != 2)
      for (int64_t i = 0; i < n; i++) c.additive.push_back(r.oneIn(10) ? -INFINITY : static_cast<float>(r.normal()));
    if (masks != 1)
      for (int64_t i = 0; i < n; i++) c.boolean.push_back(!r.oneIn(3));
    if (perKey && r.oneIn(2))  // a row that sees nothing
      for (int64_t i = 0; i < keys; i++) {
        if (!c.boolean.empty()) c.boolean[static_cast<size_t>(i)] = 0;
        if (!c.additive.empty()) c.additive[static_cast<size_t>(i)] = -INFINITY;
      }
    if (!c.additive.empty()) c.mask.additive = c.additive.data();
    if (!c.boolean.empty()) c.mask.boolean = c.boolean.data();
  }
  c.name = "case " + std::to_string(number) + ": H" + std::to_string(s.heads) + " G" + std::to_string(s.kvHeads) + " D" + std::to_string(s.keyDim) + "/" + std::to_string(s.valueDim) + " S" +
           std::to_string(c.length) + " q" + std::to_string(c.queries) + " " + nameOf(spec.keys.bands[0].dtype) + "/" + nameOf(spec.values->bands[0].dtype) + (spec.sinks ? " sinks" : "") +
           (spec.residual ? " residual" : "") + (c.pairs ? " rope" : "") + (s.softcap > 0 ? " cap" : "") + (s.wideScores ? " wide" : "") + (c.mask.additive ? " additive" : "") + (c.mask.boolean ? " boolean" : "") +
           (s.left < unlimited ? " left" + std::to_string(s.left) : "") + (s.right ? " right" : "") + (s.sinks ? " seen" + std::to_string(s.sinks) : "");
  return c;
}

void fill(Random& r, SequenceCache& cache, const Case& c) {
  const int64_t keyWidth = c.spec.kvHeads * c.spec.keyDim, valueWidth = c.spec.kvHeads * c.spec.valueDim;
  while (cache.length() < c.length) {
    const int64_t t = cache.length(), n = std::min(c.length - t, r.oneIn(3) ? r.between(1, 20) : r.between(1, 600));
    const float *k = c.k.data() + t * keyWidth, *v = c.v.data() + t * valueWidth;
    cache.append(n, {k, v, k, v, keyWidth, valueWidth});
    if (r.oneIn(2)) cache.settle();
  }
}

/// Keys or values as the formats leave them: sinks and tail f16, the body in its own, from f16 where it waited in the tail.
std::vector<double> rounded(const StoreSpec& body, const std::vector<float>& x, const SequenceCache& cache) {
  const int64_t width = body.heads * body.channels;
  std::vector<double> out = widened(x), exact(out);
  for (double& e : exact) e = definition::formatOf(Dtype::f16).rounded(e);
  if (cache.tailKeys()) out = exact;
  definition::roundStored(body, out, cache.settled(), cache.spec().sinks);
  std::copy_n(exact.begin(), std::min(cache.length(), cache.spec().sinks) * width, out.begin());
  return out;
}

std::vector<double> byDefinition(const Case& c, std::vector<double> k, std::vector<double> v, const Angles& angles) {
  definition::Attention a;
  const AttentionShape& s = c.shape;
  a.heads = s.heads, a.kvHeads = s.kvHeads, a.keyDim = s.keyDim, a.valueDim = s.valueDim;
  a.keys = c.length, a.queries = c.queries, a.firstPosition = c.length - c.queries;
  a.scale = static_cast<double>(s.scale), a.softcap = static_cast<double>(s.softcap);
  a.left = s.left, a.right = s.right, a.sinks = s.sinks;
  a.q = widened(c.q), a.k = std::move(k), a.v = std::move(v);
  if (c.pairs > 0)
    for (int64_t t = 0; t < c.length; t++)
      for (int64_t g = 0; g < s.kvHeads; g++)
        definition::rotate(&a.k[static_cast<size_t>((t * s.kvHeads + g) * s.keyDim)], c.pairs, c.interleaved, &angles.cosine[static_cast<size_t>(t * c.pairs)], &angles.sine[static_cast<size_t>(t * c.pairs)]);
  if (c.mask.additive || c.mask.boolean)
    a.mask = [&c](int64_t h, int64_t i, int64_t key) {
      const int64_t at = h * c.mask.headStride + i * c.mask.queryStride + key * c.mask.keyStride;
      if (c.mask.boolean && !c.mask.boolean[at]) return -INFINITY + 0.0;
      return c.mask.additive ? static_cast<double>(c.mask.additive[at]) : 0.0;
    };
  return a.output();
}

/// Output [queries][heads][valueDim]; NaN where the engine wrote nothing.
std::vector<float> byEngine(const Case& c, const SequenceCache& cache, const RopeTable* rope, Kernel kernel) {
  const AttentionShape& s = c.shape;
  std::vector<float> q(c.q), out(static_cast<size_t>(c.queries * s.heads * s.valueDim), NAN);
  SequenceQueries query{&cache, q.data(), c.queries, c.length - c.queries, s.heads * s.keyDim, s.keyDim, out.data(), s.heads * s.valueDim, s.valueDim, c.mask};
  const auto turned = [&](const std::vector<float>& from, int64_t d, bool back) {  // [queries][heads] <-> [heads][queries]
    std::vector<float> to(from.size());
    for (int64_t i = 0; i < c.queries; i++)
      for (int64_t h = 0; h < s.heads; h++) {
        const int64_t tokensFirst = (i * s.heads + h) * d, headsFirst = (h * c.queries + i) * d;
        std::copy_n(from.begin() + (back ? headsFirst : tokensFirst), d, to.begin() + (back ? tokensFirst : headsFirst));
      }
    return to;
  };
  if (c.headsFirst) {
    q = turned(q, s.keyDim, false);
    query.q = q.data();
    query.qTokenStride = s.keyDim, query.qHeadStride = c.queries * s.keyDim;
    query.outTokenStride = s.valueDim, query.outHeadStride = c.queries * s.valueDim;
  }
  attend(s, {query}, nullptr, rope, kernel, nullptr);
  return c.headsFirst ? turned(out, s.valueDim, true) : out;
}

bool zerosWhereNothingIsSeen(const Case& c, const std::vector<float>& out, const std::vector<double>& expected) {
  const auto d = static_cast<size_t>(c.shape.valueDim);
  for (size_t r = 0; r < expected.size(); r += d) {
    const auto isZero = [](auto x) { return x == 0; };
    if (std::all_of(expected.begin() + static_cast<int64_t>(r), expected.begin() + static_cast<int64_t>(r + d), isZero) &&
        !std::all_of(out.begin() + static_cast<int64_t>(r), out.begin() + static_cast<int64_t>(r + d), isZero))
      return false;
  }
  return true;
}

void randomCases() {
  Random r(21);
  const char* const usual = simd().name;
  const char* names[4];
  const int variants = availableSimd(names, 4), rounds = check::rounds(40, 160, 1500);
  for (int number = 0; number < rounds; number++) {
    const Case c = randomCase(r, number);
    Arena arena;
    SequenceCache cache(arena, c.spec);
    fill(r, cache, c);
    const Angles angles((c.length + 63) / 64 * 64, c.pairs);
    const RopeTable rope = c.pairs > 0 ? RopeTable(arena, (c.length + 63) / 64 * 64, c.pairs, angles.cosine.data(), angles.sine.data(), c.interleaved) : RopeTable();
    const std::vector<double> exact = byDefinition(c, widened(c.k), widened(c.v), angles);
    const bool plain = c.spec.keys.bands[0].dtype == Dtype::f32 && c.spec.values->bands[0].dtype == Dtype::f32;
    const std::vector<double> same = plain ? exact : byDefinition(c, rounded(c.spec.keys, c.k, cache), rounded(*c.spec.values, c.v, cache), angles);
    const double rounding = check::relativeL2(same, exact);
    const auto judge = [&](const std::string& how, const std::vector<float>& out) {
      // Half-way cases of integer codes may fall to either side; they are few.
      check::atMost(how + " " + c.name, check::relativeL2(out, same), 2e-6 + (plain ? 0 : 0.02 * rounding));
      check::atMost(how + " against unrounded inputs, " + c.name, check::relativeL2(out, exact), 2e-6 + 2 * rounding);
      check::isTrue(how + " rows without keys are zeros, " + c.name, zerosWhereNothingIsSeen(c, out, same));
    };
    for (int i = variants - 1; i >= 0; i--) {
      forceSimd(names[i]);
      judge(std::string("flash ") + names[i], byEngine(c, cache, c.pairs > 0 ? &rope : nullptr, Kernel::flash));
    }
    forceSimd(usual);
    judge("naive", byEngine(c, cache, c.pairs > 0 ? &rope : nullptr, Kernel::naive));
    if (number % 4 == 0) {
      const std::vector<float> first = byEngine(c, cache, c.pairs > 0 ? &rope : nullptr, Kernel::flash);
      bool identical = true;
      for (const int threads : {1, 2, 3, 2}) {
        setThreadCount(threads);
        identical = identical && byEngine(c, cache, c.pairs > 0 ? &rope : nullptr, Kernel::flash) == first;
      }
      setThreadCount(0);
      check::isTrue("bit-identical for 1, 2 and 3 threads, " + c.name, identical);
    }
  }
}

CacheSpec plainSpec(int64_t kvHeads, int64_t d) {
  CacheSpec spec;
  spec.kvHeads = kvHeads;
  spec.keyDim = spec.valueDim = d;
  spec.keys.heads = kvHeads;
  spec.keys.channels = d;
  spec.keys.bands = {{d, Dtype::f32}};
  spec.values = spec.keys;
  spec.values->layout = Layout::tokenRows;
  return spec;
}

Case plainCase(Random& r, int64_t heads, int64_t kvHeads, int64_t d, int64_t length, int64_t queries) {
  Case c;
  c.spec = plainSpec(kvHeads, d);
  c.shape.heads = heads, c.shape.kvHeads = kvHeads, c.shape.keyDim = c.shape.valueDim = d;
  c.shape.scale = 1 / std::sqrt(static_cast<float>(d));
  c.length = length, c.queries = queries;
  c.q = r.normals(queries * heads * d);
  c.k = r.normals(length * kvHeads * d);
  c.v = r.normals(length * kvHeads * d);
  return c;
}

void relations() {
  Random r(22);
  for (int round = 0; round < check::rounds(3, 12, 60); round++) {
    // One token at a time: keys split into parts that are merged. Many at once: not split.
    const int64_t length = r.between(600, 4000), queries = 130, heads = 2, d = 40;
    Case c = plainCase(r, heads, 1, d, length, queries);
    if (round % 2) c.shape.left = r.between(0, 300);  // whole parts see nothing
    Arena arena;
    SequenceCache cache(arena, c.spec);
    fill(r, cache, c);
    const std::vector<float> together = byEngine(c, cache, nullptr, Kernel::flash);
    double worst = 0;
    for (int64_t i = 0; i < queries; i += 13) {
      std::vector<float> out(static_cast<size_t>(heads * d));
      attend(c.shape, {{&cache, c.q.data() + i * heads * d, 1, length - queries + i, heads * d, d, out.data(), heads * d, d, {}}}, nullptr, nullptr, Kernel::flash, nullptr);
      worst = std::max(worst, check::relativeL2(out, std::vector<float>(together.begin() + i * heads * d, together.begin() + (i + 1) * heads * d)));
    }
    check::atMost("merged parts equal one pass, length " + std::to_string(length), worst, 1e-6);
  }
  {  // KV heads that are copies of one.
    Case shared = plainCase(r, 6, 1, 32, 300, 5), copied = plainCase(r, 6, 3, 32, 300, 5);
    copied.q = shared.q;
    for (int64_t t = 0; t < 300; t++)
      for (int64_t g = 0; g < 3; g++) {
        std::copy_n(shared.k.begin() + t * 32, 32, copied.k.begin() + (t * 3 + g) * 32);
        std::copy_n(shared.v.begin() + t * 32, 32, copied.v.begin() + (t * 3 + g) * 32);
      }
    Arena arena;
    SequenceCache a(arena, shared.spec), b(arena, copied.spec);
    fill(r, a, shared), fill(r, b, copied);
    check::atMost("GQA whose KV heads are copies equals MQA", check::relativeL2(byEngine(copied, b, nullptr, Kernel::flash), byEngine(shared, a, nullptr, Kernel::flash)), 1e-6);
  }
  {  // Several sequences of different lengths in one call, one of them without queries, one without tokens.
    Arena arena;
    std::vector<Case> cases;
    std::vector<std::unique_ptr<SequenceCache>> caches;
    std::vector<std::vector<float>> alone, together;
    for (const auto& [length, queries] : std::vector<std::pair<int64_t, int64_t>>{{1000, 1}, {3, 7}, {700, 100}, {64, 0}, {0, 2}}) {
      cases.push_back(plainCase(r, 4, 2, 24, length, queries));
      caches.push_back(std::make_unique<SequenceCache>(arena, cases.back().spec));
      fill(r, *caches.back(), cases.back());
      alone.push_back(byEngine(cases.back(), *caches.back(), nullptr, Kernel::flash));
      check::isTrue("naive and flash agree, " + std::to_string(length) + " keys, " + std::to_string(queries) + " queries",
                    check::relativeL2(byEngine(cases.back(), *caches.back(), nullptr, Kernel::naive), alone.back()) <= 2e-6);
      together.emplace_back(alone.back().size(), NAN);
    }
    std::vector<SequenceQueries> all;
    for (size_t i = 0; i < cases.size(); i++)
      all.push_back({caches[i].get(), cases[i].q.data(), cases[i].queries, cases[i].length - cases[i].queries, 4 * 24, 24, together[i].data(), 4 * 24, 24, {}});
    attend(cases[0].shape, all, nullptr, nullptr, Kernel::flash, nullptr);
    for (size_t i = 0; i < cases.size(); i++) check::atMost("a batch equals its sequences, sequence " + std::to_string(i), check::relativeL2(together[i], alone[i]), 1e-6);
    check::equal("queries without any key give zeros", std::count(together[4].begin(), together[4].end(), 0.0f), 2 * 4 * 24);
  }
}

}  // namespace

void testAttention() {
  randomCases();
  relations();
}

/// Latent bodies: keys and values are linear maps of what is stored. Against attention on keys and values that are built
/// and rotated in fp64.
void testLatentAttention() {
  Random r(23);
  const char* const usual = simd().name;
  const char* names[4];
  const int variants = availableSimd(names, 4);
  for (int round = 0; round < check::rounds(20, 80, 600); round++) {
    const int64_t kvHeads = r.between(1, 4), group = r.between(1, 4), heads = kvHeads * group, d = 2 * r.between(1, 24), dv = r.between(1, 48);
    const int64_t length = r.oneOf<int64_t>({1, 17, 64, 65, 300, 900}), queries = r.oneOf<int64_t>({1, 1, 3, 9});
    const bool joint = r.oneIn(2), rotated = r.oneIn(2), centred = r.oneIn(2);
    const int64_t rankKey = r.oneOf<int64_t>({1, 3, 8, 16, 17, 48, 100}), rankValue = joint ? rankKey : r.oneOf<int64_t>({1, 5, 16, 33, 64});
    CacheSpec spec;
    spec.kvHeads = kvHeads, spec.keyDim = d, spec.valueDim = dv;
    spec.keys.channels = rankKey;
    spec.keys.bands = {{rankKey, Dtype::f32}};
    if (!joint) {
      spec.values.emplace();
      spec.values->channels = rankValue;
      spec.values->bands = {{rankValue, Dtype::f32}};
      spec.values->layout = Layout::tokenRows;
    }
    if (r.oneIn(2)) spec.sinks = r.oneOf<int64_t>({1, 4, 20, 70});
    const Angles angles(1024, d / 2);
    Arena arena;
    const RopeTable rope(arena, 1024, d / 2, angles.cosine.data(), angles.sine.data(), false);
    const double small = 1 / std::sqrt(static_cast<double>(rankKey));
    const std::vector<float> latentKeys = r.normals(length * rankKey), latentValues = r.normals(length * rankValue), upKeys = r.normals(kvHeads * d * rankKey, small), upValues = r.normals(kvHeads * dv * rankValue),
                             meanKeys = r.normals(kvHeads * d), meanValues = r.normals(kvHeads * dv), q = r.normals(queries * heads * d);
    const std::vector<float>& ofValues = joint ? latentKeys : latentValues;
    definition::Attention a;
    a.heads = heads, a.kvHeads = kvHeads, a.keyDim = d, a.valueDim = dv, a.keys = length, a.queries = queries, a.firstPosition = length - queries;
    a.scale = static_cast<double>(1 / std::sqrt(static_cast<float>(d)));
    a.q = widened(q);
    std::vector<float> exactKeys, exactValues;
    const auto built = [&](const std::vector<float>& latent, int64_t rank, const std::vector<float>& up, const std::vector<float>& mean, int64_t t, int64_t c) {
      double sum = centred ? static_cast<double>(mean[static_cast<size_t>(c)]) : 0;
      for (int64_t i = 0; i < rank; i++) sum += static_cast<double>(up[static_cast<size_t>(c * rank + i)]) * static_cast<double>(latent[static_cast<size_t>(t * rank + i)]);
      return sum;
    };
    for (int64_t t = 0; t < length; t++) {
      for (int64_t c = 0; c < kvHeads * d; c++) a.k.push_back(built(latentKeys, rankKey, upKeys, meanKeys, t, c));
      for (int64_t c = 0; c < kvHeads * dv; c++) a.v.push_back(built(ofValues, rankValue, upValues, meanValues, t, c));
      if (rotated)
        for (int64_t g = 0; g < kvHeads; g++) definition::rotate(&a.k[static_cast<size_t>((t * kvHeads + g) * d)], d / 2, false, &angles.cosine[static_cast<size_t>(t * (d / 2))], &angles.sine[static_cast<size_t>(t * (d / 2))]);
      if (t < spec.sinks) {  // exact rows: f16 numbers, so that nothing is lost
        for (int64_t c = 0; c < kvHeads * d; c++) exactKeys.push_back(static_cast<float>(a.k[static_cast<size_t>(t * kvHeads * d + c)] = definition::formatOf(Dtype::f16).rounded(r.normal())));
        for (int64_t c = 0; c < kvHeads * dv; c++) exactValues.push_back(static_cast<float>(a.v[static_cast<size_t>(t * kvHeads * dv + c)] = definition::formatOf(Dtype::f16).rounded(r.normal())));
      }
    }
    if (r.oneIn(3)) a.left = r.between(0, 100), a.sinks = r.oneIn(2) ? spec.sinks : 0;
    AttentionShape shape;
    shape.heads = heads, shape.kvHeads = kvHeads, shape.keyDim = d, shape.valueDim = dv;
    shape.scale = static_cast<float>(a.scale);
    shape.left = a.left, shape.sinks = a.sinks;
    SequenceCache cache(arena, spec);
    cache.append(length, {latentKeys.data(), latentValues.data(), exactKeys.data(), exactValues.data(), rankKey, rankValue});
    LatentMaps maps;
    maps.keyRank = rankKey, maps.valueRank = rankValue, maps.joint = joint, maps.keyStride = padded(rankKey) + padFloats;
    const int64_t outStride = padded(dv);
    std::vector<float> packedKeys(static_cast<size_t>(kvHeads * d * maps.keyStride), 0.0f), packedValues(static_cast<size_t>(kvHeads * rankValue * outStride), 0.0f);
    for (int64_t c = 0; c < kvHeads * d; c++) std::copy_n(upKeys.begin() + c * rankKey, rankKey, packedKeys.begin() + c * maps.keyStride);
    for (int64_t c = 0; c < kvHeads * dv; c++)
      for (int64_t i = 0; i < rankValue; i++) packedValues[static_cast<size_t>((c / dv * rankValue + i) * outStride + c % dv)] = upValues[static_cast<size_t>(c * rankValue + i)];
    maps.upKeys = packedKeys.data(), maps.upValues = packedValues.data();
    if (centred) maps.meanKeys = meanKeys.data(), maps.meanValues = meanValues.data();
    const std::vector<double> expected = a.output();
    const auto byEngine = [&](bool inLatentSpace) {
      maps.absorbed = inLatentSpace;
      std::vector<float> out(static_cast<size_t>(queries * heads * dv), NAN);
      attend(shape, {{&cache, q.data(), queries, length - queries, heads * d, d, out.data(), heads * dv, dv, {}}}, &maps, rotated ? &rope : nullptr, Kernel::flash, nullptr);
      return out;
    };
    const std::string name = (joint ? " joint" : " separate") + std::string(rotated ? " rope" : "") + (centred ? " centred" : "") + " rank " + std::to_string(rankKey) + "/" + std::to_string(rankValue) + " D" + std::to_string(d) + "/" +
                             std::to_string(dv) + " S" + std::to_string(length) + " q" + std::to_string(queries) + " sinks " + std::to_string(spec.sinks);
    forceSimd(names[round % variants]);
    check::atMost("latent rebuilt" + name, check::relativeL2(byEngine(false), expected), 3e-6);
    if (!rotated && !joint) check::atMost("latent absorbed" + name, check::relativeL2(byEngine(true), expected), 3e-6);
    forceSimd(usual);
  }
}
