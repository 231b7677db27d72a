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
  double numbers = 0;
  for (const Band& b : bands) {
    if (!isInteger(b.dtype)) continue;
    numbers += grouping == Grouping::token ? static_cast<double>((b.channels + groupSize - 1) / groupSize)
                                           : static_cast<double>(b.channels) / static_cast<double>(groupSize);
  }
  return numbers * static_cast<double>(heads) * (symmetric ? 2 : 4);
}

PanelStore::PanelStore(Arena& arena, StoreSpec spec) : arena_(&arena), spec_(std::move(spec)) {
  int64_t channel = 0, offset = 0;
  for (const Band& band : spec_.bands) {
    const bool scaled = isInteger(band.dtype) && spec_.grouping != Grouping::tensor;
    const int64_t groups = scaled ? (band.channels + spec_.groupSize - 1) / spec_.groupSize : 0;
    runs_.push_back({band, channel, groupsPerToken_, groups, offset});
    channel += band.channels;
    groupsPerToken_ += groups;
    if (spec_.layout == Layout::channelRows)
      offset += band.channels * packedBytes(band.dtype, spec_.pageTokens);
    else
      offset += packedBytes(band.dtype, roundUp8(band.channels));
  }
  if (channel != spec_.channels) refuse("expected bands that add up to the channels of the store");
  rowBytes_ = offset;
  headBytes_ = spec_.layout == Layout::channelRows ? offset : offset * spec_.pageTokens;
  if (groupsPerToken_ > 0)
    scaleCount_ = spec_.grouping == Grouping::token ? groupsPerToken_ * spec_.pageTokens
                                                    : spec_.channels * (spec_.pageTokens / spec_.groupSize);
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
      page.scales = Buffer<uint8_t>(*arena_, scaleCount_ * spec_.heads * (spec_.symmetric ? 2 : 4));
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

// Scales of a head: [scaleCount] scales, then for asymmetric formats [scaleCount] minima; f16, or f32 when wide.
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

void PanelStore::putScale(Page& page, int64_t head, int64_t index, const GroupScale& value) {
  const auto put = [&](int64_t at, float x) {
    if (page.wide)
      std::memcpy(page.scales.data() + 4 * at, &x, 4);
    else
      putFloat(Dtype::f16, page.scales.data(), at, x);
  };
  const int64_t planes = spec_.symmetric ? 1 : 2;
  put(head * planes * scaleCount_ + index, value.scale);
  if (!spec_.symmetric) put((head * planes + 1) * scaleCount_ + index, value.shift);
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
  GroupScale scale = groupScale(bits, spec_.symmetric, lowest, highest, !page.wide);
  if (!scale.fitsHalf && !page.wide) {
    widen(page);
    scale = groupScale(bits, spec_.symmetric, lowest, highest, false);
  }
  int64_t at;
  if (spec_.grouping == Grouping::token) {
    const int64_t group = run.firstGroup + (channel - run.firstChannel) / spec_.groupSize;
    at = spec_.layout == Layout::channelRows ? group * spec_.pageTokens + slot : slot * groupsPerToken_ + group;
  } else {
    const int64_t group = slot / spec_.groupSize, groups = spec_.pageTokens / spec_.groupSize;
    at = spec_.layout == Layout::channelRows ? channel * groups + group : group * spec_.channels + channel;
  }
  putScale(page, head, at, scale);
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t c = 0; c < channels; c++) {
      int64_t index;
      uint8_t* row = rowOf(page, head, run, channel + c, slot + t, &index);
      putCode(run.band.dtype, row, index, quantise(rows[t * stride + channel + c], scale, bits, spec_.symmetric));
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

  // Scales of this head as f32, and shifts: stored minima, or the offset of unsigned codes.
  thread_local std::vector<float> scales, shifts;
  if (scaleCount_ > 0) {
    const int64_t n = roundUp8(scaleCount_), planes = spec_.symmetric ? 1 : 2;
    if (static_cast<int64_t>(scales.size()) < n) scales.resize(n), shifts.resize(n);
    const int size = source.wide ? 4 : 2;
    const auto plane = [&](int64_t p, float* out) {
      const uint8_t* from = source.scales.data() + (head * planes + p) * scaleCount_ * size;
      const int64_t whole = scaleCount_ / 8 * 8;
      v.decode(static_cast<int>(source.wide ? Dtype::f32 : Dtype::f16), from, whole, out);
      for (int64_t i = whole; i < scaleCount_; i++) {
        uint16_t half;
        if (source.wide)
          std::memcpy(out + i, from + 4 * i, 4);
        else
          std::memcpy(&half, from + 2 * i, 2), out[i] = floatFromHalf(half);
      }
    };
    plane(0, scales.data());
    if (!spec_.symmetric) plane(1, shifts.data());
  }

  for (const Run& run : runs_) {
    const Dtype dtype = run.band.dtype;
    const int type = static_cast<int>(dtype);
    const bool scaled = isInteger(dtype) && spec_.grouping != Grouping::tensor;
    const float zeroCode = -static_cast<float>(1 << (bitsOf(dtype) - 1));
    if (scaled && spec_.symmetric)
      for (int64_t i = 0; i < scaleCount_; i++) shifts[i] = zeroCode * scales[i];
    const uint8_t* base = codes + run.byteOffset;
    if (channelRows) {
      const int64_t bytes = packedBytes(dtype, spec_.pageTokens), groups = spec_.pageTokens / std::max<int64_t>(1, spec_.groupSize);
      for (int64_t c = 0; c < run.band.channels; c++) {
        float* out = scratch + (run.firstChannel + c) * stride;
        v.decode(type, base + c * bytes, spec_.pageTokens, out);
        if (scaled && spec_.grouping == Grouping::token) {
          const int64_t at = (run.firstGroup + c / spec_.groupSize) * spec_.pageTokens;
          v.scaleByVector(out, spec_.pageTokens, scales.data() + at, shifts.data() + at);
        } else if (scaled) {
          for (int64_t g = 0; g < groups; g++) {
            const int64_t at = (run.firstChannel + c) * groups + g;
            v.scaleByNumber(out + g * spec_.groupSize, spec_.groupSize, scales[at], shifts[at]);
          }
        }
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
        if (scaled && spec_.grouping == Grouping::token) {
          for (int64_t g = 0; g < run.groups; g++) {
            const int64_t at = t * groupsPerToken_ + run.firstGroup + g, c0 = g * spec_.groupSize;
            v.scaleByNumber(out + c0, std::min(spec_.groupSize, run.band.channels - c0), scales[at], shifts[at]);
          }
        } else if (scaled) {
          const int64_t at = t / spec_.groupSize * spec_.channels + run.firstChannel;
          v.scaleByVector(out, run.band.channels, scales.data() + at, shifts.data() + at);
        }
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
