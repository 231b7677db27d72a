// What a GPU has to survive: points that do not fit, faults and endless kernels; and how many sequences really fit.
// Usage: fastmqa-endure-gpu [--alternations N]; one JSON object a line on stdout; the exit code is 1 if one is not "ok".
//        fastmqa-endure-gpu --occupy BYTES  takes the device but for so many bytes, until its stdin ends: others then meet its end
//   alternation  an allocation that cannot be met, then a point that fits, N times (1000); free memory may drift by 64 MiB
//   fault        a process whose kernel writes to an illegal address; it must fail, and this process must not notice
//   deadline     a process whose kernel never ends, killed after 2 s; the device must then take work
//   capacity     sequences of 8192 tokens (32 heads, 8 KV heads of 128) allocated until memory is out, per cache format, beside
//                the number computed from the free bytes beforehand; then a decode step of as many sequences
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "cuda/launch/attention.h"
#include "random-buffer.h"

extern char** environ;

namespace fastmqa::gpu {
namespace {

__global__ void writeNowhere(int* to) { *to = 1; }
__global__ void spin(volatile int* stop) {
  while (!*stop) {}
}

int64_t freeBytes() {
  size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// A decode step of `batch` sequences over caches of `type`. @returns seconds; not finite if the result is not
class Step {
 public:
  static constexpr int heads = 32, kvHeads = 8, dim = 128;
  static int64_t scaleBytes(Dtype type, int tokens) { return isInteger(type) ? int64_t{2} * kvHeads * tokens * 2 * groups(type) : 0; }
  static int64_t rowsBytes(Dtype type, int tokens) { return int64_t{2} * kvHeads * tokens * packedBytes(type, dim); }
  static int64_t sequenceBytes(Dtype type, int tokens) { return rowsBytes(type, tokens) + scaleBytes(type, tokens); }

  Step(Dtype type, int batch, int tokens) : type_(type), queries_(int64_t{2} * batch * heads * dim, Dtype::bf16), out_(int64_t{2} * batch * heads * dim, Dtype::bf16),
        cache_(rowsBytes(type, tokens) * batch, type), scales_(std::max<int64_t>(4, scaleBytes(type, tokens) * batch), Dtype::f16, 0x24002400u) {
    p_.batch = batch, p_.heads = heads, p_.kvHeads = kvHeads, p_.keyDim = p_.valueDim = dim, p_.queryType = p_.outType = Dtype::bf16;
    p_.cacheType = p_.valueType = type, p_.length = tokens, p_.position = tokens - 1, p_.scale = 1 / std::sqrt(static_cast<float>(dim));
    p_.queries = Global<const uint8_t>(queries_.data, queries_.bytes), p_.out = Global<uint8_t>(out_.data, out_.bytes);
    p_.queryHead = p_.outHead = dim, p_.queryToken = p_.outToken = p_.queryBatch = p_.outBatch = heads * dim;
    const int64_t half = cache_.bytes / 2, planeBytes = pageTokens * 2 * groups(type);
    for (TokenRows* rows : {&p_.keys, &p_.values}) {
      rows->data = Global<const uint8_t>(cache_.data + (rows == &p_.values ? half : 0), half);
      rows->pagesPerSequence = tokens / pageTokens;
      rows->tokenBytes = packedBytes(type, dim), rows->headBytes = pageTokens * rows->tokenBytes, rows->batchBytes = kvHeads * rows->headBytes;
    }
    for (CodeScales* s : {&p_.keyScales, &p_.valueScales}) {
      s->data = Global<const uint8_t>(scales_.data + (s == &p_.valueScales ? scales_.bytes / 2 : 0), scales_.bytes / 2);
      if (!isInteger(type)) continue;
      s->sharing = Sharing::token, s->group = dim / groups(type), s->headBytes = planeBytes, s->pageBytes = kvHeads * planeBytes;
    }
  }
  double run() {
    const AttentionPlan plan = planAttention(p_, deviceUnderTest());
    DeviceArray<float> workspace(static_cast<size_t>(workspaceFloats(p_, plan.splits)), 0);
    require(cudaMemset(out_.data, 0xff, static_cast<size_t>(out_.bytes)), "cudaMemset");
    for (int i = 0; i < 2; i++) require(attend(&p_, &plan, 1, workspace.view(), nullptr), "attend");
    finish();
    const double begin = now();
    require(attend(&p_, &plan, 1, workspace.view(), nullptr), "attend");
    finish();
    const double seconds = now() - begin;
    std::vector<uint16_t> got(static_cast<size_t>(out_.bytes / 2));
    require(cudaMemcpy(got.data(), out_.data, static_cast<size_t>(out_.bytes), cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (uint16_t x : got)
      if ((x & 0x7f80) == 0x7f80) return NAN;
    return seconds;
  }

 private:
  static int groups(Dtype type) { return type == Dtype::int4 ? 2 : 1; }
  Dtype type_;
  Buffer queries_, out_, cache_, scales_;
  AttentionProblem p_;
};

bool fits() { return std::isfinite(Step(Dtype::bf16, 4, 1024).run()); }

bool report(const char* name, bool good, const char* more) {
  std::printf("{\"check\":\"%s\",\"outcome\":\"%s\",%s}\n", name, good ? "ok" : "FAIL", more);
  std::fflush(stdout);
  return good;
}

bool alternate(int times) {
  fits();
  const int64_t before = freeBytes();
  bool good = true;
  const double begin = now();
  for (int i = 0; i < times && good; i++) {
    void* nothing = nullptr;
    good = cudaMalloc(&nothing, static_cast<size_t>(freeBytes()) + (size_t{1} << 30)) == cudaErrorMemoryAllocation;
    cudaGetLastError();
    good = good && fits();
  }
  const int64_t drift = before - freeBytes();
  char more[128];
  std::snprintf(more, sizeof(more), "\"alternations\":%d,\"driftBytes\":%lld,\"seconds\":%.1f", times, static_cast<long long>(drift), now() - begin);
  return report("alternation", good && std::llabs(drift) <= int64_t{64} << 20, more);
}

/// Runs this program with one argument; kills it after `deadline` seconds. @returns its wait status
int child(const char* what, double deadline) {
  char self[4096];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
  self[length < 0 ? 0 : length] = 0;
  char* arguments[] = {self, const_cast<char*>(what), nullptr};
  pid_t pid = 0;
  if (posix_spawn(&pid, self, nullptr, nullptr, arguments, environ) != 0) return -1;
  int status = 0;
  for (const double end = now() + deadline; now() < end; usleep(10000))
    if (waitpid(pid, &status, WNOHANG) == pid) return status;
  kill(pid, SIGKILL);
  waitpid(pid, &status, 0);
  return status;
}

bool fault() {
  const int status = child("--fault", 30);
  char more[96];
  std::snprintf(more, sizeof(more), "\"faultingProcess\":\"%s\"", WIFEXITED(status) && WEXITSTATUS(status) == 3 ? "failed, and every later call in it" : "did not fail");
  return report("fault", WIFEXITED(status) && WEXITSTATUS(status) == 3 && fits(), more);
}

bool deadline() {
  const double begin = now();
  const int status = child("--spin", 2);
  const double killed = now();
  const bool good = WIFSIGNALED(status) && fits();
  char more[128];
  std::snprintf(more, sizeof(more), "\"secondsUntilKilled\":%.2f,\"secondsUntilTheDeviceWorked\":%.2f", killed - begin, now() - killed);
  return report("deadline", good, more);
}

bool capacity(Dtype type, const char* name) {
  constexpr int tokens = 8192, together = 8;  // sequences of an allocation: the device rounds each up to 2 MiB
  const int64_t bytes = Step::sequenceBytes(type, tokens), before = freeBytes(), computed = before / bytes;
  std::vector<void*> sequences;
  for (void* next; cudaMalloc(&next, static_cast<size_t>(bytes * together)) == cudaSuccess;) sequences.push_back(next);
  cudaGetLastError();
  const auto allocated = static_cast<int64_t>(sequences.size()) * together;
  for (void* x : sequences) cudaFree(x);
  // Queries, results and the fill of memory by others need a little.
  const int batch = static_cast<int>(allocated * 98 / 100);
  const double seconds = Step(type, batch, tokens).run();
  char more[320];
  std::snprintf(more, sizeof(more), "\"format\":\"%s\",\"sequenceBytes\":%lld,\"freeBytes\":%lld,\"computedSequences\":%lld,\"allocatedSequences\":%lld,\"decodedSequences\":%d,\"stepSeconds\":%.4g,\"tokensPerSecond\":%.4g",
                name, static_cast<long long>(bytes), static_cast<long long>(before), static_cast<long long>(computed), static_cast<long long>(allocated), batch, seconds, batch / seconds);
  return report("capacity", std::isfinite(seconds) && allocated <= computed && allocated >= computed * 97 / 100, more);
}

int runAll(int alternations) {
  bool good = alternate(alternations);
  good &= fault();
  good &= deadline();
  const std::pair<Dtype, const char*> formats[] = {{Dtype::bf16, "bf16"}, {Dtype::e4m3, "e4m3"}, {Dtype::int8, "int8"}, {Dtype::int4, "int4"}};
  for (const auto& [type, name] : formats) good &= capacity(type, name);
  return good ? 0 : 1;
}

int occupy(int64_t left) {
  constexpr int64_t piece = int64_t{32} << 20;
  std::vector<void*> taken;
  void* p = nullptr;
  while (freeBytes() > left + piece && cudaMalloc(&p, static_cast<size_t>(piece)) == cudaSuccess) taken.push_back(p);
  std::printf("{\"occupiedBytes\":%lld,\"freeBytes\":%lld}\n", static_cast<long long>(piece * static_cast<int64_t>(taken.size())), static_cast<long long>(freeBytes()));
  std::fflush(stdout);
  while (std::getchar() != EOF) {}
  return 0;
}

int faultingChild() {
  writeNowhere<<<1, 1>>>(reinterpret_cast<int*>(uintptr_t{1} << 44));
  const cudaError_t first = cudaDeviceSynchronize();
  void* memory = nullptr;
  const cudaError_t later = cudaMalloc(&memory, 1 << 20);
  return first != cudaSuccess && later != cudaSuccess ? 3 : 0;
}
int spinningChild() {
  int* stop = nullptr;
  require(cudaMalloc(&stop, 4), "cudaMalloc");
  require(cudaMemset(stop, 0, 4), "cudaMemset");
  spin<<<1, 32>>>(stop);
  return cudaDeviceSynchronize();
}

}  // namespace
}  // namespace fastmqa::gpu

int main(int argc, char** argv) {
  using namespace fastmqa::gpu;
  int alternations = 1000;
  try {
    if (argc == 2 && !std::strcmp(argv[1], "--fault")) return faultingChild();
    if (argc == 2 && !std::strcmp(argv[1], "--spin")) return spinningChild();
    if (argc == 3 && !std::strcmp(argv[1], "--occupy")) return occupy(std::atoll(argv[2]));
    if (argc == 3 && !std::strcmp(argv[1], "--alternations")) alternations = std::atoi(argv[2]);
    return runAll(alternations);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
