// Decode for at most eight query rows of a KV head over a coded cache: like decode.h, with the products turned over. Tokens
// and channels of values fill the 16 rows of the matrix unit, query rows its 8 columns; so no half of a product is padding,
// sums take half the registers, and what is left of a lane's time goes to decoding.
#pragma once
#include "decode.h"

namespace fastmqa::gpu {

template <class Storage>
struct DecodeFewShape {
  static constexpr int warps = 4, threads = warps * warpSize_, rows = 8;
  static constexpr int queryBytes = 16 * Storage::queryRowBytes;  // operands are read by sixteens
  static constexpr int tilesAtOnce = Storage::rowBytes < 64 ? 4 : 2;
  static constexpr int stageBytes = tilesAtOnce * Storage::tileBytes;
  static constexpr int stages(bool asynchronous) { return asynchronous ? 3 : 1; }
  static constexpr int blocks = Storage::rowBytes < 128 ? 3 : 2;  ///< resident on a multiprocessor
  static constexpr int ringBytes(bool asynchronous) {
    const int ring = warps * stages(asynchronous) * stageBytes, merge = warps * rows * (Storage::D + 2) * 4;
    return ring > merge ? ring : merge;
  }
  static constexpr int sharedBytes(bool asynchronous) { return queryBytes + ringBytes(asynchronous); }
};

template <class Storage>
FASTMQA_KERNEL((DecodeFewShape<Storage>::threads), (DecodeFewShape<Storage>::blocks))
decodeFewKernel(const AttentionProblem p) {
  using Shape = DecodeFewShape<Storage>;
  using Type = typename Storage::Type;
  constexpr int stages = Shape::stages(hasAsyncCopies), D = Storage::D, warps = Shape::warps, rows = Shape::rows;
  constexpr int steps = D / 16, pairs = D / 16, atOnce = Shape::tilesAtOnce, tokens = atOnce * tileRows;
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const int group = p.groupSize(), allRows = group * p.queryTokens, rowBlocks = (allRows + rows - 1) / rows;
  const int split = blockIndex().x, g = blockIndex().y / rowBlocks, firstRow = blockIndex().y % rowBlocks * rows, b = blockIndex().z;
  const int rowsHere = allRows - firstRow < rows ? allRows - firstRow : rows;

  releaseFollower();
  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(Shape::queryBytes);
  const auto ring = carver.take<uint8_t>(Shape::ringBytes(hasAsyncCopies));

  const int length = p.tokensOf(b), position = p.positionOf(b);
  const VisibleTiles tiles(p, length, position + firstRow / group, position + (firstRow + rowsHere - 1) / group, tokens);
  const int share = (tiles.count + p.splits - 1) / p.splits;
  const int begin = split * share, end = begin + share < tiles.count ? begin + share : tiles.count;
  const int mine = begin + warp < end ? (end - begin - warp + warps - 1) / warps : 0;
  const int ringBase = warp * stages * Shape::stageBytes;
  const auto copy = [&](int i) {
    if (i < mine)
      Storage::template copyTiles<atOnce>(p, ring, ringBase + i % stages * Shape::stageBytes, b, g, tiles.tile(begin + warp + i * warps) * tokens, length);
    commitCopies();
  };
  FASTMQA_UNROLL
  for (int i = 0; i < stages - 1; i++) copy(i);

  loadDecodeQueries<Storage, 16, Shape::threads>(p, queries, firstRow, rowsHere, g, b);
  blockBarrier();
  uint32_t kept[steps][2];  // of column q
  FASTMQA_UNROLL
  for (int s = 0; s < steps; s++) {
    FragmentA a;
    Storage::loadQuery(a, queries, 0, s);
    kept[s][0] = a.r[0], kept[s][1] = a.r[2];
  }

  float top[2] = {minusInfinity, minusInfinity}, total[2] = {0, 0};  // of rows 2t and 2t + 1, `total` of this lane's tokens only
  FragmentC sums[pairs];  // channels of fragments 2i (r[0], r[1]) and 2i + 1, columns 2t and 2t + 1
  FASTMQA_UNROLL
  for (int i = 0; i < pairs; i++) sums[i] = {};
  const float scale = p.scale * log2OfE * Storage::codeFactor * p.keyScales.wholeScale();

  for (int i = 0; i < mine; i++) {
    if constexpr (stages == 1) {
      warpBarrier();
      copy(i);
      waitCopies<0>();
      warpBarrier();
    } else {
      waitCopies<stages - 2>();
      warpBarrier();
      copy(i + stages - 1);
    }
    const int base = ringBase + i % stages * Shape::stageBytes, token = tiles.tile(begin + warp + i * warps) * tokens;

    FragmentC scores[atOnce];  // tokens q (r[0], r[1]) and q + 8 of each tile
    FASTMQA_UNROLL
    for (int n = 0; n < atOnce; n++) {
      scores[n] = {};
      typename Storage::KeyReader keys(p, ring, base + n * Storage::tileBytes);
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++) {
        typename Storage::KeyOperands k;
        keys.operands(k, s);
        multiply(Type(), scores[n], FragmentA{{k.r[0], k.r[2], k.r[1], k.r[3]}}, kept[s][0], kept[s][1]);
      }
    }

    const bool masked = tiles.needsMask(token, tokens), capped = p.softcap != 0;
    const float factor = capped ? 1 : scale;
    if (masked || capped) {
      const int row = firstRow + 2 * t;
      const RowMask masks[2] = {RowMask(p, length, position + row / group), RowMask(p, length, position + (row + 1) / group)};
      FASTMQA_UNROLL
      for (int n = 0; n < atOnce; n++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) {
          float& x = scores[n].r[j];
          if (capped) x = finishLogit(p, x, scale);
          x = masks[j % 2].sees(token + n * tileRows + q + j / 2 * 8) ? x : minusInfinity;
        }
    }
    float shift[2], fade[2];
    FASTMQA_UNROLL
    for (int c = 0; c < 2; c++) {
      float most = scores[0].r[c];
      FASTMQA_UNROLL
      for (int j = 1; j < 2 * atOnce; j++) most = fmaxf(most, scores[j / 2].r[j % 2 * 2 + c]);
      FASTMQA_UNROLL
      for (int mask = 4; mask < warpSize_; mask *= 2) most = fmaxf(most, shuffleXor(most, mask));
      const float before = top[c];
      top[c] = fmaxf(before, most * factor);
      shift[c] = top[c] == minusInfinity ? 0 : top[c];
      fade[c] = exp2Fast(before - shift[c]);
    }
    if (anyLane(fade[0] != 1 || fade[1] != 1)) {  // rare once the largest score has been met
      FASTMQA_UNROLL
      for (int c = 0; c < 2; c++) {
        total[c] *= fade[c];
        FASTMQA_UNROLL
        for (int j = 0; j < pairs; j++) sums[j].r[c] *= fade[c], sums[j].r[2 + c] *= fade[c];
      }
    }
    FASTMQA_UNROLL
    for (int n = 0; n < atOnce; n++) {
      FASTMQA_UNROLL
      for (int j = 0; j < 4; j++) {
        float& x = scores[n].r[j];
        x = exp2Fast(x * factor - shift[j % 2]);
        total[j % 2] += x;
      }
      const uint32_t first = transposeMatrix(packWeights(Type(), scores[n].r[0], scores[n].r[1]));
      const uint32_t second = transposeMatrix(packWeights(Type(), scores[n].r[2], scores[n].r[3]));
      typename Storage::ValueReader values(p, ring, base + n * Storage::tileBytes);
      FASTMQA_UNROLL
      for (int j = 0; j < pairs; j++) {
        uint32_t v[4];
        values.operands(v, j);
        multiply(Type(), sums[j], FragmentA{{v[0], v[2], v[1], v[3]}}, first, second);
      }
    }
  }

  waitCopies<0>();
  blockBarrier();
  FASTMQA_UNROLL
  for (int c = 0; c < 2; c++) {
    float sum = total[c];
    FASTMQA_UNROLL
    for (int mask = 4; mask < warpSize_; mask *= 2) sum += shuffleXor(sum, mask);
    const int row = 2 * t + c;
    if (q == 0) {
      ring.template store<float>(mergedByte<rows>(warp, row), top[c]);
      ring.template store<float>(mergedByte<rows>(warp, row) + 4, sum);
    }
    FASTMQA_UNROLL
    for (int j = 0; j < pairs; j++)
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++)
        ring.template store<float>(mergedSumByte<D, warps, rows>(warp, row, Storage::valueChannel(2 * j + half, q)), sums[j].r[2 * half + c]);
  }
  blockBarrier();
  mergeDecodeWarps<Storage, warps, rows>(p, ring, firstRow, rowsHere, split, g, b);
}

}  // namespace fastmqa::gpu
