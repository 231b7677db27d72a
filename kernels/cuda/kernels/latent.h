// Decoding from a latent cache with absorbed projections (DeepSeek style, attention-spec B.3): all query heads share one
// row of `rank` + `ropeDim` channels a token; keys are the whole row, values its first `rank` channels. A block takes 64
// rows (query heads) and a share of the tokens; a tile is read once for scores and values.
#pragma once
#include "storage.h"

namespace fastmqa::gpu {

template <class Type_, int rank_, int ropeDim_>
struct LatentShape {
  using Type = Type_;
  static constexpr int rank = rank_, D = rank_ + ropeDim_;
  static constexpr int warps = 8, threads = warps * warpSize_, rows = 64, tokens = 32, stages = 2;
  static constexpr int tileBytes = tokens * D * 2, weightBytes = rows * tokens * 2;
  static constexpr int sharedBytes = rows * D * 2 + stages * tileBytes + weightBytes + 2 * rows * 4 + rows * 4;
};

/// Weights as [64 rows][32 tokens] 16-bit: four chunks a row, shuffled.
FASTMQA_DEVICE int weightByte(int row, int chunk) { return row * 64 + (chunk ^ (row >> 1 & 3)) * 16; }

template <class Shape>
FASTMQA_KERNEL(Shape::threads, 1)
latentKernel(const AttentionProblem p) {
  using Type = typename Shape::Type;
  constexpr int D = Shape::D, rows = Shape::rows, tokens = Shape::tokens, threads = Shape::threads, chunks = D / 8;
  constexpr int steps = D / 16, columns = Shape::rank / Shape::warps, fragments = columns / 8;
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const int allRows = p.heads * p.queryTokens, firstRow = blockIndex().y * rows, split = blockIndex().x, b = blockIndex().z;
  const int rowsHere = allRows - firstRow < rows ? allRows - firstRow : rows;
  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(rows * D * 2);
  const auto ring = carver.take<uint8_t>(Shape::stages * Shape::tileBytes);
  const auto weightTile = carver.take<uint8_t>(Shape::weightBytes);
  const auto tops = carver.take<float>(2 * rows);  // of the two halves of a tile's tokens
  const auto fades = carver.take<float>(rows);

  const int length = p.tokensOf(b), position = p.positionOf(b);
  const VisibleTiles tiles(p, length, position + firstRow / p.heads, position + (firstRow + rowsHere - 1) / p.heads, tokens);
  const TileRange share = tiles.shareOf(split, p.splits);
  const auto copyTile = [&](int i) {
    if (i < share.end) {
      const int first = tiles.tile(i) * tokens;
      const int64_t from = p.keys.offset(b, 0, first);
      for (int at = threadIndex(); at < tokens * chunks; at += threads) {
        const int row = at / chunks, chunk = at % chunks;
        copyAsync<16>(ring, i % Shape::stages * Shape::tileBytes + chunkByte<D>(row, chunk), p.keys.data,
                      from + static_cast<int64_t>(row) * p.keys.tokenBytes + chunk * 16, first + row < length);
      }
    }
    commitCopies();
  };
  for (int at = threadIndex(); at < rows * chunks; at += threads) {
    const int row = at / chunks, chunk = at % chunks, r = firstRow + row;
    const int64_t from = b * p.queryBatch + r / p.heads * p.queryToken + r % p.heads * p.queryHead + chunk * 8;
    copyAsync<16>(queries, chunkByte<D>(row, chunk), p.queries, from * 2, row < rowsHere);
  }
  copyTile(share.begin);

  // Scores: warp w has rows 16 (w / 2) .. + 15 and tokens 16 (w % 2) .. + 15. Sums: all rows, `columns` channels.
  const int scoreRow = warp / 2 * 16, half = warp % 2;
  const int queryLane = chunkByte<D>(scoreRow + (lane & 15), lane >> 4);
  const int keyLane = chunkByte<D>(half * 16 + (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  float top[2] = {minusInfinity, minusInfinity}, total[2] = {0, 0};
  FragmentC sums[4][fragments];
  FASTMQA_UNROLL
  for (int m = 0; m < 4; m++)
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++) sums[m][f] = {};
  const float scale = p.scale * log2OfE;

  for (int i = share.begin; i < share.end; i++) {
    waitCopies<0>();
    blockBarrier();  // the tile is here; the one before it, and its weights, are used up
    copyTile(i + 1);
    const int base = i % Shape::stages * Shape::tileBytes, token = tiles.tile(i) * tokens;
    const int queryAt = keepInLoop(queryLane), keyAt = keepInLoop(keyLane);
    FragmentC scores[2] = {};
    FASTMQA_UNROLL
    for (int s = 0; s < steps; s++) {
      FragmentA a;
      uint32_t k[4];
      loadMatrices(a.r, queries, chunksOn<D>(queryAt, 2 * s));
      loadMatrices(k, ring, base + chunksOn<D>(keyAt, 2 * s));
      multiply(Type(), scores[0], a, k[0], k[1]);
      multiply(Type(), scores[1], a, k[2], k[3]);
    }
    const bool masked = tiles.needsMask(token, tokens);
    float most[2];
    FASTMQA_UNROLL
    for (int h = 0; h < 2; h++) {
      const RowMask mask(p, length, position + (firstRow + scoreRow + q + 8 * h) / p.heads);
      most[h] = minusInfinity;
      FASTMQA_UNROLL
      for (int j = 0; j < 4; j++) {
        float& x = scores[j / 2].r[2 * h + j % 2];
        x = finishLogit(p, x, scale);
        if (masked) x = mask.sees(token + half * 16 + j / 2 * 8 + 2 * t + j % 2) ? x : minusInfinity;
        most[h] = fmaxf(most[h], x);
      }
      most[h] = fmaxf(most[h], shuffleXor(most[h], 1));
      most[h] = fmaxf(most[h], shuffleXor(most[h], 2));
      if (t == 0) tops.store(half * rows + scoreRow + q + 8 * h, most[h]);
    }
    blockBarrier();
    FASTMQA_UNROLL
    for (int h = 0; h < 2; h++) {
      const int row = scoreRow + q + 8 * h;
      const float before = top[h];
      top[h] = fmaxf(before, fmaxf(tops.load(row), tops.load(rows + row)));
      const float shift = top[h] == minusInfinity ? 0 : top[h], fade = exp2Fast(before - shift);
      total[h] *= fade;
      if (half == 0 && t == 0) fades.store(row, fade);
      FASTMQA_UNROLL
      for (int f = 0; f < 2; f++) {
        const float x = exp2Fast(scores[f].r[2 * h] - shift), y = exp2Fast(scores[f].r[2 * h + 1] - shift);
        total[h] += x + y;
        weightTile.template store<uint32_t>(weightByte(row, 2 * half + f) + 4 * t, packWeights(Type(), x, y));
      }
    }
    blockBarrier();
    FASTMQA_UNROLL
    for (int m = 0; m < 4; m++) {
      const float upper = fades.load(16 * m + q), lower = fades.load(16 * m + q + 8);
      if (!anyLane(upper != 1 || lower != 1)) continue;
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++) sums[m][f].r[0] *= upper, sums[m][f].r[1] *= upper, sums[m][f].r[2] *= lower, sums[m][f].r[3] *= lower;
    }
    FASTMQA_UNROLL
    for (int s = 0; s < tokens / 16; s++) {
      FragmentA weights[4];
      FASTMQA_UNROLL
      for (int m = 0; m < 4; m++) loadMatrices(weights[m].r, weightTile, weightByte(16 * m + (lane & 15), 2 * s + (lane >> 4)));
      FASTMQA_UNROLL
      for (int pair = 0; pair < fragments / 2; pair++) {
        uint32_t v[4];
        loadMatricesTransposed(v, ring, base + chunkByte<D>(16 * s + (lane & 7) + (lane >> 3 & 1) * 8, warp * columns / 8 + 2 * pair + (lane >> 4)));
        FASTMQA_UNROLL
        for (int m = 0; m < 4; m++) {
          multiply(Type(), sums[m][2 * pair], weights[m], v[0], v[1]);
          multiply(Type(), sums[m][2 * pair + 1], weights[m], v[2], v[3]);
        }
      }
    }
  }
  waitCopies<0>();
  blockBarrier();
  // Totals of the two halves; `tops` and `fades` are free now.
  FASTMQA_UNROLL
  for (int h = 0; h < 2; h++) {
    float sum = total[h];
    sum += shuffleXor(sum, 1);
    sum += shuffleXor(sum, 2);
    if (t == 0) tops.store(half * rows + scoreRow + q + 8 * h, sum);
    if (t == 0 && half == 0) fades.store(scoreRow + q + 8 * h, top[h]);
  }
  blockBarrier();
  FASTMQA_UNROLL
  for (int m = 0; m < 4; m++)
    FASTMQA_UNROLL
    for (int h = 0; h < 2; h++) {
      const int row = 16 * m + q + 8 * h, r = firstRow + row;
      if (row >= rowsHere) continue;
      const float sum = tops.load(row) + tops.load(rows + row), inverse = sum > 0 ? 1 / sum : 0;
      const int queryToken = r / p.heads, head = r % p.heads, slot = p.firstSlot + split;
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++)
        FASTMQA_UNROLL
        for (int c = 0; c < 2; c++)
          storeResult(p, slot, b, queryToken, head, warp * columns + f * 8 + 2 * t + c, sums[m][f].r[2 * h + c] * inverse);
      if (warp == 0 && t == 0) storeLogSum(p, slot, b, queryToken, head, log2OfSum(fades.load(row), sum));
    }
}

}  // namespace fastmqa::gpu
