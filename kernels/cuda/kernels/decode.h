// Attention of a few query tokens over a long cache. A block takes one KV head of one sequence and a share of its
// tokens; the query heads of that KV head (times the query tokens) fill the 16 rows of the matrix unit. Each warp runs
// on its own: it streams tiles of 16 tokens through a ring in shared memory and keeps its own softmax; the warps meet
// once, at the end. Shares are merged by `combineKernel`. Coded caches have kernels of their own: decode-few.h, decode-many.h.
#pragma once
#include "query-block.h"
#include "storage.h"

namespace fastmqa::gpu {

template <class Storage, int rowTiles>
struct DecodeShape {
  static constexpr int warps = Storage::D > 128 ? 2 : 4;
  static constexpr int threads = warps * warpSize_;
  static constexpr int rows = 16 * rowTiles;
  /// Queries live in registers where there is room; tiles that are made of latents need some for themselves.
  static constexpr bool keepsQueries = rowTiles * Storage::D <= (Storage::reconstructed ? 64 : 128);
  static constexpr int queryBytes = rows * Storage::queryRowBytes;
  /// Tiles of an iteration: two where the work on a tile, not its arrival, takes the time.
  static constexpr int tilesAtOnce = Storage::reconstructed || (rowTiles == 2 && Storage::D == 64) ? 2 : 1;
  static constexpr int stageBytes = tilesAtOnce * Storage::tileBytes;
  static constexpr int stages(bool asynchronous) { return asynchronous && !Storage::reconstructed ? 3 : 1; }
  static constexpr int blocks = rowTiles == 1 ? 2 : 1;  ///< resident on a multiprocessor
  static constexpr int ringBytes(bool asynchronous) {
    const int ring = warps * stages(asynchronous) * stageBytes, merge = warps * rows * (Storage::D + 2) * 4;
    return ring > merge ? ring : merge;
  }
  static constexpr int sharedBytes(bool asynchronous) { return queryBytes + ringBytes(asynchronous); }
};

/// Fills [rows][D] of shared memory, from byte `base` on, with query rows; zeros past the last.
template <class Storage, int rows, int threads>
FASTMQA_DEVICE void loadDecodeQueries(const AttentionProblem& p, Shared<uint8_t> queries, int base, QueryBlock block) {
  block.group = p.groupSize();  // computed again, so that no register keeps it; likewise below
  using Type = typename Storage::Type;
  constexpr int D = Storage::D;
  for (int i = threadIndex(); i < rows * D / 2; i += threads) {
    const int row = i / (D / 2), channel = i % (D / 2) * 2;
    float x = 0, y = 0;
    if (row < block.rowsHere) loadPair(p.queryType, p.queries, block.query(p, row) + channel, x, y);
    const uint32_t both = packHalves(Type(), x, y);
    queries.template store<uint16_t>(base + Storage::queryByte(row, channel), static_cast<uint16_t>(both));
    queries.template store<uint16_t>(base + Storage::queryByte(row, channel + 1), static_cast<uint16_t>(both >> 16));
  }
}

/// What weights refer to before there is a token; a number, so that differences are numbers.
constexpr float lowestReference = -1e30f;

/// Where warps leave their results for each other: [warps][rows] of top and total, then [warps][rows][D] of sums.
template <int rows>
FASTMQA_DEVICE int mergedByte(int warp, int row) { return (warp * rows + row) * 8; }
template <int D, int warps, int rows>
FASTMQA_DEVICE int mergedSumByte(int warp, int row, int channel) { return warps * rows * 8 + ((warp * rows + row) * D + channel) * 4; }

/// Adds up what the warps left, and stores it.
template <class Storage, int warps, int rows>
FASTMQA_DEVICE void mergeDecodeWarps(const AttentionProblem& p, Shared<uint8_t> ring, QueryBlock block) {
  block.group = p.groupSize();
  constexpr int D = Storage::D, threads = warps * warpSize_;
  float factor = 1;
  if constexpr (Storage::coded) factor = Storage::codeFactor * p.valueScales.wholeScale();
  for (int i = threadIndex(); i < block.rowsHere * D; i += threads) {
    const int row = i / D, channel = i % D;
    float most = minusInfinity;
    FASTMQA_UNROLL
    for (int w = 0; w < warps; w++) most = fmaxf(most, ring.template load<float>(mergedByte<rows>(w, row)));
    float sum = 0, weight = 0;
    if (most != minusInfinity) {
      FASTMQA_UNROLL
      for (int w = 0; w < warps; w++) {
        const float fade = exp2Fast(ring.template load<float>(mergedByte<rows>(w, row)) - most);
        weight += fade * ring.template load<float>(mergedByte<rows>(w, row) + 4);
        sum += fade * ring.template load<float>(mergedSumByte<D, warps, rows>(w, row, channel));
      }
      sum *= factor / weight;
    }
    block.store(p, row, channel, sum);
    if (channel == 0) block.storeLogSum(p, row, most, weight);
  }
}

template <class Storage, int rowTiles>
FASTMQA_KERNEL((DecodeShape<Storage, rowTiles>::threads), (DecodeShape<Storage, rowTiles>::blocks))
decodeKernel(const typename Storage::Problem p) {
  using Shape = DecodeShape<Storage, rowTiles>;
  using Type = typename Storage::Type;
  constexpr int stages = Shape::stages(hasAsyncCopies), ringBytes = Shape::ringBytes(hasAsyncCopies);
  constexpr int D = Storage::D, warps = Shape::warps, rows = Shape::rows, steps = D / 16, fragments = D / 8;
  constexpr int atOnce = Shape::tilesAtOnce, tokens = atOnce * tileRows;  // of an iteration
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const QueryBlock block(p, p.blockRows);

  releaseFollower();
  awaitPredecessor();
  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(Shape::queryBytes);
  const auto ring = carver.take<uint8_t>(ringBytes);

  // This warp's tiles: every warps-th of the split's share.
  const BlockTiles tiles(p, block, tokens);
  const int mine = tiles.share.countOf(warp, warps);
  const auto firstTokenOf = [&](int i) { return tiles.tile(tiles.share.begin + warp + i * warps) * tokens; };  // of the warp's tile i
  const int ringBase = warp * stages * Shape::stageBytes;
  const typename Storage::Source source(p, block.b, block.g);
  const auto copyTile = [&](int i) {
    if (i < mine) Storage::template copyTiles<atOnce>(p, ring, ringBase + i % stages * Shape::stageBytes, source, firstTokenOf(i), tiles.length);
    commitCopies();
  };
  FASTMQA_UNROLL
  for (int i = 0; i < stages - 1; i++) copyTile(i);

  loadDecodeQueries<Storage, Shape::rows, Shape::threads>(p, queries, 0, block);
  blockBarrier();
  FragmentA kept[Shape::keepsQueries ? rowTiles : 1][Shape::keepsQueries ? steps : 1];
  if constexpr (Shape::keepsQueries) {
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++) {
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++) Storage::loadQuery(kept[m][s], queries, 0, 16 * m, s);
    }
  }

  float top[rowTiles][2], total[rowTiles][2];  // of rows q and q + 8, `total` of this lane's columns only
  FragmentC sums[rowTiles][fragments];
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++) {
    FASTMQA_UNROLL
    for (int i = 0; i < 2; i++) {
      top[m][i] = minusInfinity;
      total[m][i] = 0;
    }
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++) sums[m][f] = {};
  }
  const float scale = p.scale * log2OfE;

  for (int i = 0; i < mine; i++) {
    if constexpr (stages == 1) {
      warpBarrier();
      copyTile(i);
      waitCopies<0>();
      warpBarrier();
    } else {
      waitCopies<stages - 2>();
      warpBarrier();
      copyTile(i + stages - 1);
    }
    const int base = ringBase + i % stages * Shape::stageBytes, token = firstTokenOf(i);

    FragmentC scores[rowTiles][2 * atOnce];
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++)
      FASTMQA_UNROLL
      for (int f = 0; f < 2 * atOnce; f++) scores[m][f] = {};
    FASTMQA_UNROLL
    for (int n = 0; n < atOnce; n++) {
      typename Storage::KeyReader keys(p, ring, base + n * Storage::tileBytes);
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++) {
        typename Storage::KeyOperands k;
        keys.operands(k, s);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++) {
          FragmentA a;
          if constexpr (Shape::keepsQueries)
            a = kept[m][s];
          else
            Storage::loadQuery(a, queries, 0, 16 * m, s);
          multiply(Type(), scores[m][2 * n], a, k.r[0], k.r[1]);
          multiply(Type(), scores[m][2 * n + 1], a, k.r[2], k.r[3]);
        }
      }
    }

    const bool masked = tiles.needsMask(token, tokens), capped = p.softcap != 0;
    const float factor = capped ? 1 : scale;
    FragmentA weights[rowTiles][atOnce];
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++) {
      if (masked || capped) {
        const int row = block.firstRow + 16 * m + q;
        const RowMask masks[2] = {tiles.mask(p, row / block.group), tiles.mask(p, (row + 8) / block.group)};
        FASTMQA_UNROLL
        for (int j = 0; j < 8 * atOnce; j++) {
          float& x = scores[m][j / 4].r[j % 4];
          if (capped) x = finishLogit(p, x, scale);
          x = masks[j % 4 / 2].sees(token + j / 4 * 8 + 2 * t + j % 2) ? x : minusInfinity;
        }
      }
      float shift[2], fade[2];
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        float most = scores[m][0].r[2 * half];
        FASTMQA_UNROLL
        for (int j = 1; j < 4 * atOnce; j++) most = fmaxf(most, scores[m][j / 2].r[2 * half + j % 2]);
        most = fmaxf(most, shuffleXor(most, 1));
        most = fmaxf(most, shuffleXor(most, 2));
        const float before = top[m][half];
        top[m][half] = fmaxf(before, most * factor);
        shift[half] = top[m][half] == minusInfinity ? 0 : top[m][half];
        fade[half] = exp2Fast(before - shift[half]);
      }
      if (anyLane(fade[0] != 1 || fade[1] != 1)) {  // rare once the largest score has been met
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          total[m][half] *= fade[half];
          FASTMQA_UNROLL
          for (int f = 0; f < fragments; f++) sums[m][f].r[2 * half] *= fade[half], sums[m][f].r[2 * half + 1] *= fade[half];
        }
      }
      FASTMQA_UNROLL
      for (int j = 0; j < 8 * atOnce; j++) {
        float& x = scores[m][j / 4].r[j % 4];
        x = exp2Fast(x * factor - shift[j % 4 / 2]);
        total[m][j % 4 / 2] += x;
      }
      FASTMQA_UNROLL
      for (int n = 0; n < atOnce; n++)
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) {
          const FragmentC& x = scores[m][2 * n + j / 2];
          weights[m][n].r[j] = packWeights(Type(), x.r[j % 2 * 2], x.r[j % 2 * 2 + 1]);
        }
    }
    FASTMQA_UNROLL
    for (int n = 0; n < atOnce; n++) {
      typename Storage::ValueReader values(p, ring, base + n * Storage::tileBytes);
      FASTMQA_UNROLL
      for (int pair = 0; pair < fragments / 2; pair++) {
        uint32_t v[4];
        values.operands(v, pair);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++) {
          multiply(Type(), sums[m][2 * pair], weights[m][n], v[0], v[1]);
          multiply(Type(), sums[m][2 * pair + 1], weights[m][n], v[2], v[3]);
        }
      }
    }
  }

  waitCopies<0>();
  blockBarrier();
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++)
    FASTMQA_UNROLL
    for (int half = 0; half < 2; half++) {
      float sum = total[m][half];
      sum += shuffleXor(sum, 1);
      sum += shuffleXor(sum, 2);
      const int row = 16 * m + q + 8 * half;
      if (t == 0) {
        ring.template store<float>(mergedByte<rows>(warp, row), top[m][half]);
        ring.template store<float>(mergedByte<rows>(warp, row) + 4, sum);
      }
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++)
        FASTMQA_UNROLL
        for (int c = 0; c < 2; c++)
          ring.template store<float>(mergedSumByte<D, warps, rows>(warp, row, Storage::valueChannel(f, 2 * t + c)), sums[m][f].r[2 * half + c]);
    }
  blockBarrier();
  mergeDecodeWarps<Storage, warps, rows>(p, ring, block);
}

}  // namespace fastmqa::gpu
