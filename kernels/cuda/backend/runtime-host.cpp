// The device of runtime.h on the CPU, so that the whole backend runs without a GPU. Its times say nothing about one. Graphs are
// recorded and replayed as there, and what the host asks of the device is counted.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "runtime.h"

namespace fastmqa::gpu::runtime {
namespace {

void refuseInRecording(const char* what) {
  if (host::isRecording()) throw Failure(FailureKind::failed, std::string(what) + " while a step is recorded");
}

}  // namespace

void check(int status, const char* what) {
  if (status != 0) throw Failure(FailureKind::failed, what);
}
int deviceCount() { return 1; }
AcceleratorDevice describe(int) {
  AcceleratorDevice out{};
  std::strcpy(out.name, "CUDA kernels on the CPU");
  out.capability = FASTMQA_EMULATED_CAPABILITY;
  out.multiprocessors = 2;
  return out;
}
void busAddress(int, char* to, int) { *to = 0; }
void use(int device) {
  if (device != 0) throw Failure(FailureKind::failed, "opening the device: there is one device");
}
Device limitsOf(int) { return {FASTMQA_EMULATED_CAPABILITY, 2, FASTMQA_EMULATED_CAPABILITY >= 80 ? 227 << 10 : 64 << 10}; }

int64_t freeBytes() { return 0; }
void* allocate(int64_t bytes) {
  host::counts().allocations++;
  void* p = nullptr;
  if (::posix_memalign(&p, 256, static_cast<size_t>(bytes))) throw Failure(FailureKind::outOfMemory, "allocating device memory");
  std::memset(p, 0xff, static_cast<size_t>(bytes));  // NaN: what nothing wrote shows
  return p;
}
void release(void* p) { std::free(p); }

Stream newStream() { return nullptr; }
void endStream(Stream) {}
void upload(void* to, const void* from, int64_t bytes, Stream) {
  refuseInRecording("copying to the device");
  host::counts().uploadedBytes += bytes;
  std::memcpy(to, from, static_cast<size_t>(bytes));
}
void download(void* to, const void* from, int64_t bytes, Stream stream) {
  host::counts().downloadedBytes += bytes;
  finish(stream);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}
void copy(void* to, const void* from, int64_t bytes, Stream) {
  host::submit([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}
void copyRows(void* to, int64_t toStride, const void* from, int64_t fromStride, int64_t bytes, int64_t rows, Stream stream) {
  for (int64_t i = 0; i < rows; i++) copy(static_cast<char*>(to) + i * toStride, static_cast<const char*>(from) + i * fromStride, bytes, stream);
}
void clear(void* to, int64_t bytes, Stream) {
  host::submit([=] { std::memset(to, 0, static_cast<size_t>(bytes)); });
}
void finish(Stream) {
  refuseInRecording("waiting for the device");
  host::counts().waits++;
}

Graph::Graph(Stream stream, std::function<void()> work) : stream_(stream), work_(std::move(work)) {
  auto recording = std::make_unique<host::Recording>();
  host::record(recording.get());
  const struct Recorded {
    ~Recorded() { host::record(nullptr); }
  } recorded;
  work_();
  host::counts().recordings++;
  nodes_ = static_cast<int64_t>(recording->size());
  executable_ = recording.release();
}
Graph::~Graph() { delete static_cast<host::Recording*>(executable_); }
void Graph::start() {
  host::counts().replays++;
  for (const auto& step : *static_cast<host::Recording*>(executable_)) step();
}

void time(Stream stream, int64_t count, const std::function<void()>& before, const std::function<void()>& work, double* seconds) {
  for (int64_t i = 0; i < count; i++) {
    before();
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  finish(stream);
}

}  // namespace fastmqa::gpu::runtime
