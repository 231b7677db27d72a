// A CUDA backend that goes wrong on purpose, to see what a fault of the device costs the app: it stands between the worker and the
// real library, to which it passes every call. Where a layer has a batch of 13, a kernel writes to an illegal address before its
// samples are taken; where it has 17, one is started that never ends. FASTMQA_CUDA_LIBRARY
// names it (test/gpu/endure-worker.mjs): the program itself knows nothing of it.
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>

#include "fastmqa/accelerator.h"

namespace {

using namespace fastmqa;

constexpr int64_t faultingBatch = 13, endlessBatch = 17;

struct Planted {
  int device;
  int64_t batch;
};
std::mutex mutex;
std::map<void*, Planted> layers;

__global__ void writeNowhere(int* to) { *to = 1; }
__global__ void spin(volatile int* stop) {
  while (!*stop) {}
}

/// The archive's own, two folders above this file.
const Accelerator& real() {
  static const Accelerator* const found = [] {
    Dl_info self;
    dladdr(reinterpret_cast<void*>(&real), &self);
    const std::string path = self.dli_fname, folder = path.substr(0, path.rfind('/'));
    void* library = dlopen((folder + "/../../native/build/Release/libfastmqa-cuda.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    const auto entry = library ? reinterpret_cast<const Accelerator* (*)(uint32_t)>(dlsym(library, "fastmqaAccelerator")) : nullptr;
    return entry ? entry(acceleratorVersion) : nullptr;
  }();
  return *found;
}

AcceleratorStatus createLayer(int32_t device, const AcceleratorLayer* from, void** layer) {
  const AcceleratorStatus status = real().createLayer(device, from, layer);
  std::lock_guard<std::mutex> lock(mutex);
  if (status == AcceleratorStatus::done) layers[*layer] = {device, from->batch};
  return status;
}

AcceleratorStatus sample(void* layer, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples* to) {
  mutex.lock();
  const Planted planted = layers[layer];
  mutex.unlock();
  if (planted.batch == faultingBatch) {
    cudaSetDevice(planted.device);
    writeNowhere<<<1, 1>>>(reinterpret_cast<int*>(16));  // nobody looks: the real library has to find out
  }
  if (planted.batch == endlessBatch) {
    cudaSetDevice(planted.device);
    int* stop = nullptr;
    cudaMalloc(&stop, sizeof(int));
    cudaMemset(stop, 0, sizeof(int));
    spin<<<1, 1>>>(stop);
    cudaDeviceSynchronize();
  }
  return real().sample(layer, seconds, cancel, to);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const Accelerator* fastmqaAccelerator(uint32_t version) {
  if (version != acceleratorVersion || !&real()) return nullptr;
  static const Accelerator table = [] {
    Accelerator t = real();
    t.createLayer = createLayer;
    t.sample = sample;
    return t;
  }();
  return &table;
}
