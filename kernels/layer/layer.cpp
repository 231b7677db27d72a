#include "layer.h"

#include <algorithm>
#include <cmath>

#include "math/threads.h"
#include "simd/simd.h"

namespace fastmqa {
namespace {

constexpr int64_t fillChunk = 256;  // tokens appended between settlements: bounds what a window keeps too long

void addBias(float* rows, int64_t count, const std::vector<float>& bias) {
  if (bias.empty()) return;
  for (int64_t i = 0; i < count * static_cast<int64_t>(bias.size()); i++) rows[i] += bias[static_cast<size_t>(i) % bias.size()];
}

/// RMSNorm of every head; heads [count][weight.size()].
void normaliseHeads(float* heads, int64_t count, const std::vector<float>& weight, double epsilon) {
  if (weight.empty()) return;
  const auto n = static_cast<int64_t>(weight.size());
  for (float* head = heads; head < heads + count * n; head += n) {
    double squares = 0;
    for (int64_t c = 0; c < n; c++) squares += static_cast<double>(head[c]) * static_cast<double>(head[c]);
    const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + epsilon));
    for (int64_t c = 0; c < n; c++) head[c] *= scale * weight[static_cast<size_t>(c)];
  }
}

}  // namespace

// Keys computed from the layer input, or cached before the rotary embedding, are rotated when they are read.
bool AttentionLayer::rotatesOnRead() const {
  return rope_ && (technique_.keysBeforeRope || technique_.cacheKind == CacheKind::input);
}

AttentionShape AttentionLayer::shape() const {
  AttentionShape s;
  s.heads = weights_.heads;
  s.kvHeads = weights_.kvHeads;
  s.keyDim = s.valueDim = weights_.headDim;
  s.scale = weights_.scale > 0 ? static_cast<float>(weights_.scale) : 1 / std::sqrt(static_cast<float>(weights_.headDim));
  s.softcap = static_cast<float>(weights_.softcap);
  if (technique_.window > 0) s.left = technique_.window - 1;
  s.sinks = technique_.sinks;
  return s;
}

AttentionShape AttentionLayer::ownShape() const {
  AttentionShape s = shape();
  s.kvHeads = 1;
  s.keyDim = own_->rank() + own_->ropeDim();
  s.valueDim = own_->rank();
  return s;
}

void AttentionLayer::rotateRows(float* rows, int64_t count, int64_t heads, int64_t firstPosition, int64_t perSequence) const {
  if (!rope_) return;
  // In latent attention the channels at the end of a query rotate.
  const int64_t skipped = own_ ? weights_.headDim - own_->ropeDim() : 0;
  parallelFor(count, [&](int64_t t) {
    for (int64_t h = 0; h < heads; h++) rope_.rotate(rows + (t * heads + h) * weights_.headDim + skipped, firstPosition + t % perSequence);
  });
}

void AttentionLayer::rotateOwnKeys(float* keys, int64_t count, int64_t firstPosition, int64_t perSequence) const {
  parallelFor(count, [&](int64_t t) { rope_.rotate(keys + t * own_->ropeDim(), firstPosition + t % perSequence); });
}

void AttentionLayer::hadamardRows(float* rows, int64_t count, int64_t heads) const {
  const int64_t n = weights_.headDim;
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  parallelFor(count, [&](int64_t t) {
    for (int64_t h = 0; h < heads; h++) {
      float* x = rows + (t * heads + h) * n;
      for (int64_t width = 1; width < n; width *= 2)
        for (int64_t i = 0; i < n; i += 2 * width)
          for (int64_t j = i; j < i + width; j++) {
            const float a = x[j], b = x[j + width];
            x[j] = a + b;
            x[j + width] = a - b;
          }
      for (int64_t i = 0; i < n; i++) x[i] *= scale;
    }
  });
}

void AttentionLayer::project(const float* x, int64_t rows, Buffer<float>* queries, Buffer<float>* keys, Buffer<float>* values) const {
  std::vector<Product> products;
  const auto want = [&](const PackedWeights& w, Buffer<float>* out) {
    if (!out) return;
    *out = Buffer<float>(*arena_, rows * w.rows());
    products.push_back({w, out->data(), w.rows()});
  };
  want(q_, queries);
  want(k_, keys);
  want(v_, values);
  multiply(products, rows, x, d_);
  if (queries) {
    addBias(queries->data(), rows, weights_.bq);
    normaliseHeads(queries->data(), rows * weights_.heads, weights_.queryNorm, weights_.normEpsilon);
  }
  if (keys) {
    addBias(keys->data(), rows, weights_.bk);
    normaliseHeads(keys->data(), rows * weights_.kvHeads, weights_.keyNorm, weights_.normEpsilon);
  }
  if (values) addBias(values->data(), rows, weights_.bv);
}

Buffer<float> AttentionLayer::productOf(const PackedWeights& w, const float* x, int64_t rows, int64_t ldx) const {
  Buffer<float> out(*arena_, rows * w.rows());
  w.multiply(rows, x, ldx, out.data(), w.rows());
  return out;
}

void AttentionLayer::projectOutput(const float* mixed, int64_t rows, float* y) const {
  o_.multiply(rows, mixed, o_.columns(), y, d_);
  addBias(y, rows, weights_.bo);
}

AttentionLayer::Rows AttentionLayer::rowsFor(const float* x, int64_t tokens, int64_t firstPosition, int64_t perSequence, bool withQueries) const {
  Rows rows;
  const auto addOffset = [](Buffer<float>& to, const Buffer<float>& offset) {
    for (int64_t i = 0; i < to.size(); i++) to[i] += offset[i % offset.size()];
  };
  if (own_) {
    rows.keys = Buffer<float>(*arena_, tokens * own_->ropeDim());
    rows.values = Buffer<float>(*arena_, tokens * own_->rank());
    own_->cached(x, tokens, rows.values.data(), rows.keys.data());
    if (!technique_.keysBeforeRope) rotateOwnKeys(rows.keys.data(), tokens, firstPosition, perSequence);
    return rows;
  }
  if (!latent_) {
    project(x, tokens, withQueries ? &rows.queries : nullptr, &rows.keys, &rows.values);
    if (!technique_.keysBeforeRope) rotateRows(rows.keys.data(), tokens, weights_.kvHeads, firstPosition, perSequence);
    if (technique_.hadamard) {
      hadamardRows(rows.keys.data(), tokens, weights_.kvHeads);
      hadamardRows(rows.values.data(), tokens, weights_.kvHeads);
    }
    return rows;
  }
  if (technique_.cacheKind == CacheKind::input) {
    rows.latentKeys = Buffer<float>(*arena_, tokens * d_);
    parallelFor(tokens, [&](int64_t t) {
      for (int64_t i = 0; i < d_; i++) rows.latentKeys[t * d_ + i] = x[t * d_ + channelOrder_[static_cast<size_t>(i)]];
    });
  } else {
    if (downKeys_.columns() == d_ && (technique_.keysBeforeRope || !rope_)) {
      rows.latentKeys = productOf(downKeys_, x, tokens, d_);
    } else {
      Buffer<float> keys;
      project(x, tokens, nullptr, &keys, nullptr);
      rotateRows(keys.data(), tokens, weights_.kvHeads, firstPosition, perSequence);
      rows.latentKeys = productOf(downKeys_, keys.data(), tokens, keyWidth_);
    }
    addOffset(rows.latentKeys, biasKeys_);
    if (!maps_.joint) {
      rows.latentValues = productOf(downValues_, x, tokens, d_);
      addOffset(rows.latentValues, biasValues_);
    }
  }
  const int64_t sinks = std::min(tokens, technique_.sinks - firstPosition);
  if (sinks > 0) {
    project(x, sinks, nullptr, &rows.sinkKeys, &rows.sinkValues);
    rotateRows(rows.sinkKeys.data(), sinks, weights_.kvHeads, firstPosition, sinks);
  }
  return rows;
}

void AttentionLayer::appendRows(SequenceCache& cache, const Rows& rows, int64_t offset, int64_t tokens) const {
  CacheRows r{};
  if (!latent_) {
    r.keyStride = own_ ? own_->ropeDim() : keyWidth_;
    r.valueStride = own_ ? own_->rank() : keyWidth_;
    r.bodyKeys = r.exactKeys = rows.keys.data() + offset * r.keyStride;
    r.bodyValues = r.exactValues = rows.values.data() + offset * r.valueStride;
  } else {
    r.keyStride = maps_.keyRank;
    r.valueStride = maps_.valueRank;
    r.bodyKeys = rows.latentKeys.data() + offset * r.keyStride;
    r.bodyValues = rows.latentValues.data() ? rows.latentValues.data() + offset * r.valueStride : nullptr;
    if (rows.sinkKeys.data()) {
      r.exactKeys = rows.sinkKeys.data() + offset * keyWidth_;
      r.exactValues = rows.sinkValues.data() + offset * keyWidth_;
    }
  }
  cache.append(tokens, r);
}

void AttentionLayer::fill(SequenceCache& cache, const float* x, int64_t tokens, bool settle) const {
  for (int64_t done = 0; done < tokens;) {
    const int64_t n = std::min(fillChunk, tokens - done);
    if (cancel_) cancel_->check();
    appendRows(cache, rowsFor(x + done * d_, n, cache.length(), n), 0, n);
    if (settle) cache.settle();
    done += n;
  }
}

void AttentionLayer::attendAt(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition,
                              int64_t tokens, float* y) const {
  if (own_) return attendOwn(caches, x, firstPosition, tokens, y);
  Buffer<float> q;
  project(x, static_cast<int64_t>(caches.size()) * tokens, &q, nullptr, nullptr);
  attendFrom(caches, q, firstPosition, tokens, y);
}

void AttentionLayer::attendFrom(const std::vector<SequenceCache*>& caches, Buffer<float>& q, int64_t firstPosition, int64_t tokens,
                                float* y) const {
  const auto batch = static_cast<int64_t>(caches.size()), rows = batch * tokens;
  Buffer<float> mixed(*arena_, rows * queryWidth_);
  std::vector<SequenceQueries> queries;
  for (int64_t b = 0; b < batch; b++) {
    SequenceCache* cache = caches[static_cast<size_t>(b)];
    rotateRows(q.data() + b * tokens * queryWidth_, tokens, weights_.heads, firstPosition, tokens);
    queries.push_back({cache, q.data() + b * tokens * queryWidth_, tokens, firstPosition, queryWidth_, weights_.headDim,
                       mixed.data() + b * tokens * queryWidth_, queryWidth_, weights_.headDim, {}});
  }
  if (technique_.hadamard) hadamardRows(q.data(), rows, weights_.heads);
  attend(shape(), queries, latent_ ? &maps_ : nullptr, rotatesOnRead() ? &rope_ : nullptr,
         technique_.naiveKernel ? Kernel::naive : Kernel::flash, cancel_);
  if (technique_.hadamard) hadamardRows(mixed.data(), rows, weights_.heads);
  projectOutput(mixed.data(), rows, y);
}

void AttentionLayer::attendOwn(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition, int64_t tokens,
                               float* y) const {
  const auto rows = static_cast<int64_t>(caches.size()) * tokens;
  const AttentionShape shape = ownShape();
  const int64_t queryStride = shape.heads * shape.keyDim, outStride = shape.heads * shape.valueDim;
  Buffer<float> plain = own_->queries(x, rows), mixed(*arena_, rows * outStride);
  rotateRows(plain.data(), rows, shape.heads, firstPosition, tokens);
  const Buffer<float> q = own_->absorbed(plain.data(), rows);
  std::vector<SequenceQueries> queries;
  for (size_t b = 0; b < caches.size(); b++) {
    const int64_t first = static_cast<int64_t>(b) * tokens;
    queries.push_back({caches[b], q.data() + first * queryStride, tokens, firstPosition, queryStride, shape.keyDim,
                       mixed.data() + first * outStride, outStride, shape.valueDim, {}});
  }
  attend(shape, queries, &maps_, rotatesOnRead() ? &rope_ : nullptr, Kernel::flash, cancel_);
  projectOutput(own_->valuesOfMixtures(mixed.data(), rows).data(), rows, y);
}

void AttentionLayer::step(const std::vector<SequenceCache*>& caches, const float* x, int64_t tokens, float* y) const {
  const auto batch = static_cast<int64_t>(caches.size());
  const int64_t position = caches[0]->length();
  for (const SequenceCache* cache : caches)
    if (cache->length() != position) refuse("expected caches of equal length for one step");
  if (position >= technique_.sinks) {  // one projection serves the whole batch
    Rows all = rowsFor(x, batch * tokens, position, tokens, true);
    for (int64_t b = 0; b < batch; b++) appendRows(*caches[static_cast<size_t>(b)], all, b * tokens, tokens);
    if (all.queries.size() > 0) return attendFrom(caches, all.queries, position, tokens, y);
  } else {
    for (int64_t b = 0; b < batch; b++)
      appendRows(*caches[static_cast<size_t>(b)], rowsFor(x + b * tokens * d_, tokens, position, tokens), 0, tokens);
  }
  attendAt(caches, x, position, tokens, y);
}

void AttentionLayer::prefill(SequenceCache& cache, const float* x, int64_t tokens, float* y) const {
  const Rows rows = rowsFor(x, tokens, 0, tokens);
  // Full-precision keys and values in the tiles that the kernel reads; workspace, not cache.
  Buffer<float> rebuiltKeys, rebuiltValues;
  const float *keys = rows.keys.data(), *values = rows.values.data();
  const int64_t queryHeads = weights_.heads, kvHeads = own_ ? queryHeads : weights_.kvHeads, keyDim = weights_.headDim;
  const int64_t valueDim = own_ ? own_->valueDim() : keyDim;
  if (own_) {  // for many queries keys and values of every head are cheaper than a way through the latent
    rebuiltKeys = Buffer<float>(*arena_, tokens * kvHeads * keyDim);
    rebuiltValues = Buffer<float>(*arena_, tokens * kvHeads * valueDim);
    Buffer<float> rotated(*arena_, rows.keys.size());
    std::copy_n(rows.keys.data(), rows.keys.size(), rotated.data());
    if (technique_.keysBeforeRope) rotateOwnKeys(rotated.data(), tokens, 0, tokens);
    own_->expand(rows.values.data(), rotated.data(), tokens, rebuiltKeys.data(), rebuiltValues.data());
    keys = rebuiltKeys.data();
    values = rebuiltValues.data();
  }
  if (latent_) {
    const bool input = technique_.cacheKind == CacheKind::input;
    if (input) {
      project(x, tokens, nullptr, &rebuiltKeys, &rebuiltValues);
    } else {
      rebuiltKeys = productOf(upKeysPacked_, rows.latentKeys.data(), tokens, maps_.keyRank);
      rebuiltValues = productOf(upValuesPacked_, maps_.joint ? rows.latentKeys.data() : rows.latentValues.data(), tokens, maps_.valueRank);
      for (int64_t i = 0; i < rebuiltKeys.size(); i++) rebuiltKeys[i] += meanKeys_[i % keyWidth_];
      for (int64_t i = 0; i < rebuiltValues.size(); i++) rebuiltValues[i] += meanValues_[i % keyWidth_];
    }
    if (rotatesOnRead()) rotateRows(rebuiltKeys.data(), tokens, weights_.kvHeads, 0, tokens);
    if (rows.sinkKeys.data()) {
      std::copy_n(rows.sinkKeys.data(), rows.sinkKeys.size(), rebuiltKeys.data());
      std::copy_n(rows.sinkValues.data(), rows.sinkValues.size(), rebuiltValues.data());
    }
    keys = rebuiltKeys.data();
    values = rebuiltValues.data();
  }
  CacheSpec exact;
  exact.kvHeads = exact.keys.heads = kvHeads;
  exact.keyDim = exact.keys.channels = keyDim;
  exact.keys.bands = {{keyDim, Dtype::f32}};
  exact.values = exact.keys;
  exact.valueDim = exact.values->channels = valueDim;
  exact.values->bands = {{valueDim, Dtype::f32}};
  exact.values->layout = Layout::tokenRows;
  SequenceCache full(*arena_, exact);
  full.append(tokens, {keys, values, nullptr, nullptr, kvHeads * keyDim, kvHeads * valueDim});

  Buffer<float> q, mixed(*arena_, tokens * queryHeads * valueDim);
  if (own_)
    q = own_->queries(x, tokens);
  else
    project(x, tokens, &q, nullptr, nullptr);
  rotateRows(q.data(), tokens, queryHeads, 0, tokens);
  if (technique_.hadamard) hadamardRows(q.data(), tokens, queryHeads);
  AttentionShape s = shape();
  s.kvHeads = kvHeads;
  s.valueDim = valueDim;
  attend(s, {{&full, q.data(), tokens, 0, queryHeads * keyDim, keyDim, mixed.data(), queryHeads * valueDim, valueDim, {}}},
         nullptr, !latent_ && !own_ && rotatesOnRead() ? &rope_ : nullptr,
         technique_.naiveKernel ? Kernel::naive : Kernel::flash, cancel_);
  if (technique_.hadamard) hadamardRows(mixed.data(), tokens, weights_.heads);
  projectOutput(mixed.data(), tokens, y);
  for (int64_t done = 0; done < tokens; done += fillChunk) {
    appendRows(cache, rows, done, std::min(fillChunk, tokens - done));
    cache.settle();
  }
}

LayerNumbers AttentionLayer::numbers() const {
  const LayerWeights& w = weights_;
  if (w.rope.interleaved && !own_) refuse("layers whose rotary embedding turns neighbouring channels run on the CPU only");
  LayerNumbers n;
  n.shape = shape();
  n.cache = cacheSpec_;
  const auto matrix = [](const PackedWeights& from) { return LayerMatrix{from.unpacked(), from.rows(), from.columns()}; };
  n.query = matrix(own_ ? own_->queryWeights() : q_);
  if (own_) n.own = own_->numbers();
  if (!own_) n.key = matrix(k_), n.value = matrix(v_);
  n.output = matrix(o_);
  n.queryBias = w.bq, n.keyBias = w.bk, n.valueBias = w.bv, n.outputBias = w.bo;
  n.queryNorm = w.queryNorm, n.keyNorm = w.keyNorm;
  n.normEpsilon = w.normEpsilon;
  n.isLatent = latent_;
  n.cachesInput = technique_.cacheKind == CacheKind::input;
  n.rotatesOnRead = rotatesOnRead();
  n.turnsNeighbours = w.rope.interleaved;
  n.inputOrder = channelOrder_;
  const auto list = [](const Buffer<float>& from) { return std::vector<float>(from.data(), from.data() + from.size()); };
  if (latent_ && !n.cachesInput) {
    n.latentsOfRotatedKeys = rope_ && !technique_.keysBeforeRope;
    n.downKeys = matrix(downKeys_);
    n.upKeys = matrix(upKeysPacked_);
    n.upValues = matrix(upValuesPacked_);
    n.biasKeys = list(biasKeys_);
    n.meanKeys = list(meanKeys_);
    n.meanValues = list(meanValues_);
    if (!maps_.joint) {
      n.downValues = matrix(downValues_);
      n.biasValues = list(biasValues_);
    }
  }
  if (rope_) {
    n.rotaryPairs = rope_.pairs();
    n.positions = rope_.positions();
    n.cosine = list(rope_.cosine());
    n.sine = list(rope_.sine());
  }
  return n;
}

Work AttentionLayer::prefillWork(int64_t batch, int64_t tokens, int64_t numberBytes, int64_t weightBytes) const {
  const auto b = static_cast<double>(batch), s = static_cast<double>(tokens), d = static_cast<double>(d_);
  const auto qw = static_cast<double>(queryWidth_), kw = static_cast<double>(keyWidth_);
  const auto rk = static_cast<double>(maps_.keyRank), rv = static_cast<double>(maps_.valueRank);
  const double seen = technique_.window > 0 && technique_.window < tokens
                          ? static_cast<double>(technique_.window) * (s - static_cast<double>(technique_.window) / 2)
                          : s * s / 2;
  if (own_) {
    const auto heads = static_cast<double>(weights_.heads), dims = static_cast<double>(weights_.headDim + own_->valueDim());
    Work w;
    w.flops = b * (s * 2 * (own_->projectionWeights() + own_->expandedWeights() + d * static_cast<double>(o_.columns())) + 2 * heads * dims * seen);
    w.bytes = static_cast<double>(weightBytes) + b * s * (2 * d + qw) * static_cast<double>(numberBytes);
    w.tokens = batch * tokens;
    return w;
  }
  double perToken = 2 * d * qw * 2;  // q and o
  if (!latent_ || technique_.cacheKind == CacheKind::input)
    perToken += 2 * d * kw * 2;
  else if (maps_.joint)
    perToken += 2 * d * rk + 2 * 2 * kw * rk;
  else
    perToken += (maps_.absorbed && rope_ ? 2 * d * kw + 2 * kw * rk : 2 * d * rk) + 2 * d * rv + 2 * kw * (rk + rv);
  Work w;
  w.flops = b * (s * perToken + 4 * qw * seen);
  w.bytes = static_cast<double>(weightBytes) + b * s * (2 * d + qw) * static_cast<double>(numberBytes);
  w.tokens = batch * tokens;
  return w;
}

Work AttentionLayer::stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes, int64_t numberBytes) const {
  const double rows = static_cast<double>(batch * tokens), keys = static_cast<double>(batch * cached);
  const auto d = static_cast<double>(d_), qw = static_cast<double>(queryWidth_), kw = static_cast<double>(keyWidth_);
  const auto rk = static_cast<double>(maps_.keyRank), rv = static_cast<double>(maps_.valueRank);
  const auto heads = static_cast<double>(weights_.heads), dim = static_cast<double>(weights_.headDim);
  const double pairs = keys * static_cast<double>(tokens) * heads;  // (query head, key) pairs
  Work w;
  w.tokens = batch * tokens;
  if (own_) {
    const double weights = own_->projectionWeights() + own_->absorbedWeights() + d * static_cast<double>(o_.columns());
    w.flops = rows * 2 * weights + 2 * pairs * (2 * rv + rk);
    w.bytes = weights * static_cast<double>(numberBytes) + static_cast<double>(cacheBytes);
    return w;
  }
  w.flops = rows * 2 * d * qw * 2;
  if (!latent_)
    w.flops += rows * 4 * d * kw + 4 * pairs * dim;
  else if (maps_.absorbed)
    w.flops += rows * 2 * d * (rk + rv) + 2 * pairs * (rk + rv);
  else
    w.flops += (technique_.cacheKind == CacheKind::input ? 0 : rows * 2 * d * (rk + (maps_.joint ? 0 : rv))) + keys * 2 * kw * rk + 2 * pairs * (dim + rv);
  const double projections = (2 * d * qw + (latent_ ? 0 : 2 * d * kw)) * static_cast<double>(numberBytes);
  w.bytes = projections + static_cast<double>(cacheBytes);
  return w;
}

}  // namespace fastmqa
