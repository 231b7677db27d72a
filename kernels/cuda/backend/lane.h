// A lane of work on a device, in order: one stream, one pool of memory, numbers of one type. A layer on its own has a lane to
// itself; those of a model share one.
#pragma once
#include <memory>
#include <vector>

#include "../kernels/activation.h"
#include "../kernels/product.h"
#include "memory.h"

namespace fastmqa::gpu {

inline int64_t roundUp8(int64_t n) { return (n + 7) / 8 * 8; }

/// Numbers of a type that activations have: f32, f16, bf16.
float numberOf(Dtype type, const uint8_t* from, int64_t i);

/// W [n][k], padded to what the matrix kernels take, and what is added to each row. Copies share the memory.
struct Weights {
  std::shared_ptr<const DeviceBlock> data, bias;
  int64_t n = 0, k = 0;
  explicit operator bool() const { return n > 0; }
};

class Lane {
 public:
  /// @throws Failure refused for a type that the device lacks
  Lane(int device, Dtype dtype);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// @param bias  added to results, [rows], or null
  /// @param order  column of the original that stands at each place, or null
  Weights weightsOf(const AcceleratorMatrix& from, const float* bias, const int64_t* order = nullptr);
  /// Numbers as they are.
  template <class T>
  std::shared_ptr<const DeviceBlock> listOf(const T* from, int64_t count) {
    const auto block = std::make_shared<DeviceBlock>(pool, count * static_cast<int64_t>(sizeof(T)));
    runtime::upload(block->data(), from, block->bytes(), stream);
    runtime::finish(stream);  // the copy reads `from`
    return block;
  }
  /// y [m][n] = x [m][k] W^T (+ bias); rows of x may be `xStride` numbers apart
  DeviceBlock product(const DeviceBlock& x, int64_t m, const Weights& w, Dtype outType, int64_t xStride = 0) {
    DeviceBlock y;
    multiply(x, m, {{&w, &y}}, outType, xStride);
    return y;
  }
  DeviceBlock product(const DeviceBlock& x, int64_t m, const Weights& w, int64_t xStride = 0) { return product(x, m, w, dtype, xStride); }
  /// Of the same rows with several matrices, started together where that is sooner done.
  struct Product {
    const Weights* w;
    DeviceBlock* y;
  };
  void multiply(const DeviceBlock& x, int64_t m, const std::vector<Product>& products) { multiply(x, m, products, dtype, 0); }
  /// (activation(first half of a row of x) * second half) W^T
  DeviceBlock gatedProduct(const DeviceBlock& x, int64_t m, const Weights& w, ActivationKind activation);
  /// Of numbers of the lane's type.
  int64_t bytes(int64_t numbers) const { return numbers * (dtype == Dtype::f32 ? 4 : 2); }

  const int device;
  const Device limits;
  const Dtype dtype;
  const Stream stream;
  DevicePool pool;
  char address[32] = {};  ///< by which NVML knows the device

 private:
  ProductProblem problemOf(const DeviceBlock& x, int64_t m, const Weights& w, const DeviceBlock& out, Dtype outType) const;
  void multiply(const DeviceBlock& x, int64_t m, const std::vector<Product>& products, Dtype outType, int64_t xStride);
};

}  // namespace fastmqa::gpu
