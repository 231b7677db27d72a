#include "panel-store.h"

#include <algorithm>
#include <cstring>

#include "../math/threads.h"
#include "../simd/simd.h"

namespace fastmqa {
namespace {

int64_t roundUp8(int64_t n) { return (n + 7) / 8 * 8; }

/// Bytes of a band in a packed row of a token (tokenRows), or in all its rows of channels.
int64_t codeBytes(const StoreSpec& spec, const Band& band) {
  return spec.layout == Layout::channelRows ? band.channels * packedBytes(band.dtype, spec.pageTokens) : packedBytes(band.dtype, roundUp8(band.channels));
}
bool isScaled(const StoreSpec& spec, const Band& band) { return isInteger(band.dtype) && spec.grouping != Grouping::tensor; }
/// Scales of a band, per head and page; as many minima where it is not symmetric.
int64_t scaleCount(const StoreSpec& spec, const Band& band) {
  if (!isScaled(spec, band)) return 0;
  return spec.grouping == Grouping::token ? (band.channels + spec.groupSize - 1) / spec.groupSize * spec.pageTokens
                                          : spec.pageTokens / spec.groupSize * band.channels;
}

}  // namespace

bool StoreSpec::groupsTokens() const {
  if (grouping != Grouping::channel) return false;
  return std::any_of(bands.begin(), bands.end(), [](const Band& b) { return isInteger(b.dtype); });
}

double StoreSpec::payloadBytesPerToken() const {
  double bits = 0;
  for (const Band& b : bands) bits += static_cast<double>(b.channels) * bitsOf(b.dtype);
  return bits * static_cast<double>(heads) / 8;
}

double StoreSpec::scaleBytesPerToken() const {
  if (grouping == Grouping::tensor) return 0;
  double bytes = 0;
  for (const Band& b : bands) {
    if (!isInteger(b.dtype)) continue;
    bytes += (b.symmetric ? 2 : 4) * (grouping == Grouping::token ? static_cast<double>((b.channels + groupSize - 1) / groupSize)
                                                                  : static_cast<double>(b.channels) / static_cast<double>(groupSize));
  }
  return bytes * static_cast<double>(heads);
}

int64_t StoreSpec::pageBytes() const {
  int64_t codes = 0, numbers = 0;
  for (const Band& band : bands) {
    codes += codeBytes(*this, band);
    numbers += scaleCount(*this, band) * (band.symmetric ? 1 : 2);
  }
  if (layout == Layout::tokenRows) codes *= pageTokens;
  return Arena::roundUp(codes * heads) + (numbers > 0 ? Arena::roundUp(numbers * heads * 2) : 0);
}

PanelStore::PanelStore(Arena& arena, StoreSpec spec) : arena_(&arena), spec_(std::move(spec)) {
  if (spec_.pageTokens < 8 || spec_.pageTokens > 64 || spec_.pageTokens % 8)
    refuse("expected pages of 8, 16, .. 64 tokens but received " + std::to_string(spec_.pageTokens));
  if (spec_.groupsTokens() && (spec_.groupSize < 1 || spec_.pageTokens % spec_.groupSize))
    refuse("expected groups of tokens that divide " + std::to_string(spec_.pageTokens) + " but received " + std::to_string(spec_.groupSize));
  if (spec_.groupSize < 1) refuse("expected groups of at least 1 but received " + std::to_string(spec_.groupSize));
  int64_t channel = 0, offset = 0;
  for (const Band& band : spec_.bands) {
    Run run{band, channel, offset, isScaled(spec_, band), 0, 0};
    if (run.scaled) {
      const int64_t numbers = scaleCount(spec_, band);
      run.firstScale = numberCount_;
      run.firstShift = numberCount_ += numbers;
      if (!band.symmetric) numberCount_ += numbers;
    }
    runs_.push_back(run);
    channel += band.channels;
    offset += codeBytes(spec_, band);
  }
  if (channel != spec_.channels) refuse("expected bands that add up to the channels of the store");
  rowBytes_ = offset;
  headBytes_ = spec_.layout == Layout::channelRows ? offset : offset * spec_.pageTokens;
}

int64_t PanelStore::tileStride() const { return padded(spec_.pageTokens); }
int64_t PanelStore::rowStride() const { return padded(spec_.channels); }
int64_t PanelStore::tileFloats() const {
  return spec_.layout == Layout::channelRows ? roundUp8(spec_.channels) * tileStride() : spec_.pageTokens * rowStride();
}

void PanelStore::reserve(int64_t end) {
  while (endPage() * spec_.pageTokens < end) {
    Page page;
    page.codes = Buffer<uint8_t>(*arena_, headBytes_ * spec_.heads);
    if (numberCount_ > 0) page.scales = Buffer<uint8_t>(*arena_, numberCount_ * spec_.heads * 2);
    pages_.push_back(std::move(page));
  }
}

void PanelStore::dropBefore(int64_t token) {
  while (!pages_.empty() && (firstPage_ + 1) * spec_.pageTokens <= token) {
    pages_.pop_front();
    firstPage_++;
  }
  if (pages_.empty()) firstPage_ = std::max(firstPage_, token / spec_.pageTokens);
}

void PanelStore::truncate(int64_t token) {
  while (!pages_.empty() && (endPage() - 1) * spec_.pageTokens >= token) pages_.pop_back();
}

int64_t PanelStore::allocatedBytes() const {
  int64_t total = 0;
  for (const Page& p : pages_) total += p.codes.allocatedBytes() + p.scales.allocatedBytes();
  return total;
}

// Numbers of a head: for each scaled run its scales, then its minima if it has any; f16, or f32 when wide.
void PanelStore::widen(Page& page) {
  const int64_t n = page.scales.size() / 2;
  Buffer<uint8_t> wide(*arena_, n * 4);
  for (int64_t i = 0; i < n; i++) {
    uint16_t half;
    std::memcpy(&half, page.scales.data() + 2 * i, 2);
    const float value = floatFromHalf(half);
    std::memcpy(wide.data() + 4 * i, &value, 4);
  }
  page.scales = std::move(wide);
  page.wide = true;
}

int64_t PanelStore::planeIndex(const Run& run, int64_t first, int64_t channel, int64_t slot) const {
  const int64_t inRun = channel - run.firstChannel;
  return first + (spec_.grouping == Grouping::token ? inRun / spec_.groupSize * spec_.pageTokens + slot
                                                    : slot / spec_.groupSize * run.band.channels + inRun);
}

void PanelStore::putNumber(Page& page, int64_t head, int64_t index, float x) {
  const int64_t at = head * numberCount_ + index;
  if (page.wide)
    std::memcpy(page.scales.data() + 4 * at, &x, 4);
  else
    putFloat(Dtype::f16, page.scales.data(), at, x);
}

uint8_t* PanelStore::rowOf(Page& page, int64_t head, const Run& run, int64_t channel, int64_t slot) {
  uint8_t* base = page.codes.data() + head * headBytes_ + run.byteOffset;
  return spec_.layout == Layout::channelRows ? base + (channel - run.firstChannel) * packedBytes(run.band.dtype, spec_.pageTokens)
                                             : base + slot * rowBytes_;
}

void PanelStore::writeFloats(int64_t head, const Run& run, int64_t channel, int64_t channels, int64_t token,
                             int64_t tokens, const float* rows, int64_t stride) {
  const Dtype dtype = run.band.dtype;
  const bool perTensor = spec_.grouping == Grouping::tensor;
  const GroupScale fixed{spec_.tensorScale, -static_cast<float>(1 << (bitsOf(dtype) - 1)) * spec_.tensorScale, true};
  const float inverse = perTensor ? 1 / spec_.tensorScale : 1;
  const auto put = [&](uint8_t* row, int64_t index, float x) {
    if (isInteger(dtype))
      putCode(dtype, row, index, quantise(x, fixed, bitsOf(dtype), true));
    else
      putFloat(dtype, row, index, x * inverse);
  };
  if (spec_.layout == Layout::channelRows) {
    for (int64_t c = channel; c < channel + channels; c++)
      for (int64_t t = token; t < token + tokens;) {
        uint8_t* row = rowOf(pageOf(t), head, run, c, 0);
        const int64_t pageEnd = std::min(token + tokens, (t / spec_.pageTokens + 1) * spec_.pageTokens);
        const float* from = rows + (t - token) * stride + c;
        int64_t slot = t % spec_.pageTokens;
        if (dtype == Dtype::f32)
          for (; t < pageEnd; t++, from += stride) std::memcpy(row + 4 * slot++, from, 4);
        else
          for (; t < pageEnd; t++, from += stride) put(row, slot++, *from);
      }
    return;
  }
  for (int64_t t = token; t < token + tokens; t++) {
    uint8_t* row = rowOf(pageOf(t), head, run, channel, t % spec_.pageTokens);
    const float* from = rows + (t - token) * stride;
    const int64_t first = channel - run.firstChannel;
    if (dtype == Dtype::f32)
      std::memcpy(row + 4 * first, from + channel, static_cast<size_t>(4 * channels));
    else
      for (int64_t c = 0; c < channels; c++) put(row, first + c, from[channel + c]);
  }
}

void PanelStore::writeGroup(int64_t head, const Run& run, int64_t channel, int64_t channels, int64_t token,
                            int64_t tokens, const float* rows, int64_t stride, int64_t firstValid) {
  Page& page = pageOf(token);
  const int bits = bitsOf(run.band.dtype);
  float lowest = 0, highest = 0;
  bool any = false;
  for (int64_t t = 0; t < tokens; t++) {
    if (token + t < firstValid) continue;
    for (int64_t c = 0; c < channels; c++) {
      const float x = rows[t * stride + channel + c];
      lowest = any ? std::min(lowest, x) : x;
      highest = any ? std::max(highest, x) : x;
      any = true;
    }
  }
  const int64_t slot = token % spec_.pageTokens;
  const bool symmetric = run.band.symmetric;
  // A group that fits f16 is coded as such on wide pages too: what it becomes must not depend on its neighbours.
  GroupScale scale = groupScale(bits, symmetric, lowest, highest, true);
  if (!scale.fitsHalf) {
    if (!page.wide) {
      needsWide_ = true;  // write() widens the pages and comes again
      return;
    }
    scale = groupScale(bits, symmetric, lowest, highest, false);
  }
  putNumber(page, head, scaleIndex(run, channel, slot), scale.scale);
  if (!symmetric) putNumber(page, head, shiftIndex(run, channel, slot), scale.shift);
  const bool channelRows = spec_.layout == Layout::channelRows;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t c = 0; c < channels; c++)
      putCode(run.band.dtype, rowOf(page, head, run, channel + c, slot + t),
              channelRows ? slot + t : channel + c - run.firstChannel,
              quantise(rows[t * stride + channel + c], scale, bits, symmetric));
}

// Units of work never share a byte: in channelRows they are groups of channels, in tokenRows blocks of tokens.
void PanelStore::write(int64_t token, int64_t count, const float* rows, int64_t stride, int64_t firstValid) {
  struct Unit {
    int64_t head;
    const Run* run;
    int64_t channel, channels, token, tokens;
  };
  const bool channelRows = spec_.layout == Layout::channelRows;
  const int64_t channelStep = spec_.grouping == Grouping::token ? spec_.groupSize : 32;
  const int64_t tokenStep = channelRows ? count : spec_.pageTokens;  // a multiple of every token group
  std::vector<Unit> units;
  for (int64_t h = 0; h < spec_.heads; h++)
    for (const Run& run : runs_)
      for (int64_t c = 0; c < run.band.channels; c += channelRows ? channelStep : run.band.channels)
        for (int64_t t = 0; t < count; t += tokenStep)
          units.push_back({h, &run, run.firstChannel + c, std::min(channelRows ? channelStep : run.band.channels, run.band.channels - c),
                           t, std::min(tokenStep, count - t)});
  const auto writeUnit = [&](const Unit& u) {
    const float* from = rows + u.head * spec_.channels + u.token * stride;
    const int64_t first = token + u.token;
    if (!u.run->scaled) return writeFloats(u.head, *u.run, u.channel, u.channels, first, u.tokens, from, stride);
    const bool perToken = spec_.grouping == Grouping::token;
    const int64_t stepTokens = perToken ? 1 : spec_.groupSize, stepChannels = perToken ? spec_.groupSize : 1;
    for (int64_t t = 0; t < u.tokens; t += stepTokens)
      for (int64_t c = 0; c < u.channels; c += stepChannels)
        writeGroup(u.head, *u.run, u.channel + c, std::min(stepChannels, u.channels - c), first + t, stepTokens,
                   from + t * stride, stride, perToken ? 0 : firstValid);
  };
  const bool small = count * spec_.heads * spec_.channels < 4096;  // a decode step: not worth waking the others
  const auto writeAll = [&] {
    if (small)
      for (const Unit& u : units) writeUnit(u);
    else
      parallelFor(static_cast<int64_t>(units.size()), [&](int64_t i) { writeUnit(units[static_cast<size_t>(i)]); });
  };
  needsWide_ = false;
  writeAll();
  if (!needsWide_) return;
  for (int64_t t = token; t < token + count; t = (t / spec_.pageTokens + 1) * spec_.pageTokens)
    if (!pageOf(t).wide) widen(pageOf(t));
  writeAll();
}

void PanelStore::readRows(int64_t head, int64_t token, int64_t count, float* rows, int64_t stride) const {
  std::vector<float> scratch(static_cast<size_t>(tileFloats()));
  const bool channelRows = spec_.layout == Layout::channelRows;
  for (int64_t t = token; t < token + count;) {
    const int64_t index = t / spec_.pageTokens;
    const float* tile = read(index, head, scratch.data());
    for (; t < token + count && t / spec_.pageTokens == index; t++) {
      const int64_t slot = t % spec_.pageTokens;
      float* out = rows + (t - token) * stride;
      if (channelRows)
        for (int64_t c = 0; c < spec_.channels; c++) out[c] = tile[c * tileStride() + slot];
      else
        std::copy_n(tile + slot * rowStride(), spec_.channels, out);
    }
  }
}

const float* PanelStore::numbersOf(const Page& page, int64_t head) const {
  thread_local std::vector<float> numbers;
  const int64_t n = numberCount_, whole = n / 8 * 8;
  if (static_cast<int64_t>(numbers.size()) < n) numbers.resize(static_cast<size_t>(n));
  const Dtype dtype = page.wide ? Dtype::f32 : Dtype::f16;
  const uint8_t* from = page.scales.data() + packedBytes(dtype, head * n);
  if (whole > 0) simd().decode(static_cast<int>(dtype), from, whole, numbers.data());
  for (int64_t i = whole; i < n; i++) {
    uint16_t half;
    if (page.wide)
      std::memcpy(&numbers[static_cast<size_t>(i)], from + 4 * i, 4);
    else
      std::memcpy(&half, from + 2 * i, 2), numbers[static_cast<size_t>(i)] = floatFromHalf(half);
  }
  return numbers.data();
}

PackedBlock PanelStore::blockOf(const Page& page, int64_t head, const Run& run, const float* numbers, int64_t columns) const {
  using Scales = PackedBlock::Scales;
  const bool channelRows = spec_.layout == Layout::channelRows, perToken = spec_.grouping == Grouping::token;
  PackedBlock block{static_cast<int>(run.band.dtype), page.codes.data() + head * headBytes_ + run.byteOffset,
                    rowBytes_, spec_.pageTokens, columns, Scales::none, 1, 0, nullptr, nullptr};
  if (channelRows) {
    block.rowBytes = packedBytes(run.band.dtype, spec_.pageTokens);
    block.rows = run.band.channels;
  }
  if (run.scaled) {
    block.scale = numbers + run.firstScale;
    if (!run.band.symmetric) block.shift = numbers + run.firstShift;
    block.scales = channelRows == perToken ? Scales::alongRow : Scales::perRun;
    block.span = spec_.groupSize;
    block.stride = perToken ? spec_.pageTokens : run.band.channels;
  } else if (spec_.grouping == Grouping::tensor && (isInteger(run.band.dtype) || (spec_.tensorScale != 1 && run.band.dtype != Dtype::f32))) {
    block.scale = &spec_.tensorScale;
    block.scales = Scales::uniform;
  }
  return block;
}

const float* PanelStore::read(int64_t index, int64_t head, float* scratch) const {
  const Page& source = page(index);
  const bool plain = spec_.bands.size() == 1 && spec_.bands[0].dtype == Dtype::f32;
  const bool channelRows = spec_.layout == Layout::channelRows;
  const int64_t stride = channelRows ? tileStride() : rowStride();
  if (plain && (channelRows ? spec_.pageTokens : spec_.channels) == stride)
    return reinterpret_cast<const float*>(source.codes.data() + head * headBytes_);

  const Simd& v = simd();
  const float* numbers = numbersOf(source, head);
  for (const Run& run : runs_) {
    if (channelRows) {
      v.decodeBlock(blockOf(source, head, run, numbers, spec_.pageTokens), scratch + run.firstChannel * stride, stride);
      if (stride > spec_.pageTokens)
        for (int64_t c = run.firstChannel; c < run.firstChannel + run.band.channels; c++)
          std::fill(scratch + c * stride + spec_.pageTokens, scratch + (c + 1) * stride, 0.0f);
      continue;
    }
    // Rows are stored in whole eights of channels: what a ragged row has more of is overwritten by the next band.
    const int64_t eights = roundUp8(run.band.channels);
    if (eights == run.band.channels) {
      v.decodeBlock(blockOf(source, head, run, numbers, eights), scratch + run.firstChannel, stride);
      continue;
    }
    const PackedBlock block = blockOf(source, head, run, numbers, run.band.channels / 8 * 8);
    v.decodeBlock(block, scratch + run.firstChannel, stride);
    for (int64_t t = 0; t < spec_.pageTokens; t++) {  // the last few channels of a ragged row
      const PackedBlock last{block.dtype, block.codes + t * rowBytes_ + packedBytes(run.band.dtype, block.columns), 0, 1, 8,
                             PackedBlock::Scales::none, 1, 0, nullptr, nullptr};
      float rest[8];
      v.decodeBlock(last, rest, 0);
      for (int64_t c = block.columns; c < run.band.channels; c++) {
        float& out = scratch[t * stride + run.firstChannel + c];
        out = rest[c - block.columns];
        if (!block.scale) continue;
        const int64_t at = !run.scaled ? 0 : planeIndex(run, 0, run.firstChannel + c, t);
        const float zero = isInteger(run.band.dtype) ? -static_cast<float>(1 << (bitsOf(run.band.dtype) - 1)) : 0;
        out = out * block.scale[at] + (block.shift ? block.shift[at] : zero * block.scale[at]);
      }
    }
  }
  if (!channelRows && stride > spec_.channels)
    for (int64_t t = 0; t < spec_.pageTokens; t++)
      std::fill(scratch + t * stride + spec_.channels, scratch + (t + 1) * stride, 0.0f);
  return scratch;
}

void PanelStore::multiply(int64_t index, int64_t head, int64_t m, const float* a, int64_t lda, float* c, int64_t ldc,
                          const float* beta, float* scratch) const {
  const bool channelRows = spec_.layout == Layout::channelRows;
  const int64_t columns = channelRows ? tileStride() : rowStride(), group = spec_.groupSize;
  bool whole = channelRows ? columns == spec_.pageTokens : columns == spec_.channels;
  for (const Run& run : runs_) {
    const int64_t width = channelRows ? columns : run.band.channels, depth = channelRows ? run.band.channels : spec_.pageTokens;
    whole &= width % padFloats == 0;
    if (run.scaled)  // groups lie along columns, or along the depth of the product
      whole &= channelRows != (spec_.grouping == Grouping::token) ? group % padFloats == 0 || group >= width
                                                                   : group <= packedDepth || group >= depth;
  }
  const Simd& v = simd();
  if (!whole)
    return v.gemmF32(m, columns, channelRows ? spec_.channels : spec_.pageTokens, a, lda, read(index, head, scratch), columns, c, ldc, beta, {});
  const Page& source = page(index);
  const float* numbers = numbersOf(source, head);
  static const std::vector<float> ones(mostRows, 1.0f);
  for (const Run& run : runs_) {
    if (!channelRows)
      v.gemmPacked(m, a, lda, blockOf(source, head, run, numbers, run.band.channels), c + run.firstChannel, ldc, beta);
    else
      v.gemmPacked(m, a + run.firstChannel, lda, blockOf(source, head, run, numbers, columns), c, ldc, run.firstChannel ? ones.data() : beta);
  }
}

}  // namespace fastmqa
