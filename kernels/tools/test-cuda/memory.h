// Memory of the device under test: plain arrays of exactly the size asked for where kernels run on the CPU.
#pragma once
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch/launch.h"

namespace fastmqa::gpu {

#ifdef __CUDACC__
inline void require(int status, const char* what) {
  if (status != 0) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(static_cast<cudaError_t>(status)));
}
inline Device deviceUnderTest() {
  cudaDeviceProp properties;
  require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return {properties.major * 10 + properties.minor, properties.multiProcessorCount, static_cast<int>(properties.sharedMemPerBlockOptin)};
}
inline void finish() { require(cudaDeviceSynchronize(), "kernel"); }
#else
inline void require(int, const char*) {}
/// Few multiprocessors, so that small cases take few splits.
inline Device deviceUnderTest() { return {FASTMQA_EMULATED_CAPABILITY, 2, FASTMQA_EMULATED_CAPABILITY >= 80 ? 227 << 10 : 64 << 10}; }
inline void finish() {}
#endif

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::vector<T> content) : content_(std::move(content)) {
#ifdef __CUDACC__
    require(cudaMalloc(&data_, bytes() + 16), "cudaMalloc");
    require(cudaMemcpy(data_, content_.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
#else
    // Aligned as on the device, and no longer than asked for: a sanitizer sees the end.
    if (::posix_memalign(reinterpret_cast<void**>(&data_), 256, bytes() ? bytes() : 1)) throw std::bad_alloc();
    std::copy(content_.begin(), content_.end(), data_);
#endif
  }
  DeviceArray(size_t count, T fill) : DeviceArray(std::vector<T>(count, fill)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() {
#ifdef __CUDACC__
    cudaFree(data_);
#else
    std::free(data_);
#endif
  }
  Global<T> view() const { return Global<T>(data_, static_cast<int64_t>(content_.size())); }
  Global<const T> constant() const { return Global<const T>(data_, static_cast<int64_t>(content_.size())); }
  const std::vector<T>& back() {
#ifdef __CUDACC__
    require(cudaMemcpy(content_.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
#else
    std::copy_n(data_, content_.size(), content_.begin());
#endif
    return content_;
  }

 private:
  size_t bytes() const { return content_.size() * sizeof(T); }
  std::vector<T> content_;
  T* data_ = nullptr;
};

}  // namespace fastmqa::gpu
