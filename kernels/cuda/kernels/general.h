// Attention for whatever the matrix kernels do not take: f32 inputs, odd head sizes, every cache format and grouping.
// f32 arithmetic throughout. A block takes eight query rows of one KV head and a share of the keys, 16 at a time.
#pragma once
#include "query-block.h"

namespace fastmqa::gpu {

struct GeneralShape {
  static constexpr int threads = 128, rows = 8, tokens = 16, mostValueDim = 512;
  static int sharedBytes(int keyDim, int valueDim) {
    const int wide = keyDim > valueDim ? keyDim : valueDim;
    return (rows * keyDim + tokens * (wide + 1) + rows * tokens + 3 * rows) * 4 + 5 * 16;
  }
};

FASTMQA_DEVICE float floatFromE4m3(uint32_t code) {
  const uint32_t pair = ((code & 0x7f) << 7) | ((code & 0x80) << 8);
  return lowHalf(F16(), pair) * 256.0f;
}

/// One number of a cached row, decoded.
FASTMQA_DEVICE float cachedNumber(Dtype type, const TokenRows& rows, const CodeScales& scales, int channels, int b, int g, int token, int channel) {
  const int64_t at = rows.offset(b, g, token);
  switch (type) {
    case Dtype::f32: return rows.data.load<float>(at + 4 * channel);
    case Dtype::f16: return lowHalf(F16(), rows.data.load<uint16_t>(at + 2 * channel));
    case Dtype::bf16: return lowHalf(Bf16(), rows.data.load<uint16_t>(at + 2 * channel));
    case Dtype::e4m3: return floatFromE4m3(rows.data[at + channel]) * scales.tensorScale;
    case Dtype::e5m2: return lowHalf(F16(), static_cast<uint32_t>(rows.data[at + channel]) << 8) * scales.tensorScale;
    default: break;
  }
  const bool nibbles = type == Dtype::int4;
  const uint32_t byte = rows.data[at + (nibbles ? channel / 2 : channel)];
  const uint32_t code = nibbles ? byte >> (channel % 2 * 4) & 15 : byte;
  const float zero = nibbles ? 8.0f : 128.0f;
  if (scales.sharing == Sharing::tensor) return (static_cast<float>(code) - zero) * scales.tensorScale;
  const int slot = token % pageTokens;
  const int index = scales.sharing == Sharing::token ? slot * ((channels + scales.group - 1) / scales.group) + channel / scales.group
                                                     : slot / scales.group * channels + channel;
  const int64_t place = rows.page(b, token) * scales.pageBytes + g * scales.headBytes + 2 * index;
  const float scale = lowHalf(F16(), scales.data.load<uint16_t>(place));
  if (!scales.shiftBytes) return (static_cast<float>(code) - zero) * scale;
  return static_cast<float>(code) * scale + lowHalf(F16(), scales.data.load<uint16_t>(place + scales.shiftBytes));
}

FASTMQA_KERNEL(GeneralShape::threads, 1) generalKernel(const AttentionProblem p) {
  constexpr int rows = GeneralShape::rows, tokens = GeneralShape::tokens, threads = GeneralShape::threads;
  constexpr int columns = GeneralShape::mostValueDim / threads;
  const int thread = threadIndex();
  const QueryBlock block(p, rows);
  const int wide = (p.keyDim > p.valueDim ? p.keyDim : p.valueDim) + 1;
  SharedCarver carver;
  const auto queries = carver.take<float>(rows * p.keyDim);
  const auto tile = carver.take<float>(tokens * wide);
  const auto weights = carver.take<float>(rows * tokens);
  const auto tops = carver.take<float>(rows);
  const auto fades = carver.take<float>(rows);
  const auto totals = carver.take<float>(rows);

  for (int i = thread; i < rows * p.keyDim; i += threads) {
    const int row = i / p.keyDim;
    queries.store(i, row < block.rowsHere ? loadNumber(p.queryType, p.queries, block.query(p, row) + i % p.keyDim) : 0.0f);
  }
  if (thread < rows) tops.store(thread, minusInfinity), totals.store(thread, 0.0f);
  float sums[columns][rows] = {};

  const BlockTiles tiles(p, block, tokens);
  for (int i = tiles.share.begin; i < tiles.share.end; i++) {
    const int first = tiles.tile(i) * tokens;
    const auto loadTile = [&](Dtype type, const TokenRows& from, const CodeScales& scales, int channels) {
      for (int j = thread; j < tokens * channels; j += threads) {
        const int token = j / channels;
        tile.store(token * wide + j % channels,
                   first + token < tiles.length ? cachedNumber(type, from, scales, channels, block.b, block.g, first + token, j % channels) : 0.0f);
      }
    };
    blockBarrier();
    loadTile(p.cacheType, p.keys, p.keyScales, p.keyDim);
    blockBarrier();
    {  // one score a thread: 8 rows of 16 tokens
      const int row = thread / tokens, token = thread % tokens;
      float dot = 0;
      for (int c = 0; c < p.keyDim; c++) dot += queries.load(row * p.keyDim + c) * tile.load(token * wide + c);
      float x = finishLogit(p, dot, p.scale * log2OfE);
      if (!tiles.mask(p, block.token(row)).sees(first + token)) x = minusInfinity;
      float most = x;
      FASTMQA_UNROLL
      for (int mask = 8; mask > 0; mask /= 2) most = fmaxf(most, shuffleXor(most, mask));
      const float before = tops.load(row), top = fmaxf(before, most), shift = top == minusInfinity ? 0 : top;
      const float weight = exp2Fast(x - shift);
      float sum = weight;
      FASTMQA_UNROLL
      for (int mask = 8; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
      weights.store(row * tokens + token, weight);
      warpBarrier();  // all 16 have read the row's top
      if (token == 0) {
        const float fade = exp2Fast(before - shift);
        tops.store(row, top);
        fades.store(row, fade);
        totals.store(row, totals.load(row) * fade + sum);
      }
    }
    blockBarrier();
    loadTile(p.valueType, p.values, p.valueScales, p.valueDim);
    blockBarrier();
    FASTMQA_UNROLL
    for (int r = 0; r < rows; r++) {
      const float fade = fades.load(r);
      FASTMQA_UNROLL
      for (int c = 0; c < columns; c++) sums[c][r] *= fade;
    }
    for (int token = 0; token < tokens; token++) {
      float weight[rows];
      FASTMQA_UNROLL
      for (int r = 0; r < rows; r++) weight[r] = weights.load(r * tokens + token);
      FASTMQA_UNROLL
      for (int c = 0; c < columns; c++) {
        const int channel = thread + c * threads;
        if (channel >= p.valueDim) continue;
        const float v = tile.load(token * wide + channel);
        FASTMQA_UNROLL
        for (int r = 0; r < rows; r++) sums[c][r] += weight[r] * v;
      }
    }
  }
  blockBarrier();
  FASTMQA_UNROLL
  for (int row = 0; row < rows; row++) {
    if (row >= block.rowsHere) break;
    const int token = block.token(row), head = block.head(row), slot = p.firstSlot + block.split;
    const float total = totals.load(row);
    FASTMQA_UNROLL
    for (int c = 0; c < columns; c++) {
      const int channel = thread + c * threads;
      if (channel < p.valueDim) storeResult(p, slot, block.b, token, head, channel, total > 0 ? sums[c][row] / total : 0);
    }
    if (thread == 0) storeLogSum(p, slot, block.b, token, head, log2OfSum(tops.load(row), total));
  }
}

}  // namespace fastmqa::gpu
