// What a decoder does to its rows besides products and attention: embeddings, norms, activations, sums, soft-caps. Rows are
// `stride` numbers long, of which the first `width` count and the rest are 0, as products want them. The stream that
// the layers add to is f32 whatever the type of the weights: in f16 it would overflow in models that are trained in bf16.
#pragma once
#include "activation.h"

namespace fastmqa::gpu {

constexpr int elementThreads = 256;

struct EmbedProblem {
  Global<const int32_t> tokens;  ///< [rows]
  Global<const uint8_t> table, positions;  ///< [..][stride]; no positions: nothing is added
  Dtype type = Dtype::f16;
  Global<float> out;  ///< [rows][stride]
  int rows = 0, stride = 0, perSequence = 1, firstPosition = 0;
  float scale = 1;
};

FASTMQA_KERNEL(elementThreads, 1) embedKernel(const EmbedProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int64_t unit = static_cast<int64_t>(blockIndex().x) * elementThreads + threadIndex();
  const int64_t row = unit / p.stride, column = unit % p.stride;
  if (row >= p.rows) return;
  float x = loadNumber(p.type, p.table, static_cast<int64_t>(p.tokens[row]) * p.stride + column) * p.scale;
  if (p.positions) x += loadNumber(p.type, p.positions, (p.firstPosition + row % p.perSequence) * p.stride + column);
  p.out[unit] = x;
}

/// y = (x - mean) / sqrt(variance + epsilon) * weight + bias of each row; without `centred` the mean is taken as 0 (RMSNorm).
/// x and y may be the same rows. What is added to x, which is f32 then, is there afterwards.
struct NormProblem {
  Global<const uint8_t> x;
  Global<const uint8_t> added[2];  ///< of the type of y, or nothing
  Global<uint8_t> sum;             ///< x
  Global<uint8_t> y;
  Dtype fromType = Dtype::f32, toType = Dtype::f16;
  Global<const float> weight, bias;  ///< [width]; no bias: nothing is added
  int width = 0, stride = 0;
  bool centred = false;
  float epsilon = 0;
};
/// Sum over a block of `warps` warps; `parts` holds one number a warp.
template <int warps>
FASTMQA_DEVICE float blockSum(float x, Shared<float> parts) {
  FASTMQA_UNROLL
  for (int mask = warpSize_ / 2; mask > 0; mask /= 2) x += shuffleXor(x, mask);
  blockBarrier();  // of the sum before
  if (laneIndex() == 0) parts.store(warpIndex(), x);
  blockBarrier();
  x = 0;
  for (int i = 0; i < warps; i++) x += parts.load(i);
  return x;
}

/// Columns threadIndex(), threadIndex() + threads and so on of a row. The type is asked for once, so that all loads are under way
/// before the first number is needed.
template <int threads, int columns>
FASTMQA_DEVICE void loadColumns(Dtype type, Global<const uint8_t> from, int64_t row, int width, float (&x)[columns]) {
  uint32_t bits[columns];
  FASTMQA_UNROLL
  for (int i = 0; i < columns; i++) {
    const int c = threadIndex() + i * threads;
    bits[i] = c >= width ? 0 : type == Dtype::f32 ? from.load<uint32_t>((row + c) * 4) : from.load<uint16_t>((row + c) * 2);
  }
  FASTMQA_UNROLL
  for (int i = 0; i < columns; i++) x[i] = type == Dtype::f32 ? floatOf(bits[i]) : type == Dtype::f16 ? lowHalf(F16(), bits[i]) : lowHalf(Bf16(), bits[i]);
}

/// A row of at most warps * warpSize_ * columns numbers a block, held in registers: a loop that loads and stores in turn would wait
/// for the memory in each of its rounds.
template <int warps, int columns>
FASTMQA_KERNEL(warps * warpSize_, 1)
normKernel(const NormProblem p) {
  constexpr int threads = warps * warpSize_;
  constexpr bool holdsWeights = columns <= 8;  // more would not fit registers
  SharedCarver carver;
  const auto parts = carver.take<float>(warps);
  const int64_t row = static_cast<int64_t>(blockIndex().x) * p.stride;
  float x[columns], weight[columns], bias[columns];
  const auto each = [&](const auto& act) {
    FASTMQA_UNROLL
    for (int i = 0; i < columns; i++) {
      const int c = threadIndex() + i * threads;
      if (c < p.width) act(i, c);
    }
  };
  releaseFollower();
  if (holdsWeights) each([&](int i, int c) { weight[i] = p.weight.template loadConstant<float>(c); });
  awaitPredecessor();
  loadColumns<threads>(p.fromType, p.x, row, p.width, x);
  if (p.added[0]) {
    constexpr int some = 8;
    FASTMQA_UNROLL
    for (int first = 0; first < columns; first += some)
      FASTMQA_UNROLL
      for (int i = 0; i < 2; i++) {
        if (!p.added[i]) continue;
        float y[some];
        loadColumns<threads>(p.toType, p.added[i], row + first * threads, p.width - first * threads, y);
        FASTMQA_UNROLL
        for (int c = 0; c < some; c++) x[first + c] += y[c];
      }
    each([&](int i, int c) { storeNumber(Dtype::f32, p.sum, row + c, x[i]); });
  }
  if (holdsWeights) each([&](int i, int c) { bias[i] = p.bias ? p.bias[c] : 0; });
  const float width = static_cast<float>(p.width);
  if (p.centred) {
    float sum = 0;
    each([&](int i, int) { sum += x[i]; });
    const float mean = blockSum<warps>(sum, parts) / width;
    each([&](int i, int) { x[i] -= mean; });
  }
  float squares = 0;
  each([&](int i, int) { squares += x[i] * x[i]; });
  const float scale = 1 / sqrtf(blockSum<warps>(squares, parts) / width + p.epsilon);
  each([&](int i, int c) {
    if (!holdsWeights) weight[i] = p.weight[c], bias[i] = p.bias ? p.bias[c] : 0;
    storeNumber(p.toType, p.y, row + c, x[i] * scale * weight[i] + bias[i]);
  });
  for (int c = p.width + threadIndex(); c < p.stride; c += threads) storeNumber(p.toType, p.y, row + c, 0);
}

/// One number a thread, by what is to be done. `y` is read and written.
struct ElementProblem {
  enum Kind : int {
    activate,  ///< y = activation(y)
    gate,      ///< y of a row = activation(first half of a row of x) * the second half
    add,       ///< y += x
    softcap,   ///< y = cap * tanh(y / cap)
    reorder    ///< y of a row = x of the same row at `order`
  } kind = add;
  Global<const uint8_t> x;
  Global<uint8_t> y;
  Dtype xType = Dtype::f16, yType = Dtype::f16;
  int64_t count = 0;
  ActivationKind activation = ActivationKind::silu;
  float cap = 0;
  Global<const int32_t> order;  ///< [width]
  int width = 0, stride = 0;    ///< of y
};

FASTMQA_KERNEL(elementThreads, 1) elementKernel(const ElementProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int64_t i = static_cast<int64_t>(blockIndex().x) * elementThreads + threadIndex();
  if (i >= p.count) return;
  if (p.kind == ElementProblem::reorder) {
    const int64_t column = i % p.stride;
    storeNumber(p.yType, p.y, i, column < p.width ? loadNumber(p.xType, p.x, i - column + p.order[column]) : 0.0f);
    return;
  }
  if (p.kind == ElementProblem::gate) {
    const int64_t at = i / p.stride * 2 * p.stride + i % p.stride;
    storeNumber(p.yType, p.y, i, activated(p.activation, loadNumber(p.xType, p.x, at)) * loadNumber(p.xType, p.x, at + p.stride));
    return;
  }
  const Global<const uint8_t> before(p.y.data(), p.count * (p.yType == Dtype::f32 ? 4 : 2));
  float y = loadNumber(p.yType, before, i);
  if (p.kind == ElementProblem::activate)
    y = activated(p.activation, y);
  else if (p.kind == ElementProblem::add)
    y += loadNumber(p.xType, p.x, i);
  else
    y = p.cap * hyperbolicTangent(y / p.cap);
  storeNumber(p.yType, p.y, i, y);
}

}  // namespace fastmqa::gpu
