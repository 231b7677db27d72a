#include <algorithm>
#include <string>
#include <vector>

#include "runtime.h"

namespace fastmqa::gpu::runtime {
namespace {

/// Errors that leave the context as it was.
bool isHarmless(cudaError_t status) {
  switch (status) {
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorNotSupported:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorGraphExecUpdateFailure: return true;
    default: return false;
  }
}

}  // namespace

void check(int status, const char* what) {
  if (status == cudaSuccess) return;
  const auto error = static_cast<cudaError_t>(status);
  cudaGetLastError();  // harmless ones must not be met again by the next check
  const std::string message = std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  if (error == cudaErrorMemoryAllocation) throw Failure(FailureKind::outOfMemory, message);
  if (isHarmless(error)) throw Failure(FailureKind::failed, message);
  throw Poisoned(message);
}

int deviceCount() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "looking for devices");
  return count;
}

AcceleratorDevice describe(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "reading the device's properties");
  use(device);
  AcceleratorDevice out{};
  std::copy_n(properties.name, std::min(sizeof(out.name), sizeof(properties.name)), out.name);
  out.name[sizeof(out.name) - 1] = 0;
  out.capability = properties.major * 10 + properties.minor;
  out.multiprocessors = properties.multiProcessorCount;
  out.cacheBytes = properties.l2CacheSize;
  check(cudaDriverGetVersion(&out.driverVersion), "reading the driver's version");
  check(cudaRuntimeGetVersion(&out.runtimeVersion), "reading the runtime's version");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "reading the free memory");
  out.freeBytes = static_cast<int64_t>(free);
  out.memoryBytes = static_cast<int64_t>(total);
  return out;
}

void busAddress(int device, char* to, int length) { check(cudaDeviceGetPCIBusId(to, length, device), "reading the device's address"); }

void use(int device) { check(cudaSetDevice(device), "opening the device"); }

Device limitsOf(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "reading the device's properties");
  return {properties.major * 10 + properties.minor, properties.multiProcessorCount, static_cast<int>(properties.sharedMemPerBlockOptin)};
}

int64_t freeBytes() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "reading the free memory");
  return static_cast<int64_t>(free);
}

void* allocate(int64_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, static_cast<size_t>(bytes)), "allocating device memory");
  return p;
}
void release(void* p) { cudaFree(p); }

Stream newStream() {
  Stream stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}
void endStream(Stream stream) { cudaStreamDestroy(stream); }

void upload(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream), "copying to the device");
}
void download(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream), "copying from the device");
  finish(stream);
}
void copy(void* to, const void* from, int64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream), "copying on the device");
}
void copyRows(void* to, int64_t toStride, const void* from, int64_t fromStride, int64_t bytes, int64_t rows, Stream stream) {
  check(cudaMemcpy2DAsync(to, static_cast<size_t>(toStride), from, static_cast<size_t>(fromStride), static_cast<size_t>(bytes), static_cast<size_t>(rows),
                          cudaMemcpyDeviceToDevice, stream),
        "copying on the device");
}
void clear(void* to, int64_t bytes, Stream stream) { check(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream), "clearing device memory"); }
void finish(Stream stream) { check(cudaStreamSynchronize(stream), "running kernels"); }

Graph::Graph(Stream stream, std::function<void()> work) : stream_(stream), work_(std::move(work)) {
  cudaGraph_t graph = nullptr;
  // Relaxed: other threads of the process may allocate meanwhile.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "recording a step");
  try {
    work_();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaGraphExec_t executable = nullptr;
  size_t nodes = 0;
  const bool recorded = ended == cudaSuccess && cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess && cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess;
  if (graph) cudaGraphDestroy(graph);
  if (recorded)
    executable_ = executable, nodes_ = static_cast<int64_t>(nodes);
  else
    cudaGetLastError();
}
Graph::~Graph() {
  if (executable_) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_));
}
void Graph::start() {
  if (executable_)
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), stream_), "starting a recorded step");
  else
    work_();
}

void time(Stream stream, int64_t count, const std::function<void()>& before, const std::function<void()>& work, double* seconds) {
  struct Events : std::vector<cudaEvent_t> {
    ~Events() {
      for (cudaEvent_t event : *this) cudaEventDestroy(event);
    }
  } events;
  for (int64_t i = 0; i < 2 * count; i++) {
    cudaEvent_t event;
    check(cudaEventCreate(&event), "making an event");
    events.push_back(event);
  }
  for (int64_t i = 0; i < count; i++) {
    before();
    check(cudaEventRecord(events[static_cast<size_t>(2 * i)], stream), "recording an event");
    work();
    check(cudaEventRecord(events[static_cast<size_t>(2 * i + 1)], stream), "recording an event");
  }
  finish(stream);
  for (int64_t i = 0; i < count; i++) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, events[static_cast<size_t>(2 * i)], events[static_cast<size_t>(2 * i + 1)]), "reading an event");
    seconds[i] = static_cast<double>(milliseconds) / 1e3;
  }
}

}  // namespace fastmqa::gpu::runtime
