#include "lane.h"

#include <cstring>
#include <string>
#include <vector>

#include "../launch/cache.h"
#include "../launch/decoder.h"
#include "blas.h"
#include "cpu/codec.h"

namespace fastmqa::gpu {

float numberOf(Dtype type, const uint8_t* from, int64_t i) {
  if (type == Dtype::f32) {
    float x;
    std::memcpy(&x, from + 4 * i, 4);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, from + 2 * i, 2);
  if (type == Dtype::f16) return floatFromHalf(bits);
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}

Lane::Lane(int number, Dtype type) : device(number), limits(runtime::limitsOf(number)), dtype(type), stream(runtime::newStream()) {
  if (dtype == Dtype::bf16 && limits.capability < 80)
    refuse("expected compute capability 8.0 or newer for bf16 but received " + std::to_string(limits.capability / 10) + "." + std::to_string(limits.capability % 10));
  runtime::busAddress(device, address, sizeof(address));
}

Lane::~Lane() {
  try {
    runtime::use(device);
    runtime::finish(stream);
  } catch (...) {
    // A poisoned device has nothing left to finish.
  }
  runtime::endStream(stream);
}

Weights Lane::weightsOf(const AcceleratorMatrix& from, const float* bias, const int64_t* order) {
  Weights w;
  // Whole groups of 8 columns, which the matrix kernel asks for, and as many rows, because the next product's columns are these.
  w.n = roundUp8(from.rows);
  w.k = roundUp8(from.columns);
  std::vector<uint8_t> numbers(static_cast<size_t>(bytes(w.n * w.k)), 0);
  for (int64_t i = 0; i < from.rows; i++)
    for (int64_t c = 0; c < from.columns; c++)
      putFloat(dtype, numbers.data(), i * w.k + c, from.data[i * from.columns + (order ? order[c] : c)]);
  w.data = listOf(numbers.data(), static_cast<int64_t>(numbers.size()));
  if (bias) {
    std::vector<float> added(static_cast<size_t>(w.n), 0.0f);
    std::copy_n(bias, from.rows, added.begin());
    w.bias = listOf(added.data(), w.n);
  }
  return w;
}

ProductProblem Lane::problemOf(const DeviceBlock& x, int64_t m, const Weights& w, const DeviceBlock& out, Dtype outType) const {
  ProductProblem p;
  p.m = static_cast<int>(m), p.n = static_cast<int>(w.n), p.k = static_cast<int>(w.k);
  p.type = dtype, p.outType = outType;
  p.x = x.view<const uint8_t>();
  p.w = w.data->view<const uint8_t>();
  p.y = out.view<uint8_t>();
  if (w.bias) p.bias = w.bias->view<const float>();
  return p;
}

void Lane::multiply(const DeviceBlock& x, int64_t m, const std::vector<Product>& products, Dtype outType, int64_t xStride) {
  constexpr int64_t fewRows = 8;  // our own kernel reads the weights at the memory's speed
  std::vector<ProductProblem> problems;
  for (const Product& product : products) {
    *product.y = DeviceBlock(pool, m * product.w->n * (outType == Dtype::f32 ? 4 : 2));
    problems.push_back(problemOf(x, m, *product.w, *product.y, outType));
    problems.back().xStride = static_cast<int>(xStride);
    if (m > fewRows && blas::multiply(problems.back(), stream)) problems.pop_back();
  }
  if (!problems.empty()) runtime::check(multiplyMatrices(problems.data(), static_cast<int>(problems.size()), limits, stream), "starting a projection");
}

DeviceBlock Lane::gatedProduct(const DeviceBlock& x, int64_t m, const Weights& w, ActivationKind activation) {
  if (gatesInProduct(m, w.k, limits)) {
    DeviceBlock out(pool, bytes(m * w.n));
    runtime::check(multiplyGated(problemOf(x, m, w, out, dtype), activation, limits, stream), "starting a gated projection");
    return out;
  }
  const DeviceBlock gated(pool, bytes(m * w.k));
  ElementProblem p;
  p.kind = ElementProblem::gate;
  p.activation = activation;
  p.x = x.view<const uint8_t>();
  p.y = gated.view<uint8_t>();
  p.xType = p.yType = dtype;
  p.stride = static_cast<int>(w.k);
  p.count = m * w.k;
  runtime::check(eachElement(p, stream), "starting a gate");
  return product(gated, m, w);
}

}  // namespace fastmqa::gpu
