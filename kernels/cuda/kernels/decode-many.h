// Decode for more than eight query rows of a KV head over a coded cache, as MQA has them. Unpacking is the work here, so a
// block's four warps share it: each unpacks a quarter of a page's tokens for the scores of all rows, and a quarter of the
// channels for the sums of all rows. Weights pass from one half to the other through shared memory; sums that are a quarter as
// wide leave registers for many warps, which hide each other's waits. As in decode-few.h, tokens and channels fill the 16 rows
// of the matrix unit, query rows its 8 columns.
#pragma once
#include "decode.h"

namespace fastmqa::gpu {

template <class Storage, int columnTiles_>
struct DecodeManyShape {
  static constexpr int D = Storage::D, warps = 4, threads = warps * warpSize_, steps = D / 16;
  static constexpr int columnTiles = columnTiles_, rows = 8 * columnTiles;
  static constexpr int tokens = pageTokens;  ///< of an iteration: a tile of 16 for each warp
  static constexpr int queryBytes = rows * D * 2, weightBytes = tokens * 64;
  static constexpr int stageBytes = warps * Storage::tileBytes;
  static constexpr int stages(bool asynchronous) { return asynchronous ? 3 : 1; }
  static constexpr int blocks = Storage::rowBytes < 128 ? 4 : 3;  ///< resident on a multiprocessor
  /// The ring, then what the warps leave for each other in the end.
  static constexpr int ringBytes(bool asynchronous) {
    const int ring = stages(asynchronous) * stageBytes, results = rows * D * 4;
    return ring > results ? ring : results;
  }
  static constexpr int sharedBytes(bool asynchronous) { return queryBytes + 2 * weightBytes + (warps + 1) * rows * 4 + ringBytes(asynchronous); }

  /// Queries lie as a warp reads them: for a pair of column tiles and a step, four numbers of each lane and tile.
  static FASTMQA_DEVICE int queryByte(int row, int channel) {
    constexpr int run = Storage::laneChannels, stepsOfRun = run / 4;
    const int place = Storage::codeOrder(channel % run), step = channel / (4 * run) * stepsOfRun + place / 4;
    const int lane = row % 8 * 4 + channel / run % 4;
    return ((row / 16 * steps + step) * warpSize_ + lane) * 16 + row / 8 % 2 * 8 + place % 4 * 2;
  }
};

/// A row's largest logit so far, in units of log2, is at most this much larger than what weights refer to: f16 holds 2^8 as
/// well as 1, and sums must be rescaled less often.
constexpr float decodeHeadroom = 8;

template <class Storage, int columnTiles>
FASTMQA_KERNEL((DecodeManyShape<Storage, columnTiles>::threads), (DecodeManyShape<Storage, columnTiles>::blocks))
decodeManyKernel(const AttentionProblem p) {
  using Shape = DecodeManyShape<Storage, columnTiles>;
  using Type = typename Storage::Type;
  constexpr int stages = Shape::stages(hasAsyncCopies), D = Storage::D, warps = Shape::warps, rows = Shape::rows;
  constexpr int steps = Shape::steps, tokens = Shape::tokens, columns = 2 * columnTiles;  // of a lane
  constexpr int valueBytes = Storage::rowBytes / (8 * warps), valueTiles = D / (16 * warps), valueChannels = D / (8 * warps);
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const QueryBlock block(p, p.blockRows);

  releaseFollower();
  awaitPredecessor();
  SharedCarver carver;
  const auto queries = carver.take<uint8_t>(Shape::queryBytes);
  const auto passed = carver.take<uint8_t>(2 * Shape::weightBytes);  // weights [2][token][row], of alternating iterations
  const auto notes = carver.take<float>((warps + 1) * rows);         // of warps and rows: largest logit; in the end, total
  const auto ring = carver.take<uint8_t>(Shape::ringBytes(hasAsyncCopies));

  const BlockTiles tiles(p, block, tokens);
  const typename Storage::Source source(p, block.b, block.g);
  const auto copy = [&](int i) {
    if (i < tiles.share.end) Storage::template copyTiles<1>(p, ring, (i % stages * warps + warp) * Storage::tileBytes, source, tiles.tile(i) * tokens + warp * tileRows, tiles.length);
    commitCopies();
  };
  FASTMQA_UNROLL
  for (int i = 0; i < stages - 1; i++) copy(tiles.share.begin + i);

  FASTMQA_ROLLED
  for (int i = threadIndex(); i < rows * D / 2; i += Shape::threads) {
    const int row = i / (D / 2), channel = i % (D / 2) * 2;
    float x = 0, y = 0;
    if (row < block.rowsHere) loadPair(p.queryType, p.queries, block.query(p, row) + channel, x, y);
    const uint32_t both = packHalves(Type(), x, y);
    queries.template store<uint16_t>(Shape::queryByte(row, channel), static_cast<uint16_t>(both));
    queries.template store<uint16_t>(Shape::queryByte(row, channel + 1), static_cast<uint16_t>(both >> 16));
  }
  blockBarrier();

  // Column 2n + c of a lane is row 8n + 2t + c.
  float reference[columns], total[columns];
  FragmentC sums[valueTiles][columnTiles];  // channels valueChannels * q + 2j (r[0], r[1]) and the next of the warp's quarter
  FASTMQA_UNROLL
  for (int i = 0; i < columns; i++) reference[i] = lowestReference, total[i] = 0;
  FASTMQA_UNROLL
  for (int j = 0; j < valueTiles; j++)
    FASTMQA_UNROLL
    for (int n = 0; n < columnTiles; n++) sums[j][n] = {};
  const float scale = p.scale * log2OfE * Storage::codeFactor * p.keyScales.wholeScale();

  for (int i = tiles.share.begin; i < tiles.share.end; i++) {
    if constexpr (stages == 1) {
      blockBarrier();
      copy(i);
    }
    waitCopies<stages == 1 ? 0 : stages - 2>();
    warpBarrier();  // the warp's own tile is here
    const int stage = i % stages * Shape::stageBytes, token = tiles.tile(i) * tokens, ownToken = token + warp * tileRows + q;
    FragmentC scores[columnTiles];  // tokens q (r[0], r[1]) and q + 8
    FASTMQA_UNROLL
    for (int n = 0; n < columnTiles; n++) scores[n] = {};
    {
      typename Storage::KeyReader keys(p, ring, stage + warp * Storage::tileBytes);
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++) {
        typename Storage::KeyOperands k;
        keys.operands(k, s);
        const FragmentA a{{k.r[0], k.r[2], k.r[1], k.r[3]}};
        FASTMQA_UNROLL
        for (int n = 0; n < columnTiles; n += 2) {
          const Word4 b = queries.template load<Word4>(((n / 2 * steps + s) * warpSize_ + lane) * 16);
          multiply(Type(), scores[n], a, b.x, b.y);
          multiply(Type(), scores[n + 1], a, b.z, b.w);
        }
      }
    }
    if (p.softcap != 0) {
      const float unscale = reciprocal(scale);
      FASTMQA_UNROLL
      for (int j = 0; j < 4 * columnTiles; j++) scores[j / 4].r[j % 4] = finishLogit(p, scores[j / 4].r[j % 4], scale) * unscale;
    }
    if (tiles.needsMask(token, tokens)) {
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        const RowMask mask = tiles.mask(p, block.token(8 * (j / 2) + 2 * t + j % 2));
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          float& x = scores[j / 2].r[2 * half + j % 2];
          x = mask.sees(ownToken + 8 * half) ? x : minusInfinity;
        }
      }
    }

    const int weights = i % 2 * Shape::weightBytes;
    float fresh[columns];
    /// Returns whether a logit exceeds what its row's weights refer to by too much.
    const auto passWeights = [&] {
      bool over = false;
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) fresh[j] = 0;
      FASTMQA_UNROLL
      for (int n = 0; n < columnTiles; n++)
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const float x = scores[n].r[2 * half] * scale - reference[2 * n], y = scores[n].r[2 * half + 1] * scale - reference[2 * n + 1];
          over |= fmaxf(x, y) > decodeHeadroom;
          const float a = exp2Fast(x), b = exp2Fast(y);
          fresh[2 * n] += a, fresh[2 * n + 1] += b;
          passed.template store<uint32_t>(weights + chunkByte<32>(warp * tileRows + q + 8 * half, n) + 4 * t, packWeights(Type(), a, b));
        }
      return over;
    };
    // All warps' tiles are here, their weights are passed on, and the page before is used up.
    if (anyThread(passWeights())) {  // rare once the largest logits have been met
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        float most = fmaxf(scores[j / 2].r[j % 2], scores[j / 2].r[2 + j % 2]);
        FASTMQA_UNROLL
        for (int mask = 4; mask < warpSize_; mask *= 2) most = fmaxf(most, shuffleXor(most, mask));
        if (q == 0) notes.store(warp * rows + 8 * (j / 2) + 2 * t + j % 2, most * scale);
      }
      blockBarrier();
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        const float before = reference[j];
        FASTMQA_UNROLL
        for (int w = 0; w < warps; w++) reference[j] = fmaxf(reference[j], notes.load(w * rows + 8 * (j / 2) + 2 * t + j % 2));
        const float fade = exp2Fast(before - reference[j]);
        total[j] *= fade;
        FASTMQA_UNROLL
        for (int v = 0; v < valueTiles; v++) sums[v][j / 2].r[j % 2] *= fade, sums[v][j / 2].r[2 + j % 2] *= fade;
      }
      passWeights();
      blockBarrier();
    }
    FASTMQA_UNROLL
    for (int j = 0; j < columns; j++) total[j] += fresh[j];
    if constexpr (stages > 1) copy(i + stages - 1);

    FASTMQA_UNROLL
    for (int step = 0; step < warps; step++) {
      typename Storage::template ValueReaderOf<valueBytes> values(p, ring, stage + step * Storage::tileBytes, warp * 8 + q);
      FragmentA v[valueTiles];
      FASTMQA_UNROLL
      for (int j = 0; j < valueTiles; j++) {
        uint32_t r[4];
        values.operands(r, j);
        v[j] = FragmentA{{r[0], r[2], r[1], r[3]}};
      }
      FASTMQA_UNROLL
      for (int n = 0; n < columnTiles; n += 2) {
        uint32_t w[4];
        loadMatricesTransposed(w, passed, weights + chunkByte<32>(step * tileRows + (lane & 7) + (lane >> 3 & 1) * 8, n + (lane >> 4)));
        FASTMQA_UNROLL
        for (int j = 0; j < valueTiles; j++) {
          multiply(Type(), sums[j][n], v[j], w[0], w[1]);
          multiply(Type(), sums[j][n + 1], v[j], w[2], w[3]);
        }
      }
    }
  }

  waitCopies<0>();
  blockBarrier();
  FASTMQA_UNROLL
  for (int j = 0; j < columns; j++) {
    float sum = total[j];
    FASTMQA_UNROLL
    for (int mask = 4; mask < warpSize_; mask *= 2) sum += shuffleXor(sum, mask);
    const int row = 8 * (j / 2) + 2 * t + j % 2;
    if (q == 0) notes.store(warp * rows + row, sum);
    if (q == 0 && warp == 0) notes.store(warps * rows + row, reference[j]);
    FASTMQA_UNROLL
    for (int v = 0; v < valueTiles; v++)
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++)
        ring.template store<float>((row * D + (warp * 8 + q) * valueChannels + 2 * v + half) * 4, sums[v][j / 2].r[2 * half + j % 2]);
  }
  blockBarrier();
  const float factor = Storage::codeFactor * p.valueScales.wholeScale();
  FASTMQA_ROLLED
  for (int i = threadIndex(); i < block.rowsHere * D; i += Shape::threads) {
    const int row = i / D, channel = i % D;
    float sum = 0;
    FASTMQA_UNROLL
    for (int w = 0; w < warps; w++) sum += notes.load(w * rows + row);
    block.store(p, row, channel, sum > 0 ? ring.template load<float>(i * 4) * factor / sum : 0);
    if (channel == 0) block.storeLogSum(p, row, notes.load(warps * rows + row), sum);
  }
}

}  // namespace fastmqa::gpu
