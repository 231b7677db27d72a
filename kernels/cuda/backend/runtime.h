// The few calls of the CUDA runtime that the backend needs, with one way to fail. runtime-host.cpp is its twin where
// kernels run on the CPU.
#pragma once
#include <cstdint>
#include <functional>

#include "../launch/launch.h"
#include "fastmqa/accelerator.h"
#include "fastmqa/status.h"

namespace fastmqa::gpu::runtime {

/// After this nothing of the process's work on the device can be trusted.
struct Poisoned : Failure {
  explicit Poisoned(const std::string& message) : Failure(FailureKind::failed, message) {}
};

/// @throws Failure outOfMemory, or failed where a later call may succeed; Poisoned otherwise
void check(int status, const char* what);

int deviceCount();
/// Everything but what NVML knows.
AcceleratorDevice describe(int device);
/// PCI address, by which NVML knows it.
void busAddress(int device, char* to, int length);
/// Makes it the calling thread's device.
void use(int device);
Device limitsOf(int device);

int64_t freeBytes();
void* allocate(int64_t bytes);
void release(void* p);

Stream newStream();
void endStream(Stream stream);
void upload(void* to, const void* from, int64_t bytes, Stream stream);
/// Waits for it, too.
void download(void* to, const void* from, int64_t bytes, Stream stream);
void copy(void* to, const void* from, int64_t bytes, Stream stream);
/// `rows` runs of `bytes`, strides in bytes.
void copyRows(void* to, int64_t toStride, const void* from, int64_t fromStride, int64_t bytes, int64_t rows, Stream stream);
void clear(void* to, int64_t bytes, Stream stream);
void finish(Stream stream);

/// Work that was recorded once and is started as one.
class Graph {
 public:
  /// Records what `work` starts on the stream. Where that cannot be done, runs it anew each time.
  Graph(Stream stream, std::function<void()> work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void start();
  /// Kernels, copies and such that it starts; 0 where it could not be recorded.
  int64_t nodes() const { return nodes_; }

 private:
  Stream stream_;
  std::function<void()> work_;
  void* executable_ = nullptr;
  int64_t nodes_ = 0;
};

/// Runs `before` untimed and `work` timed, `count` times; seconds of each on the device's own clock.
void time(Stream stream, int64_t count, const std::function<void()>& before, const std::function<void()>& work, double* seconds);

}  // namespace fastmqa::gpu::runtime
