#include "tensors.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "accelerator.h"
#include "math/threads.h"

namespace fastmqa {
namespace {

std::string shapeText(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); i++) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

void expectShape(const char* name, const std::vector<int64_t>& shape, const std::vector<int64_t>& wanted) {
  if (shape != wanted) refuse("expected shape " + shapeText(wanted) + " for " + name + " but received " + shapeText(shape));
}

/// Element stride of each of the four dimensions of a mask under broadcasting.
std::vector<int64_t> broadcastStrides(const std::vector<int64_t>& shape, const std::vector<int64_t>& target) {
  if (shape.size() > 4) refuse("expected a mask of at most 4 dimensions but received " + shapeText(shape));
  std::vector<int64_t> strides(4, 0);
  int64_t step = 1;
  for (size_t i = 0; i < shape.size(); i++) {
    const size_t from = shape.size() - 1 - i, to = 3 - i;
    if (shape[from] != 1 && shape[from] != target[to])
      refuse("expected a mask broadcastable to " + shapeText(target) + " but received " + shapeText(shape));
    strides[to] = shape[from] == 1 ? 0 : step;
    step *= shape[from];
  }
  return strides;
}

float largestAbs(const TensorView<float>& t) {
  float top = 0;
  int64_t n = t ? 1 : 0;
  for (int64_t s : t.shape) n *= s;
  for (int64_t i = 0; i < n; i++) top = std::max(top, std::fabs(t.data[i]));
  return top;
}

double largestNorm(const float* rows, int64_t count, int64_t width) {
  double top = 0;
  for (int64_t r = 0; r < count; r++) {
    double sum = 0;
    for (int64_t c = 0; c < width; c++) sum += static_cast<double>(rows[r * width + c]) * static_cast<double>(rows[r * width + c]);
    top = std::max(top, sum);
  }
  return std::sqrt(top);
}

StoreSpec storeFor(Dtype dtype, int64_t heads, int64_t channels, Layout layout, float largest) {
  StoreSpec spec;
  spec.heads = heads;
  spec.channels = channels;
  spec.bands = {{channels, dtype, false}};
  spec.layout = layout;
  if (dtype == Dtype::e4m3 || dtype == Dtype::e5m2) {  // one exact power of two that brings the tensor into range
    spec.grouping = Grouping::tensor;
    const float top = dtype == Dtype::e4m3 ? 448.0f : 57344.0f;
    if (largest > top || (largest > 0 && largest < 0.25f)) spec.tensorScale = std::exp2(std::ceil(std::log2(largest / top)));
  }
  return spec;
}

/// [batch][rows][columns][width] to [batch][columns][rows][width]
void swapMiddle(const float* from, int64_t batch, int64_t rows, int64_t columns, int64_t width, float* to) {
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++)
        std::copy_n(from + ((b * rows + i) * columns + j) * width, width, to + ((b * columns + j) * rows + i) * width);
}

/// @param gather  fills keys and values of a sequence, [total][kvHeads][channels]
template <class Gather>
void attendOnDevice(const TensorAttention& r, const CacheSpec& spec, const AttentionShape& shape, const std::vector<float>& q, const Gather& gather, int64_t total,
                    TensorAttentionResult& result) {
  const int64_t batch = r.q.shape[0], queries = r.q.shape[2], keyWidth = spec.kvHeads * spec.keyDim, valueWidth = spec.kvHeads * spec.valueDim;
  std::vector<float> tokenQueries(q.size()), out(result.out.size()), keys(result.presentK.size()), values(result.presentV.size());
  std::vector<float> presentK(keys.size()), presentV(values.size());
  swapMiddle(q.data(), batch, shape.heads, queries, spec.keyDim, tokenQueries.data());
  for (int64_t b = 0; b < batch; b++) gather(b, keys.data() + b * total * keyWidth, values.data() + b * total * valueWidth);
  std::vector<AcceleratorBand> keyBands, valueBands;
  Technique cached;
  cached.keyDtype = cached.valueDtype = r.cacheDtype;
  AcceleratorTensors t{};
  t.batch = batch, t.heads = shape.heads, t.keyDim = spec.keyDim, t.valueDim = spec.valueDim, t.queryTokens = queries, t.tokens = total;
  t.dtype = static_cast<int32_t>(numberType(cached));
  t.keys = storeOf(spec.keys, keyBands), t.values = storeOf(*spec.values, valueBands);
  t.position = total - queries;
  t.left = shape.left == unlimited ? -1 : shape.left, t.right = shape.right == unlimited ? -1 : shape.right, t.sinks = shape.sinks;
  t.scale = shape.scale, t.softcap = shape.softcap;
  t.q = tokenQueries.data(), t.k = keys.data(), t.v = values.data();
  t.out = out.data(), t.presentK = presentK.data(), t.presentV = presentV.data();
  check(cudaLibrary(), cudaLibrary().attendTensors(r.device, &t));
  swapMiddle(out.data(), batch, queries, shape.heads, spec.valueDim, result.out.data());
  swapMiddle(presentK.data(), batch, total, spec.kvHeads, spec.keyDim, result.presentK.data());
  swapMiddle(presentV.data(), batch, total, spec.kvHeads, spec.valueDim, result.presentV.data());
}

}  // namespace

TensorAttentionResult attendTensors(const TensorAttention& r, const CancelFlag* cancel) {
  if (r.q.shape.size() != 4) refuse("expected shape [B, H, Sq, D] for q but received " + shapeText(r.q.shape));
  if (r.k.shape.size() != 4) refuse("expected shape [B, G, Skv, D] for k but received " + shapeText(r.k.shape));
  if (r.v.shape.size() != 4) refuse("expected shape [B, G, Skv, Dv] for v but received " + shapeText(r.v.shape));
  const int64_t batch = r.q.shape[0], heads = r.q.shape[1], queries = r.q.shape[2], d = r.q.shape[3];
  const int64_t kvHeads = r.k.shape[1], fresh = r.k.shape[2], dv = r.v.shape[3];
  expectShape("k", r.k.shape, {batch, kvHeads, fresh, d});
  expectShape("v", r.v.shape, {batch, kvHeads, fresh, dv});
  if (kvHeads < 1 || heads < 1 || heads % kvHeads)
    refuse("expected query heads that are a multiple of the KV heads but received " + std::to_string(heads) + " and " + std::to_string(kvHeads));
  if (d < 1 || dv < 1) refuse("expected head sizes of at least 1 but received " + std::to_string(d) + " and " + std::to_string(dv));
  if (static_cast<bool>(r.pastK) != static_cast<bool>(r.pastV)) refuse("expected past_k and past_v together but received one of them");
  const int64_t past = r.pastK ? (r.pastK.shape.size() == 4 ? r.pastK.shape[2] : -1) : 0;
  if (r.pastK) {
    expectShape("past_k", r.pastK.shape, {batch, kvHeads, past, d});
    expectShape("past_v", r.pastV.shape, {batch, kvHeads, past, dv});
  }
  const int64_t total = past + fresh;

  // Rotary embedding of the new tokens.
  RopeTable rope;
  Arena arena;
  if (static_cast<bool>(r.cosine) != static_cast<bool>(r.sine)) refuse("expected cos and sin together but received one of them");
  if (r.cosine) {
    if (r.cosine.shape.size() != 2) refuse("expected shape [positions, pairs] for cos but received " + shapeText(r.cosine.shape));
    expectShape("sin", r.sine.shape, r.cosine.shape);
    if (2 * r.cosine.shape[1] > d) refuse("expected at most " + std::to_string(d / 2) + " rotary pairs in cos but received " + std::to_string(r.cosine.shape[1]));
    rope = RopeTable(arena, r.cosine.shape[0], r.cosine.shape[1], r.cosine.data, r.sine.data, r.interleaved);
  }
  const auto rotated = [&](const TensorView<float>& x, int64_t tokens, int64_t offset, const char* name) {
    int64_t n = 1;
    for (int64_t s : x.shape) n *= s;
    std::vector<float> out(x.data, x.data + n);
    if (!rope) return out;
    int64_t stride = 0;
    if (r.positionIds) {
      const auto& shape = r.positionIds.shape;
      if (shape.size() == 1 || shape.size() == 2) stride = shape.back();
      const bool fits = (shape.size() == 1 || (shape.size() == 2 && (shape[0] == batch || shape[0] == 1))) && stride >= tokens && (stride == queries || stride == fresh);
      if (!fits) refuse("expected shape [B, S] for position_ids with a row for each of the " + std::to_string(tokens) + " tokens of " + name + " but received " + shapeText(shape));
    }
    const int64_t rows = x.shape[0] * x.shape[1] * tokens, perBatch = x.shape[1] * tokens;
    for (int64_t row = 0; row < rows; row++) {
      const int64_t t = row % tokens, b = row / perBatch;
      const int64_t line = r.positionIds && r.positionIds.shape.size() == 2 && r.positionIds.shape[0] > 1 ? b : 0;
      const int64_t position = r.positionIds ? r.positionIds.data[line * stride + stride - tokens + t] : offset + t;
      if (position < 0 || position >= rope.positions())
        refuse("expected positions of 0 to " + std::to_string(rope.positions() - 1) + " for " + name + " but received " + std::to_string(position));
      rope.rotate(out.data() + row * d, position);
    }
    return out;
  };
  const std::vector<float> q = rotated(r.q, queries, total - queries, "q");
  const std::vector<float> k = rotated(r.k, fresh, past, "k");

  CacheSpec spec;
  spec.kvHeads = kvHeads;
  spec.keyDim = d;
  spec.valueDim = dv;
  spec.keys = storeFor(r.cacheDtype, kvHeads, d, Layout::channelRows, std::max(largestAbs(r.k), largestAbs(r.pastK)));
  spec.values = storeFor(r.cacheDtype, kvHeads, dv, Layout::tokenRows, std::max(largestAbs(r.v), largestAbs(r.pastV)));

  AttentionShape shape;
  shape.heads = heads;
  shape.kvHeads = kvHeads;
  shape.keyDim = d;
  shape.valueDim = dv;
  shape.scale = static_cast<float>(r.scale != 0 ? r.scale : 1 / std::sqrt(static_cast<double>(d)));
  shape.softcap = static_cast<float>(r.softcap);
  shape.left = r.windowLeft >= 0 ? r.windowLeft : unlimited;
  shape.right = r.causal ? 0 : r.windowRight >= 0 ? r.windowRight : unlimited;
  shape.sinks = r.sinks;
  // |logit| can reach scale * |q| * |k|; above this bound f32 logits lose the digits that the result needs.
  constexpr double wideBound = 24;
  const double keyNorm = std::max(largestNorm(k.data(), batch * kvHeads * fresh, d), r.pastK ? largestNorm(r.pastK.data, batch * kvHeads * past, d) : 0);
  shape.wideScores = std::fabs(static_cast<double>(shape.scale)) * largestNorm(q.data(), batch * heads * queries, d) * keyNorm > wideBound;

  std::vector<int64_t> strides(4, 0);
  const std::vector<int64_t> maskTarget{batch, heads, queries, total};
  if (r.additiveMask) strides = broadcastStrides(r.additiveMask.shape, maskTarget);
  if (r.booleanMask) strides = broadcastStrides(r.booleanMask.shape, maskTarget);

  TensorAttentionResult result;
  result.out.assign(static_cast<size_t>(batch * heads * queries * dv), 0.0f);
  result.presentK.assign(static_cast<size_t>(batch * kvHeads * total * d), 0.0f);
  result.presentV.assign(static_cast<size_t>(batch * kvHeads * total * dv), 0.0f);
  // The past and the new tokens of a sequence, token by token.
  const auto gather = [&](int64_t b, float* keys, float* values) {
    for (int64_t g = 0; g < kvHeads; g++)
      for (int64_t t = 0; t < total; t++) {
        const bool old = t < past;
        const int64_t from = old ? (b * kvHeads + g) * past + t : (b * kvHeads + g) * fresh + t - past;
        std::copy_n((old ? r.pastK.data : k.data()) + from * d, d, keys + (t * kvHeads + g) * d);
        std::copy_n((old ? r.pastV.data : r.v.data) + from * dv, dv, values + (t * kvHeads + g) * dv);
      }
  };
  if (r.device >= 0) {
    if (r.additiveMask || r.booleanMask) refuse("masks run on the CPU only");
    if (r.naive) refuse("the naive kernel runs on the CPU only");
    if (total > 0) attendOnDevice(r, spec, shape, q, gather, total, result);
    return result;
  }
  std::vector<std::unique_ptr<SequenceCache>> caches;
  std::vector<SequenceQueries> sequences;
  for (int64_t b = 0; b < batch; b++) {
    caches.push_back(std::make_unique<SequenceCache>(arena, spec));
    std::vector<float> keys(static_cast<size_t>(total * kvHeads * d)), values(static_cast<size_t>(total * kvHeads * dv));
    gather(b, keys.data(), values.data());
    if (total > 0) caches.back()->append(total, {keys.data(), values.data(), keys.data(), values.data(), kvHeads * d, kvHeads * dv});
    for (int64_t g = 0; g < kvHeads && total > 0; g++)
      caches.back()->readBack(g, 0, total, result.presentK.data() + (b * kvHeads + g) * total * d, result.presentV.data() + (b * kvHeads + g) * total * dv);
    MaskView mask;
    if (r.additiveMask) mask.additive = r.additiveMask.data + b * strides[0];
    if (r.booleanMask) mask.boolean = r.booleanMask.data + b * strides[0];
    mask.headStride = strides[1];
    mask.queryStride = strides[2];
    mask.keyStride = strides[3];
    sequences.push_back({caches.back().get(), q.data() + b * heads * queries * d, queries, total - queries, d, queries * d,
                         result.out.data() + b * heads * queries * dv, dv, queries * dv, mask});
  }
  if (total > 0) attend(shape, sequences, nullptr, nullptr, r.naive ? Kernel::naive : Kernel::flash, cancel);
  return result;
}

}  // namespace fastmqa
