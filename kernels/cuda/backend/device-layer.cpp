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

DeviceBlock DeviceLayer::runPrefill(const DeviceBlock& x, int64_t tokens) {
  Rows rows = rowsOf(x, batch_, tokens, 0, sinks_ > 0);
  const int64_t body = bodyStart();
  appendExact(sinkRows_, exactKeys(rows, 0), exactValues(rows, 0), 0, 0, std::min(sinks_, tokens));
  appendBody(bodyKeys(rows, body), bodyValues(rows, body), body, settled_ - body);
  if (isTailed_) appendExact(tail_, bodyKeys(rows, settled_), bodyValues(rows, settled_), tailStart_, settled_, tokens - settled_);
  return promptAttention(std::move(rows), x, tokens);
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

void DeviceLayer::hold(const float* x, int64_t rows, int64_t tokens, int64_t limitBytes) {
  if (!heldInputs_) heldInputs_ = uploadInputs(&x, 1, rows);
  heldPool_.limitTo(limitBytes);
  const int64_t pages = std::max<int64_t>(0, pagesFor(settledAfter(tokens)) - oldestOf(tokens) / pageTokens);
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
