#include "panel-store.h"

#include <algorithm>
#include <cstring>

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

uint8_t* PanelStore::rowOf(Page& page, int64_t head, const Run& run, int64_t channel, int64_t slot, int64_t* index) {
  uint8_t* base = page.codes.data() + head * headBytes_ + run.byteOffset;
  if (spec_.layout == Layout::channelRows) {
    *index = slot;
    return base + (channel - run.firstChannel) * packedBytes(run.band.dtype, spec_.pageTokens);
  }
  *index = channel - run.firstChannel;
  return base + slot * rowBytes_;
}

void PanelStore::writeGroup(Page& page, int64_t head, const Run& run, int64_t channel, int64_t channels, int64_t token,
                            int64_t tokens, const float* rows, int64_t stride, int64_t firstValid) {
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
  GroupScale scale = groupScale(bits, symmetric, lowest, highest, !page.wide);
  if (!scale.fitsHalf && !page.wide) {
    widen(page);
    scale = groupScale(bits, symmetric, lowest, highest, false);
  }
  putNumber(page, head, scaleIndex(run, channel, slot), scale.scale);
  if (!symmetric) putNumber(page, head, shiftIndex(run, channel, slot), scale.shift);
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t c = 0; c < channels; c++) {
      int64_t index;
      uint8_t* row = rowOf(page, head, run, channel + c, slot + t, &index);
      putCode(run.band.dtype, row, index, quantise(rows[t * stride + channel + c], scale, bits, symmetric));
    }
}

void PanelStore::write(int64_t head, int64_t token, int64_t count, const float* rows, int64_t stride,
                       int64_t firstValid) {
  const bool perTensor = spec_.grouping == Grouping::tensor;
  for (const Run& run : runs_) {
    const Dtype dtype = run.band.dtype;
    const int64_t end = run.firstChannel + run.band.channels;
    if (isInteger(dtype) && spec_.grouping == Grouping::channel) {
      for (int64_t t = 0; t < count; t += spec_.groupSize)
        for (int64_t c = run.firstChannel; c < end; c++)
          writeGroup(pageOf(token + t), head, run, c, 1, token + t, spec_.groupSize, rows + t * stride, stride, firstValid);
    } else if (isInteger(dtype) && !perTensor) {
      for (int64_t t = 0; t < count; t++)
        for (int64_t c = run.firstChannel; c < end; c += spec_.groupSize)
          writeGroup(pageOf(token + t), head, run, c, std::min(spec_.groupSize, end - c), token + t, 1,
                     rows + t * stride, stride, 0);
    } else {
      const bool integer = isInteger(dtype);
      const GroupScale fixed{spec_.tensorScale, -static_cast<float>(1 << (bitsOf(dtype) - 1)) * spec_.tensorScale, true};
      const float inverse = perTensor && !integer ? 1 / spec_.tensorScale : 1;
      for (int64_t t = 0; t < count; t++) {
        Page& page = pageOf(token + t);
        const int64_t slot = (token + t) % spec_.pageTokens;
        for (int64_t c = run.firstChannel; c < end; c++) {
          int64_t index;
          uint8_t* row = rowOf(page, head, run, c, slot, &index);
          const float x = rows[t * stride + c];
          if (integer)
            putCode(dtype, row, index, quantise(x, fixed, bitsOf(dtype), true));
          else
            putFloat(dtype, row, index, x * inverse);
        }
      }
    }
  }
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
    const uint8_t* base = codes + run.byteOffset;
    const int64_t end = run.firstChannel + run.band.channels;
    if (channelRows) {
      const int64_t bytes = packedBytes(dtype, spec_.pageTokens);
      for (int64_t c = run.firstChannel; c < end; c++) {
        float* out = scratch + c * stride;
        v.decode(type, base + (c - run.firstChannel) * bytes, spec_.pageTokens, out);
        if (scaled && perToken)
          v.scaleByVector(out, spec_.pageTokens, scales + scaleIndex(run, c, 0), shifts + shiftAt(c, 0));
        else if (scaled)
          for (int64_t t = 0; t < spec_.pageTokens; t += spec_.groupSize)
            v.scaleByNumber(out + t, spec_.groupSize, scales[scaleIndex(run, c, t)], shifts[shiftAt(c, t)]);
        if (stride > spec_.pageTokens) std::fill(out + spec_.pageTokens, out + stride, 0.0f);
      }
    } else {
      for (int64_t t = 0; t < spec_.pageTokens; t++) {
        float* out = scratch + t * stride + run.firstChannel;
        const uint8_t* row = base + t * rowBytes_;
        const int64_t whole = run.band.channels / 8 * 8;
        v.decode(type, row, whole, out);
        if (whole < run.band.channels) {
          float rest[8];
          v.decode(type, row + packedBytes(dtype, whole), 8, rest);
          std::copy_n(rest, run.band.channels - whole, out + whole);
        }
        if (scaled && perToken)
          for (int64_t c = run.firstChannel; c < end; c += spec_.groupSize)
            v.scaleByNumber(out + c - run.firstChannel, std::min(spec_.groupSize, end - c), scales[scaleIndex(run, c, t)],
                            shifts[shiftAt(c, t)]);
        else if (scaled)
          v.scaleByVector(out, run.band.channels, scales + scaleIndex(run, run.firstChannel, t), shifts + shiftAt(run.firstChannel, t));
      }
    }
  if (spec_.grouping == Grouping::tensor && (isInteger(dtype) || spec_.tensorScale != 1)) {
      const float shift = isInteger(dtype) ? zeroCode * spec_.tensorScale : 0;
      if (channelRows)
        for (int64_t c = 0; c < run.band.channels; c++)
          v.scaleByNumber(scratch + (run.firstChannel + c) * stride, spec_.pageTokens, spec_.tensorScale, shift);
      else
        for (int64_t t = 0; t < spec_.pageTokens; t++)
          v.scaleByNumber(scratch + t * stride + run.firstChannel, run.band.channels, spec_.tensorScale, shift);
    }
  }
  if (!channelRows && stride > spec_.channels)
    for (int64_t t = 0; t < spec_.pageTokens; t++)
      std::fill(scratch + t * stride + spec_.channels, scratch + (t + 1) * stride, 0.0f);
  return scratch;
}

}  // namespace fastmqa
