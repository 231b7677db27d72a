#include "panel-store.h"

#include <algorithm>
#include <cstring>

#include "../math/threads.h"
#include "../simd/simd.h"

namespace fastmqa {
namespace {

int64_t roundUp8(int64_t n) { return (n + 7) / 8 * 8; }

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

PanelStore::PanelStore(Arena& arena, StoreSpec spec) : arena_(&arena), spec_(std::move(spec)) {
  if (spec_.pageTokens < 8 || spec_.pageTokens > 64 || spec_.pageTokens % 8)
    refuse("expected pages of 8, 16, .. 64 tokens but received " + std::to_string(spec_.pageTokens));
  if (spec_.groupsTokens() && (spec_.groupSize < 1 || spec_.pageTokens % spec_.groupSize))
    refuse("expected groups of tokens that divide " + std::to_string(spec_.pageTokens) + " but received " + std::to_string(spec_.groupSize));
  if (spec_.groupSize < 1) refuse("expected groups of at least 1 but received " + std::to_string(spec_.groupSize));
  int64_t channel = 0, offset = 0;
  for (const Band& band : spec_.bands) {
    const bool scaled = isInteger(band.dtype) && spec_.grouping != Grouping::tensor;
    const bool perToken = spec_.grouping == Grouping::token;
    Run run{band, channel, offset, 0, perToken ? groupsPerToken_ : scaledChannels_, perToken ? shiftsPerToken_ : shiftedChannels_};
    if (scaled) {
      run.groups = (band.channels + spec_.groupSize - 1) / spec_.groupSize;
      groupsPerToken_ += run.groups;
      scaledChannels_ += band.channels;
      if (!band.symmetric) shiftsPerToken_ += run.groups, shiftedChannels_ += band.channels;
    }
    runs_.push_back(run);
    channel += band.channels;
    offset += spec_.layout == Layout::channelRows ? band.channels * packedBytes(band.dtype, spec_.pageTokens)
                                                  : packedBytes(band.dtype, roundUp8(band.channels));
  }
  if (channel != spec_.channels) refuse("expected bands that add up to the channels of the store");
  rowBytes_ = offset;
  headBytes_ = spec_.layout == Layout::channelRows ? offset : offset * spec_.pageTokens;
  const bool perToken = spec_.grouping == Grouping::token;
  const int64_t groupsPerPage = perToken ? spec_.pageTokens : spec_.pageTokens / std::max<int64_t>(1, spec_.groupSize);
  scaleCount_ = groupsPerPage * (perToken ? groupsPerToken_ : scaledChannels_);
  shiftCount_ = groupsPerPage * (perToken ? shiftsPerToken_ : shiftedChannels_);
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
    if (scaleCount_ > 0)
      page.scales = Buffer<uint8_t>(*arena_, (scaleCount_ + shiftCount_) * spec_.heads * 2);
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

// Numbers of a head: [scaleCount] scales, then [shiftCount] minima of the asymmetric bands; f16, or f32 when wide.
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

int64_t PanelStore::planeIndex(const Run& run, int64_t first, int64_t perToken, int64_t channels, int64_t channel,
                               int64_t slot) const {
  const int64_t inRun = channel - run.firstChannel;
  const bool channelRows = spec_.layout == Layout::channelRows;
  if (spec_.grouping == Grouping::token) {
    const int64_t group = first + inRun / spec_.groupSize;
    return channelRows ? group * spec_.pageTokens + slot : slot * perToken + group;
  }
  const int64_t group = slot / spec_.groupSize, groups = spec_.pageTokens / spec_.groupSize;
  return channelRows ? (first + inRun) * groups + group : group * channels + first + inRun;
}

int64_t PanelStore::scaleIndex(const Run& run, int64_t channel, int64_t slot) const {
  return planeIndex(run, run.firstGroup, groupsPerToken_, scaledChannels_, channel, slot);
}

int64_t PanelStore::shiftIndex(const Run& run, int64_t channel, int64_t slot) const {
  return scaleCount_ + planeIndex(run, run.firstShift, shiftsPerToken_, shiftedChannels_, channel, slot);
}

void PanelStore::putNumber(Page& page, int64_t head, int64_t index, float x) {
  const int64_t at = head * (scaleCount_ + shiftCount_) + index;
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
    if (u.run->groups == 0) return writeFloats(u.head, *u.run, u.channel, u.channels, first, u.tokens, from, stride);
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

const float* PanelStore::read(int64_t index, int64_t head, float* scratch) const {
  const Page& source = page(index);
  const uint8_t* codes = source.codes.data() + head * headBytes_;
  const bool plain = spec_.bands.size() == 1 && spec_.bands[0].dtype == Dtype::f32;
  const Simd& v = simd();
  const bool channelRows = spec_.layout == Layout::channelRows;
  const int64_t stride = channelRows ? tileStride() : rowStride();
  if (plain && (channelRows ? spec_.pageTokens : spec_.channels) == stride)
    return reinterpret_cast<const float*>(codes);

  // Scales and minima of this head as f32; symmetric codes are unsigned, so their shift follows from the scale.
  thread_local std::vector<float> numbers, offsets;
  if (scaleCount_ > 0) {
    const int64_t n = scaleCount_ + shiftCount_, whole = n / 8 * 8;
    if (static_cast<int64_t>(numbers.size()) < n) numbers.resize(static_cast<size_t>(n)), offsets.resize(static_cast<size_t>(n));
    const Dtype dtype = source.wide ? Dtype::f32 : Dtype::f16;
    const uint8_t* from = source.scales.data() + packedBytes(dtype, head * n);
    v.decode(static_cast<int>(dtype), from, whole, numbers.data());
    for (int64_t i = whole; i < n; i++) {
      uint16_t half;
      if (source.wide)
        std::memcpy(&numbers[static_cast<size_t>(i)], from + 4 * i, 4);
      else
        std::memcpy(&half, from + 2 * i, 2), numbers[static_cast<size_t>(i)] = floatFromHalf(half);
    }
  }
  const float* scales = numbers.data();

  for (const Run& run : runs_) {
    const Dtype dtype = run.band.dtype;
    const int type = static_cast<int>(dtype);
    const bool scaled = run.groups > 0, perToken = spec_.grouping == Grouping::token;
    const float zeroCode = -static_cast<float>(1 << (bitsOf(dtype) - 1));
    // Minima where stored; for symmetric bands the same places hold zeroCode * scale.
    const float* shifts = numbers.data();
    const auto shiftAt = [&](int64_t channel, int64_t slot) {
      return run.band.symmetric ? scaleIndex(run, channel, slot) : shiftIndex(run, channel, slot);
    };
    if (scaled && run.band.symmetric) {
      for (int64_t i = 0; i < scaleCount_; i++) offsets[static_cast<size_t>(i)] = zeroCode * scales[i];
      shifts = offsets.data();
    }
    float tensorShift = 0;
    PackedBlock block{type, codes + run.byteOffset, 0, 0, 0, PackedBlock::Scales::none, 1, 0, nullptr, nullptr};
    const int64_t groupsPerPage = spec_.pageTokens / std::max<int64_t>(1, spec_.groupSize);
    if (scaled) {
      block.scale = scales + scaleIndex(run, run.firstChannel, 0);
      block.shift = shifts + shiftAt(run.firstChannel, 0);
      block.scales = channelRows == perToken ? PackedBlock::Scales::alongRow : PackedBlock::Scales::perRun;
      block.span = spec_.groupSize;
    } else if (spec_.grouping == Grouping::tensor && (isInteger(dtype) || (spec_.tensorScale != 1 && dtype != Dtype::f32))) {
      tensorShift = isInteger(dtype) ? zeroCode * spec_.tensorScale : 0;
      block.scale = &spec_.tensorScale;
      block.shift = &tensorShift;
      block.scales = PackedBlock::Scales::perRun;
      block.span = spec_.pageTokens + spec_.channels;  // one run: the whole row
    }
    if (channelRows) {
      block.rowBytes = packedBytes(dtype, spec_.pageTokens);
      block.rows = run.band.channels;
      block.columns = spec_.pageTokens;
      block.stride = !scaled ? 0 : perToken ? spec_.pageTokens : groupsPerPage;
      v.decodeBlock(block, scratch + run.firstChannel * stride, stride);
      if (stride > spec_.pageTokens)
        for (int64_t c = run.firstChannel; c < run.firstChannel + run.band.channels; c++)
          std::fill(scratch + c * stride + spec_.pageTokens, scratch + (c + 1) * stride, 0.0f);
    } else {
      block.rowBytes = rowBytes_;
      block.rows = spec_.pageTokens;
      block.columns = run.band.channels / 8 * 8;
      // Scales and minima have strides of their own; where they differ, minima are laid out like the scales.
      block.stride = !scaled ? 0 : perToken ? groupsPerToken_ : scaledChannels_;
      if (scaled && !run.band.symmetric && (perToken ? shiftsPerToken_ != groupsPerToken_ : shiftedChannels_ != scaledChannels_)) {
        for (int64_t t = 0; t < spec_.pageTokens; t++)
          for (int64_t c = run.firstChannel; c < run.firstChannel + run.band.channels; c += perToken ? spec_.groupSize : 1)
            offsets[static_cast<size_t>(scaleIndex(run, c, t))] = numbers[static_cast<size_t>(shiftIndex(run, c, t))];
        block.shift = offsets.data() + scaleIndex(run, run.firstChannel, 0);
      }
      v.decodeBlock(block, scratch + run.firstChannel, stride);
      if (block.columns < run.band.channels) {  // the last few channels of a ragged row
        const int64_t c0 = block.columns;
        float rest[8];
        for (int64_t t = 0; t < spec_.pageTokens; t++) {
          v.decode(type, block.codes + t * rowBytes_ + packedBytes(dtype, c0), 8, rest);
          for (int64_t c = c0; c < run.band.channels; c++) {
            float& out = scratch[t * stride + run.firstChannel + c];
            out = rest[c - c0];
            if (block.scale) {
              const int64_t at = block.scales == PackedBlock::Scales::alongRow ? t / block.span * block.stride + c : t * block.stride + c / block.span;
              out = out * block.scale[at] + block.shift[at];
            }
          }
        }
      }
    }
  }
  if (!channelRows && stride > spec_.channels)
    for (int64_t t = 0; t < spec_.pageTokens; t++)
      std::fill(scratch + t * stride + spec_.channels, scratch + (t + 1) * stride, 0.0f);
  return scratch;
}

}  // namespace fastmqa
