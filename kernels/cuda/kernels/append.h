// Putting tokens into a cache: rotary embedding, then the cache's own format, in one pass (attention-spec B.2, B.5).
// Codes and scales are those of the CPU's codec, bit for bit.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

/// Keys or values of new tokens, and the rows of the cache that they become.
struct AppendSide {
  Global<const uint8_t> from;  ///< strides in elements
  int64_t fromBatch = 0, fromToken = 0, fromHead = 0;
  Dtype fromType = Dtype::f16, cacheType = Dtype::f16;
  int channels = 0;
  TokenRows rows;  ///< data is written
  Global<uint8_t> data, scaleData;
  CodeScales scales;
  bool symmetric = false;
  bool rotated = false;
};

struct AppendProblem {
  static constexpr int mostSides = 8;
  AppendSide sides[mostSides];
  int sideCount = 2;
  int batch = 1, kvHeads = 1, tokens = 1;
  Global<const int32_t> lengths;  ///< tokens that each sequence has in this part already; without it `length`
  int length = 0, firstKey = 0;
  int firstValid = 0;  ///< settle: positions before it do not shape the scales
  Global<const float> cosine, sine;  ///< [positions][pairs]
  int pairs = 0;
  bool interleaved = false;
  /// Counts groups whose scale does not fit f16: their codes are not what the CPU would store.
  Global<int32_t> misfits;
};

struct GroupCode {
  float scale, shift;
  bool fits;
};

FASTMQA_DEVICE float roundedToHalf(float x) { return lowHalf(F16(), packHalves(F16(), x, x)); }

/// Scale (and minimum) for numbers in [lowest, highest], rounded to f16 before they are used.
FASTMQA_DEVICE GroupCode groupCode(int bits, bool symmetric, float lowest, float highest) {
  GroupCode g;
  const auto awkward = [](float x) { return x != 0 && (fabsf(x) < 0x1p-14f || fabsf(x) > 65504.0f); };
  if (symmetric) {
    const float step = fmaxf(fabsf(lowest), fabsf(highest)) / static_cast<float>((1 << (bits - 1)) - 1);
    g.fits = !awkward(step);
    g.scale = roundedToHalf(step);
    if (g.scale == 0) g.scale = 1;
    g.shift = -static_cast<float>(1 << (bits - 1)) * g.scale;
  } else {
    g.shift = roundedToHalf(lowest);
    const float step = (highest - g.shift) / static_cast<float>((1 << bits) - 1);
    g.fits = !awkward(step) && fabsf(lowest) <= 65504.0f;
    g.scale = roundedToHalf(step);
    if (!(g.scale > 0)) g.scale = 1;
  }
  return g;
}

FASTMQA_DEVICE uint32_t codeOf(float x, const GroupCode& g, int bits, bool symmetric) {
  const float code = rintf((x - g.shift) / g.scale), least = symmetric ? 1.0f : 0.0f, most = static_cast<float>((1 << bits) - 1);
  return static_cast<uint32_t>(code > least ? code < most ? code : most : least);
}

/// Round to nearest even, saturating; `mantissa` bits, exponent bias `bias`, largest finite number `largest`.
FASTMQA_DEVICE uint32_t fp8Code(float x, int mantissa, int bias, float largest) {
  const uint32_t sign = bitsOfFloat(x) >> 24 & 0x80u;
  const float magnitude = fabsf(x) < largest ? fabsf(x) : largest;
  const uint32_t u = bitsOfFloat(magnitude), smallestNormal = static_cast<uint32_t>(127 + 1 - bias) << 23;
  if (u < smallestNormal)  // subnormal: a multiple of 2^(1 - bias - mantissa)
    return sign | static_cast<uint32_t>(rintf(magnitude * floatOf(static_cast<uint32_t>(127 + bias - 1 + mantissa) << 23)));
  const int dropped = 23 - mantissa;
  const uint32_t rounded = (u + ((1u << (dropped - 1)) - 1) + (u >> dropped & 1u)) >> dropped;
  return sign | (rounded - (static_cast<uint32_t>(127 - bias) << mantissa));
}

/// Channel c of a new token, rotated if the side is.
FASTMQA_DEVICE float newNumber(const AppendProblem& p, const AppendSide& side, int b, int token, int head, int position, int c) {
  const int64_t row = b * side.fromBatch + token * side.fromToken + head * side.fromHead;
  const float x = loadNumber(side.fromType, side.from, row + c);
  if (!side.rotated || c >= 2 * p.pairs) return x;
  const int pair = p.interleaved ? c / 2 : c % p.pairs;
  const bool second = p.interleaved ? c % 2 : c >= p.pairs;
  const int other = p.interleaved ? c ^ 1 : second ? c - p.pairs : c + p.pairs;
  const float y = loadNumber(side.fromType, side.from, row + other);
  const float cosine = p.cosine[static_cast<int64_t>(position) * p.pairs + pair], sine = p.sine[static_cast<int64_t>(position) * p.pairs + pair];
  return second ? x * cosine + y * sine : x * cosine - y * sine;
}

FASTMQA_DEVICE void storeCodes(const AppendSide& side, int64_t row, int channel, uint32_t code, uint32_t nextCode) {
  if (side.cacheType == Dtype::int4) {
    side.data[row + channel / 2] = static_cast<uint8_t>(code | nextCode << 4);
  } else {
    side.data[row + channel] = static_cast<uint8_t>(code);
    if (channel + 1 < side.channels) side.data[row + channel + 1] = static_cast<uint8_t>(nextCode);
  }
}
/// Up to eight codes of 3 or 2 bits from a channel that is a multiple of eight.
FASTMQA_DEVICE void storeSmallCodes(const AppendSide& side, int64_t row, int channel, int count, int bits, uint32_t codes) {
  for (int i = 0; 8 * i < count * bits; i++) side.data[row + channel * bits / 8 + i] = static_cast<uint8_t>(codes >> 8 * i);
}
FASTMQA_DEVICE void storeScale(const AppendSide& side, int64_t at, const GroupCode& g) {
  side.scaleData.store<uint16_t>(at, static_cast<uint16_t>(packHalves(F16(), g.scale, 0)));
  if (!side.symmetric) side.scaleData.store<uint16_t>(at + side.scales.shiftBytes, static_cast<uint16_t>(packHalves(F16(), g.shift, 0)));
}

/// Tokens in formats that need no other token: a warp a (token, head, side), a lane two channels at a time.
constexpr int appendWarps = 4;

FASTMQA_KERNEL(appendWarps * warpSize_, 1) appendKernel(const AppendProblem p) {
  releaseFollower();
  awaitPredecessor();
  const int unit = blockIndex().x * appendWarps + warpIndex(), lane = laneIndex(), b = blockIndex().z;
  const int head = unit % p.kvHeads, token = unit / p.kvHeads;
  if (token >= p.tokens) return;
  const AppendSide& side = p.sides[blockIndex().y];
  const int place = (p.lengths ? p.lengths[b] : p.length) + token, position = p.firstKey + place;
  const int64_t row = side.rows.offset(b, head, place);
  const auto number = [&](int c) { return c < side.channels ? newNumber(p, side, b, token, head, position, c) : 0.0f; };
  const int bits = codeBits(side.cacheType);
  if (bits == 0) {
    const float inverse = 1 / side.scales.tensorScale;
    for (int c = lane; c < side.channels; c += warpSize_) {
      const float x = number(c);
      switch (side.cacheType) {
        case Dtype::e4m3: side.data[row + c] = static_cast<uint8_t>(fp8Code(x * inverse, 3, 7, 448.0f)); break;
        case Dtype::e5m2: side.data[row + c] = static_cast<uint8_t>(fp8Code(x * inverse, 2, 15, 57344.0f)); break;
        case Dtype::f32: side.data.store<float>(row + 4 * c, x); break;
        case Dtype::f16: side.data.store<uint16_t>(row + 2 * c, static_cast<uint16_t>(packHalves(F16(), x, x))); break;
        default: side.data.store<uint16_t>(row + 2 * c, static_cast<uint16_t>(packHalves(Bf16(), x, x))); break;
      }
    }
    return;
  }
  const int group = side.scales.sharing == Sharing::token ? side.scales.group : side.channels;
  for (int first = 0; first < side.channels; first += group) {
    const int end = first + group < side.channels ? first + group : side.channels;
    GroupCode g{side.scales.tensorScale, -static_cast<float>(1 << (bits - 1)) * side.scales.tensorScale, true};
    bool symmetric = true;
    if (side.scales.sharing == Sharing::token) {
      float lowest = floatOf(0x7f800000u), highest = minusInfinity;
      for (int c = first + lane; c < end; c += warpSize_) {
        const float x = number(c);
        lowest = fminf(lowest, x), highest = fmaxf(highest, x);
      }
      for (int mask = 16; mask > 0; mask /= 2) lowest = fminf(lowest, shuffleXor(lowest, mask)), highest = fmaxf(highest, shuffleXor(highest, mask));
      symmetric = side.symmetric;
      g = groupCode(bits, symmetric, lowest, highest);
      if (lane == 0) {
        const int index = place % pageTokens * side.scales.groups + first / group;
        storeScale(side, side.rows.page(b, place) * side.scales.pageBytes + head * side.scales.headBytes + 2 * index, g);
        if (!g.fits && p.misfits) atomicAddTo(p.misfits, 0, 1);
      }
    }
    if (bits >= 4) {
      for (int c = first + 2 * lane; c < end; c += 2 * warpSize_)
        storeCodes(side, row, c, codeOf(number(c), g, bits, symmetric), c + 1 < end ? codeOf(number(c + 1), g, bits, symmetric) : 0);
      continue;
    }
    for (int c = first + 8 * lane; c < end; c += 8 * warpSize_) {
      const int count = end - c < 8 ? end - c : 8;
      uint32_t codes = 0;
      for (int i = 0; i < count; i++) codes |= codeOf(number(c + i), g, bits, symmetric) << i * bits;
      storeSmallCodes(side, row, c, count, bits, codes);
    }
  }
}

/// Whole groups of tokens whose channels share a scale: a thread `unit` channels of a group, 2, or 8 of less than 4 bits.
/// `length` and `tokens` are multiples of the group.
constexpr int settleThreads = 64;

template <int unit>
FASTMQA_KERNEL(settleThreads, 1)
settleKernel(const AppendProblem p) {
  releaseFollower();
  awaitPredecessor();
  const AppendSide& side = p.sides[0];
  const int group = side.scales.group, units = (side.channels + unit - 1) / unit;
  const int head = blockIndex().y, b = blockIndex().z, first = static_cast<int>(blockIndex().x) * group;
  const int place = (p.lengths ? p.lengths[b] : p.length) + first, bits = codeBits(side.cacheType);
  const int64_t scales = side.rows.page(b, place) * side.scales.pageBytes + head * side.scales.headBytes +
                         place % pageTokens / group * 2 * side.channels;
  for (int at = threadIndex(); at < units; at += settleThreads) {
    const int channel = unit * at, count = side.channels - channel < unit ? side.channels - channel : unit;
    GroupCode g[unit];
    FASTMQA_UNROLL
    for (int i = 0; i < unit; i++) {
      if (i >= count) continue;
      float lowest = floatOf(0x7f800000u), highest = minusInfinity;
      for (int t = 0; t < group; t++) {
        if (p.firstKey + place + t < p.firstValid) continue;
        const float x = newNumber(p, side, b, first + t, head, p.firstKey + place + t, channel + i);
        lowest = fminf(lowest, x), highest = fmaxf(highest, x);
      }
      if (lowest > highest) lowest = highest = 0;  // none of them counts
      g[i] = groupCode(bits, side.symmetric, lowest, highest);
      storeScale(side, scales + 2 * (channel + i), g[i]);
      if (!g[i].fits && p.misfits) atomicAddTo(p.misfits, 0, 1);
    }
    for (int t = 0; t < group; t++) {
      uint32_t codes[unit];
      FASTMQA_UNROLL
      for (int i = 0; i < unit; i++)
        codes[i] = i < count ? codeOf(newNumber(p, side, b, first + t, head, p.firstKey + place + t, channel + i), g[i], bits, side.symmetric) : 0;
      const int64_t row = side.rows.offset(b, head, place + t);
      if constexpr (unit == 2) {
        storeCodes(side, row, channel, codes[0], codes[1]);
      } else {
        uint32_t packed = 0;
        FASTMQA_UNROLL
        for (int i = 0; i < unit; i++) packed |= codes[i] << i * bits;
        storeSmallCodes(side, row, channel, count, bits, packed);
      }
    }
  }
}

}  // namespace fastmqa::gpu
