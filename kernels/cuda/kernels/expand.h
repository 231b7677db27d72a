// Reading a cache back as plain rows: what keys need that are cached before the rotary embedding, and latents before the
// product that turns them into keys and values (attention-spec B.2, B.3).
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

/// Channels of a token that are stored in one format.
struct ExpandBand {
  TokenRows rows;
  CodeScales scales;
  Dtype type = Dtype::f16;
  int firstChannel = 0, channels = 0;
};

struct ExpandProblem {
  static constexpr int mostBands = 8;
  ExpandBand bands[mostBands];
  int bandCount = 1, channels = 0;  ///< channels of a head; those after the last band become zeros
  int batch = 1, heads = 1, tokens = 0;
  Global<uint8_t> out;  ///< strides in elements
  int64_t outBatch = 0, outToken = 0, outHead = 0;
  Dtype outType = Dtype::f16;
  int pairs = 0;      ///< rotated on the way, from the first channel of `rotatedBand` on; 0: none
  int rotatedBand = 0;
  bool interleaved = false;  ///< pairs of neighbours, else (c, c + pairs)
  int firstToken = 0; ///< where to begin
  int firstKey = 0;   ///< position of token 0 of the store
  Global<const float> cosine, sine;  ///< [positions][pairs]
};

/// Bit `bit` and following of a packed row, at most 8 of them.
FASTMQA_DEVICE uint32_t packedCode(const TokenRows& rows, int64_t row, int bits, int channel) {
  if (bits == 8) return rows.data[row + channel];
  const int bit = channel * bits, byte = bit / 8, shift = bit % 8;
  uint32_t both = rows.data[row + byte];
  if (shift + bits > 8) both |= static_cast<uint32_t>(rows.data[row + byte + 1]) << 8;
  return both >> shift & ((1u << bits) - 1);
}

constexpr int expandRun = 8;  // channels a thread takes at a time
constexpr int expandThreads = 128;

/// Channels [channel, channel + 8) of a band of one token, as far as they exist.
FASTMQA_DEVICE void expandNumbers(const ExpandBand& band, int b, int head, int token, int channel, float (&x)[expandRun]) {
  const int64_t row = band.rows.offset(b, head, token);
  const int count = band.channels - channel < expandRun ? band.channels - channel : expandRun, bits = codeBits(band.type);
  if (bits == 0) {
    const int width = band.type == Dtype::f32 ? 4 : band.type == Dtype::f16 || band.type == Dtype::bf16 ? 2 : 1;
    if (width == 2 && count == expandRun && (row + 2 * channel) % 16 == 0) {
      const Word4 w = band.rows.data.load<Word4>(row + 2 * channel);
      const uint32_t pairs[4] = {w.x, w.y, w.z, w.w};
      FASTMQA_UNROLL
      for (int i = 0; i < 4; i++) {
        x[2 * i] = band.type == Dtype::f16 ? lowHalf(F16(), pairs[i]) : lowHalf(Bf16(), pairs[i]);
        x[2 * i + 1] = band.type == Dtype::f16 ? highHalf(F16(), pairs[i]) : highHalf(Bf16(), pairs[i]);
      }
      return;
    }
    FASTMQA_UNROLL
    for (int i = 0; i < expandRun; i++) {
      if (i >= count) {
        x[i] = 0;
      } else if (width > 1) {
        x[i] = loadNumber(band.type, Global<const uint8_t>(band.rows.data), row / width + channel + i);
      } else {
        const uint32_t code = band.rows.data[row + channel + i];
        const uint32_t half = band.type == Dtype::e5m2 ? code << 8 : (code & 0x7f) << 7 | (code & 0x80) << 8;
        x[i] = lowHalf(F16(), half) * (band.type == Dtype::e4m3 ? 256.0f : 1.0f) * band.scales.tensorScale;
      }
    }
    return;
  }
  const CodeScales& s = band.scales;
  const float zero = static_cast<float>(1 << (bits - 1));
  const int slot = token % pageTokens, groups = (band.channels + s.group - 1) / s.group;
  const int64_t plane = s.sharing == Sharing::tensor ? 0 : band.rows.page(b, token) * s.pageBytes + head * s.headBytes;
  uint32_t codes[expandRun];
  if (bits == 8 && count == expandRun && (row + channel) % 8 == 0) {
    const Word2 w = band.rows.data.load<Word2>(row + channel);
    FASTMQA_UNROLL
    for (int i = 0; i < expandRun; i++) codes[i] = (i < 4 ? w.x : w.y) >> (i % 4 * 8) & 255u;
  } else if (bits == 4 && count == expandRun && channel % 2 == 0 && (row + channel / 2) % 4 == 0) {
    const uint32_t w = band.rows.data.load<uint32_t>(row + channel / 2);
    FASTMQA_UNROLL
    for (int i = 0; i < expandRun; i++) codes[i] = w >> (4 * i) & 15u;
  } else if (bits < 8 && count == expandRun && channel % expandRun == 0) {  // eight codes are as many bytes as a code has bits
    uint32_t w = 0;
    for (int i = 0; i < bits; i++) w |= static_cast<uint32_t>(band.rows.data[row + channel / 8 * bits + i]) << (8 * i);
    FASTMQA_UNROLL
    for (int i = 0; i < expandRun; i++) codes[i] = w >> (bits * i) & ((1u << bits) - 1);
  } else {
    FASTMQA_UNROLL
    for (int i = 0; i < expandRun; i++) codes[i] = i < count ? packedCode(band.rows, row, bits, channel + i) : 0;
  }
  if (count == expandRun && channel % expandRun == 0 && s.sharing != Sharing::tensor) {  // scales of a run lie together, or it has one
    const bool perChannel = s.sharing == Sharing::channel;
    const int64_t at = plane + 2 * (perChannel ? static_cast<int64_t>(slot / s.group) * band.channels + channel : static_cast<int64_t>(slot) * groups + channel / s.group);
    if (perChannel && at % 16 == 0 && s.shiftBytes % 16 == 0) {
      const Word4 a = s.data.load<Word4>(at), b = s.shiftBytes ? s.data.load<Word4>(at + s.shiftBytes) : Word4{0, 0, 0, 0};
      const uint32_t scales[4] = {a.x, a.y, a.z, a.w}, shifts[4] = {b.x, b.y, b.z, b.w};
      FASTMQA_UNROLL
      for (int i = 0; i < expandRun; i++) {
        const float scale = i % 2 ? highHalf(F16(), scales[i / 2]) : lowHalf(F16(), scales[i / 2]);
        const float shift = i % 2 ? highHalf(F16(), shifts[i / 2]) : lowHalf(F16(), shifts[i / 2]);
        x[i] = static_cast<float>(codes[i]) * scale + (s.shiftBytes ? shift : -zero * scale);
      }
      return;
    }
    if (!perChannel && s.group % expandRun == 0) {
      const float scale = lowHalf(F16(), s.data.load<uint16_t>(at)), shift = s.shiftBytes ? lowHalf(F16(), s.data.load<uint16_t>(at + s.shiftBytes)) : -zero * scale;
      FASTMQA_UNROLL
      for (int i = 0; i < expandRun; i++) x[i] = static_cast<float>(codes[i]) * scale + shift;
      return;
    }
  }
  float scale = s.tensorScale, shift = -zero * scale;
  int64_t last = -1;
  FASTMQA_UNROLL
  for (int i = 0; i < expandRun; i++) {
    if (s.sharing != Sharing::tensor && i < count) {
      const int64_t index = s.sharing == Sharing::token ? slot * groups + (channel + i) / s.group : slot / s.group * band.channels + channel + i;
      if (index != last) {
        scale = lowHalf(F16(), s.data.load<uint16_t>(plane + 2 * index));
        shift = s.shiftBytes ? lowHalf(F16(), s.data.load<uint16_t>(plane + s.shiftBytes + 2 * index)) : -zero * scale;
        last = index;
      }
    }
    x[i] = i < count ? static_cast<float>(codes[i]) * scale + shift : 0.0f;
  }
}

/// Writes numbers of a row, 16-bit ones as one where they are aligned.
FASTMQA_DEVICE void storeRun(Dtype type, Global<uint8_t> out, int64_t element, int count, const float (&x)[expandRun]) {
  if (type != Dtype::f32 && count == expandRun && element % 8 == 0) {
    Word4 w;
    if (type == Dtype::f16)
      w = {packHalves(F16(), x[0], x[1]), packHalves(F16(), x[2], x[3]), packHalves(F16(), x[4], x[5]), packHalves(F16(), x[6], x[7])};
    else
      w = {packHalves(Bf16(), x[0], x[1]), packHalves(Bf16(), x[2], x[3]), packHalves(Bf16(), x[4], x[5]), packHalves(Bf16(), x[6], x[7])};
    out.store<Word4>(element * 2, w);
    return;
  }
  FASTMQA_UNROLL
  for (int i = 0; i < expandRun; i++)
    if (i < count) storeNumber(type, out, element + i, x[i]);
}

/// Grid: x runs of (token, run of channels), y heads, z sequences.
FASTMQA_KERNEL(expandThreads, 1) expandKernel(const ExpandProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int head = blockIndex().y, b = blockIndex().z;
  int runs = 0;
  for (int i = 0; i < p.bandCount; i++) runs += (p.bands[i].channels + expandRun - 1) / expandRun;
  const int end = p.bands[p.bandCount - 1].firstChannel + p.bands[p.bandCount - 1].channels;
  if (end < p.channels) runs++;  // the zeros
  const int64_t unit = static_cast<int64_t>(blockIndex().x) * expandThreads + threadIndex();
  const int token = static_cast<int>(unit / runs);
  if (token >= p.tokens) return;
  int run = static_cast<int>(unit % runs), i = 0;
  const int stored = p.firstToken + token;
  const int64_t out = b * p.outBatch + token * p.outToken + head * p.outHead;
  while (i < p.bandCount && run >= (p.bands[i].channels + expandRun - 1) / expandRun) run -= (p.bands[i++].channels + expandRun - 1) / expandRun;
  if (i == p.bandCount) {
    for (int c = end; c < p.channels; c++) storeNumber(p.outType, p.out, out + c, 0);
    return;
  }
  const ExpandBand& band = p.bands[i];
  const int channel = run * expandRun;
  float x[expandRun];
  expandNumbers(band, b, head, stored, channel, x);
  if (i == p.rotatedBand && channel < 2 * p.pairs && p.interleaved) {  // expandRun is even: partners are in the run
    const int64_t at = static_cast<int64_t>(p.firstKey + stored) * p.pairs + channel / 2;
    FASTMQA_UNROLL
    for (int c = 0; c < expandRun; c += 2) {
      if (channel + c >= 2 * p.pairs) continue;
      const float cosine = p.cosine[at + c / 2], sine = p.sine[at + c / 2], before = x[c];
      x[c] = before * cosine - x[c + 1] * sine;
      x[c + 1] = x[c + 1] * cosine + before * sine;
    }
  } else if (i == p.rotatedBand && channel < 2 * p.pairs) {  // the partner's channels too: each of the two runs writes its own half
    float y[expandRun];
    if (p.pairs % expandRun == 0) {
      const bool second = channel >= p.pairs;
      expandNumbers(band, b, head, stored, second ? channel - p.pairs : channel + p.pairs, y);
      const int64_t at = static_cast<int64_t>(p.firstKey + stored) * p.pairs + (second ? channel - p.pairs : channel);
      FASTMQA_UNROLL
      for (int c = 0; c < expandRun; c++) x[c] = x[c] * p.cosine[at + c] + (second ? y[c] : -y[c]) * p.sine[at + c];
    } else {
      for (int c = 0; c < expandRun && channel + c < 2 * p.pairs; c++) {
        const bool second = channel + c >= p.pairs;
        const int other = second ? channel + c - p.pairs : channel + c + p.pairs;
        expandNumbers(band, b, head, stored, other, y);
        const int64_t at = static_cast<int64_t>(p.firstKey + stored) * p.pairs + (second ? other : channel + c);
        x[c] = x[c] * p.cosine[at] + (second ? y[0] : -y[0]) * p.sine[at];
      }
    }
  }
  storeRun(p.outType, p.out, out + band.firstChannel + channel, band.channels - channel < expandRun ? band.channels - channel : expandRun, x);
}

/// Rotates rows [count][heads][width] in place; row r is at position firstPosition + r % perSequence.
struct RotateProblem {
  Global<uint8_t> rows;
  Dtype type = Dtype::f16;
  int64_t count = 0;
  int heads = 1, width = 64, pairs = 0, perSequence = 1, firstPosition = 0;
  Global<const float> cosine, sine;
};
constexpr int rotateThreads = 128;

FASTMQA_KERNEL(rotateThreads, 1) rotateKernel(const RotateProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int64_t unit = static_cast<int64_t>(blockIndex().x) * rotateThreads + threadIndex();
  const int64_t row = unit / p.pairs / p.heads;
  if (row >= p.count) return;
  const int pair = static_cast<int>(unit % p.pairs);
  const int64_t at = unit / p.pairs * p.width + pair;
  const int64_t angle = (p.firstPosition + row % p.perSequence) * p.pairs + pair;
  const Global<const uint8_t> rows(p.rows.data(), 0 + p.count * p.heads * p.width * (p.type == Dtype::f32 ? 4 : 2));
  const float x = loadNumber(p.type, rows, at), y = loadNumber(p.type, rows, at + p.pairs);
  const float cosine = p.cosine[angle], sine = p.sine[angle];
  storeNumber(p.type, p.rows, at, x * cosine - y * sine);
  storeNumber(p.type, p.rows, at + p.pairs, y * cosine + x * sine);
}

}  // namespace fastmqa::gpu
