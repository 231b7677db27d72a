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
  static constexpr int blocks = Storage::folded && Storage::rowBytes < 64 ? 4 : Storage::rowBytes < 128 ? 3 : 2;  ///< resident on a multiprocessor
  static constexpr int ringBytes(bool asynchronous) {
    const int ring = warps * stages(asynchronous) * stageBytes, merge = warps * rows * (Storage::D + 2) * 4;
    return ring > merge ? ring : merge;
  }
  static constexpr int sharedBytes(bool asynchronous) { return ringBytes(asynchronous); }
  static_assert(queryBytes <= stageBytes);
};

template <class Storage>
FASTMQA_KERNEL((DecodeFewShape<Storage>::threads), (DecodeFewShape<Storage>::blocks))
decodeFewKernel(const AttentionProblem p) {
  using Shape = DecodeFewShape<Storage>;
  using Type = typename Storage::Type;
  constexpr int stages = Shape::stages(hasAsyncCopies), D = Storage::D, warps = Shape::warps, rows = Shape::rows;
  constexpr int steps = D / 16, pairs = D / 16, atOnce = Shape::tilesAtOnce, tokens = atOnce * tileRows;
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const QueryBlock block(p, p.blockRows);

  releaseFollower();
  awaitPredecessor();
  SharedCarver carver;
  const auto ring = carver.take<uint8_t>(Shape::ringBytes(hasAsyncCopies));

  const BlockTiles tiles(p, block, tokens);
  const int mine = tiles.share.countOf(warp, warps);
  const auto firstTokenOf = [&](int i) { return tiles.tile(tiles.share.begin + warp + i * warps) * tokens; };  // of the warp's tile i
  const int ringBase = warp * stages * Shape::stageBytes;
  const typename Storage::Source source(p, block.b, block.g);
  const auto copy = [&](int i) {
    if (i < mine) Storage::template copyTiles<atOnce>(p, ring, ringBase + i % stages * Shape::stageBytes, source, firstTokenOf(i), tiles.length);
    commitCopies();
  };
  FASTMQA_UNROLL
  for (int i = 0; i < stages - 1; i++) copy(i);

  // Queries go to registers by way of the last stage of the first warp, which copies reach later.
  constexpr int queryBase = (stages - 1) * Shape::stageBytes;
  loadDecodeQueries<Storage, 16, Shape::threads>(p, ring, queryBase, block);
  blockBarrier();
  uint32_t kept[steps][2];  // of column q
  FASTMQA_UNROLL
  for (int s = 0; s < steps; s++) {
    FragmentA a;
    Storage::loadQuery(a, ring, queryBase, 0, s);
    kept[s][0] = a.r[0], kept[s][1] = a.r[2];
  }
  blockBarrier();

  // Folded: of each run of channels and column, what scores start from, the sum of the queries, and of this lane's weights times shifts.
  constexpr int runs = Storage::folded ? D / 64 : 1;
  constexpr uint32_t onePair = 0x3c003c00u;
  float keyBias[runs][2], querySums[runs][2], shifted[runs][2];
  if constexpr (Storage::folded) {
    FASTMQA_UNROLL
    for (int run = 0; run < runs; run++) {
      FragmentC bias = {}, sum = {};
      FASTMQA_UNROLL
      for (int s = 4 * run; s < 4 * run + 4; s++) {
        multiply(Type(), bias, Storage::rawKeyBias(p), kept[s][0], kept[s][1]);
        multiply(Type(), sum, FragmentA{{onePair, onePair, onePair, onePair}}, kept[s][0], kept[s][1]);
      }
      keyBias[run][0] = bias.r[0], keyBias[run][1] = bias.r[1];
      querySums[run][0] = sum.r[0], querySums[run][1] = sum.r[1];
      shifted[run][0] = shifted[run][1] = 0;
    }
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
    const int base = ringBase + i % stages * Shape::stageBytes, token = firstTokenOf(i);

    FragmentC scores[atOnce];  // tokens q (r[0], r[1]) and q + 8 of each tile
    if constexpr (Storage::folded) {
      FASTMQA_UNROLL
      for (int n = 0; n < atOnce; n++) {
        const int tile = base + n * Storage::tileBytes;
        scores[n] = {};
        typename Storage::KeyReader keys(p, ring, tile);
        FASTMQA_UNROLL
        for (int run = 0; run < runs; run++) {
          FragmentC raw{{keyBias[run][0], keyBias[run][1], keyBias[run][0], keyBias[run][1]}};
          FASTMQA_UNROLL
          for (int s = 4 * run; s < 4 * run + 4; s++) {
            typename Storage::KeyOperands k;
            keys.operands(k, s);
            multiply(Type(), raw, FragmentA{{k.r[0], k.r[2], k.r[1], k.r[3]}}, kept[s][0], kept[s][1]);
          }
          FASTMQA_UNROLL
          for (int half = 0; half < 2; half++) {
            const float s = Storage::keyScale(p, ring, tile, 0, q + 8 * half, run);
            scores[n].r[2 * half] += raw.r[2 * half] * s, scores[n].r[2 * half + 1] += raw.r[2 * half + 1] * s;
            if (p.keyScales.shiftBytes == 0) continue;
            const float shift = Storage::keyScale(p, ring, tile, 1, q + 8 * half, run);
            scores[n].r[2 * half] += querySums[run][0] * shift, scores[n].r[2 * half + 1] += querySums[run][1] * shift;
          }
        }
      }
    } else {
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
    }

    const bool masked = tiles.needsMask(token, tokens), capped = p.softcap != 0;
    const float factor = capped ? 1 : scale;
    if (masked || capped) {
      const int row = block.firstRow + 2 * t;
      const RowMask masks[2] = {tiles.mask(p, row / block.group), tiles.mask(p, (row + 1) / block.group)};
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
      const float now = top[c] == minusInfinity ? 0 : top[c];
      fade[c] = exp2Fast(before - now);
      shift[c] = now - Storage::weightBoost;
    }
    if (anyLane(fade[0] != 1 || fade[1] != 1)) {  // rare once the largest score has been met
      FASTMQA_UNROLL
      for (int c = 0; c < 2; c++) {
        total[c] *= fade[c];
        FASTMQA_UNROLL
        for (int j = 0; j < pairs; j++) sums[j].r[c] *= fade[c], sums[j].r[2 + c] *= fade[c];
        if constexpr (Storage::folded)
          FASTMQA_UNROLL
          for (int run = 0; run < runs; run++) shifted[run][c] *= fade[c];
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
      if constexpr (Storage::folded) {
        const int tile = base + n * Storage::tileBytes;
        FASTMQA_UNROLL
        for (int run = 0; run < runs; run++) {
          const uint32_t w0 = halfMultiply(first, Storage::valueScales(p, ring, tile, 2 * t, run)), w1 = halfMultiply(second, Storage::valueScales(p, ring, tile, 2 * t + 8, run));
          typename Storage::template ValueReaderOf<Storage::runBytes> values(p, ring, tile, run * 8 + q);
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) {
            uint32_t v[4];
            values.operands(v, j);
            multiply(Type(), sums[4 * run + j], FragmentA{{v[0], v[2], v[1], v[3]}}, w0, w1);
          }
          if (p.valueScales.shiftBytes != 0)
            FASTMQA_UNROLL
            for (int j = 0; j < 4; j++) shifted[run][j % 2] += scores[n].r[j] * Storage::valueShift(p, ring, tile, q + j / 2 * 8, run);
        }
        continue;
      }
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
    for (int mask = 4; mask < warpSize_; mask *= 2) {
      sum += shuffleXor(sum, mask);
      if constexpr (Storage::folded)
        FASTMQA_UNROLL
        for (int run = 0; run < runs; run++) shifted[run][c] += shuffleXor(shifted[run][c], mask);
    }
    const int row = 2 * t + c;
    if (q == 0) {
      ring.template store<float>(mergedByte<rows>(warp, row), top[c] - Storage::weightBoost);
      ring.template store<float>(mergedByte<rows>(warp, row) + 4, sum);
    }
    FASTMQA_UNROLL
    for (int j = 0; j < pairs; j++)
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++)
        ring.template store<float>(mergedSumByte<D, warps, rows>(warp, row, Storage::valueChannel(2 * j + half, q)), sums[j].r[2 * half + c] + (Storage::folded ? shifted[j * runs / pairs][c] : 0));
  }
  blockBarrier();
  mergeDecodeWarps<Storage, warps, rows>(p, ring, block);
}

}  // namespace fastmqa::gpu
