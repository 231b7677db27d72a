#include "page-store.h"

#include <algorithm>
#include <string>

namespace fastmqa::gpu {
namespace {

bool isCoded(Dtype type) { return codeBits(type) > 0; }

}  // namespace

PageStore::PageStore(DevicePool& pool, Stream stream, const AcceleratorStore& spec, int64_t batch, int64_t mostPages)
    : stream_(stream), heads_(spec.heads), channels_(spec.channels), batch_(batch), mostPages_(mostPages),
      sharing_(spec.grouping == 0 ? Sharing::token : spec.grouping == 1 ? Sharing::channel : Sharing::tensor),
      group_(static_cast<int>(spec.groupSize)), tensorScale_(spec.tensorScale) {
  if (spec.bandCount < 1 || spec.bandCount > ExpandProblem::mostBands)
    refuse("expected 1 to " + std::to_string(ExpandProblem::mostBands) + " bands on a GPU but received " + std::to_string(spec.bandCount));
  int channel = 0;
  for (int64_t i = 0; i < spec.bandCount; i++) {
    const AcceleratorBand& from = spec.bands[i];
    Band band{static_cast<Dtype>(from.dtype), from.isSymmetric != 0, channel, static_cast<int>(from.channels),
              packedBytes(static_cast<Dtype>(from.dtype), from.channels), 0, {}, {}};
    channel += band.channels;
    if (isCoded(band.type) && sharing_ != Sharing::tensor) {
      if (sharing_ == Sharing::channel && pageTokens % group_)
        refuse("expected groups of tokens that divide " + std::to_string(pageTokens) + " but received " + std::to_string(group_));
      if (sharing_ == Sharing::channel) tokenGroup_ = group_;
      band.planeBytes = 2 * (sharing_ == Sharing::token ? pageTokens * ((band.channels + group_ - 1) / group_) : pageTokens / group_ * band.channels);
    }
    bands_.push_back(std::move(band));
  }
  allocate(pool);
}

PageStore::PageStore(DevicePool& pool, const PageStore& like, int64_t mostPages)
    : stream_(like.stream_), heads_(like.heads_), channels_(like.channels_), batch_(like.batch_), mostPages_(mostPages), tokenGroup_(like.tokenGroup_),
      sharing_(like.sharing_), group_(like.group_), tensorScale_(like.tensorScale_) {
  for (const Band& b : like.bands_) bands_.push_back({b.type, b.symmetric, b.firstChannel, b.channels, b.rowBytes, b.planeBytes, {}, {}});
  allocate(pool);
}

void PageStore::allocate(DevicePool& pool) {
  const int64_t pages = batch_ * mostPages_;
  for (Band& band : bands_) {
    const int64_t codes = heads_ * pageTokens * band.rowBytes, scales = heads_ * band.planeBytes * (band.symmetric ? 1 : 2);
    pageBytes_ += codes + scales;
    if (pages == 0) continue;
    // Zeroed: kernels read whole pages of scales.
    band.codes = DeviceBlock(pool, pages * codes);
    runtime::clear(band.codes.data(), pages * codes, stream_);
    if (scales > 0) {
      band.scales = DeviceBlock(pool, pages * scales);
      runtime::clear(band.scales.data(), pages * scales, stream_);
    }
  }
  isPublished_ = pages == 0;
  if (pages > 0) table_ = DeviceBlock(pool, pages * static_cast<int64_t>(sizeof(int32_t)));
  for (int64_t i = pages; i > 0; i--) free_.push_back(static_cast<int32_t>(i - 1));
}

void PageStore::reserve(int64_t end) {
  while ((firstPage_ + static_cast<int64_t>(pages_.size())) * pageTokens < end) {
    if (static_cast<int64_t>(pages_.size()) == mostPages_) throw Failure(FailureKind::failed, "the cache has more pages than were planned for it");
    std::vector<int32_t> page;
    for (int64_t b = 0; b < batch_; b++) {
      page.push_back(free_.back());
      free_.pop_back();
    }
    pages_.push_back(std::move(page));
    isPublished_ = false;
  }
}

void PageStore::dropBefore(int64_t token) {
  while (!pages_.empty() && (firstPage_ + 1) * pageTokens <= token) {
    free_.insert(free_.end(), pages_.front().begin(), pages_.front().end());
    pages_.pop_front();
    firstPage_++;
    isPublished_ = false;
  }
  if (pages_.empty()) firstPage_ = std::max(firstPage_, token / pageTokens);
}

void PageStore::truncate(int64_t token) {
  while (!pages_.empty() && (firstPage_ + static_cast<int64_t>(pages_.size()) - 1) * pageTokens >= token) {
    free_.insert(free_.end(), pages_.back().begin(), pages_.back().end());
    pages_.pop_back();
  }
}

void PageStore::clear() {
  truncate(0);
  firstPage_ = 0;
  isPublished_ = mostPages_ == 0;
}

void PageStore::publish() {
  if (isPublished_) return;
  std::vector<int32_t> table(static_cast<size_t>(batch_ * mostPages_), 0);
  for (size_t page = 0; page < pages_.size(); page++)
    for (int64_t b = 0; b < batch_; b++) table[static_cast<size_t>(b * mostPages_) + page] = pages_[page][static_cast<size_t>(b)];
  runtime::upload(table_.data(), table.data(), static_cast<int64_t>(table.size() * sizeof(int32_t)), stream_);
  runtime::finish(stream_);  // the copy reads `table`
  isPublished_ = true;
}

TokenRows PageStore::rows(const Band& band) const {
  TokenRows r;
  r.data = band.codes.view<const uint8_t>();
  r.pages = table_.view<const int32_t>();
  r.pagesPerSequence = static_cast<int>(mostPages_);
  r.tokenBytes = band.rowBytes;
  r.headBytes = pageTokens * band.rowBytes;
  r.batchBytes = heads_ * r.headBytes;
  return r;
}

CodeScales PageStore::scales(const Band& band) const {
  CodeScales s;
  s.sharing = isCoded(band.type) ? sharing_ : Sharing::tensor;
  s.group = s.sharing == Sharing::tensor ? 1 : s.sharing == Sharing::token ? std::min(group_, static_cast<int>(band.channels)) : group_;
  s.tensorScale = tensorScale_;
  if (!band.planeBytes) return s;
  s.data = band.scales.view<const uint8_t>();
  s.shiftBytes = band.symmetric ? 0 : band.planeBytes;
  s.headBytes = band.planeBytes * (band.symmetric ? 1 : 2);
  s.pageBytes = heads_ * s.headBytes;
  return s;
}

ExpandBand PageStore::band(int64_t i) const {
  const Band& b = bands_[static_cast<size_t>(i)];
  return {rows(b), scales(b), b.type, b.firstChannel, b.channels};
}

AppendSide PageStore::side(int64_t i) const {
  const Band& b = bands_[static_cast<size_t>(i)];
  AppendSide s;
  s.cacheType = b.type;
  s.channels = b.channels;
  s.rows = rows(b);
  s.data = b.codes.view<uint8_t>();
  if (b.scales) s.scaleData = b.scales.view<uint8_t>();
  s.scales = scales(b);
  s.symmetric = b.symmetric;
  return s;
}

AppendSide PageStore::part(int64_t firstChannel, int64_t channels) const {
  AppendSide s = side(0);
  s.channels = static_cast<int>(channels);
  const int64_t skipped = packedBytes(s.cacheType, firstChannel);
  s.data = Global<uint8_t>(s.data.data() + skipped, bands_[0].codes.bytes() - skipped);
  return s;
}

void ExactRows::resize(int64_t tokens, int64_t from, int64_t kept) {
  const int64_t capacity = (tokens + step_ - 1) / step_ * step_;
  if (capacity == capacity_ && from == 0) return;
  DeviceBlock keys, values;
  if (capacity > 0) {
    for (const bool ofValues : {false, true}) {
      DeviceBlock& to = ofValues ? values : keys;
      const int64_t row = rowBytes(ofValues);
      to = DeviceBlock(*pool_, batch_ * capacity * row);
      if (kept > 0)
        runtime::copyRows(to.data(), capacity * row, static_cast<char*>((ofValues ? values_ : keys_).data()) + from * row, capacity_ * row, kept * row, batch_, stream_);
    }
  }
  keys_ = std::move(keys);
  values_ = std::move(values);
  capacity_ = capacity;
}

TokenRows ExactRows::rows(bool values, int64_t first) const {
  TokenRows r;
  const DeviceBlock& block = values ? values_ : keys_;
  const int64_t skipped = first * rowBytes(values);
  r.data = Global<const uint8_t>(static_cast<const uint8_t*>(block.data()) + skipped, block.bytes() - skipped);
  r.headBytes = channels(values) * 2;
  r.tokenBytes = rowBytes(values);
  r.batchBytes = capacity_ * rowBytes(values);
  return r;
}

AppendSide ExactRows::side(bool values) const {
  AppendSide s;
  s.cacheType = Dtype::f16;
  s.channels = static_cast<int>(channels(values));
  s.rows = rows(values);
  s.data = (values ? values_ : keys_).view<uint8_t>();
  return s;
}

}  // namespace fastmqa::gpu
