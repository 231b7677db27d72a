// How a layer with multi-head latent attention (attention-spec B.3) attends: a step in the latent itself, with absorbed
// projections; a whole prompt with keys and values of every head, which are cheaper for many queries.
#include <algorithm>

#include "device-layer.h"

namespace fastmqa::gpu {
namespace {

void addBands(ExpandProblem& p, const PageStore& store, int64_t firstChannel) {
  for (int64_t i = 0; i < store.bandCount(); i++) {
    ExpandBand band = store.band(i);
    band.firstChannel += static_cast<int>(firstChannel);
    p.bands[p.bandCount++] = band;
  }
}

/// Latents, then keys, of tokens that are kept exactly.
ExpandProblem bandsOf(const ExactRows& rows) {
  ExpandProblem p;
  p.bandCount = 2;
  p.bands[0] = rows.band(true), p.bands[1] = rows.band(false);
  p.bands[1].firstChannel = p.bands[0].channels;
  return p;
}

}  // namespace

Angles DeviceLayer::anglesAt(int64_t firstPosition, int64_t perSequence) const {
  Angles a;
  if (pairs_ > 0) a.cosine = cosines(), a.sine = sines();
  a.interleaved = turnsNeighbours_;
  a.perSequence = perSequence, a.firstPosition = firstPosition;
  return a;
}

/// Reads tokens back into rows of latent and rotated key, [batch][perSequence][width], from row `at` of each sequence on. The keys
/// are the last band.
void DeviceLayer::readBack(ExpandProblem p, const DeviceBlock& rows, int64_t perSequence, int64_t at, int64_t firstToken, int64_t tokens, int64_t firstKey,
                           bool rotates) const {
  const int64_t width = own_.width(), skipped = bytes(at * width);
  p.channels = static_cast<int>(width);
  p.batch = static_cast<int>(batch_), p.tokens = static_cast<int>(tokens);
  p.out = Global<uint8_t>(static_cast<uint8_t*>(rows.data()) + skipped, rows.bytes() - skipped);
  p.outType = dtype_;
  p.outToken = width, p.outBatch = perSequence * width;
  p.firstToken = static_cast<int>(firstToken), p.firstKey = static_cast<int>(firstKey);
  p.rotatedBand = p.bandCount - 1;
  if (rotates) p.pairs = static_cast<int>(pairs_), p.interleaved = turnsNeighbours_, p.cosine = cosines(), p.sine = sines();
  runtime::check(expand(p, stream_), "starting to read latents back");
}

AttentionProblem DeviceLayer::ownRows(const AttentionProblem& whole, const DeviceBlock& rows, int64_t tokens, int64_t firstKey) const {
  AttentionProblem part = whole;
  part.cacheType = part.valueType = dtype_;
  part.keys.data = rows.view<const uint8_t>();
  part.keys.tokenBytes = bytes(own_.width());
  part.keys.batchBytes = tokens * part.keys.tokenBytes;
  part.values = part.keys;
  part.length = static_cast<int>(tokens);
  part.firstKey = static_cast<int>(firstKey);
  return part;
}

// Latents of 16 or 32 bits are read where they lie, their keys beside them. Coded ones, and exact tokens, are first read back.
DeviceBlock DeviceLayer::attentionInLatent(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition) {
  const int64_t m = batch_ * perSequence, rank = own_.rank(), width = own_.width();
  const DeviceBlock q = own_.absorbed(own_.queries(x, m), m, anglesAt(firstPosition, perSequence)), mixed(pool_, bytes(m * heads_ * rank));
  const AttentionProblem whole = problemFor({1, width, rank}, q, perSequence, firstPosition, mixed);
  std::vector<AttentionProblem> parts;
  DeviceBlock sinkRows, rows;
  if (sinks_ > 0) {
    const int64_t n = std::min(sinks_, length_);
    sinkRows = DeviceBlock(pool_, bytes(batch_ * n * width));
    readBack(bandsOf(sinkRows_), sinkRows, n, 0, 0, n, 0, false);  // they are kept rotated
    parts.push_back(ownRows(whole, sinkRows, n, 0));
  }
  const int64_t tailFirst = std::max(sinks_, tailStart_), tailTokens = isTailed_ ? std::max<int64_t>(0, length_ - tailFirst) : 0;
  const int64_t bodyTokens = std::max<int64_t>(0, settled_ - bodyFirst()), readBackTokens = isOneRow_ ? 0 : bodyTokens;
  if (isOneRow_ && bodyTokens > 0) {
    AttentionProblem part = bodyOf(whole);
    const ExpandBand latents = keys_->band(0);
    part.cacheType = part.valueType = latents.type;
    part.keys = part.values = latents.rows;
    parts.push_back(part);
  }
  if (const int64_t n = readBackTokens + tailTokens; n > 0) {
    rows = DeviceBlock(pool_, bytes(batch_ * n * width));
    if (readBackTokens > 0) {
      ExpandProblem p;
      p.bandCount = 0;
      addBands(p, *values_, 0);
      addBands(p, *keys_, rank);
      readBack(p, rows, n, 0, bodyFirst() - bodyStart(), readBackTokens, bodyStart(), rotatesOnRead_);
    }
    if (tailTokens > 0) readBack(bandsOf(tail_), rows, n, readBackTokens, tailFirst - tailStart_, tailTokens, tailStart_, rotatesOnRead_);
    parts.push_back(ownRows(whole, rows, n, readBackTokens > 0 ? bodyFirst() : tailFirst));
  }
  attendParts(parts);
  return product(own_.valuesOfMixtures(mixed, m), m, output_);
}

DeviceBlock DeviceLayer::promptAttentionInLatent(Rows rows, const DeviceBlock& x, int64_t tokens) {
  const int64_t m = batch_ * tokens, rowBytes = bytes(heads_ * headDim_);
  const LatentAttention::Cached cached{std::move(rows.keys), std::move(rows.values)};
  const DeviceBlock q = own_.queries(x, m), mixed(pool_, m * rowBytes);
  own_.rotate(q, m, anglesAt(0, tokens));
  DeviceBlock keys, values;
  own_.expand(cached, m, anglesAt(0, tokens), keys, values);
  std::vector<AttentionProblem> parts{problemFor({heads_, headDim_, headDim_}, q, tokens, 0, mixed)};
  const auto strided = [&](const DeviceBlock& block) {
    TokenRows r;
    r.data = block.view<const uint8_t>();
    r.headBytes = bytes(headDim_), r.tokenBytes = rowBytes, r.batchBytes = tokens * rowBytes;
    return r;
  };
  parts[0].keys = strided(keys), parts[0].values = strided(values);
  parts[0].length = static_cast<int>(tokens);
  attendParts(parts);
  return product(own_.unfilled(mixed, m), m, output_);
}

}  // namespace fastmqa::gpu
