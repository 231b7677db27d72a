// The CUDA kernels against the ceilings of this GPU, which are measured in the same run: copy bandwidth (bytes read and
// written) and the rate of 16-bit matrix products.
// Usage: fastmqa-bench-gpu [--seconds S] [--only TEXT]; one JSON object a line on stdout.
// Events around batches; inputs rotate among sets that together exceed the L2 cache; random data.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "../test-cuda/memory.h"
#include "cuda/launch/attention.h"

namespace fastmqa::gpu {
namespace {

double secondsPerCase = 0.3;
std::string only;

/// Bytes of every format that are neither NaN nor huge: 16-bit values of magnitude 0.25 to 2, codes of any kind.
__global__ void fillRandom(uint32_t* to, int64_t words, bool halves, uint32_t exponent) {
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < words; i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + 12345u;
    x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
    to[i] = halves ? (x & 0x83ff83ffu) | exponent : x & 0xbfbfbfbfu;
  }
}

/// Back-to-back 16x8x16 products on registers: the rate that `multiply` can reach.
__global__ void burnMatrices(float* out, int iterations) {
  FragmentC c[8] = {};
  const FragmentA a{{threadIdx.x | 0x3c003c00u, 0x3c013c02u, 0x3c033c01u, 0x3c003c05u}};
  for (int i = 0; i < iterations; i++)
    for (int j = 0; j < 8; j++) multiply(F16(), c[j], a, 0x3c003c00u + static_cast<uint32_t>(i), 0x3c013c00u);
  float sum = 0;
  for (int j = 0; j < 8; j++) sum += c[j].r[0] + c[j].r[1] + c[j].r[2] + c[j].r[3];
  if (sum == 12345.678f) *out = sum;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

struct Timing {
  double median = 0, p05 = 0, p95 = 0;
  size_t samples = 0;
};

/// Seconds of one call; `step(i)` uses input set i.
Timing time(const std::function<void(int)>& step) {
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin), "event");
  require(cudaEventCreate(&end), "event");
  int calls = 1, set = 0;
  const auto batch = [&] {
    require(cudaEventRecord(begin), "event");
    for (int i = 0; i < calls; i++) step(set++);
    require(cudaEventRecord(end), "event");
    require(cudaEventSynchronize(end), "step");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    return static_cast<double>(milliseconds) * 1e-3 / calls;
  };
  const double once = (batch(), batch());
  calls = std::max(1, static_cast<int>(2e-3 / once));  // a batch is far longer than a launch
  for (double warm = 0; warm < 0.1;) warm += batch() * calls;
  std::vector<double> samples;
  for (double spent = 0; samples.size() < 10 || spent < secondsPerCase;) samples.push_back(batch()), spent += samples.back() * calls;
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  Timing t{median(samples), 0, 0, samples.size()};
  std::sort(samples.begin(), samples.end());
  t.p05 = samples[samples.size() / 20], t.p95 = samples[samples.size() * 19 / 20];
  return t;
}

struct Buffer {
  uint8_t* data = nullptr;
  int64_t bytes = 0;
  Buffer(int64_t n, Dtype fill) : bytes(n) {
    require(cudaMalloc(&data, static_cast<size_t>(n)), "cudaMalloc");
    const bool halves = fill == Dtype::f16 || fill == Dtype::bf16;
    fillRandom<<<1024, 256>>>(reinterpret_cast<uint32_t*>(data), n / 4, halves, fill == Dtype::bf16 ? 0x3f003f00u : 0x38003800u);
    require(cudaGetLastError(), "fill");
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { cudaFree(data); }
};

double copyBandwidth() {
  constexpr int64_t bytes = int64_t{4} << 30;
  Buffer from(bytes, Dtype::f16), to(bytes, Dtype::f16);
  return 2.0 * bytes / time([&](int) { require(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice), "copy"); }).median;
}

double matrixRate(int multiprocessors) {
  Buffer out(256, Dtype::f16);
  constexpr int iterations = 4000, blocksEach = 4, threads = 256;
  const double flops = 2.0 * 16 * 8 * 16 * 8 * iterations * (threads / 32) * blocksEach * multiprocessors;
  return flops / time([&](int) { burnMatrices<<<blocksEach * multiprocessors, threads>>>(reinterpret_cast<float*>(out.data), iterations); }).median;
}

struct Case {
  const char* name;
  int batch, heads, kvHeads, headDim, tokens, queries;
  Dtype type;
  Sharing keySharing = Sharing::tensor;
  int keyGroup = 64, valueGroup = 64;
  bool symmetric = true, causal = true;
};

void run(const Case& c, const Device& device, double copyRate, double matrixPeak) {
  constexpr const char* typeNames[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "int8", "int4"};
  std::string label = std::string(c.name) + " " + typeNames[static_cast<int>(c.type)];
  char shape[96];
  std::snprintf(shape, sizeof(shape), "B%d H%d G%d D%d S%d q%d%s", c.batch, c.heads, c.kvHeads, c.headDim, c.tokens, c.queries, c.causal ? "" : " full");
  if ((label + " " + shape).find(only) == std::string::npos) return;

  const bool coded = isInteger(c.type);
  const Dtype queryType = coded || bitsOf(c.type) == 8 ? Dtype::bf16 : c.type;
  const int pagesPer = (c.tokens + pageTokens - 1) / pageTokens;
  const int64_t rowBytes = packedBytes(c.type, c.headDim), sideBytes = int64_t{1} * c.batch * pagesPer * c.kvHeads * pageTokens * rowBytes;
  const auto planeBytes = [&](Sharing s, int group) { return int64_t{2} * (s == Sharing::token ? pageTokens * (c.headDim / group) : pageTokens / group * c.headDim); };
  const int64_t keyPlane = coded ? planeBytes(c.keySharing, c.keyGroup) : 0, valuePlane = coded ? planeBytes(Sharing::token, c.valueGroup) : 0;
  const int planes = c.symmetric ? 1 : 2;
  const int64_t scaleBytes = int64_t{1} * c.batch * pagesPer * c.kvHeads * planes * (keyPlane + valuePlane);
  const int64_t queryElements = int64_t{1} * c.batch * c.queries * c.heads * c.headDim;
  // Sets of inputs that together are several times the L2 cache.
  const int sets = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(16, (int64_t{256} << 20) / std::max<int64_t>(1, 2 * sideBytes))));

  Buffer keys(sideBytes * sets, c.type), values(sideBytes * sets, c.type), queries(queryElements * 2 * sets, queryType), out(queryElements * 2, Dtype::bf16);
  Buffer scales(std::max<int64_t>(scaleBytes * sets, 4), Dtype::f16);
  AttentionProblem p;
  p.batch = c.batch, p.heads = c.heads, p.kvHeads = c.kvHeads, p.keyDim = p.valueDim = c.headDim;
  p.queryTokens = c.queries, p.queryType = queryType, p.outType = Dtype::bf16, p.cacheType = p.valueType = c.type;
  p.length = c.tokens, p.position = c.tokens - c.queries;
  if (!c.causal) p.right = unlimitedTokens;
  p.scale = 1 / std::sqrt(static_cast<float>(c.headDim));
  p.queryHead = c.headDim, p.queryToken = c.heads * p.queryHead, p.queryBatch = c.queries * p.queryToken;
  p.outHead = p.queryHead, p.outToken = p.queryToken, p.outBatch = p.queryBatch;
  p.out = Global<uint8_t>(out.data, out.bytes);
  for (TokenRows* rows : {&p.keys, &p.values}) {
    rows->pagesPerSequence = pagesPer;
    rows->tokenBytes = rowBytes, rows->headBytes = pageTokens * rowBytes, rows->batchBytes = c.kvHeads * rows->headBytes;
  }
  if (coded) {
    p.keyScales.sharing = c.keySharing, p.keyScales.group = c.keyGroup;
    p.valueScales.sharing = Sharing::token, p.valueScales.group = c.valueGroup;
    p.keyScales.headBytes = planes * keyPlane, p.keyScales.pageBytes = c.kvHeads * p.keyScales.headBytes, p.keyScales.shiftBytes = c.symmetric ? 0 : keyPlane;
    p.valueScales.headBytes = planes * valuePlane, p.valueScales.pageBytes = c.kvHeads * p.valueScales.headBytes, p.valueScales.shiftBytes = c.symmetric ? 0 : valuePlane;
  }
  const AttentionPlan plan = planAttention(p, device);
  Buffer workspace(std::max<int64_t>(4, 4 * workspaceFloats(p, plan.splits)), Dtype::f16);
  const Timing t = time([&](int i) {
    const int set = i % sets;
    p.queries = Global<const uint8_t>(queries.data + set * queryElements * 2, queryElements * 2);
    p.keys.data = Global<const uint8_t>(keys.data + set * sideBytes, sideBytes);
    p.values.data = Global<const uint8_t>(values.data + set * sideBytes, sideBytes);
    p.keyScales.data = Global<const uint8_t>(scales.data + set * scaleBytes, scaleBytes);
    p.valueScales.data = Global<const uint8_t>(scales.data + set * scaleBytes + scaleBytes / (keyPlane + valuePlane + !coded) * keyPlane, scaleBytes);
    require(attend(&p, &plan, 1, Global<float>(reinterpret_cast<float*>(workspace.data), workspace.bytes / 4), nullptr), "attend");
  });
  const double pairs = c.queries == c.tokens && c.causal ? 0.5 * c.tokens : c.tokens;
  const double flops = 4.0 * c.batch * c.heads * c.headDim * pairs * c.queries, bytes = 2.0 * sideBytes + scaleBytes + 4.0 * queryElements;
  constexpr const char* pathNames[] = {"general", "decode", "prefill"};
  std::printf("{\"case\":\"%s\",\"shape\":\"%s\",\"path\":\"%s\",\"splits\":%d,\"medianSeconds\":%.4g,\"p05Seconds\":%.4g,\"p95Seconds\":%.4g,\"samples\":%zu,"
              "\"flopsPerSecond\":%.4g,\"ofMatrixRate\":%.3f,\"bytesPerSecond\":%.4g,\"ofCopyBandwidth\":%.3f}\n",
              label.c_str(), shape, pathNames[static_cast<int>(plan.path)], plan.splits, t.median, t.p05, t.p95, t.samples, flops / t.median,
              flops / t.median / matrixPeak, bytes / t.median, bytes / t.median / copyRate);
  std::fflush(stdout);
}

void runAll() {
  const Device device = deviceUnderTest();
  cudaDeviceProp properties;
  require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const double copyRate = copyBandwidth(), matrixPeak = matrixRate(device.multiprocessors);
  std::printf("{\"device\":\"%s\",\"capability\":%d,\"multiprocessors\":%d,\"copyBytesPerSecond\":%.4g,\"matrixFlopsPerSecond\":%.4g}\n",
              properties.name, device.capability, device.multiprocessors, copyRate, matrixPeak);
  std::fflush(stdout);
  std::vector<Case> cases;
  for (Dtype type : {Dtype::bf16, Dtype::e4m3, Dtype::int8, Dtype::int4}) {
    const bool four = type == Dtype::int4;
    for (int dim : {64, 128})
      for (int kvHeads : {32, 8, 1}) {
        const int batch = kvHeads == 1 ? 128 : 32;
        cases.push_back({"decode", batch, 32, kvHeads, dim, 8192, 1, type, type == Dtype::e4m3 ? Sharing::tensor : Sharing::token, four ? 64 : dim, four ? 64 : dim});
      }
    if (isInteger(type)) cases.push_back({"decode by channel", 32, 32, 8, 128, 8192, 1, type, Sharing::channel, 64, 128});
  }
  cases.push_back({"decode long", 1, 32, 8, 128, 131072, 1, Dtype::bf16});
  cases.push_back({"decode long", 1, 32, 32, 128, 131072, 1, Dtype::bf16});
  cases.push_back({"decode short", 1, 32, 8, 128, 1024, 1, Dtype::bf16});
  for (int kvHeads : {32, 8, 1}) cases.push_back({"verify 5", kvHeads == 1 ? 128 : 32, 32, kvHeads, 128, 8192, 5, Dtype::bf16});
  for (bool causal : {true, false}) {
    for (int tokens : {2048, 4096, 8192, 16384}) cases.push_back({"prefill", 16384 / tokens, 32, 8, 128, tokens, tokens, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
    for (int tokens : {4096, 16384}) cases.push_back({"prefill", 16384 / tokens, 32, 32, 64, tokens, tokens, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
    cases.push_back({"prefill", 2, 16, 16, 256, 8192, 8192, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
  }
  for (const Case& c : cases) run(c, device, copyRate, matrixPeak);
}

}  // namespace
}  // namespace fastmqa::gpu

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!std::strcmp(argv[i], "--seconds")) fastmqa::gpu::secondsPerCase = std::atof(argv[i + 1]);
    if (!std::strcmp(argv[i], "--only")) fastmqa::gpu::only = argv[i + 1];
  }
  try {
    fastmqa::gpu::runAll();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
