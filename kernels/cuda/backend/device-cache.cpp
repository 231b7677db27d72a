// How a layer's caches are written: rows of new tokens, what of them goes where, and what a prompt leaves.
#include <algorithm>
#include <string>

#include "device-layer.h"

namespace fastmqa::gpu {

DeviceLayer::Rows DeviceLayer::rowsOf(const DeviceBlock& x, int64_t sequences, int64_t perSequence, int64_t firstPosition, bool needsExact, bool withQueries) {
  Rows rows;
  const int64_t m = sequences * perSequence;
  rows.perSequence = perSequence;
  if (own_) {
    LatentAttention::Cached cached = own_.cached(x, m);
    rows.keys = std::move(cached.keys), rows.values = std::move(cached.latents);
    return rows;
  }
  const bool makesLatents = isLatent_ && !cachesInput_;
  std::vector<Lane::Product> made;
  if (withQueries) made.push_back({&query_, &rows.queries});
  if (!isLatent_ || needsExact || latentsOfRotatedKeys_) made.push_back({&key_, &rows.keys});
  if (!isLatent_ || needsExact) made.push_back({&value_, &rows.values});
  if (makesLatents && !latentsOfRotatedKeys_) made.push_back({&downKeys_, &rows.latentKeys});
  if (makesLatents && downValues_) made.push_back({&downValues_, &rows.latentValues});
  lane_->multiply(x, m, made);
  if (rows.keys) normaliseHeads(rows.keys, m * kvHeads_, keyNorm_);
  if (cachesInput_) rows.input = &x;
  if (makesLatents && latentsOfRotatedKeys_) {
    rotateRows(rows.keys, m, kvHeads_, perSequence, firstPosition);
    rows.keysAreRotated = true;
    rows.latentKeys = product(rows.keys, m, downKeys_);
  }
  return rows;
}

DeviceLayer::Source DeviceLayer::source(const DeviceBlock& rows, int64_t perSequence, int64_t width, int64_t offset, bool perHead) const {
  Source s;
  const int64_t skipped = bytes(offset * width);
  s.data = static_cast<const uint8_t*>(rows.data()) + skipped;
  s.size = rows.bytes() - skipped;
  s.type = dtype_;
  s.token = width;
  s.batch = perSequence * width;
  s.head = perHead ? headDim_ : 0;
  return s;
}

DeviceLayer::Source DeviceLayer::exactKeys(const Rows& rows, int64_t offset) const {
  Source s = source(rows.keys, rows.perSequence, own_ ? own_.width() : key_.n, offset, true);
  if (own_) s.data += bytes(own_.rank()), s.size -= bytes(own_.rank());
  s.rotate = pairs_ > 0 && !rows.keysAreRotated;
  return s;
}

DeviceLayer::Source DeviceLayer::exactValues(const Rows& rows, int64_t offset) const {
  return source(rows.values, rows.perSequence, own_ ? own_.width() : value_.n, offset, true);
}

DeviceLayer::Source DeviceLayer::bodyKeys(const Rows& rows, int64_t offset) const {
  if (cachesInput_) return source(*rows.input, rows.perSequence, roundUp8(d_), offset, false);
  if (isLatent_) return source(rows.latentKeys, rows.perSequence, downKeys_.n, offset, false);
  Source s = exactKeys(rows, offset);
  s.rotate = s.rotate && !rotatesOnRead_;
  return s;
}

DeviceLayer::Source DeviceLayer::bodyValues(const Rows& rows, int64_t offset) const {
  if (!isLatent_) return exactValues(rows, offset);
  return values_ ? source(rows.latentValues, rows.perSequence, downValues_.n, offset, false) : Source{};
}

void DeviceLayer::point(AppendSide& side, const Source& from, int64_t firstChannel) const {
  const int64_t skipped = firstChannel * (from.type == Dtype::f32 ? 4 : 2);
  side.from = Global<const uint8_t>(from.data + skipped, from.size - skipped);
  side.fromType = from.type;
  side.fromBatch = from.batch, side.fromToken = from.token, side.fromHead = from.head;
  side.rotated = from.rotate;
}

void DeviceLayer::appendExact(const ExactRows& to, const Source& keys, const Source& values, int64_t firstKey, int64_t position, int64_t count) {
  if (count <= 0) return;
  AppendProblem p;
  p.sides[0] = to.side(false);
  p.sides[1] = to.side(true);
  point(p.sides[0], keys, 0);
  point(p.sides[1], values, 0);
  p.batch = static_cast<int>(batch_), p.kvHeads = static_cast<int>(kvHeads_), p.tokens = static_cast<int>(count);
  p.firstKey = static_cast<int>(firstKey), p.length = static_cast<int>(position - firstKey);
  p.cosine = cosines(), p.sine = sines(), p.pairs = static_cast<int>(pairs_), p.interleaved = turnsNeighbours_;
  runtime::check(gpu::append(p, stream_), "starting to append exact tokens");
}

void DeviceLayer::appendBody(const Source& keys, const Source& values, int64_t position, int64_t count) {
  if (count <= 0) return;
  AppendProblem p;
  p.sideCount = 0;
  p.batch = static_cast<int>(batch_), p.kvHeads = static_cast<int>(keys_->heads()), p.tokens = static_cast<int>(count);
  p.firstKey = static_cast<int>(bodyStart()), p.length = static_cast<int>(position - bodyStart());
  p.cosine = cosines(), p.sine = sines(), p.pairs = static_cast<int>(pairs_), p.interleaved = turnsNeighbours_;
  p.firstValid = static_cast<int>(sinks_);
  p.misfits = misfits_.view<int32_t>();
  const auto add = [&](const PageStore& store, const Source& from) {
    for (int64_t i = 0; i < store.bandCount(); i++) {
      AppendSide side = store.side(i);
      point(side, from, store.band(i).firstChannel);
      if (side.scales.sharing == Sharing::channel) {
        AppendProblem alone = p;
        alone.sides[0] = side;
        alone.sideCount = 1;
        runtime::check(gpu::settle(alone, stream_), "starting to quantise groups of tokens");
        continue;
      }
      if (p.sideCount == AppendProblem::mostSides) refuse("expected at most " + std::to_string(AppendProblem::mostSides) + " bands on a GPU");
      p.sides[p.sideCount++] = side;
    }
  };
  if (isOneRow_) {
    p.sides[0] = keys_->part(0, own_.rank()), p.sides[1] = keys_->part(own_.rank(), own_.ropeDim());
    point(p.sides[0], values, 0), point(p.sides[1], keys, 0);
    p.sideCount = 2;
  } else {
    add(*keys_, keys);
    if (values_) add(*values_, values);
  }
  if (p.sideCount > 0) runtime::check(gpu::append(p, stream_), "starting to append tokens");
}

void DeviceLayer::append(const Rows& rows) {
  const int64_t n = rows.perSequence, end = length_ + n;
  const int64_t exact = std::max<int64_t>(0, std::min(n, sinks_ - length_));
  if (exact > 0) {
    if (sinkRows_.capacity() < sinks_) sinkRows_.resize(sinks_, 0, 0);
    appendExact(sinkRows_, exactKeys(rows, 0), exactValues(rows, 0), 0, length_, exact);
  }
  if (isTailed_) {
    tail_.resize(end - tailStart_, 0, length_ - tailStart_);
    appendExact(tail_, bodyKeys(rows, 0), bodyValues(rows, 0), tailStart_, length_, n);
  } else {
    for (PageStore* store : {keys_.get(), values_.get()})
      if (store) store->reserve(end), store->publish();
    appendBody(bodyKeys(rows, 0), bodyValues(rows, 0), length_, n);
  }
  length_ = end;
  laidOut_ = 0;
  if (!isTailed_) settled_ = length_;
}

void DeviceLayer::rollback(int64_t length) {
  length_ = length;
  if (!isTailed_) settled_ = length_;
}

void DeviceLayer::settle() {
  laidOut_ = 0;
  const auto each = [&](auto&& act) {
    act(*keys_);
    if (values_) act(*values_);
  };
  each([&](PageStore& store) { store.dropBefore(oldestOf(length_)); });
  if (isTailed_) {
    const int64_t target = settledAfter(length_);
    settled_ = std::max(settled_, std::min(target, bodyStart()));  // what the window has passed is not written
    if (target > settled_) {
      each([&](PageStore& store) { store.reserve(target), store.publish(); });
      const auto tailSource = [&](bool values) {
        const TokenRows rows = tail_.rows(values);
        const int64_t skipped = (settled_ - tailStart_) * rows.tokenBytes;
        Source s;
        s.data = rows.data.data() + skipped;
        s.size = batch_ * rows.batchBytes - skipped;
        s.type = Dtype::f16;
        s.batch = rows.batchBytes / 2, s.token = rows.tokenBytes / 2, s.head = headDim_;
        return s;
      };
      appendBody(tailSource(false), tailSource(true), settled_, target - settled_);
      settled_ = target;
    }
    const int64_t left = std::max<int64_t>(0, length_ - settled_);
    tail_.resize(left, settled_ - tailStart_, left);
    tailStart_ = settled_;
  }
  each([&](PageStore& store) {
    store.truncate(settled_);
    store.publish();
  });
}

/// Of a cache that has seen so many and nothing else.
int64_t DeviceLayer::settledAfter(int64_t tokens) const {
  return isTailed_ ? std::max<int64_t>(0, tokens - residual_) / tokenGroup_ * tokenGroup_ : tokens;
}

// What the cache holds after a prompt is written at once, from the prompt's own rows; tokens that the window has passed are
// not written.
void DeviceLayer::layOutPrefill(int64_t tokens) {
  for (PageStore* store : {keys_.get(), values_.get()})
    if (store) store->clear();
  length_ = laidOut_ = tokens;
  settled_ = settledAfter(tokens);
  tailStart_ = settled_;
  for (PageStore* store : {keys_.get(), values_.get()})
    if (store) store->dropBefore(oldestOf(length_)), store->reserve(settled_), store->publish();
  if (sinks_ > 0) sinkRows_.resize(sinks_, 0, 0);
  if (isTailed_) tail_.resize(std::max<int64_t>(0, tokens - settled_), 0, 0);
}

/// Writes what layOutPrefill made room for, the same rows into every sequence, again and again.
void DeviceLayer::fillLaidOut(const DeviceBlock& inputs, int64_t chunk) {
  for (int64_t first = 0; first < length_; first += chunk) {
    const int64_t n = std::min(chunk, length_ - first), end = first + n;
    if (first >= sinks_ && end <= bodyStart()) continue;  // the window has passed it
    Rows rows = rowsOf(inputs, 1, n, first, first < sinks_);
    rows.perSequence = 0;
    appendExact(sinkRows_, exactKeys(rows, 0), exactValues(rows, 0), 0, first, std::min(sinks_ - first, n));
    const int64_t body = std::clamp(bodyStart(), first, end), tail = std::clamp(settled_, body, end);
    appendBody(bodyKeys(rows, body - first), bodyValues(rows, body - first), body, tail - body);
    if (isTailed_) appendExact(tail_, bodyKeys(rows, tail - first), bodyValues(rows, tail - first), tailStart_, tail, end - tail);
  }
}

void DeviceLayer::swap(Caches& other) {
  std::swap(keys_, other.keys);
  std::swap(values_, other.values);
  std::swap(sinkRows_, other.sinkRows);
  std::swap(tail_, other.tail);
  std::swap(length_, other.length);
  std::swap(settled_, other.settled);
  std::swap(tailStart_, other.tailStart);
  laidOut_ = 0;
}

}  // namespace fastmqa::gpu
