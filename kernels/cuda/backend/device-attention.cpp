// How a layer attends: a step over what is cached, a prompt over its own rows. Layers with multi-head latent attention have ways
// of their own (device-latent.cpp).
#include <algorithm>

#include "device-layer.h"

namespace fastmqa::gpu {

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

DeviceBlock DeviceLayer::promptAttention(Rows rows, const DeviceBlock& x, int64_t tokens) {
  if (own_) return promptAttentionInLatent(std::move(rows), x, tokens);
  const int64_t exact = std::min(sinks_, tokens), m = batch_ * tokens;
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

}  // namespace fastmqa::gpu
