#include "cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "math/threads.h"

namespace fastmqa {
namespace {

constexpr int64_t settleTokens = 256;  // quantised at a time, in whole token groups
constexpr int64_t tailPageTokens = 16;  // small, so that the exact tail wastes at most 15 tokens

StoreSpec exactSpec(int64_t heads, int64_t channels, Layout layout, int64_t pageTokens) {
  StoreSpec spec;
  spec.heads = heads;
  spec.channels = channels;
  spec.bands = {{channels, Dtype::f16}};
  spec.layout = layout;
  spec.pageTokens = pageTokens;
  return spec;
}

/// Tokens that are quantised together.
int64_t tokenGroupOf(const CacheSpec& spec) {
  int64_t group = spec.keys.groupsTokens() ? spec.keys.groupSize : 1;
  if (spec.values && spec.values->groupsTokens()) group = std::lcm(group, spec.values->groupSize);
  return group;
}

}  // namespace

bool hasExactTail(const CacheSpec& spec) { return tokenGroupOf(spec) > 1 || spec.residual > 0; }

CacheBytes& CacheBytes::operator+=(const CacheBytes& other) {
  logical += other.logical;
  payload += other.payload;
  scales += other.scales;
  sinks += other.sinks;
  residual += other.residual;
  slack += other.slack;
  table += other.table;
  allocated += other.allocated;
  return *this;
}

SequenceCache::SequenceCache(Arena& arena, const CacheSpec& spec) : spec_(spec), tokenGroup_(tokenGroupOf(spec)) {
  const int64_t g = spec.kvHeads;
  bodyKeys_ = std::make_unique<PanelStore>(arena, spec.keys);
  if (spec.values) bodyValues_ = std::make_unique<PanelStore>(arena, *spec.values);
  if (spec.sinks > 0) {
    const int64_t tokens = std::min<int64_t>(64, (spec.sinks + 7) / 8 * 8);
    sinkKeys_ = std::make_unique<PanelStore>(arena, exactSpec(g, spec.keyDim, Layout::channelRows, tokens));
    sinkValues_ = std::make_unique<PanelStore>(arena, exactSpec(g, spec.valueDim, Layout::tokenRows, tokens));
  }
  if (hasExactTail(spec)) {
    if (!spec.values || spec.keys.heads != g) refuse("expected a direct cache for token groups or a residual");
    tailKeys_ = std::make_unique<PanelStore>(arena, exactSpec(g, spec.keyDim, Layout::channelRows, tailPageTokens));
    tailValues_ = std::make_unique<PanelStore>(arena, exactSpec(g, spec.valueDim, Layout::tokenRows, tailPageTokens));
  }
}

void SequenceCache::append(int64_t n, const CacheRows& rows) {
  const int64_t g = spec_.kvHeads, end = length_ + n;
  if (sinkKeys_ && length_ < spec_.sinks) {
    const int64_t exact = std::min(n, spec_.sinks - length_);
    sinkKeys_->reserve(spec_.sinks);
    sinkValues_->reserve(spec_.sinks);
    sinkKeys_->write(length_, exact, rows.exactKeys, g * spec_.keyDim, 0);
    sinkValues_->write(length_, exact, rows.exactValues, g * spec_.valueDim, 0);
  }
  if (tailKeys_) {
    tailKeys_->reserve(end);
    tailValues_->reserve(end);
    tailKeys_->write(length_, n, rows.exactKeys, g * spec_.keyDim, 0);
    tailValues_->write(length_, n, rows.exactValues, g * spec_.valueDim, 0);
  } else {
    bodyKeys_->reserve(end);
    bodyKeys_->write(length_, n, rows.bodyKeys, rows.keyStride, 0);
    if (bodyValues_) {
      bodyValues_->reserve(end);
      bodyValues_->write(length_, n, rows.bodyValues, rows.valueStride, 0);
    }
  }
  length_ = end;
}

void SequenceCache::settle() {
  const int64_t oldest = spec_.window > 0 ? std::max<int64_t>(0, length_ - spec_.window + 1) : 0;
  if (tailKeys_) {
    const int64_t target = std::max<int64_t>(0, length_ - spec_.residual) / tokenGroup_ * tokenGroup_;
    std::vector<float> keys, values;
    bodyKeys_->dropBefore(oldest);
    bodyValues_->dropBefore(oldest);
    // Pages that the window has passed are gone: what belongs there is not written.
    const int64_t firstKept = std::max(bodyKeys_->firstPage() * spec_.keys.pageTokens, bodyValues_->firstPage() * spec_.values->pageTokens);
    settled_ = std::max(settled_, std::min(target, firstKept));
    while (settled_ < target) {
      const int64_t n = std::min(settleTokens / tokenGroup_ * tokenGroup_, target - settled_);
      const int64_t keyStride = spec_.kvHeads * spec_.keyDim, valueStride = spec_.kvHeads * spec_.valueDim;
      keys.resize(static_cast<size_t>(n * keyStride));
      values.resize(static_cast<size_t>(n * valueStride));
      parallelFor(spec_.kvHeads, [&](int64_t h) {
        tailKeys_->readRows(h, settled_, n, keys.data() + h * spec_.keyDim, keyStride);
        tailValues_->readRows(h, settled_, n, values.data() + h * spec_.valueDim, valueStride);
      });
      bodyKeys_->reserve(settled_ + n);
      bodyValues_->reserve(settled_ + n);
      bodyKeys_->write(settled_, n, keys.data(), keyStride, spec_.sinks);
      bodyValues_->write(settled_, n, values.data(), valueStride, spec_.sinks);
      settled_ += n;
    }
    tailKeys_->dropBefore(settled_);
    tailValues_->dropBefore(settled_);
  }
  for (const auto* store : {&bodyKeys_, &bodyValues_, &tailKeys_, &tailValues_})
    if (*store) (*store)->truncate(length_);
  bodyKeys_->dropBefore(oldest);
  if (bodyValues_) bodyValues_->dropBefore(oldest);
  committed_ = length_;
}

void SequenceCache::rollback(int64_t length) {
  if (length < committed_ || length > length_)
    refuse("expected a roll-back to " + std::to_string(committed_) + ".." + std::to_string(length_) +
           " tokens but received " + std::to_string(length));
  length_ = length;  // pages stay until settle(): the next tokens are likely to need them
}

void SequenceCache::readBack(int64_t head, int64_t token, int64_t count, float* keys, float* values) const {
  for (int64_t t = token; t < token + count;) {
    const bool sink = sinkKeys_ && t < spec_.sinks, tail = tailKeys_ && t >= settled_;
    const int64_t end = sink ? std::min(spec_.sinks, token + count) : tail ? token + count : std::min(settled(), token + count);
    const PanelStore& k = sink ? *sinkKeys_ : tail ? *tailKeys_ : *bodyKeys_;
    const PanelStore& v = sink ? *sinkValues_ : tail ? *tailValues_ : *bodyValues_;
    k.readRows(head, t, end - t, keys + (t - token) * spec_.keyDim, spec_.keyDim);
    v.readRows(head, t, end - t, values + (t - token) * spec_.valueDim, spec_.valueDim);
    t = end;
  }
}

CacheBytes accountOf(const CacheSpec& spec, int64_t sequences, int64_t length, int64_t settled, int64_t buffers, int64_t table) {
  CacheBytes out;
  const auto all = static_cast<double>(sequences), exact = 2.0 * static_cast<double>(spec.kvHeads * (spec.keyDim + spec.valueDim));
  const int64_t sinks = std::min(spec.sinks, length);
  // Next query's window, its own token not yet appended.
  const int64_t oldest = spec.window > 0 ? std::max<int64_t>(0, length - spec.window + 1) : 0;
  const int64_t body = std::max<int64_t>(0, settled - std::max(oldest, sinks));
  const int64_t tail = length - std::max(settled, sinks);
  double payload = spec.keys.payloadBytesPerToken(), scales = spec.keys.scaleBytesPerToken();
  if (spec.values) {
    payload += spec.values->payloadBytesPerToken();
    scales += spec.values->scaleBytesPerToken();
  }
  out.payload = std::llround(all * payload * static_cast<double>(body));
  out.scales = std::llround(all * scales * static_cast<double>(body));
  out.sinks = std::llround(all * exact * static_cast<double>(sinks));
  out.residual = std::llround(all * exact * static_cast<double>(std::max<int64_t>(0, tail)));
  out.logical = static_cast<double>(out.payload + out.scales + out.sinks + out.residual);
  out.table = table;
  out.slack = buffers - (out.payload + out.scales + out.sinks + out.residual);
  out.allocated = buffers + table;
  return out;
}

CacheBytes SequenceCache::bytes() const {
  int64_t buffers = 0, table = 0;
  for (const auto* store : {&bodyKeys_, &bodyValues_, &sinkKeys_, &sinkValues_, &tailKeys_, &tailValues_}) {
    if (!*store) continue;
    buffers += (*store)->allocatedBytes();
    table += (*store)->tableBytes();
  }
  return accountOf(spec_, 1, length_, settled(), buffers, table);
}

}  // namespace fastmqa
