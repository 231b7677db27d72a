// Decode for more than eight query rows of a KV head over a coded cache, on compute capability 9.0: what decode-many.h does,
// with products of warpgroups. Tokens fill the 64 rows of one product (scores = keys x queries), channels of values those of
// the other (sums = values x weights); query rows are the columns of both. Codes become f16 in the registers of the warp
// whose rows they are, once for all query rows. Each warpgroup of a block has its own ring, which the copy engine fills, and
// every groups-th page of the block's share; their softmaxes are merged in the end. While one warpgroup waits for a
// product, the others unpack.
//
// A warp's tokens of a page are 16 w + q and + 8. Keys come by ldmatrix: a lane has 4 bytes of a token, hence 4 or 8
// channels side by side, and queries are stored in the order in which these leave the word. Values come by transposed
// ldmatrix of 16-bit units: a lane has 2 or 4 channels of two tokens, so that masks alone separate pairs of tokens.
#pragma once
#include "../primitives/hopper.h"
#include "attention-problem.h"

namespace fastmqa::gpu::hopper {

/// `runs`: pieces of 64 channels or more of a token that have scales of their own.
template <Dtype type_, int D_, int rows_, int runs_>
struct CodedDecodeShape {
  static constexpr Dtype type = type_;
  static constexpr bool isInt = type == Dtype::int8 || type == Dtype::int4, nibbles = type == Dtype::int4;
  static constexpr int D = D_, rows = rows_, runs = runs_, steps = D / 16, valueTiles = D / 64, valueSteps = pageTokens / 16;
  static constexpr int rowBytes = nibbles ? D / 2 : D, chunks = rowBytes / 16, sideBytes = pageTokens * rowBytes;
  static constexpr int groups = rows > 32 ? (D > 64 ? 2 : 3) : D > 64 ? 3 : 4;  ///< warpgroups, as many as registers allow
  static constexpr int threads = groups * warpgroupThreads;
  static constexpr int stages = rowBytes >= 128 ? 3 : rowBytes >= 64 ? 4 : 6, stageBytes = 2 * sideBytes;
  static constexpr int planeBytes = isInt ? pageTokens * 2 * runs : 0;           ///< scales of a page's keys or values
  static constexpr int lineTile = rows * lineBytes, lines = D / lineHalves;      ///< 64 channels of queries, or 64 tokens of weights
  static constexpr int weightsAt = groups * stages * stageBytes, queriesAt = weightsAt + groups * 2 * runs * lineTile;
  static constexpr int scalesAt = queriesAt + lines * lineTile, notesAt = scalesAt + groups * stages * 2 * planeBytes;
  /// Notes: [groups][4 warps][rows] largest logits, in the end totals; [groups][rows] references, in the end factors.
  static constexpr int referencesAt = notesAt + groups * 4 * rows * 4, barriersAt = referencesAt + groups * rows * 4;
  static constexpr int sharedBytes = barriersAt + groups * stages * 8;
  static constexpr int sumRow = D + 4;  ///< floats of a row of sums, which in the end lie where ring, weights and queries were
  /// log2 of the largest weight where the reference follows it: see CodedStorage::weightBoost.
  static constexpr float boost = !isInt ? 0.0f : nibbles ? 2.0f : 6.0f;
  static_assert(groups * rows * sumRow * 4 <= scalesAt && stageBytes % 1024 == 0 && lineTile % 1024 == 0 && sharedBytes <= 227 << 10);

  /// Where 16-byte piece `chunk` of a token lies: as the copy engine shuffles rows of 32, 64 or 128 bytes.
  static FASTMQA_DEVICE uint32_t codeByte(int token, int chunk) {
    constexpr int shuffledBits = rowBytes / 16 - 1;
    const int row = token * rowBytes;
    return static_cast<uint32_t>(row + (chunk ^ (row >> 7 & shuffledBits)) * 16);
  }
  /// The place of a channel among the queries' numbers: step * 16 + row of the operand.
  static FASTMQA_DEVICE int queryPlace(int channel) {
    if (nibbles) {
      const int n = channel % 8, t = channel / 8 % 4, step = channel / 32 * 2 + n % 4 / 2;
      return step * 16 + n % 2 * 8 + 2 * t + n / 4;
    }
    return channel / 16 * 16 + channel % 4 / 2 * 8 + channel % 16 / 4 * 2 + channel % 2;
  }
  /// Channel of row q (of 8) of value tile m of a warp; the row 8 further is the next channel.
  static FASTMQA_DEVICE int valueChunk(int m, int warp) { return nibbles ? 2 * m + (warp >> 1) : 4 * m + warp; }
  static FASTMQA_DEVICE int valueChannel(int m, int warp, int q) {
    return nibbles ? valueChunk(m, warp) * 32 + 4 * q + 2 * (warp & 1) : valueChunk(m, warp) * 16 + 2 * q;
  }
};

struct CodedDecodeProblem {
  AttentionProblem p;
  CUtensorMap keys, values;
};

/// Codes as pairs of f16, less what a symmetric group's code of 0 is.
template <Dtype type>
struct CodePairs {
  static constexpr uint32_t base = 0x64006400u, highBase = 0x54005400u;            // 1024, 1024; 64, 64: a nibble four bits further is worth one as well
  static constexpr uint32_t byteZero = 0xe480e480u;                                // -1152
  static constexpr uint32_t nibbleZero = 0xe408e408u, highNibbleZero = 0xd480d480u;  // -1032, -72
  /// Bytes i and j, i < j.
  template <int i, int j>
  static FASTMQA_DEVICE uint32_t bytes(uint32_t word) {
    return halfAdd(permuteBytes(word, base, 0x5050 | j << 8 | i), byteZero);
  }
  static FASTMQA_DEVICE uint32_t low(uint32_t word) { return halfAdd(maskedOr(word, 0x000f000fu, base), nibbleZero); }
  static FASTMQA_DEVICE uint32_t high(uint32_t word) { return halfAdd(maskedOr(word, 0x00f000f0u, highBase), highNibbleZero); }
  /// Four bytes of a token: pairs of channels 0, 1 and 2, 3.
  static FASTMQA_DEVICE void ofToken(uint32_t word, uint32_t& first, uint32_t& second) {
    if constexpr (type == Dtype::int8)
      first = bytes<0, 1>(word), second = bytes<2, 3>(word);
    else
      first = halvesOfE4m3<false>(word), second = halvesOfE4m3<true>(word);
  }
  /// Two bytes of two tokens: the pairs of the first and of the second byte.
  static FASTMQA_DEVICE void ofTokens(uint32_t word, uint32_t& first, uint32_t& second) {
    if constexpr (type == Dtype::int8) {
      first = bytes<0, 2>(word), second = bytes<1, 3>(word);
    } else {
      const uint32_t turned = permuteBytes(word, 0, 0x3120);
      first = halvesOfE4m3<false>(turned), second = halvesOfE4m3<true>(turned);
    }
  }
};

FASTMQA_DEVICE uint32_t loadHalf(uint32_t from) {
  uint16_t x;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(from) : "memory");
  return x;
}
/// The same value, which the compiler must not make anew.
FASTMQA_DEVICE void keep(uint32_t& x) { asm volatile("" : "+r"(x)); }

constexpr float largestWeight = 16384;     // that f16 may hold, with its scale or without
constexpr float lowestReference = -1e30f;  // of no token yet; a number, so that differences are numbers

template <class Shape>
static __global__ void __launch_bounds__(Shape::threads, 1) codedDecodeKernel(const __grid_constant__ CodedDecodeProblem all) {
  constexpr int D = Shape::D, rows = Shape::rows, runs = Shape::runs, steps = Shape::steps, stages = Shape::stages, groups = Shape::groups;
  constexpr int columns = rows / 4, valueTiles = Shape::valueTiles, valueSteps = Shape::valueSteps, tokens = pageTokens;
  using Pairs = CodePairs<Shape::type>;
  extern __shared__ __align__(1024) unsigned char hopperMemory[];
  const AttentionProblem& p = all.p;
  const uint32_t memory = sharedAddress(hopperMemory);  // a multiple of 1024, as there is no other shared memory
  const int lane = laneIndex(), q = lane / 4, t = lane % 4;
  const int block = sameInWarp(warpIndex()), warpgroup = block / 4, warp = block % 4;
  const uint32_t full = memory + Shape::barriersAt + warpgroup * stages * 8;
  releaseFollower();
  if (threadIndex() == 0) {
    if (memory % 1024) asm volatile("trap;");
    for (int i = 0; i < groups * stages; i++) initBarrier(memory + Shape::barriersAt + 8 * i, 1);
    publishBarriers();
    prefetchMap(all.keys);
    prefetchMap(all.values);
  }
  awaitPredecessor();
  blockBarrier();

  const int group = p.groupSize(), allRows = group * p.queryTokens, rowBlocks = (allRows + rows - 1) / rows;
  const int split = blockIndex().x, g = blockIndex().y / rowBlocks, firstRow = blockIndex().y % rowBlocks * rows, b = blockIndex().z;
  const int rowsHere = allRows - firstRow < rows ? allRows - firstRow : rows;
  const int length = p.tokensOf(b), position = p.positionOf(b);
  const VisibleTiles tiles(p, length, position + firstRow / group, position + (firstRow + rowsHere - 1) / group, tokens);
  const int share = (tiles.count + p.splits - 1) / p.splits;
  const int begin = split * share + warpgroup, end = split * share + share < tiles.count ? split * share + share : tiles.count;
  const int count = sameInWarp(begin < end ? (end - begin + groups - 1) / groups : 0);

  // Queries are on their way first.
  constexpr int queryPairs = rows * D / 2, pairsEach = (queryPairs + Shape::threads - 1) / Shape::threads;
  uint32_t queryBits[pairsEach][2];
  FASTMQA_UNROLL
  for (int j = 0; j < pairsEach; j++) {
    const int i = j * Shape::threads + threadIndex(), row = i / (D / 2), channel = i % (D / 2) * 2, r = firstRow + row;
    queryBits[j][0] = queryBits[j][1] = 0;
    if (i >= queryPairs || row >= rowsHere) continue;
    const int64_t from = b * p.queryBatch + r / group * p.queryToken + (g * group + r % group) * p.queryHead + channel;
    if (p.queryType == Dtype::f32)
      queryBits[j][0] = p.queries.load<uint32_t>(from * 4), queryBits[j][1] = p.queries.load<uint32_t>(from * 4 + 4);
    else
      queryBits[j][0] = p.queries.load<uint32_t>(from * 2);
  }

  // Warps take turns at having a page fetched: keys, values, the scales of either. Its number in the cache is read well before.
  const auto pageOf = [&](const TokenRows& r, int i) {
    if (i >= count) return 0;
    int page = keepInLoop(b * r.pagesPerSequence + tiles.tile(begin + i * groups));
    // In assembly, lest the compiler move it to a uniform register at once, and wait for it.
    if (r.pages) asm volatile("ld.global.s32 %0, [%1];" : "=r"(page) : "l"(r.pages.data() + page) : "memory");
    return page;
  };
  const auto fetch = [&](int stage, int keyPage, int valuePage) {
    const uint32_t barrier = full + 8 * stage, tile = memory + (warpgroup * stages + stage) * Shape::stageBytes;
    const int keyScaleBytes = Shape::isInt ? tokens * 2 * p.keyScales.groups : 0, valueScaleBytes = Shape::isInt ? tokens * 2 * p.valueScales.groups : 0;
    arriveExpecting(barrier, 2 * Shape::sideBytes + keyScaleBytes + valueScaleBytes);
    copyBox(tile, all.keys, 0, 0, g, keyPage, barrier);
    copyBox(tile + Shape::sideBytes, all.values, 0, 0, g, valuePage, barrier);
    if constexpr (Shape::isInt) {
      const uint32_t scales = memory + Shape::scalesAt + (warpgroup * stages + stage) * 2 * Shape::planeBytes;
      const CodeScales &k = p.keyScales, &v = p.valueScales;
      copyBytes(scales, k.data.data() + wideProduct(keyPage, static_cast<int>(k.pageBytes)) + g * static_cast<int>(k.headBytes), keyScaleBytes, barrier);
      copyBytes(scales + Shape::planeBytes, v.data.data() + wideProduct(valuePage, static_cast<int>(v.pageBytes)) + g * static_cast<int>(v.headBytes), valueScaleBytes, barrier);
    }
  };
  int nextPages[2] = {0, 0};  // of the next page that this warp has fetched, at the end of iteration `warp`, `warp` + 4, ...
  if (electedLane()) {
    constexpr int turns = (stages + 3) / 4;
    int first[turns][2];  // all loads at once
    FASTMQA_UNROLL
    for (int j = 0; j < turns; j++)
      if (4 * j + warp < stages) first[j][0] = pageOf(p.keys, 4 * j + warp), first[j][1] = pageOf(p.values, 4 * j + warp);
    nextPages[0] = pageOf(p.keys, stages + warp), nextPages[1] = pageOf(p.values, stages + warp);
    FASTMQA_UNROLL
    for (int j = 0; j < turns; j++)
      if (4 * j + warp < stages && 4 * j + warp < count) fetch(4 * j + warp, first[j][0], first[j][1]);
  }
  warpBarrier();

  FASTMQA_UNROLL
  for (int j = 0; j < pairsEach; j++) {
    const int i = j * Shape::threads + threadIndex(), row = i / (D / 2), channel = i % (D / 2) * 2;
    if (i >= queryPairs) continue;
    const uint32_t bits = queryBits[j][0];
    const uint32_t both = p.queryType == Dtype::f32    ? packHalves(F16(), floatOf(bits), floatOf(queryBits[j][1]))
                          : p.queryType == Dtype::bf16 ? packHalves(F16(), lowHalf(Bf16(), bits), highHalf(Bf16(), bits))
                                                       : bits;
    FASTMQA_UNROLL
    for (int c = 0; c < 2; c++) {
      const int place = Shape::queryPlace(channel + c), inLine = place % lineHalves;
      asm volatile("st.shared.u16 [%0], %1;" ::"r"(memory + Shape::queriesAt + place / lineHalves * Shape::lineTile + row * lineBytes + ((inLine / 8) ^ (row & 7)) * 16 + inLine % 8 * 2),
                   "h"(static_cast<uint16_t>(both >> 16 * c))
                   : "memory");
    }
  }
  fenceForMatrices();
  blockBarrier();

  // Column 2f + c of a lane is row 8f + 2t + c.
  float reference[columns], total[columns];
  float sums[valueTiles][rows / 2], scores[runs][rows / 2];
  FASTMQA_UNROLL
  for (int j = 0; j < columns; j++) reference[j] = lowestReference, total[j] = 0;
  FASTMQA_UNROLL
  for (int m = 0; m < valueTiles; m++)
    FASTMQA_UNROLL
    for (int j = 0; j < rows / 2; j++) sums[m][j] = 0;
  const float scale = p.scale * log2OfE * p.keyScales.wholeScale();
  const uint64_t queryOperand = operandAt(memory + Shape::queriesAt);
  const uint32_t ownWeights = memory + Shape::weightsAt + warpgroup * 2 * runs * Shape::lineTile;
  const uint64_t weightOperand = operandAt(ownWeights);
  uint32_t keyAt = Shape::codeByte(warp * 16 + (lane & 15), lane >> 4), valueAt = Shape::codeByte(lane, Shape::valueChunk(0, warp));
  uint32_t storeAt = ownWeights + ((lane >> 4) * 8 + (lane & 7)) * lineBytes + ((2 * warp + (lane >> 3 & 1)) ^ (lane & 7)) * 16;
  const uint32_t notes = memory + Shape::notesAt + warpgroup * 4 * rows * 4;
  const int ownBarrier = 1 + warpgroup;
  const int keyGroups = runs > 1 ? p.keyScales.groups : 1, valueGroups = runs > 1 ? p.valueScales.groups : 1;  // 1 or `runs`
  const uint32_t ownScales = memory + Shape::scalesAt + warpgroup * stages * 2 * Shape::planeBytes;
  uint32_t scalesAt = ownScales + (warp * 16 + q) * keyGroups * 2, valueScalesAt = ownScales + Shape::planeBytes + (warp * 16 + q) * valueGroups * 2;
  if constexpr (runs == 1) keep(keyAt), keep(valueAt), keep(storeAt), keep(scalesAt);
  RingPlace<stages> place;

  uint32_t keys[4 * steps];
  const auto unpackKeys = [&](int stage) {
    const uint32_t tile = memory + (warpgroup * stages + stage) * Shape::stageBytes;
    FASTMQA_UNROLL
    for (int u = 0; u < Shape::chunks; u += 2) {
      uint32_t r[4];  // of chunk u tokens q and q + 8, of the next
      loadMatrices(r[0], r[1], r[2], r[3], tile + (keyAt ^ static_cast<uint32_t>(u * 16)));
      FASTMQA_UNROLL
      for (int j = 0; j < 4; j++) {
        const int chunk = u + j / 2, half = j % 2;
        if constexpr (Shape::nibbles) {
          keys[8 * chunk + half] = Pairs::low(r[j]), keys[8 * chunk + 2 + half] = Pairs::high(r[j]);
          keys[8 * chunk + 4 + half] = Pairs::low(r[j] >> 8), keys[8 * chunk + 6 + half] = Pairs::high(r[j] >> 8);
        } else {
          Pairs::ofToken(r[j], keys[4 * chunk + half], keys[4 * chunk + 2 + half]);
        }
      }
    }
    settled(keys);
  };
  if (count > 0) waitPhase(full, 0);
  unpackKeys(0);

  for (int i = 0; i < count; i++) {
    const uint32_t tile = memory + (warpgroup * stages + place.index) * Shape::stageBytes;
    const int firstToken = tiles.tile(begin + i * groups) * tokens, ownToken = firstToken + warp * 16 + q;
    settled(keys);
    beginProducts();
    FASTMQA_UNROLL
    for (int s = 0; s < steps; s++)
      Product<F16, rows>::registersAlong(scores[s * runs / steps], keys[4 * s], keys[4 * s + 1], keys[4 * s + 2], keys[4 * s + 3],
                                         queryOperand + (s / 4 * Shape::lineTile + s % 4 * 32 >> 4), s % (steps / runs) == 0);
    commitProducts();

    // Beside it: scales and values.
    float keyScale[runs][2], limit = largestWeight;  // of tokens q and q + 8; of the sum of a lane's weights
    uint32_t valueScale[runs][2];                      // twice each
    FASTMQA_UNROLL
    for (int run = 0; run < runs; run++)
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        keyScale[run][half] = scale, valueScale[run][half] = 0;
        if constexpr (Shape::isInt) {
          const uint32_t plane = scalesAt + (place.index * 2 * Shape::planeBytes + (runs > 1 ? 8 * half * keyGroups * 2 : 16 * half));
          const uint32_t valuePlane = runs > 1 ? valueScalesAt + (place.index * 2 * Shape::planeBytes + 8 * half * valueGroups * 2) : plane + Shape::planeBytes;
          keyScale[run][half] *= lowHalf(F16(), loadHalf(plane + 2 * run * (keyGroups - 1)));
          const uint32_t s = loadHalf(valuePlane + 2 * run * (valueGroups - 1));
          valueScale[run][half] = permuteBytes(s, s, 0x1010);
        }
      }
    if constexpr (Shape::isInt) {
      float most = 1;
      FASTMQA_UNROLL
      for (int j = 0; j < 2 * runs; j++) most = fmaxf(most, lowHalf(F16(), valueScale[j / 2][j % 2]));
      limit *= reciprocal(most);
    } else if (firstToken + tokens > length) {  // what lies past the end may be NaN, and nothing times NaN is NaN
      const int first = length - firstToken, missing = (tokens - first) * Shape::chunks;
      for (int j = threadIndex() % warpgroupThreads; j < missing; j += warpgroupThreads)
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(tile + Shape::sideBytes + first * Shape::rowBytes + j * 16), "r"(0) : "memory");
      joinBarrier(ownBarrier, warpgroupThreads);
    }
    uint32_t values[valueTiles * valueSteps * 4], codes[valueTiles][8];  // blocks of 8 tokens
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++)
      FASTMQA_UNROLL
      for (int u = 0; u < 2; u++)
        loadMatricesTransposed(codes[m][4 * u], codes[m][4 * u + 1], codes[m][4 * u + 2], codes[m][4 * u + 3],
                               tile + Shape::sideBytes + u * 32 * Shape::rowBytes + (valueAt ^ static_cast<uint32_t>((Shape::nibbles ? 2 : 4) * m * 16)));
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++)
      FASTMQA_UNROLL
      for (int j = 0; j < 8; j++) {
        uint32_t* const to = values + (m * valueSteps + j / 2) * 4 + j % 2 * 2;
        if constexpr (Shape::nibbles) {
          const uint32_t word = codes[m][j] >> (warp & 1) * 8;
          to[0] = Pairs::low(word), to[1] = Pairs::high(word);
        } else {
          Pairs::ofTokens(codes[m][j], to[0], to[1]);
        }
      }
    settled(values);
    waitProducts<0>();
    settled(keys);
    FASTMQA_UNROLL
    for (int run = 0; run < runs; run++) settled(scores[run]);

    const bool masked = tiles.needsMask(firstToken, tokens);
    if (masked || p.softcap != 0) {
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        const RowMask mask(p, length, position + (firstRow + 8 * (j / 2) + 2 * t + j % 2) / group);
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const int at = 4 * (j / 2) + 2 * half + j % 2;
          float x = scores[0][at] * keyScale[0][half];
          if constexpr (runs > 1) x += scores[1][at] * keyScale[1][half], scores[1][at] = 0;
          if (p.softcap != 0) x = finishLogit(p, x, 1);
          scores[0][at] = mask.sees(ownToken + 8 * half) ? x : minusInfinity;
        }
      }
      keyScale[0][0] = keyScale[0][1] = 1;
      if constexpr (runs > 1) keyScale[1][0] = keyScale[1][1] = 0;
      FASTMQA_UNROLL
      for (int j = 0; j < 2 * runs; j++)
        if (ownToken + 8 * (j % 2) >= length) valueScale[j / 2][j % 2] = 0;  // past the end it may be anything
    }

    const uint32_t buffer = i % 2 * runs * Shape::lineTile;
    float fresh[columns];
    /// Returns whether a weight may be too large for what its row's weights refer to.
    const auto passWeights = [&] {
      float sum = 0;
      FASTMQA_UNROLL
      for (int f = 0; f < rows / 8; f += 2) {
        float a[8];  // [2 blocks of 8 rows][2 halves][2 columns]
        FASTMQA_UNROLL
        for (int j = 0; j < 8; j++) {
          const int at = 4 * f + j, half = j % 4 / 2;
          float x = fmaf(scores[0][at], keyScale[0][half], -reference[2 * f + j / 4 * 2 + j % 2]);
          if constexpr (runs > 1) x = fmaf(scores[1][at], keyScale[1][half], x);
          a[j] = exp2Fast(x);
        }
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) sum += fresh[2 * f + j] = a[j / 2 * 4 + j % 2] + a[j / 2 * 4 + 2 + j % 2];
        uint32_t w[4];
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) w[j] = packWeights(F16(), a[2 * j], a[2 * j + 1]);
        FASTMQA_UNROLL
        for (int run = 0; run < runs; run++) {
          const uint32_t to = storeAt + buffer + run * Shape::lineTile + f * 8 * lineBytes, low = valueScale[run][0], high = valueScale[run][1];
          if constexpr (Shape::isInt)
            storeMatricesTransposed(to, halfMultiply(w[0], low), halfMultiply(w[1], high), halfMultiply(w[2], low), halfMultiply(w[3], high));
          else
            storeMatricesTransposed(to, w[0], w[1], w[2], w[3]);
        }
      }
      fenceForMatrices();
      return sum > limit;
    };
    // After the barrier the page is used up, and so are the weights of the tile before.
    if (anyLane(joinBarrierAny(ownBarrier, warpgroupThreads, passWeights()))) {  // rare once large logits have been met
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        float x[2];
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const int at = 4 * (j / 2) + 2 * half + j % 2;
          x[half] = scores[0][at] * keyScale[0][half];
          if constexpr (runs > 1) x[half] += scores[1][at] * keyScale[1][half];
        }
        float most = fmaxf(x[0], x[1]);
        FASTMQA_UNROLL
        for (int mask = 4; mask < warpSize_; mask *= 2) most = fmaxf(most, shuffleXor(most, mask));
        if (q == 0) storeFloat(notes + (warp * rows + 8 * (j / 2) + 2 * t + j % 2) * 4, most);
      }
      joinBarrier(ownBarrier, warpgroupThreads);
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        const float before = reference[j];
        FASTMQA_UNROLL
        for (int w = 0; w < 4; w++) reference[j] = fmaxf(reference[j], loadFloat(notes + (w * rows + 8 * (j / 2) + 2 * t + j % 2) * 4) - Shape::boost);
        const float fade = exp2Fast(before - reference[j]);
        total[j] *= fade;
        FASTMQA_UNROLL
        for (int m = 0; m < valueTiles; m++) sums[m][4 * (j / 2) + j % 2] *= fade, sums[m][4 * (j / 2) + 2 + j % 2] *= fade;
      }
      passWeights();
      joinBarrier(ownBarrier, warpgroupThreads);
    }
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++) settled(sums[m]);
    const uint64_t bufferOperand = weightOperand + (buffer >> 4);
    beginProducts();
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++)
      FASTMQA_UNROLL
      for (int s = 0; s < valueSteps; s++) {
        const uint32_t* const v = values + (m * valueSteps + s) * 4;
        Product<F16, rows>::registersAlong(sums[m], v[0], v[1], v[2], v[3], bufferOperand + (m * runs / valueTiles * Shape::lineTile + s * 32 >> 4), false);
      }
    commitProducts();
    FASTMQA_UNROLL
    for (int j = 0; j < columns; j++) total[j] += fresh[j];
    if (i % 4 == warp && electedLane() && i + stages < count) {
      fetch(place.index, nextPages[0], nextPages[1]);
      nextPages[0] = pageOf(p.keys, i + stages + 4), nextPages[1] = pageOf(p.values, i + stages + 4);
    }
    warpBarrier();
    place.advance();
    if (i + 1 < count) waitPhase(full + 8 * place.index, place.parity);
    unpackKeys(place.index);  // beside the products; of nothing in the end
    waitProducts<0>();
    settled(values);
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++) settled(sums[m]);
  }

  blockBarrier();  // the ring is used up
  FASTMQA_UNROLL
  for (int j = 0; j < columns; j++) {
    float sum = total[j];
    FASTMQA_UNROLL
    for (int mask = 4; mask < warpSize_; mask *= 2) sum += shuffleXor(sum, mask);
    const int row = 8 * (j / 2) + 2 * t + j % 2;
    if (q == 0) storeFloat(notes + (warp * rows + row) * 4, sum);
    if (q == 0 && warp == 0) storeFloat(memory + Shape::referencesAt + (warpgroup * rows + row) * 4, reference[j]);
    FASTMQA_UNROLL
    for (int m = 0; m < valueTiles; m++)
      asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(memory + ((warpgroup * rows + row) * Shape::sumRow + Shape::valueChannel(m, warp, q)) * 4),
                   "f"(sums[m][4 * (j / 2) + j % 2]), "f"(sums[m][4 * (j / 2) + 2 + j % 2])
                   : "memory");
  }
  blockBarrier();
  if (threadIndex() < static_cast<int>(rows)) {  // a row's sums of each warpgroup are worth this much
    const int row = threadIndex(), r = firstRow + row;
    float most = lowestReference, fades[groups], sum = 0;
    FASTMQA_UNROLL
    for (int w = 0; w < groups; w++) most = fmaxf(most, loadFloat(memory + Shape::referencesAt + (w * rows + row) * 4));
    FASTMQA_UNROLL
    for (int w = 0; w < groups; w++) {
      fades[w] = exp2Fast(loadFloat(memory + Shape::referencesAt + (w * rows + row) * 4) - most);
      FASTMQA_UNROLL
      for (int j = 0; j < 4; j++) sum += fades[w] * loadFloat(memory + Shape::notesAt + ((w * 4 + j) * rows + row) * 4);
    }
    const float factor = sum > 0 ? p.valueScales.wholeScale() / sum : 0;
    FASTMQA_UNROLL
    for (int w = 0; w < groups; w++) storeFloat(memory + Shape::referencesAt + (w * rows + row) * 4, fades[w] * factor);
    if (row < rowsHere) storeLogSum(p, p.firstSlot + split, b, r / group, g * group + r % group, sum > 0 ? most + log2f(sum) : minusInfinity);
  }
  blockBarrier();
  FASTMQA_ROLLED
  for (int i = threadIndex(); i < rowsHere * D; i += Shape::threads) {
    const int row = i / D, channel = i % D, r = firstRow + row;
    float x = 0;
    FASTMQA_UNROLL
    for (int w = 0; w < groups; w++)
      x += loadFloat(memory + Shape::referencesAt + (w * rows + row) * 4) * loadFloat(memory + ((w * rows + row) * Shape::sumRow + channel) * 4);
    storeResult(p, p.firstSlot + split, b, r / group, g * group + r % group, channel, x);
  }
}

}  // namespace fastmqa::gpu::hopper
