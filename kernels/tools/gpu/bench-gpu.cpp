// The CUDA kernels against the ceilings of this GPU, which are measured in the same run: copy bandwidth (bytes read and
// written) and the rate of 16-bit matrix products.
// Usage: fastmqa-bench-gpu [--seconds S] [--only TEXT]; one JSON object a line on stdout.
// Each kernel is first compared with fp64 on rows drawn at random. Events around batches; inputs rotate among sets that
// together exceed the L2 cache; random data. Calls far shorter than a launch are timed inside a captured graph.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cuda/kernels/general.h"
#include "cuda/launch/attention.h"
#include "random-buffer.h"

namespace fastmqa::gpu {
namespace {

double secondsPerCase = 0.3;
std::string only;
bool withHopper = true;

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

/// One query row in fp64, a block of 256 threads: rows[i] is (sequence * queryTokens + token) * heads + head.
__global__ void referenceRows(AttentionProblem p, const int* rows, double* out) {
  __shared__ double parts[256];
  extern __shared__ double scores[];
  const int row = rows[blockIdx.x], head = row % p.heads, token = row / p.heads % p.queryTokens, b = row / p.heads / p.queryTokens, g = head / p.groupSize();
  const RowMask mask(p, p.length, p.positionOf(b) + token);
  const auto reduce = [&](double x, bool sum) {
    __syncthreads();
    parts[threadIdx.x] = x;
    for (int n = 128; n > 0; n /= 2) {
      __syncthreads();
      if (threadIdx.x < static_cast<unsigned>(n)) parts[threadIdx.x] = sum ? parts[threadIdx.x] + parts[threadIdx.x + n] : fmax(parts[threadIdx.x], parts[threadIdx.x + n]);
    }
    __syncthreads();
    return parts[0];
  };
  // Keys by the thousand, with a running maximum.
  constexpr int many = 2048;
  double top = -INFINITY, total = 0, sums[3] = {};
  for (int first = 0; first < p.length; first += many) {
    const int count = p.length - first < many ? p.length - first : many;
    double most = -INFINITY;
    for (int i = threadIdx.x; i < count; i += 256) {
      double dot = 0;
      for (int c = 0; c < p.keyDim; c++)
        dot += static_cast<double>(loadNumber(p.queryType, p.queries, b * p.queryBatch + token * p.queryToken + head * p.queryHead + c)) *
               static_cast<double>(cachedNumber(p.cacheType, p.keys, p.keyScales, p.keyDim, b, g, first + i, c));
      scores[i] = mask.sees(first + i) ? dot * static_cast<double>(p.scale) : -INFINITY;
      most = fmax(most, scores[i]);
    }
    const double now = fmax(top, reduce(most, false));
    if (now == -INFINITY) continue;
    const double fade = exp(top - now);
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += 256) scores[i] = exp(scores[i] - now), sum += scores[i];
    total = total * fade + reduce(sum, true);
    top = now;
    for (int k = 0; k < 3; k++) {
      const int c = threadIdx.x + 256 * k;
      if (c >= p.valueDim) break;
      double x = sums[k] * fade;
      for (int i = 0; i < count; i++)
        if (scores[i] > 0) x += scores[i] * static_cast<double>(cachedNumber(p.valueType, p.values, p.valueScales, p.valueDim, b, g, first + i, c));
      sums[k] = x;
    }
    __syncthreads();
  }
  for (int k = 0; k < 3; k++)
    if (threadIdx.x + 256 * k < static_cast<unsigned>(p.valueDim)) out[blockIdx.x * p.valueDim + threadIdx.x + 256 * k] = sums[k] / total;
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
Timing time(const std::function<void(int, Stream)>& step, bool inGraph = false) {
  Stream stream;
  require(cudaStreamCreate(&stream), "stream");
  cudaEvent_t begin, end;
  require(cudaEventCreate(&begin), "event");
  require(cudaEventCreate(&end), "event");
  cudaGraphExec_t graph = nullptr;
  int calls = 1, set = 0;
  const auto batch = [&] {
    require(cudaEventRecord(begin, stream), "event");
    if (graph)
      require(cudaGraphLaunch(graph, stream), "graph");
    else
      for (int i = 0; i < calls; i++) step(set++, stream);
    require(cudaEventRecord(end, stream), "event");
    require(cudaEventSynchronize(end), "step");
    float milliseconds = 0;
    require(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    return static_cast<double>(milliseconds) * 1e-3 / calls;
  };
  const double once = (batch(), batch());
  calls = std::max(1, static_cast<int>(2e-3 / once));  // a batch is far longer than a launch
  if (inGraph) {
    cudaGraph_t captured;
    calls = 64;
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < calls; i++) step(i, stream);
    require(cudaStreamEndCapture(stream, &captured), "capture");
    require(cudaGraphInstantiate(&graph, captured, 0), "graph");
    cudaGraphDestroy(captured);
  }
  for (double warm = 0; warm < secondsPerCase / 3;) warm += batch() * calls;
  std::vector<double> samples;
  for (double spent = 0; samples.size() < 10 || spent < secondsPerCase;) samples.push_back(batch()), spent += samples.back() * calls;
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  if (graph) cudaGraphExecDestroy(graph);
  cudaStreamDestroy(stream);
  Timing t{median(samples), 0, 0, samples.size()};
  std::sort(samples.begin(), samples.end());
  t.p05 = samples[samples.size() / 20], t.p95 = samples[samples.size() * 19 / 20];
  return t;
}

double copyBandwidth() {
  constexpr int64_t bytes = int64_t{4} << 30;
  Buffer from(bytes, Dtype::f16), to(bytes, Dtype::f16);
  return 2.0 * bytes / time([&](int, Stream stream) { require(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, stream), "copy"); }).median;
}

double matrixRate(int multiprocessors) {
  Buffer out(256, Dtype::f16);
  constexpr int iterations = 4000, blocksEach = 4, threads = 256;
  const double flops = 2.0 * 16 * 8 * 16 * 8 * iterations * (threads / 32) * blocksEach * multiprocessors;
  return flops / time([&](int, Stream stream) { burnMatrices<<<blocksEach * multiprocessors, threads, 0, stream>>>(reinterpret_cast<float*>(out.data), iterations); }).median;
}

struct Case {
  const char* name;
  int batch, heads, kvHeads, headDim, tokens, queries;
  Dtype type;
  Sharing keySharing = Sharing::tensor;
  int keyGroup = 64, valueGroup = 64;
  bool symmetric = true, causal = true;
  int ropeDim = 0;  ///< latent: keys are headDim + ropeDim channels, values the first headDim of them
  bool inGraph = false;
};

void run(const Case& c, const Device& device, double copyRate, double matrixPeak, const Path* wanted = nullptr) {
  constexpr const char* typeNames[] = {"f32", "f16", "bf16", "e4m3", "e5m2", "int8", "int4"};
  std::string label = std::string(c.name) + " " + typeNames[static_cast<int>(c.type)];
  char shape[96];
  std::snprintf(shape, sizeof(shape), "B%d H%d G%d D%d S%d q%d%s", c.batch, c.heads, c.kvHeads, c.headDim, c.tokens, c.queries, c.causal ? "" : " full");
  if ((label + " " + shape).find(only) == std::string::npos) return;

  if (wanted && *wanted == Path::decode && c.queries * c.heads / c.kvHeads > 160) return;  // not what it is for
  const bool coded = isInteger(c.type);
  const Dtype queryType = coded || bitsOf(c.type) == 8 ? Dtype::bf16 : c.type;
  const int pagesPer = (c.tokens + pageTokens - 1) / pageTokens;
  const bool latent = c.ropeDim > 0;
  const int keyDim = c.headDim + c.ropeDim;
  const int64_t rowBytes = packedBytes(c.type, keyDim), sideBytes = int64_t{1} * c.batch * pagesPer * c.kvHeads * pageTokens * rowBytes;
  const auto planeBytes = [&](Sharing s, int group) { return int64_t{2} * (s == Sharing::token ? pageTokens * (c.headDim / group) : pageTokens / group * c.headDim); };
  const int64_t keyPlane = coded ? planeBytes(c.keySharing, c.keyGroup) : 0, valuePlane = coded ? planeBytes(Sharing::token, c.valueGroup) : 0;
  const int planes = c.symmetric ? 1 : 2;
  const int64_t scaleBytes = int64_t{1} * c.batch * pagesPer * c.kvHeads * planes * (keyPlane + valuePlane);
  const int64_t queryElements = int64_t{1} * c.batch * c.queries * c.heads * keyDim, outElements = queryElements / keyDim * c.headDim;
  // Sets of inputs that together are several times the L2 cache.
  const int sets = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(16, (int64_t{256} << 20) / std::max<int64_t>(1, 2 * sideBytes))));

  Buffer keys(sideBytes * sets, c.type), values(latent ? 4 : sideBytes * sets, c.type), queries(queryElements * 2 * sets, queryType), out(outElements * 2, Dtype::bf16);
  Buffer scales(std::max<int64_t>(scaleBytes * sets, 4), Dtype::f16, 0x24002400u);  // 1/64 to 1/32
  AttentionProblem p;
  p.batch = c.batch, p.heads = c.heads, p.kvHeads = c.kvHeads, p.keyDim = keyDim, p.valueDim = c.headDim;
  p.queryTokens = c.queries, p.queryType = queryType, p.outType = Dtype::bf16, p.cacheType = p.valueType = c.type;
  p.length = c.tokens, p.position = c.tokens - c.queries;
  if (!c.causal) p.right = unlimitedTokens;
  p.scale = 1 / std::sqrt(static_cast<float>(keyDim));
  p.queryHead = keyDim, p.queryToken = c.heads * p.queryHead, p.queryBatch = c.queries * p.queryToken;
  p.outHead = c.headDim, p.outToken = c.heads * p.outHead, p.outBatch = c.queries * p.outToken;
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
  const auto useSet = [&](int set) {
    p.queries = Global<const uint8_t>(queries.data + set * queryElements * 2, queryElements * 2);
    p.keys.data = Global<const uint8_t>(keys.data + set * sideBytes, sideBytes);
    p.values.data = latent ? p.keys.data : Global<const uint8_t>(values.data + set * sideBytes, sideBytes);
    p.keyScales.data = Global<const uint8_t>(scales.data + set * scaleBytes, scaleBytes);
    p.valueScales.data = Global<const uint8_t>(scales.data + set * scaleBytes + scaleBytes / (keyPlane + valuePlane + !coded) * keyPlane, scaleBytes);
  };
  useSet(0);
  
  AttentionPlan plan;
  bool chosen = true;
  try {
    plan = planAttention(p, device, wanted);
    const AttentionPlan own = planAttention(p, device);
    chosen = own.path == plan.path;
  } catch (const std::exception&) {
    return;  // the wanted kernel does not take this
  }
  Buffer workspace(std::max<int64_t>(4, 4 * workspaceFloats(p, plan.splits)), Dtype::f16);
  const auto step = [&](int i, Stream stream) {
    useSet(i % sets);
    require(attend(&p, &plan, 1, Global<float>(reinterpret_cast<float*>(workspace.data), workspace.bytes / 4), stream), "attend");
  };

  // fp64 first, of rows drawn at random.
  constexpr int rowsChecked = 24;
  std::vector<int> rows;
  for (uint32_t i = 0, x = 1; i < rowsChecked; i++) x = x * 1664525u + 1013904223u, rows.push_back(static_cast<int>((x >> 4) % static_cast<uint32_t>(outElements / c.headDim)));
  require(cudaMemset(out.data, 0xff, static_cast<size_t>(out.bytes)), "memset");
  step(0, nullptr);
  finish();
  DeviceArray<int> rowArray(rows);
  DeviceArray<double> exactArray(static_cast<size_t>(rowsChecked * c.headDim), 0);
  referenceRows<<<rowsChecked, 256, 2048 * 8>>>(p, rowArray.view().data(), exactArray.view().data());
  finish();
  const std::vector<double> exact(exactArray.back());
  std::vector<uint16_t> got(static_cast<size_t>(outElements));
  require(cudaMemcpy(got.data(), out.data, static_cast<size_t>(out.bytes), cudaMemcpyDeviceToHost), "cudaMemcpy");
  double wrong = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); i++) {
    const uint32_t bits = static_cast<uint32_t>(got[static_cast<size_t>(rows[i / static_cast<size_t>(c.headDim)]) * static_cast<size_t>(c.headDim) + i % static_cast<size_t>(c.headDim)]) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    wrong += (static_cast<double>(x) - exact[i]) * (static_cast<double>(x) - exact[i]), norm += exact[i] * exact[i];
  }
  const double error = std::sqrt(wrong / norm);

  const Timing t = time(step, c.inGraph);
  const double pairs = c.queries == c.tokens && c.causal ? 0.5 * c.tokens : c.tokens;
  const double flops = 2.0 * c.batch * c.heads * (keyDim + c.headDim) * pairs * c.queries;
  const double bytes = (latent ? 1.0 : 2.0) * static_cast<double>(sideBytes) + static_cast<double>(scaleBytes) + 2.0 * static_cast<double>(queryElements + outElements);
  constexpr const char* pathNames[] = {"general", "decode", "prefill", "latent", "hopper", "hopper latent", "reconstruct", "hopper decode"};
  std::printf("{\"case\":\"%s\",\"shape\":\"%s\",\"path\":\"%s\",\"chosen\":%s,\"splits\":%d,\"relativeError\":%.3g,\"medianSeconds\":%.4g,\"p05Seconds\":%.4g,\"p95Seconds\":%.4g,\"samples\":%zu,"
              "\"flopsPerSecond\":%.4g,\"ofMatrixRate\":%.3f,\"bytesPerSecond\":%.4g,\"ofCopyBandwidth\":%.3f}\n",
              label.c_str(), shape, pathNames[static_cast<int>(plan.path)], chosen ? "true" : "false", plan.splits, error, t.median, t.p05, t.p95, t.samples, flops / t.median,
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
        const bool shared = kvHeads == 1;
        for (int tokens : shared ? std::vector<int>{8192, 32768} : std::vector<int>{8192})
          cases.push_back({"decode", shared ? 128 : 32, 32, kvHeads, dim, tokens, 1, type, type == Dtype::e4m3 ? Sharing::tensor : Sharing::token, four ? 64 : dim, four ? 64 : dim});
      }
    if (isInteger(type)) cases.push_back({"decode by channel", 32, 32, 8, 128, 8192, 1, type, Sharing::channel, 64, 128});
  }
  cases.push_back({"decode long", 1, 32, 8, 128, 131072, 1, Dtype::bf16});
  cases.push_back({"decode long", 1, 32, 32, 128, 131072, 1, Dtype::bf16});
  for (int kvHeads : {32, 8, 1}) {
    Case step{"decode step in a graph", 1, 32, kvHeads, 128, 1024, 1, Dtype::bf16};
    step.inGraph = true;
    cases.push_back(step);
  }
  for (int batch : {16, 64}) {
    Case latent{"latent decode", batch, 128, 1, 512, 8192, 1, Dtype::bf16};
    latent.ropeDim = 64;
    cases.push_back(latent);
    latent.heads = 16;
    cases.push_back(latent);
  }
  for (int kvHeads : {32, 8, 1}) cases.push_back({"verify 5", kvHeads == 1 ? 128 : 32, 32, kvHeads, 128, 8192, 5, Dtype::bf16});
  cases.push_back({"verify 5", 128, 32, 1, 64, 8192, 5, Dtype::bf16});
  for (int dim : {64, 128}) cases.push_back({"verify 8", 128, 32, 1, dim, 8192, 8, Dtype::bf16});
  for (Dtype type : {Dtype::e4m3, Dtype::int8, Dtype::int4})
    for (int kvHeads : {8, 1})
      cases.push_back({"verify 5", kvHeads == 1 ? 128 : 32, 32, kvHeads, 128, 8192, 5, type, type == Dtype::e4m3 ? Sharing::tensor : Sharing::token, type == Dtype::int4 ? 64 : 128, type == Dtype::int4 ? 64 : 128});
  for (bool causal : {true, false}) {
    for (int tokens : {2048, 4096, 8192, 16384}) cases.push_back({"prefill", 16384 / tokens, 32, 8, 128, tokens, tokens, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
    for (int tokens : {4096, 16384}) cases.push_back({"prefill", 16384 / tokens, 32, 32, 64, tokens, tokens, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
    cases.push_back({"prefill", 2, 16, 16, 256, 8192, 8192, Dtype::bf16, Sharing::tensor, 64, 64, true, causal});
  }
  // Every kernel that takes the case: the launcher's choice is the one it would start by itself.
  for (const Case& c : cases) {
    if (bitsOf(c.type) < 16) {
      for (Path path : {Path::decode, Path::hopperDecode})
        if (path == Path::decode || withHopper) run(c, device, copyRate, matrixPeak, &path);
      continue;
    }
    for (Path path : {Path::decode, Path::prefill, Path::hopperPrefill, Path::latent, Path::hopperLatent})
      if ((path == Path::hopperPrefill || path == Path::hopperLatent) && !withHopper) continue;
      else if (path == Path::latent || path == Path::hopperLatent ? c.ropeDim > 0 : path != Path::prefill || c.queries > 1) run(c, device, copyRate, matrixPeak, &path);
  }
}

}  // namespace
}  // namespace fastmqa::gpu

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!std::strcmp(argv[i], "--seconds")) fastmqa::gpu::secondsPerCase = std::atof(argv[i + 1]);
    if (!std::strcmp(argv[i], "--hopper")) fastmqa::gpu::withHopper = std::atoi(argv[i + 1]);
    if (!std::strcmp(argv[i], "--only")) fastmqa::gpu::only = argv[i + 1];
  }
  try {
    fastmqa::gpu::runAll();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
