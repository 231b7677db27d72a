#include "bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "cpu/attention.h"
#include "math/gemm.h"
#include "math/threads.h"
#include "reference/synthetic.h"
#include "simd/simd.h"

namespace fastmqa {
namespace {

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

/// Reads both ceilings on all threads, a few milliseconds each.
class CeilingMeter {
 public:
  CeilingMeter() : data_(arena_, threadCount() * floats) {}
  double fma(int64_t threads = threadCount()) {
    std::vector<double> done(static_cast<size_t>(threads));
    const double before = secondsNow();
    parallelFor(threads, [&](int64_t i) {
      float sink[3] = {0, 0, 0};
      done[static_cast<size_t>(i)] = simd().burnFma(400000, sink);
      keep_ = sink[2];
    });
    double total = 0;
    for (double d : done) total += d;
    return total / (secondsNow() - before);
  }
  double read(int64_t threads = threadCount()) {
    const double before = secondsNow();
    parallelFor(threads, [&](int64_t i) { keep_ = simd().readAll(data_.data() + i * floats, floats); });
    return static_cast<double>(threads * floats * 4) / (secondsNow() - before);
  }

 private:
  static constexpr int64_t floats = 1 << 25;
  Arena arena_;  // as caches are: in huge pages where the system grants them
  Buffer<float> data_;
  volatile float keep_ = 0;
};

std::vector<float> normals(uint64_t stream, int64_t n) {
  const RandomStream random(stream, "bench");
  std::vector<double> wide(static_cast<size_t>(std::min<int64_t>(n, 1 << 16)));
  random.normals(0, static_cast<int64_t>(wide.size()), wide.data());
  std::vector<float> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++) out[static_cast<size_t>(i)] = static_cast<float>(wide[static_cast<size_t>((i * 7919) % static_cast<int64_t>(wide.size()))]);
  return out;
}

struct AttentionCase {
  const char* name;
  int64_t batch, heads, kvHeads, headDim, tokens, queries;
  Dtype dtype;
};

AttentionShape shapeOf(int64_t heads, int64_t kvHeads, int64_t headDim) {
  AttentionShape shape;
  shape.heads = heads;
  shape.kvHeads = kvHeads;
  shape.keyDim = shape.valueDim = headDim;
  shape.scale = 1 / std::sqrt(static_cast<float>(headDim));
  return shape;
}

StoreSpec storeOf(const AttentionCase& c, Layout layout) {
  StoreSpec spec;
  spec.heads = c.kvHeads;
  spec.channels = c.headDim;
  spec.bands = {{c.headDim, c.dtype, c.dtype == Dtype::int8}};
  spec.layout = layout;
  // What our levels use: keys by channel, values by token.
  spec.grouping = layout == Layout::channelRows ? Grouping::channel : Grouping::token;
  spec.groupSize = c.dtype == Dtype::int8 ? 64 : 32;
  return spec;
}

}  // namespace

std::vector<BenchCase> runBench(const BenchOptions& options, const std::function<void(const BenchCase&)>& told,
                                const CancelFlag* cancel) {
  CeilingMeter meter;
  std::vector<BenchCase> results;
  const auto measure = [&](BenchCase result, const std::function<void()>& step) {
    std::vector<double> seconds, fma, read;
    step();
    for (const double start = secondsNow(); seconds.size() < 5 || (secondsNow() - start < options.secondsPerCase && seconds.size() < 200);) {
      if (cancel) cancel->check();
      fma.push_back(meter.fma());
      read.push_back(meter.read());
      if (options.warm) step();
      const double before = secondsNow();
      step();
      seconds.push_back(secondsNow() - before);
    }
    result.medianSeconds = median(seconds);
    result.fmaFlopsPerSecond = median(fma);
    result.readBytesPerSecond = median(read);
    results.push_back(result);
    if (told) told(result);
  };
  const auto wanted = [&](const std::string& name) { return name.find(options.only) != std::string::npos; };

  for (const int64_t threads : {int64_t{1}, static_cast<int64_t>(threadCount())}) {
    const std::string name = "ceiling, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
    if (wanted(name) && (threads > 1 || results.empty())) {
      std::vector<double> fma, read, allFma, allRead;
      for (int i = 0; i < 15; i++) {
        fma.push_back(meter.fma(threads)), read.push_back(meter.read(threads));
        allFma.push_back(meter.fma()), allRead.push_back(meter.read());
      }
      BenchCase result{name, "a second of each", median(fma), median(read), 1, median(allFma), median(allRead)};
      results.push_back(result);
      if (told) told(result);
    }
  }

  const int64_t n = options.decodeTokens;
  std::vector<AttentionCase> cases = {{"prefill P1", 1, 32, 32, 64, 1024, 1024, Dtype::f32},
                                      {"prefill P2", 1, 32, 1, 64, 1024, 1024, Dtype::f32},
                                      {"prefill P3", 1, 32, 8, 128, 2048, 2048, Dtype::f32}};
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::int8, Dtype::int4}) {
    cases.push_back({"decode D1", 4, 32, 32, 64, n, 1, dtype});
    cases.push_back({"decode D2", 4, 32, 1, 64, n, 1, dtype});
    cases.push_back({"decode D3", 4, 32, 8, 128, n, 1, dtype});
  }
  cases.push_back({"verify 5 D1", 4, 32, 32, 64, n, 5, Dtype::f32});
  cases.push_back({"verify 5 D2", 4, 32, 1, 64, n, 5, Dtype::f32});
  cases.push_back({"verify 5 D3", 4, 32, 8, 128, n, 5, Dtype::f32});
  constexpr const char* dtypeNames[] = {"f32", "f16", "bf16", "fp8-e4m3", "fp8-e5m2", "int8", "int4", "int3", "int2"};
  const auto attentionCase = [&](const AttentionCase& c, const std::string& name) {
    Arena arena;
    CacheSpec spec;
    spec.kvHeads = c.kvHeads;
    spec.keyDim = spec.valueDim = c.headDim;
    spec.keys = storeOf(c, Layout::channelRows);
    spec.values = storeOf(c, Layout::tokenRows);
    const int64_t width = c.kvHeads * c.headDim, chunk = std::min<int64_t>(c.tokens, 1024);
    const std::vector<float> rows = normals(1, chunk * width), q = normals(2, c.batch * c.queries * c.heads * c.headDim);
    std::vector<float> out(q.size());
    std::vector<std::unique_ptr<SequenceCache>> caches;
    std::vector<SequenceQueries> queries;
    const AttentionShape shape = shapeOf(c.heads, c.kvHeads, c.headDim);
    BenchCase result;
    const int64_t perSequence = c.queries * c.heads * c.headDim;
    for (int64_t b = 0; b < c.batch; b++) {
      caches.push_back(std::make_unique<SequenceCache>(arena, spec));
      for (int64_t t = 0; t < c.tokens; t += chunk) {
        if (cancel) cancel->check();
        caches.back()->append(std::min(chunk, c.tokens - t), {rows.data(), rows.data(), rows.data(), rows.data(), width, width});
        caches.back()->settle();
      }
      queries.push_back({caches.back().get(), q.data() + b * perSequence, c.queries, c.tokens - c.queries, c.heads * c.headDim,
                         c.headDim, out.data() + b * perSequence, c.heads * c.headDim, c.headDim, {}});
      result.bytes += caches.back()->bytes().logical;
    }
    result.name = name;
    result.shape = "B" + std::to_string(c.batch) + " H" + std::to_string(c.heads) + " G" + std::to_string(c.kvHeads) + " D" +
                   std::to_string(c.headDim) + " S" + std::to_string(c.tokens);
    result.flops = 4.0 * static_cast<double>(c.batch * c.heads * c.headDim) * static_cast<double>(c.tokens) *
                   (c.queries == c.tokens ? static_cast<double>(c.tokens) / 2 : static_cast<double>(c.queries));
    measure(result, [&] { attend(shape, queries, nullptr, nullptr, Kernel::flash, cancel); });
  };
  for (const AttentionCase& c : cases) {
    const std::string name = std::string(c.name) + " " + dtypeNames[static_cast<int>(c.dtype)];
    if (wanted(name)) attentionCase(c, name);
  }

  // Latents at the bytes of a direct cache: 512 numbers a token, read by 32 heads either way. The joint latent is key and
  // value at once, so its products are twice as long.
  cases = {{"equal bytes, direct", 4, 32, 1, 256, n, 1, Dtype::f32}};
  for (const AttentionCase& c : cases)
    if (wanted(c.name)) attentionCase(c, c.name);
  for (const bool joint : {true, false}) {
    const std::string name = joint ? "equal bytes, joint latent" : "equal bytes, latents";
    if (!wanted(name)) continue;
    constexpr int64_t batch = 4, heads = 32, headDim = 64;
    const int64_t rank = joint ? 512 : 256;
    Arena arena;
    CacheSpec spec;
    spec.kvHeads = heads;
    spec.keyDim = spec.valueDim = headDim;
    spec.keys = storeOf({"", batch, heads, 1, rank, n, 1, Dtype::f32}, Layout::channelRows);
    if (!joint) spec.values = storeOf({"", batch, heads, 1, rank, n, 1, Dtype::f32}, Layout::tokenRows);
    const int64_t chunk = std::min<int64_t>(n, 1024);
    const std::vector<float> rows = normals(1, chunk * rank), q = normals(2, batch * heads * headDim);
    std::vector<float> up = normals(3, heads * headDim * rank);
    for (float& x : up) x *= 0.05f;
    LatentMaps maps;
    maps.keyRank = maps.valueRank = maps.keyStride = rank;
    maps.joint = joint;
    maps.absorbed = true;
    maps.upKeys = maps.upValues = up.data();
    std::vector<float> out(q.size());
    std::vector<std::unique_ptr<SequenceCache>> caches;
    std::vector<SequenceQueries> queries;
    BenchCase result{name, "B4 H32 D64 rank " + std::to_string(rank) + " S" + std::to_string(n), 0, 0, 0, 0, 0};
    for (int64_t b = 0; b < batch; b++) {
      caches.push_back(std::make_unique<SequenceCache>(arena, spec));
      for (int64_t t = 0; t < n; t += chunk) {
        if (cancel) cancel->check();
        caches.back()->append(std::min(chunk, n - t), {rows.data(), rows.data(), rows.data(), rows.data(), rank, rank});
        caches.back()->settle();
      }
      queries.push_back({caches.back().get(), q.data() + b * heads * headDim, 1, n - 1, heads * headDim, headDim,
                         out.data() + b * heads * headDim, heads * headDim, headDim, {}});
      result.bytes += caches.back()->bytes().logical;
    }
    result.flops = 4.0 * batch * heads * static_cast<double>(rank) * static_cast<double>(n);
    const AttentionShape shape = shapeOf(heads, heads, headDim);
    measure(result, [&] { attend(shape, queries, &maps, nullptr, Kernel::flash, cancel); });
  }

  if (wanted("projection 2048x2048")) {
    constexpr int64_t d = 2048, tokens = 512;
    Arena arena;
    const std::vector<float> weights = normals(3, d * d), x = normals(4, tokens * d);
    std::vector<float> y(static_cast<size_t>(tokens * d));
    const PackedWeights packed(arena, d, d, weights.data(), d);
    BenchCase result;
    result.name = "projection 2048x2048 f32";
    result.shape = "512 tokens";
    result.flops = 2.0 * d * d * tokens;
    result.bytes = static_cast<double>(packed.bytes());
    measure(result, [&] { packed.multiply(tokens, x.data(), d, y.data(), d); });
  }
  return results;
}

}  // namespace fastmqa
