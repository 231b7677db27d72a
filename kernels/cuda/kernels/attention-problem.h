// What every attention kernel is told, and the arithmetic of positions that they share.
#pragma once
#include "../primitives/device.h"
#include "fastmqa/dtype.h"

namespace fastmqa::gpu {

constexpr int pageTokens = 64;
constexpr int unlimitedTokens = 1 << 30;
constexpr float log2OfE = 1.4426950408889634f, naturalLogOf2 = 0.6931471805599453f;

/// Rows of keys or values. Strided: token t of head g of sequence b starts at b * batchBytes + g * headBytes +
/// t * tokenBytes. Paged (pagesPerSequence > 0): pages of 64 tokens, a page is batchBytes long, and page number n of
/// sequence b is pages[b * pagesPerSequence + n], or b * pagesPerSequence + n where there is no table.
struct TokenRows {
  Global<const uint8_t> data;
  Global<const int32_t> pages;
  int pagesPerSequence = 0;
  int64_t batchBytes = 0, headBytes = 0, tokenBytes = 0;

  FASTMQA_DEVICE int64_t page(int b, int token) const {
    const int64_t at = static_cast<int64_t>(b) * pagesPerSequence + token / pageTokens;
    return pages ? pages[at] : at;
  }
  FASTMQA_DEVICE int64_t offset(int b, int g, int token) const {
    if (pagesPerSequence == 0) return b * batchBytes + g * headBytes + token * tokenBytes;
    return page(b, token) * batchBytes + g * headBytes + token % pageTokens * tokenBytes;
  }

  // The same in steps, for loops over 64 tokens at a time: pageOffset(start(b, g), pageStride(), b, n) == offset(b, g, 64 n).
  FASTMQA_DEVICE int64_t start(int b, int g) const {
    return g * headBytes + (pages ? 0 : static_cast<int64_t>(b) * (pagesPerSequence > 0 ? pagesPerSequence : 1) * batchBytes);
  }
  FASTMQA_DEVICE int pageStride() const { return static_cast<int>(pagesPerSequence > 0 ? batchBytes : pageTokens * tokenBytes); }
  FASTMQA_DEVICE int pageOf(int b, int n) const { return pages ? pages[static_cast<int64_t>(b) * pagesPerSequence + n] : n; }
  FASTMQA_DEVICE int64_t pageOffset(int64_t start, int stride, int b, int n) const { return start + wideProduct(pageOf(b, n), stride); }
};

enum class Sharing : int { tensor, token, channel };

/// Scales of coded rows: code * scale + shift, where shift is stored, or -2^(bits-1) * scale (symmetric).
/// token: [64 tokens][channels / group] f16 a page and head; channel: [64 / group][channels]. Shifts follow the scales
/// of the head. tensor: one f32 scale for all.
struct CodeScales {
  Global<const uint8_t> data;
  int64_t pageBytes = 0, headBytes = 0, shiftBytes = 0;  ///< shiftBytes: from scales to shifts, 0 if symmetric
  Sharing sharing = Sharing::tensor;
  int group = 1;
  int groups = 1, groupShift = 0;  ///< token: groups of a token, log2 of group; set by the plan
  float tensorScale = 1;

  FASTMQA_BOTH float wholeScale() const { return sharing == Sharing::tensor ? tensorScale : 1; }
};

struct Reconstruction;

struct AttentionProblem {
  int batch = 1, heads = 1, kvHeads = 1, keyDim = 64, valueDim = 64;
  int queryTokens = 1;
  int blockRows = 0;    ///< decode kernel: query rows of a block, no more than it has room for; set by the plan
  bool packed = false;  ///< prefill kernel: rows are (token, head) pairs of a KV head; set by the plan
  Dtype queryType = Dtype::f16, cacheType = Dtype::f16, valueType = Dtype::f16, outType = Dtype::f16;

  Global<const uint8_t> queries;  ///< strides in elements
  int64_t queryBatch = 0, queryToken = 0, queryHead = 0;

  TokenRows keys, values;
  CodeScales keyScales, valueScales;
  Global<const int32_t> lengths;  ///< tokens of each sequence in this part of the cache; without it `length`
  int length = 0;
  int firstKey = 0;               ///< position of the part's token 0
  int firstSeen = 0;              ///< tokens of the part before this one are attended elsewhere
  Global<const int32_t> positions;  ///< of query 0 of each sequence; without it `position`
  int position = 0;

  /// A query at p sees keys p - left .. p + right, and keys before `sinks` that are not right of it.
  int left = unlimitedTokens, right = 0, sinks = 0;
  float scale = 1, softcap = 0;  ///< softcap 0: none

  /// Parts of the keys are attended separately: `slots` of them in all, this launch fills `splits` from firstSlot on.
  int splits = 1, firstSlot = 0, slots = 1;
  Global<float> partialSums;  ///< [slots][batch][queryTokens][heads][valueDim], each normalised; aligned to 16 bytes where valueDim is
  Global<float> partialLogs;  ///< [slots][batch][queryTokens][heads], log2 of the sum of exponentials

  Global<uint8_t> out;  ///< strides in elements; written directly when slots is 1
  int64_t outBatch = 0, outToken = 0, outHead = 0;
  bool alignedOut = false;  ///< rows of the output are aligned to 16 bytes; set by the plan
  const Reconstruction* made = nullptr;  ///< keys and values are made of latents (reconstruct.h); in the host's memory
  Global<float> logSums;  ///< [batch][queryTokens][heads], natural logarithm, or nothing

  FASTMQA_DEVICE int tokensOf(int b) const { return lengths ? lengths[b] : length; }
  FASTMQA_DEVICE int positionOf(int b) const { return positions ? positions[b] : position; }
  FASTMQA_BOTH int groupSize() const { return heads / kvHeads; }
};

/// Tiles [begin, end) of the visible ones.
struct TileRange {
  int begin, end;
  /// How many a worker has that takes begin + worker and every workers-th from there.
  FASTMQA_DEVICE int countOf(int worker, int workers) const { return begin + worker < end ? (end - begin - worker + workers - 1) / workers : 0; }
};

/// The tiles of `tileTokens` keys that any query of [firstPosition, lastPosition] sees: those with sinks, then the rest.
struct VisibleTiles {
  int sinkTiles, windowTile, count;
  int allSeeFrom, allSeeTo;  ///< keys [from, to) are seen by every query

  FASTMQA_DEVICE VisibleTiles(const AttentionProblem& p, int length, int firstPosition, int lastPosition, int tileTokens) {
    const int end = clamp(lastPosition + p.right + 1 - p.firstKey, length);
    const int inWindow = firstPosition - p.left - p.firstKey, begin = clamp(inWindow < p.firstSeen ? p.firstSeen : inWindow, end);
    windowTile = begin / tileTokens;
    const int sinkEnd = clamp(p.sinks - p.firstKey, end);
    sinkTiles = (sinkEnd + tileTokens - 1) / tileTokens;
    if (sinkTiles > windowTile) sinkTiles = windowTile;
    const int endTile = (end + tileTokens - 1) / tileTokens;
    count = sinkTiles + (endTile > windowTile ? endTile - windowTile : 0);
    allSeeFrom = lastPosition - p.left - p.firstKey;
    allSeeFrom = allSeeFrom < p.firstSeen ? p.firstSeen : allSeeFrom;
    allSeeTo = clamp(firstPosition + p.right + 1 - p.firstKey, length);
  }
  FASTMQA_DEVICE int tile(int i) const { return i < sinkTiles ? i : windowTile + i - sinkTiles; }
  /// Of a split: as many as every other has, or what is left.
  FASTMQA_DEVICE TileRange shareOf(int split, int splits) const {
    const int share = (count + splits - 1) / splits, begin = split * share;
    return {begin, begin + share < count ? begin + share : count};
  }
  FASTMQA_DEVICE bool needsMask(int firstToken, int tokens) const {
    return firstToken < allSeeFrom || firstToken + tokens > allSeeTo;
  }

 private:
  static FASTMQA_DEVICE int clamp(int x, int most) { return x < 0 ? 0 : x < most ? x : most; }
};

/// What the query at `position` sees, as tokens of the part: [from, to), and those before sinkEnd.
struct RowMask {
  int from, to, sinkEnd;
  FASTMQA_DEVICE RowMask(const AttentionProblem& p, int length, int position) {
    from = position - p.left - p.firstKey;
    from = from < p.firstSeen ? p.firstSeen : from;
    to = position + p.right + 1 - p.firstKey;
    to = to < length ? to : length;
    sinkEnd = p.sinks - p.firstKey;
  }
  /// Without branches: it runs for every score of a tile on the edge.
  FASTMQA_DEVICE bool sees(int token) const {
    return static_cast<int>(token < to) & (static_cast<int>(token >= from) | static_cast<int>(token < sinkEnd));
  }
};

/// A logit in units of log2: scaled, capped.
FASTMQA_DEVICE float finishLogit(const AttentionProblem& p, float dot, float scaleLog2) {
  if (p.softcap == 0) return dot * scaleLog2;
  const float x = dot * (2 * scaleLog2 / p.softcap);  // 2^x = e^(2 logit / cap)
  return p.softcap * log2OfE * (1 - 2 * reciprocal(1 + exp2Fast(x)));
}

constexpr float minusInfinity = -__builtin_huge_valf();

/// log2 of a sum of exponentials, given as the sum of weights 2^(logit - reference), logits in units of log2.
FASTMQA_DEVICE float log2OfSum(float reference, float weights) { return weights > 0 ? reference + log2f(weights) : minusInfinity; }

/// Bits of an integer code; 0 for floating types.
FASTMQA_BOTH int codeBits(Dtype type) {
  switch (type) {
    case Dtype::int8: return 8;
    case Dtype::int4: return 4;
    case Dtype::int3: return 3;
    case Dtype::int2: return 2;
    default: return 0;
  }
}

FASTMQA_DEVICE float loadNumber(Dtype type, Global<const uint8_t> from, int64_t element) {
  switch (type) {
    case Dtype::f32: return from.load<float>(element * 4);
    case Dtype::f16: return lowHalf(F16(), from.load<uint16_t>(element * 2));
    case Dtype::bf16: return lowHalf(Bf16(), from.load<uint16_t>(element * 2));
    default: return floatOf(0x7fc00000u);
  }
}
/// Elements `element` and the next; 16-bit pairs must be aligned to 4 bytes.
FASTMQA_DEVICE void loadPair(Dtype type, Global<const uint8_t> from, int64_t element, float& x, float& y) {
  if (type == Dtype::f32) {
    x = from.load<float>(element * 4);
    y = from.load<float>(element * 4 + 4);
    return;
  }
  const uint32_t both = from.load<uint32_t>(element * 2);
  x = type == Dtype::f16 ? lowHalf(F16(), both) : lowHalf(Bf16(), both);
  y = type == Dtype::f16 ? highHalf(F16(), both) : highHalf(Bf16(), both);
}
FASTMQA_DEVICE void storeNumber(Dtype type, Global<uint8_t> to, int64_t element, float x) {
  switch (type) {
    case Dtype::f32: return to.store<float>(element * 4, x);
    case Dtype::f16: return to.store<uint16_t>(element * 2, static_cast<uint16_t>(packHalves(F16(), x, x)));
    case Dtype::bf16: return to.store<uint16_t>(element * 2, static_cast<uint16_t>(packHalves(Bf16(), x, x)));
    default: return;
  }
}

/// Where a finished number goes: the output, or a slot of the partial sums.
FASTMQA_DEVICE void storeResult(const AttentionProblem& p, int slot, int b, int token, int head, int channel, float x) {
  if (p.slots == 1) return storeNumber(p.outType, p.out, b * p.outBatch + token * p.outToken + head * p.outHead + channel, x);
  const int64_t row = ((static_cast<int64_t>(slot) * p.batch + b) * p.queryTokens + token) * p.heads + head;
  p.partialSums[row * p.valueDim + channel] = x;
}
/// Eight of them, as bits, from `channel` on, a multiple of eight.
FASTMQA_DEVICE void storeEightResults(const AttentionProblem& p, int slot, int b, int token, int head, int channel, const Word4& first, const Word4& last) {
  if (p.slots > 1) {
    const int64_t row = ((static_cast<int64_t>(slot) * p.batch + b) * p.queryTokens + token) * p.heads + head;
    p.partialSums.store(row * p.valueDim + channel, first);
    p.partialSums.store(row * p.valueDim + channel + 4, last);
    return;
  }
  const uint32_t bits[8] = {first.x, first.y, first.z, first.w, last.x, last.y, last.z, last.w};
  FASTMQA_UNROLL
  for (int i = 0; i < 8; i++) storeNumber(p.outType, p.out, b * p.outBatch + token * p.outToken + head * p.outHead + channel + i, floatOf(bits[i]));
}
FASTMQA_DEVICE void storeLogSum(const AttentionProblem& p, int slot, int b, int token, int head, float log2Sum) {
  const int64_t row = (static_cast<int64_t>(b) * p.queryTokens + token) * p.heads + head;
  if (p.slots > 1)
    p.partialLogs[static_cast<int64_t>(slot) * p.batch * p.queryTokens * p.heads + row] = log2Sum;
  else if (p.logSums)
    p.logSums[row] = log2Sum * naturalLogOf2;
}

}  // namespace fastmqa::gpu
