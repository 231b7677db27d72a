#include "device-layer.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "cpu/codec.h"

namespace fastmqa::gpu {
namespace {

constexpr int64_t fillChunk = 256;  // tokens appended between settlements, as on the CPU
int64_t pagesFor(int64_t tokens) { return (tokens + pageTokens - 1) / pageTokens; }
/// Numbers of one type, as they are.
bool areAlikeFloats(const AcceleratorStore& a, const AcceleratorStore& b) {
  return a.bandCount == 1 && b.bandCount == 1 && a.bands[0].dtype == b.bands[0].dtype && bitsOf(static_cast<Dtype>(a.bands[0].dtype)) >= 16;
}
}  // namespace

LayerWeights::LayerWeights(std::shared_ptr<Lane> shared, const AcceleratorLayer& from) : lane_(std::move(shared)) {
  Lane& lane = *lane_;
  for (const int64_t width : {from.heads * from.headDim, from.kvHeads * from.headDim})  // rows of the next product, and 16-byte copies
    if (width % 8) refuse("expected heads whose channels add up to a multiple of 8 on a GPU but received " + std::to_string(width));
  const int64_t* order = from.inputOrder;
  const int64_t before = lane.pool.currentBytes();
  if (from.latent.rank > 0) {
    own_ = LatentAttention(lane, from);
  } else {
    query_ = lane.weightsOf(from.query, from.queryBias, order);
    key_ = lane.weightsOf(from.key, from.keyBias, order);
    value_ = lane.weightsOf(from.value, from.valueBias, order);
  }
  output_ = lane.weightsOf(from.output, from.outputBias);
  plainWeightBytes_ = lane.pool.currentBytes() - before;
  if (from.isLatent && !from.cachesInput) {
    downKeys_ = lane.weightsOf(from.downKeys, from.biasKeys, from.latentsOfRotatedKeys ? nullptr : order);
    if (from.downValues.data) downValues_ = lane.weightsOf(from.downValues, from.biasValues, order);
    upKeys_ = lane.weightsOf(from.upKeys, from.meanKeys);
    upValues_ = lane.weightsOf(from.upValues, from.meanValues);
  }
  if (from.queryNorm) queryNorm_ = lane.listOf(from.queryNorm, from.headDim);
  if (from.keyNorm) keyNorm_ = lane.listOf(from.keyNorm, from.headDim);
  if (from.rotaryPairs > 0) {
    cosine_ = lane.listOf(from.cosine, from.positions * from.rotaryPairs);
    sine_ = lane.listOf(from.sine, from.positions * from.rotaryPairs);
  }
  if (order) {
    inputOrder_.assign(order, order + from.hiddenDim);
    orderList_ = lane.listOf(std::vector<int32_t>(order, order + from.hiddenDim).data(), from.hiddenDim);
  }
  weightBytes_ = lane.pool.currentBytes() - before;
}

DeviceLayer::DeviceLayer(const AcceleratorLayer& from, LayerWeights weights)
    : LayerWeights(std::move(weights)), limits_(lane_->limits), stream_(lane_->stream), pool_(lane_->pool), dtype_(lane_->dtype),
      batch_(from.batch), d_(from.hiddenDim), heads_(from.heads), kvHeads_(from.kvHeads), headDim_(from.headDim),
      queryWidth_(from.heads * from.headDim), keyWidth_(from.kvHeads * from.headDim), scale_(from.scale), softcap_(from.softcap),
      window_(from.window), sinks_(from.sinks), residual_(from.residual), pairs_(from.rotaryPairs), normEpsilon_(from.normEpsilon),
      isLatent_(from.isLatent != 0), cachesInput_(from.cachesInput != 0), latentsOfRotatedKeys_(from.latentsOfRotatedKeys != 0),
      rotatesOnRead_(from.rotatesOnRead != 0), turnsNeighbours_(from.turnsNeighbours != 0) {
  misfits_ = DeviceBlock(pool_, sizeof(int32_t));
  runtime::clear(misfits_.data(), misfits_.bytes(), stream_);
  if (from.reservedBytes > 0) reserved_ = DeviceBlock(pool_, from.reservedBytes);

  // A window keeps its own tokens, a chunk that is being appended, and a page begun at either end.
  const int64_t most = window_ > 0 ? std::min(from.tokens, window_ + fillChunk) : from.tokens, pages = pagesFor(most) + 2;
  isOneRow_ = own_ && !rotatesOnRead_ && areAlikeFloats(from.keys, from.values);
  AcceleratorBand both{own_.width(), from.keys.bands[0].dtype, 0};
  AcceleratorStore keys = from.keys;
  if (isOneRow_) keys.bands = &both, keys.channels = both.channels;
  keys_ = std::make_unique<PageStore>(pool_, stream_, keys, batch_, pages);
  if (from.values.heads > 0 && !isOneRow_) values_ = std::make_unique<PageStore>(pool_, stream_, from.values, batch_, pages);
  tokenGroup_ = std::lcm(keys_->tokenGroup(), values_ ? values_->tokenGroup() : 1);
  isTailed_ = tokenGroup_ > 1 || residual_ > 0;
  if (isTailed_ && (isLatent_ || from.values.heads == 0)) refuse("expected a direct cache for token groups or a residual");
  // Small steps, as on the CPU, so that little is left unused.
  const int64_t keyDim = own_ ? own_.ropeDim() : headDim_, valueDim = own_ ? own_.rank() : headDim_;
  sinkRows_ = ExactRows(pool_, stream_, batch_, kvHeads_, keyDim, valueDim, 8);
  tail_ = ExactRows(pool_, stream_, batch_, kvHeads_, keyDim, valueDim, 16);
  runtime::finish(stream_);
}

DeviceLayer::~DeviceLayer() {
  try {
    runtime::use(lane_->device);
    runtime::finish(stream_);
  } catch (...) {
    // A poisoned device has nothing left to finish.
  }
}

DeviceBlock DeviceLayer::uploadInputs(const float* const* x, int64_t sequences, int64_t tokens) {
  const int64_t width = roundUp8(d_);
  std::vector<uint8_t> rows(static_cast<size_t>(bytes(sequences * tokens * width)), 0);
  for (int64_t b = 0; b < sequences; b++)
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t c = 0; c < d_; c++)
        putFloat(dtype_, rows.data(), (b * tokens + t) * width + c, x[b][t * d_ + (inputOrder_.empty() ? c : inputOrder_[static_cast<size_t>(c)])]);
  DeviceBlock block(pool_, static_cast<int64_t>(rows.size()));
  runtime::upload(block.data(), rows.data(), block.bytes(), stream_);
  runtime::finish(stream_);
  return block;
}

void DeviceLayer::rotateRows(const DeviceBlock& rows, int64_t count, int64_t heads, int64_t perSequence, int64_t firstPosition) {
  RotateProblem p;
  p.rows = rows.view<uint8_t>();
  p.type = dtype_;
  p.count = count, p.heads = static_cast<int>(heads), p.width = static_cast<int>(headDim_), p.pairs = static_cast<int>(pairs_);
  p.perSequence = static_cast<int>(perSequence), p.firstPosition = static_cast<int>(firstPosition);
  p.cosine = cosines(), p.sine = sines();
  runtime::check(rotate(p, stream_), "starting the rotary embedding");
}

void DeviceLayer::normaliseHeads(const DeviceBlock& rows, int64_t count, const std::shared_ptr<const DeviceBlock>& weight) {
  if (!weight) return;
  NormProblem p;
  p.x = rows.view<const uint8_t>();
  p.y = rows.view<uint8_t>();
  p.fromType = p.toType = dtype_;
  p.weight = weight->view<const float>();
  p.width = p.stride = static_cast<int>(headDim_);
  p.epsilon = normEpsilon_;
  runtime::check(normalise(p, count, stream_), "starting the norms of heads");
}

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
  each([&](PageStore& store) { store.dropBefore(oldest()); });
  if (isTailed_) {
    const int64_t target = std::max<int64_t>(0, length_ - residual_) / tokenGroup_ * tokenGroup_;
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

void DeviceLayer::fill(const float* const* x, int64_t tokens, bool settles) {
  std::vector<const float*> rows(x, x + batch_);
  for (int64_t done = 0; done < tokens;) {
    const int64_t n = std::min(fillChunk, tokens - done);
    const DeviceBlock inputs = uploadInputs(rows.data(), batch_, n);
    append(rowsOf(inputs, batch_, n, length_, length_ < sinks_));
    if (settles) settle();
    for (const float*& row : rows) row += n * d_;
    done += n;
  }
  runtime::finish(stream_);
}

AttentionProblem DeviceLayer::problemFor(const HeadShape& shape, const DeviceBlock& q, int64_t queryTokens, int64_t firstPosition, const DeviceBlock& out) const {
  AttentionProblem p;
  p.batch = static_cast<int>(batch_), p.heads = static_cast<int>(heads_), p.kvHeads = static_cast<int>(shape.kvHeads);
  p.keyDim = static_cast<int>(shape.keyDim), p.valueDim = static_cast<int>(shape.valueDim);
  p.queryTokens = static_cast<int>(queryTokens);
  p.queryType = p.cacheType = p.valueType = p.outType = dtype_;
  p.queries = q.view<const uint8_t>();
  p.queryHead = shape.keyDim, p.queryToken = heads_ * p.queryHead, p.queryBatch = queryTokens * p.queryToken;
  p.outHead = shape.valueDim, p.outToken = heads_ * p.outHead, p.outBatch = queryTokens * p.outToken;
  p.out = out.view<uint8_t>();
  p.position = static_cast<int>(firstPosition);
  if (window_ > 0) p.left = static_cast<int>(window_ - 1);
  p.sinks = static_cast<int>(sinks_);
  p.scale = scale_, p.softcap = softcap_;
  return p;
}

/// Keys and values as rows [batch][perSequence][kvHeads * headDim].
void DeviceLayer::setRows(AttentionProblem& part, const DeviceBlock& keys, const DeviceBlock& values, int64_t perSequence) const {
  part.cacheType = part.valueType = dtype_;
  const auto rows = [&](const DeviceBlock& block, int64_t width) {
    TokenRows r;
    r.data = block.view<const uint8_t>();
    r.headBytes = bytes(headDim_);
    r.tokenBytes = bytes(width);
    r.batchBytes = perSequence * r.tokenBytes;
    return r;
  };
  part.keys = rows(keys, key_.n);
  part.values = rows(values, value_.n);
}

void DeviceLayer::expandInto(const DeviceBlock& out, const PageStore& store, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t width, bool rotates) {
  ExpandProblem p;
  p.bandCount = static_cast<int>(store.bandCount());
  for (int i = 0; i < p.bandCount; i++) p.bands[i] = store.band(i);
  p.channels = static_cast<int>(store.heads() == 1 ? width : store.channels());
  p.batch = static_cast<int>(batch_), p.heads = static_cast<int>(store.heads()), p.tokens = static_cast<int>(tokens);
  p.out = out.view<uint8_t>();
  p.outType = dtype_;
  p.outHead = store.channels(), p.outToken = width, p.outBatch = perSequence * width;
  p.firstToken = static_cast<int>(firstToken);
  p.firstKey = static_cast<int>(bodyStart());
  if (rotates) p.pairs = static_cast<int>(pairs_), p.cosine = cosines(), p.sine = sines();
  runtime::check(expand(p, stream_), "starting to read the cache back");
}

void DeviceLayer::expandTail(const DeviceBlock& out, bool values, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t at) {
  ExpandProblem p;
  const int64_t width = values ? value_.n : key_.n;
  p.bands[0] = {tail_.rows(values), {}, Dtype::f16, 0, static_cast<int>(headDim_)};
  p.channels = static_cast<int>(headDim_);
  p.batch = static_cast<int>(batch_), p.heads = static_cast<int>(kvHeads_), p.tokens = static_cast<int>(tokens);
  const int64_t skipped = bytes(at * width);
  p.out = Global<uint8_t>(static_cast<uint8_t*>(out.data()) + skipped, out.bytes() - skipped);
  p.outType = dtype_;
  p.outHead = headDim_, p.outToken = width, p.outBatch = perSequence * width;
  p.firstToken = static_cast<int>(firstToken);
  p.firstKey = static_cast<int>(tailStart_);
  if (!values && rotatesOnRead_) p.pairs = static_cast<int>(pairs_), p.cosine = cosines(), p.sine = sines();
  runtime::check(expand(p, stream_), "starting to read the exact tokens back");
}

/// The body where it lies, but for sinks, which have a part of their own.
AttentionProblem DeviceLayer::bodyOf(const AttentionProblem& whole) const {
  AttentionProblem part = whole;
  part.sinks = 0;
  part.length = static_cast<int>(settled_ - bodyStart());
  part.firstKey = static_cast<int>(bodyStart());
  part.firstSeen = static_cast<int>(bodyFirst() - bodyStart());
  return part;
}

/// Adds the body as a part whose keys and values the kernel makes of latents, unless it cannot; `made` says how.
bool DeviceLayer::addMadePart(const AttentionProblem& whole, Reconstruction& made, std::vector<AttentionProblem>& parts) const {
  constexpr int fewTokens = 8;  // rows of more would have the tiles made again and again
  if (!isLatent_ || dtype_ == Dtype::f32 || whole.queryTokens > fewTokens || keys_->bandCount() > Reconstruction::mostBands) return false;
  if (rotatesOnRead_ && pairs_ > 0 && 2 * pairs_ != headDim_) return false;
  const auto bands = [](const PageStore& store, ExpandBand* to) {
    for (int64_t i = 0; i < store.bandCount(); i++) to[i] = store.band(i);
    return static_cast<int>(store.bandCount());
  };
  made.keyBandCount = bands(*keys_, made.keyBands);
  made.valueBandCount = values_ ? bands(*values_, made.valueBands) : 0;
  const auto up = [](const Weights& w, Global<const uint8_t>& data, Global<const float>& mean, int& rank) {
    data = w.data->view<const uint8_t>();
    rank = static_cast<int>(w.k);
    if (w.bias) mean = w.bias->view<const float>();
  };
  up(cachesInput_ ? key_ : upKeys_, made.upKeys, made.meanKeys, made.keyRank);
  up(cachesInput_ ? value_ : upValues_, made.upValues, made.meanValues, made.valueRank);
  if (rotatesOnRead_ && pairs_ > 0) made.rotates = true, made.cosine = cosines(), made.sine = sines();
  AttentionProblem part = bodyOf(whole);
  part.made = &made;
  if (!reconstructKernel(part, limits_).start) return false;
  parts.push_back(part);
  return true;
}

void DeviceLayer::attendParts(std::vector<AttentionProblem>& parts) {
  std::vector<AttentionPlan> plans;
  int slots = 0;
  for (const AttentionProblem& part : parts) {
    plans.push_back(planAttention(part, limits_));
    slots += plans.back().splits;
  }
  const DeviceBlock workspace(pool_, workspaceFloats(parts[0], slots) * static_cast<int64_t>(sizeof(float)));
  runtime::check(gpu::attend(parts.data(), plans.data(), static_cast<int>(parts.size()), workspace.view<float>(), stream_), "starting attention");
}

DeviceBlock DeviceLayer::queriesOf(DeviceBlock made, const DeviceBlock& x, int64_t perSequence, int64_t firstPosition) {
  DeviceBlock q = made ? std::move(made) : product(x, batch_ * perSequence, query_);
  normaliseHeads(q, batch_ * perSequence * heads_, queryNorm_);
  rotateRows(q, batch_ * perSequence, heads_, perSequence, firstPosition);
  return q;
}

// Keys that are cached as they are used are read where they lie. Short latents become keys and values tile by tile in the
// kernel that attends. Others (long latents and layer inputs, whose products tiles could not share; keys from before the rotary
// embedding and formats that the matrix kernels do not take) are first read back as rows.
DeviceBlock DeviceLayer::attention(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition, DeviceBlock queries) {
  if (own_) return attentionInLatent(x, perSequence, firstPosition);
  const DeviceBlock q = queriesOf(std::move(queries), x, perSequence, firstPosition), mixed(pool_, bytes(batch_ * perSequence * output_.k));
  const AttentionProblem whole = problemFor({kvHeads_, headDim_, headDim_}, q, perSequence, firstPosition, mixed);
  std::vector<AttentionProblem> parts;
  if (sinks_ > 0) {
    AttentionProblem part = whole;
    part.cacheType = part.valueType = Dtype::f16;
    part.keys = sinkRows_.rows(false), part.values = sinkRows_.rows(true);
    part.length = static_cast<int>(std::min(sinks_, length_));
    parts.push_back(part);
  }
  const int64_t bodyTokens = std::max<int64_t>(0, settled_ - bodyFirst()), bodySkipped = bodyFirst() - bodyStart();  // sinks have a part of their own
  const int64_t tailFirst = std::max(sinks_, tailStart_), tailTokens = isTailed_ ? std::max<int64_t>(0, length_ - tailFirst) : 0, tailSkipped = tailFirst - tailStart_;
  bool expands = isLatent_ || rotatesOnRead_;
  if (!expands && bodyTokens > 0) {
    AttentionProblem part = bodyOf(whole);
    const ExpandBand keys = keys_->band(0), values = values_->band(0);
    part.cacheType = keys.type, part.valueType = values.type;
    part.keys = keys.rows, part.values = values.rows;
    part.keyScales = keys.scales, part.valueScales = values.scales;
    const auto needsRows = [&](const ExpandBand& band) { return codeBits(band.type) > 0 && codeBits(band.type) < 4; };
    const bool isCoded = bitsOf(keys.type) <= 8 || bitsOf(values.type) <= 8;
    expands = needsRows(keys) || needsRows(values) || (isCoded && dtype_ != Dtype::f32 && planAttention(part, limits_).path == Path::general);
    if (!expands) parts.push_back(part);
  }
  Reconstruction made;
  if (expands && bodyTokens > 0 && addMadePart(whole, made, parts)) {
    attendParts(parts);
    return product(mixed, batch_ * perSequence, output_);
  }
  DeviceBlock keyRows, valueRows;
  if (expands && bodyTokens + tailTokens > 0) {
    const int64_t n = bodyTokens + tailTokens;
    if (!isLatent_) {
      keyRows = DeviceBlock(pool_, bytes(batch_ * n * key_.n));
      valueRows = DeviceBlock(pool_, bytes(batch_ * n * value_.n));
      expandInto(keyRows, *keys_, bodySkipped, bodyTokens, n, key_.n, rotatesOnRead_);
      expandInto(valueRows, *values_, bodySkipped, bodyTokens, n, value_.n, false);
      if (tailTokens > 0) {
        expandTail(keyRows, false, tailSkipped, tailTokens, n, bodyTokens);
        expandTail(valueRows, true, tailSkipped, tailTokens, n, bodyTokens);
      }
    } else {
      const Weights& upKeys = cachesInput_ ? key_ : upKeys_;
      const Weights& upValues = cachesInput_ ? value_ : upValues_;
      DeviceBlock latents(pool_, bytes(batch_ * n * upKeys.k));
      expandInto(latents, *keys_, bodySkipped, n, n, upKeys.k, false);
      keyRows = product(latents, batch_ * n, upKeys);
      if (rotatesOnRead_) rotateRows(keyRows, batch_ * n, kvHeads_, n, bodyFirst());
      if (values_) {
        DeviceBlock valueLatents(pool_, bytes(batch_ * n * upValues.k));
        expandInto(valueLatents, *values_, bodySkipped, n, n, upValues.k, false);
        valueRows = product(valueLatents, batch_ * n, upValues);
      } else {
        valueRows = product(latents, batch_ * n, upValues);
      }
    }
    AttentionProblem part = whole;
    setRows(part, keyRows, valueRows, n);
    part.length = static_cast<int>(n);
    part.firstKey = static_cast<int>(bodyTokens > 0 ? bodyFirst() : tailFirst);
    parts.push_back(part);
  } else if (tailTokens > 0) {
    AttentionProblem part = whole;
    part.cacheType = part.valueType = Dtype::f16;
    part.keys = tail_.rows(false, tailSkipped), part.values = tail_.rows(true, tailSkipped);
    part.length = static_cast<int>(tailTokens);
    part.firstKey = static_cast<int>(tailFirst);
    parts.push_back(part);
  }
  attendParts(parts);
  return product(mixed, batch_ * perSequence, output_);
}

void DeviceLayer::downloadRows(const DeviceBlock& y, int64_t perSequence, const int64_t* positions, int64_t count, float* to) {
  const int64_t width = output_.n;
  std::vector<uint8_t> row(static_cast<size_t>(bytes(width)));
  for (int64_t b = 0; b < batch_; b++)
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = b * perSequence + (positions ? positions[i] : i);
      runtime::download(row.data(), static_cast<const uint8_t*>(y.data()) + bytes(at * width), bytes(width), stream_);
      for (int64_t c = 0; c < d_; c++) to[(b * count + i) * d_ + c] = numberOf(dtype_, row.data(), c);
    }
}

void DeviceLayer::attendAt(const float* const* x, int64_t firstPosition, int64_t tokens, float* y) {
  const DeviceBlock inputs = uploadInputs(x, batch_, tokens);
  downloadRows(attention(inputs, tokens, firstPosition), tokens, nullptr, tokens, y);
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
    if (store) store->dropBefore(oldest()), store->reserve(settled_), store->publish();
  if (sinks_ > 0) sinkRows_.resize(sinks_, 0, 0);
  if (isTailed_) tail_.resize(std::max<int64_t>(0, tokens - settled_), 0, 0);
}

DeviceBlock DeviceLayer::runPrefill(const DeviceBlock& x, int64_t tokens) {
  Rows rows = rowsOf(x, batch_, tokens, 0, sinks_ > 0);
  const int64_t exact = std::min(sinks_, tokens), body = bodyStart();
  const int64_t m = batch_ * tokens;
  appendExact(sinkRows_, exactKeys(rows, 0), exactValues(rows, 0), 0, 0, exact);
  appendBody(bodyKeys(rows, body), bodyValues(rows, body), body, settled_ - body);
  if (isTailed_) appendExact(tail_, bodyKeys(rows, settled_), bodyValues(rows, settled_), tailStart_, settled_, tokens - settled_);

  if (own_) return promptAttention(std::move(rows), x, tokens);
  DeviceBlock keyRows, valueRows;
  if (!isLatent_ || cachesInput_) {  // the rows themselves
    keyRows = rows.keys ? std::move(rows.keys) : product(x, m, key_);
    valueRows = rows.values ? std::move(rows.values) : product(x, m, value_);
    if (pairs_ > 0) rotateRows(keyRows, m, kvHeads_, tokens, 0);
  } else {
    keyRows = product(rows.latentKeys, m, upKeys_);
    valueRows = product(values_ ? rows.latentValues : rows.latentKeys, m, upValues_);
    if (rotatesOnRead_) rotateRows(keyRows, m, kvHeads_, tokens, 0);
    if (exact > 0) {
      AppendProblem p;
      const auto side = [&](AppendSide& s, const DeviceBlock& to, int64_t width, const Source& from) {
        s.cacheType = dtype_;
        s.channels = static_cast<int>(headDim_);
        s.rows.headBytes = bytes(headDim_), s.rows.tokenBytes = bytes(width), s.rows.batchBytes = tokens * s.rows.tokenBytes;
        s.data = to.view<uint8_t>();
        point(s, from, 0);
      };
      side(p.sides[0], keyRows, key_.n, exactKeys(rows, 0));
      side(p.sides[1], valueRows, value_.n, exactValues(rows, 0));
      p.batch = static_cast<int>(batch_), p.kvHeads = static_cast<int>(kvHeads_), p.tokens = static_cast<int>(exact);
      p.cosine = cosines(), p.sine = sines(), p.pairs = static_cast<int>(pairs_);
      runtime::check(gpu::append(p, stream_), "starting to copy exact tokens");
    }
  }
  const DeviceBlock q = queriesOf({}, x, tokens, 0), mixed(pool_, bytes(m * output_.k));
  std::vector<AttentionProblem> parts{problemFor({kvHeads_, headDim_, headDim_}, q, tokens, 0, mixed)};
  setRows(parts[0], keyRows, valueRows, tokens);
  parts[0].length = static_cast<int>(tokens);
  attendParts(parts);
  return product(mixed, m, output_);
}

void DeviceLayer::prefill(const float* const* x, int64_t tokens, const int64_t* positions, int64_t count, float* y) {
  timer_.reset();
  stepInputs_ = uploadInputs(x, batch_, tokens);
  stepTokens_ = 0;
  prefillTokens_ = tokens;
  layOutPrefill(tokens);
  downloadRows(runPrefill(stepInputs_, tokens), tokens, positions, count, y);
}

DeviceBlock DeviceLayer::attend(const DeviceBlock& x, int64_t tokens, bool prefills) {
  DeviceBlock ordered;
  if (orderList_) {
    ordered = DeviceBlock(pool_, x.bytes());
    ElementProblem p;
    p.kind = ElementProblem::reorder;
    p.x = x.view<const uint8_t>();
    p.y = ordered.view<uint8_t>();
    p.xType = p.yType = dtype_;
    p.order = orderList_->view<const int32_t>();
    p.width = static_cast<int>(d_), p.stride = static_cast<int>(roundUp8(d_));
    p.count = batch_ * tokens * p.stride;
    runtime::check(eachElement(p, stream_), "starting to reorder channels");
  }
  const DeviceBlock& rows = orderList_ ? ordered : x;
  if (prefills) {
    if (laidOut_ != tokens) layOutPrefill(tokens);  // not again while it is recorded
    return runPrefill(rows, tokens);
  }
  return step(rows, tokens);
}

/// Appends `tokens` of every sequence, and what attention gives for them.
DeviceBlock DeviceLayer::step(const DeviceBlock& x, int64_t tokens) {
  const int64_t position = length_;
  Rows rows = rowsOf(x, batch_, tokens, position, position < sinks_, true);
  append(rows);
  return attention(x, tokens, position, std::move(rows.queries));
}

AcceleratorMemory DeviceLayer::memory() {
  int32_t misfits = 0;
  runtime::download(&misfits, misfits_.data(), sizeof(misfits), stream_);
  if (misfits > 0)
    throw Failure(FailureKind::failed, std::to_string(misfits) + " groups have a scale that does not fit f16, which the CUDA kernels store");
  AcceleratorMemory m{};
  m.settledTokens = isTailed_ ? settled_ : length_;
  m.cacheBufferBytes = keys_->allocatedBytes() + (values_ ? values_->allocatedBytes() : 0) + sinkRows_.allocatedBytes() + tail_.allocatedBytes();
  m.tableBytes = keys_->tableBytes() + (values_ ? values_->tableBytes() : 0);
  m.weightBytes = weightBytes_;
  m.plainWeightBytes = plainWeightBytes_;
  m.currentBytes = pool_.currentBytes();
  m.peakBytes = pool_.peakBytes();
  m.devicePeakBytes = pool_.devicePeakBytes();
  m.heldBytes = heldPool_.currentBytes();
  return m;
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

void DeviceLayer::hold(const float* x, int64_t rows, int64_t tokens, int64_t limitBytes) {
  if (!heldInputs_) heldInputs_ = uploadInputs(&x, 1, rows);
  heldPool_.limitTo(limitBytes);
  const int64_t oldest = window_ > 0 ? std::max<int64_t>(0, tokens - window_ + 1) : 0;
  const int64_t pages = std::max<int64_t>(0, pagesFor(settledAfter(tokens)) - oldest / pageTokens);
  Caches caches;
  caches.keys = std::make_unique<PageStore>(heldPool_, *keys_, pages);
  if (values_) caches.values = std::make_unique<PageStore>(heldPool_, *values_, pages);
  caches.sinkRows = ExactRows(heldPool_, sinkRows_);
  caches.tail = ExactRows(heldPool_, tail_);
  swap(caches);
  try {
    layOutPrefill(tokens);
    fillLaidOut(heldInputs_, rows);
    runtime::finish(stream_);
  } catch (...) {
    swap(caches);
    throw;
  }
  swap(caches);
  held_.push_back(std::move(caches));
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

void DeviceLayer::prepareStep(const float* const* x, int64_t tokens) {
  timer_.reset();
  stepInputs_ = uploadInputs(x, batch_, tokens);
  stepTokens_ = tokens;
  runStep();
  runtime::finish(stream_);
}

void DeviceLayer::runStep() {
  if (stepTokens_ == 0) {
    runPrefill(stepInputs_, prefillTokens_);
    return;
  }
  const int64_t position = length_;
  step(stepInputs_, stepTokens_);
  rollback(position);
}

void DeviceLayer::sample(double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to) {
  if (!timer_) timer_ = std::make_unique<Timer>(*lane_, [this] { runStep(); });
  timer_->sample(seconds, cancel, to);
}

}  // namespace fastmqa::gpu
