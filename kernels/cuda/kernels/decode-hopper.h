// Decode for more than eight query rows of a KV head over a coded cache, on compute capability 9.0: what decode-many.h does,
// with products of warpgroups. Tokens fill the 64 rows of one product (scores = keys x queries), channels of values those of
// the other (sums = values x weights); query rows are the columns of both. Codes become f16 in the registers of the warp
// whose rows they are, once for all query rows. Each warpgroup of a block takes every groups-th unit of pages of the block's
// share; their softmaxes are merged in the end. While one warpgroup waits for a product, the others unpack. The last
// warpgroup's warps fetch, each into the ring of one of the others: were it one of theirs, three would wait for it at every
// product. A unit is two pages where registers allow, for every unit costs its warps two meetings.
//
// A warp's tokens of a page are 16 w + q and + 8. Keys come by ldmatrix: a lane has 4 bytes of a token, hence 4 or 8
// channels side by side, and queries are stored in the order in which these leave the word. Values come by transposed
// ldmatrix of 16-bit units: a lane has 2 or 4 channels of two tokens, so that masks alone separate pairs of tokens.
#pragma once
#include "../primitives/hopper.h"
#include "query-block.h"

namespace fastmqa::gpu::hopper {

/// `runs`: pieces of 64 channels or more of a token that have scales of their own.
template <Dtype type_, int D_, int rows_, int runs_>
struct CodedDecodeShape {
  static constexpr Dtype type = type_;
  static constexpr bool isInt = type == Dtype::int8 || type == Dtype::int4, nibbles = type == Dtype::int4;
  static constexpr int D = D_, rows = rows_, runs = runs_, steps = D / 16, valueTiles = D / 64, valueSteps = pageTokens / 16;
  static constexpr int rowBytes = nibbles ? D / 2 : D, chunks = rowBytes / 16, sideBytes = pageTokens * rowBytes;
  static constexpr int groups = rows > 32 && D > 64 ? 2 : 3;  ///< warpgroups that compute, as many as registers allow
  static constexpr int consumers = groups * warpgroupThreads, threads = consumers + warpgroupThreads;
  // Registers of all threads at the start; of a thread that fetches; of the others, which take what those give.
  static constexpr int allRegisters = 65536 / threads / 8 * 8 * threads, fetchRegisters = 32;
  static constexpr int registers = (allRegisters - fetchRegisters * warpgroupThreads) / consumers / 8 * 8;
  static constexpr int pages = D == 64 && rows <= 32 ? 2 : 1, unit = pages * pageTokens;  ///< pages and tokens between barriers
  static constexpr int stages = (rowBytes >= 128 ? 3 : rowBytes >= 64 ? 4 : 8) / pages, stageBytes = pages * 2 * sideBytes;
  static constexpr int planeBytes = isInt ? pageTokens * 2 * runs : 0;           ///< scales of a page's keys or values
  static constexpr int lineTile = rows * lineBytes, lines = D / lineHalves;      ///< 64 channels of queries, or 64 tokens of weights
  static constexpr int weightsAt = groups * stages * stageBytes, queriesAt = weightsAt + groups * 2 * pages * runs * lineTile;
  static constexpr int scalesAt = queriesAt + lines * lineTile, notesAt = scalesAt + groups * stages * pages * 2 * planeBytes;
  /// Notes: [groups][4 warps][rows] largest logits, in the end totals; [groups][rows] references, in the end factors.
  static constexpr int referencesAt = notesAt + groups * 4 * rows * 4, barriersAt = referencesAt + groups * rows * 4;
  static constexpr int freeAt = barriersAt + groups * stages * 8, factorsAt = freeAt + groups * stages * 8, sharedBytes = factorsAt + 8;
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
/// The same 4 bytes four times.
FASTMQA_DEVICE void storeWords(uint32_t to, uint32_t word) { asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(word) : "memory"); }
/// As `settled`, of rows of numbers.
template <class X, int n>
FASTMQA_DEVICE void settledAll(X (&x)[n]) {
  FASTMQA_UNROLL
  for (int i = 0; i < n; i++) settled(x[i]);
}
/// The same value, which the compiler must not make anew.
FASTMQA_DEVICE void keep(uint32_t& x) { asm volatile("" : "+r"(x)); }

constexpr float largestWeight = 16384;     // that f16 may hold, with its scale or without
constexpr float lowestReference = -1e30f;  // of no token yet; a number, so that differences are numbers

/// Fetches a warpgroup's units `at`, `at` + groups, ... before `end` into its ring: keys, values, the scales of either.
template <class Shape>
FASTMQA_DEVICE void fetchCodes(const CodedDecodeProblem& all, uint32_t memory, int warpgroup, const QueryBlock& block, const BlockTiles& tiles, int at, int end) {
  constexpr int stages = Shape::stages, tokens = pageTokens, pages = Shape::pages, units = warpSize_ / pages;
  const AttentionProblem& p = all.p;
  const int keyScaleBytes = Shape::isInt ? tokens * 2 * p.keyScales.groups : 0, valueScaleBytes = Shape::isInt ? tokens * 2 * p.valueScales.groups : 0;
  // A lane has the numbers of one page of 32, and of the 32 after these.
  const int lane = laneIndex(), lastPage = (tiles.length - 1) / tokens;
  const auto pageOf = [&](const TokenRows& r, int first) {
    const int i = first + lane / pages * Shape::groups, page = tiles.tile(i < end ? i : end - 1) * pages + lane % pages;
    const int own = block.b * r.pagesPerSequence + (page < lastPage ? page : lastPage);  // what lies past the last is not used
    return r.pages ? r.pages.data()[own] : own;
  };
  int keyPages = 0, valuePages = 0, nextKeyPages = 0, nextValuePages = 0;
  const auto read = [&] { nextKeyPages = pageOf(p.keys, at + units * Shape::groups), nextValuePages = pageOf(p.values, at + units * Shape::groups); };
  if (at < end) keyPages = pageOf(p.keys, at), valuePages = pageOf(p.values, at), read();
  RingPlace<stages> place;
  for (int i = 0; at < end; at += Shape::groups, i++) {
    if (i == units) i = 0, keyPages = nextKeyPages, valuePages = nextValuePages, read();
    const int stage = warpgroup * stages + place.index;
    const uint32_t barrier = memory + Shape::barriersAt + 8 * stage;
    waitPhase(memory + Shape::freeAt + 8 * stage, place.parity ^ 1);
    if (electedLane()) arriveExpecting(barrier, pages * (2 * Shape::sideBytes + keyScaleBytes + valueScaleBytes));
    FASTMQA_ROLLED
    for (int j = 0; j < pages; j++) {
      const int keyPage = sameInWarp(lane == i * pages + j ? keyPages : 0), valuePage = sameInWarp(lane == i * pages + j ? valuePages : 0);
      if (!electedLane()) continue;
      const uint32_t tile = memory + stage * Shape::stageBytes + j * 2 * Shape::sideBytes;
      copyBox(tile, all.keys, 0, 0, block.g, keyPage, barrier);
      copyBox(tile + Shape::sideBytes, all.values, 0, 0, block.g, valuePage, barrier);
      if constexpr (Shape::isInt) {
        const uint32_t scales = memory + Shape::scalesAt + (stage * pages + j) * 2 * Shape::planeBytes;
        const CodeScales &k = p.keyScales, &v = p.valueScales;
        copyBytes(scales, k.data.data() + wideProduct(keyPage, static_cast<int>(k.pageBytes)) + block.g * static_cast<int>(k.headBytes), keyScaleBytes, barrier);
        copyBytes(scales + Shape::planeBytes, v.data.data() + wideProduct(valuePage, static_cast<int>(v.pageBytes)) + block.g * static_cast<int>(v.headBytes), valueScaleBytes, barrier);
      }
    }
    warpBarrier();
    place.advance();
  }
}

template <class Shape>
static __global__ void __launch_bounds__(Shape::threads, 1) codedDecodeKernel(const __grid_constant__ CodedDecodeProblem all) {
  constexpr int D = Shape::D, rows = Shape::rows, runs = Shape::runs, steps = Shape::steps, stages = Shape::stages, groups = Shape::groups;
  constexpr int columns = rows / 4, valueTiles = Shape::valueTiles, valueSteps = Shape::valueSteps, tokens = pageTokens, pages = Shape::pages, unit = Shape::unit;
  using Pairs = CodePairs<Shape::type>;
  extern __shared__ __align__(1024) unsigned char hopperMemory[];
  const AttentionProblem& p = all.p;
  const uint32_t memory = sharedAddress(hopperMemory);  // a multiple of 1024, as there is no other shared memory
  const int lane = laneIndex(), q = lane / 4, t = lane % 4;
  const int warpOfBlock = sameInWarp(warpIndex()), warpgroup = warpOfBlock / 4, warp = warpOfBlock % 4;
  releaseFollower();
  if (threadIndex() == 0) {
    if (memory % 1024) asm volatile("trap;");
    for (int i = 0; i < groups * stages; i++) initBarrier(memory + Shape::barriersAt + 8 * i, 1), initBarrier(memory + Shape::freeAt + 8 * i, warpgroupThreads);
    initBarrier(memory + Shape::factorsAt, rows);
    publishBarriers();
    prefetchMap(all.keys);
    prefetchMap(all.values);
  }
  awaitPredecessor();

  const QueryBlock block(p, rows);
  const BlockTiles tiles(p, block, unit);
  const int begin = tiles.share.begin, end = sameInWarp(tiles.share.end);
  blockBarrier();
  if (warpgroup == groups) {
    giveRegisters<Shape::fetchRegisters>();
    if (warp < groups) fetchCodes<Shape>(all, memory, warp, block, tiles, begin + warp, end);
    return;
  }
  takeRegisters<Shape::registers>();

  // All queries are on their way before the first is stored.
  constexpr int queryPairs = rows * D / 2, pairsEach = (queryPairs + Shape::consumers - 1) / Shape::consumers;
  uint32_t queryBits[pairsEach][2];
  FASTMQA_UNROLL
  for (int j = 0; j < pairsEach; j++) {
    const int i = j * Shape::consumers + threadIndex(), row = i / (D / 2), channel = i % (D / 2) * 2;
    queryBits[j][0] = queryBits[j][1] = 0;
    if (i >= queryPairs || row >= block.rowsHere) continue;
    const int64_t from = block.query(p, row) + channel;
    if (p.queryType == Dtype::f32)
      queryBits[j][0] = p.queries.load<uint32_t>(from * 4), queryBits[j][1] = p.queries.load<uint32_t>(from * 4 + 4);
    else
      queryBits[j][0] = p.queries.load<uint32_t>(from * 2);
  }
  FASTMQA_UNROLL
  for (int j = 0; j < pairsEach; j++) {
    const int i = j * Shape::consumers + threadIndex(), row = i / (D / 2), channel = i % (D / 2) * 2;
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
  joinBarrier(0, Shape::consumers);

  // Column 2f + c of a lane is row 8f + 2t + c.
  float reference[columns], total[columns];
  float sums[valueTiles][rows / 2], scores[pages][runs][rows / 2];
  FASTMQA_UNROLL
  for (int j = 0; j < columns; j++) reference[j] = lowestReference, total[j] = 0;
  FASTMQA_UNROLL
  for (int m = 0; m < valueTiles; m++)
    FASTMQA_UNROLL
    for (int j = 0; j < rows / 2; j++) sums[m][j] = 0;
  const float scale = p.scale * log2OfE * p.keyScales.wholeScale();
  const uint64_t queryOperand = operandAt(memory + Shape::queriesAt);
  const uint32_t ownWeights = memory + Shape::weightsAt + warpgroup * 2 * pages * runs * Shape::lineTile;
  const uint64_t weightOperand = operandAt(ownWeights);
  uint32_t keyAt = Shape::codeByte(warp * 16 + (lane & 15), lane >> 4), valueAt = Shape::codeByte(lane, Shape::valueChunk(0, warp));
  uint32_t storeAt = ownWeights + ((lane >> 4) * 8 + (lane & 7)) * lineBytes + ((2 * warp + (lane >> 3 & 1)) ^ (lane & 7)) * 16;
  const uint32_t notes = memory + Shape::notesAt + warpgroup * 4 * rows * 4;
  const int ownBarrier = 1 + warpgroup;
  const int keyGroups = runs > 1 ? p.keyScales.groups : 1, valueGroups = runs > 1 ? p.valueScales.groups : 1;  // 1 or `runs`
  const uint32_t ownScales = memory + Shape::scalesAt + warpgroup * stages * pages * 2 * Shape::planeBytes;
  uint32_t scalesAt = ownScales + (warp * 16 + q) * keyGroups * 2, valueScalesAt = ownScales + Shape::planeBytes + (warp * 16 + q) * valueGroups * 2;
  if constexpr (runs == 1) keep(keyAt), keep(valueAt), keep(storeAt), keep(scalesAt);
  const uint32_t full = memory + Shape::barriersAt + warpgroup * stages * 8, free = memory + Shape::freeAt + warpgroup * stages * 8;
  RingPlace<stages> place;
  // Tiles of which every row sees every token, and logits are what they are.
  const int firstWhole = tiles.sinkTiles + (tiles.allSeeFrom > tiles.windowTile * unit ? (tiles.allSeeFrom + unit - 1) / unit - tiles.windowTile : 0);
  const int whole = p.softcap != 0 ? 0 : sameInWarp(tiles.sinkTiles + tiles.allSeeTo / unit - tiles.windowTile - firstWhole);

  uint32_t keys[pages][4 * steps];
  const auto unpackKeys = [&](int stage) {
    FASTMQA_UNROLL
    for (int page = 0; page < pages; page++) {
      const uint32_t tile = memory + (warpgroup * stages + stage) * Shape::stageBytes + page * 2 * Shape::sideBytes;
      FASTMQA_UNROLL
      for (int u = 0; u < Shape::chunks; u += 2) {
        uint32_t r[4];  // of chunk u tokens q and q + 8, of the next
        loadMatrices(r[0], r[1], r[2], r[3], tile + (keyAt ^ static_cast<uint32_t>(u * 16)));
        FASTMQA_UNROLL
        for (int j = 0; j < 4; j++) {
          const int chunk = u + j / 2, half = j % 2;
          uint32_t* const to = keys[page] + (Shape::nibbles ? 8 : 4) * chunk + half;
          if constexpr (Shape::nibbles) {
            to[0] = Pairs::low(r[j]), to[2] = Pairs::high(r[j]);
            to[4] = Pairs::low(r[j] >> 8), to[6] = Pairs::high(r[j] >> 8);
          } else {
            Pairs::ofToken(r[j], to[0], to[2]);
          }
        }
      }
    }
    settledAll(keys);
  };
  const int first = sameInWarp(begin + warpgroup);
  if (first < end) waitPhase(full, 0);
  unpackKeys(0);

  uint32_t buffer = 0;
  for (int at = first; at < end; at += groups) {
    const uint32_t tile = memory + (warpgroup * stages + place.index) * Shape::stageBytes;
    const bool special = at < firstWhole || at >= firstWhole + whole;
    settledAll(keys);
    beginProducts();
    FASTMQA_UNROLL
    for (int page = 0; page < pages; page++)
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++)
        Product<F16, rows>::registersAlong(scores[page][s * runs / steps], keys[page][4 * s], keys[page][4 * s + 1], keys[page][4 * s + 2], keys[page][4 * s + 3],
                                           queryOperand + (s / 4 * Shape::lineTile + s % 4 * 32 >> 4), s % (steps / runs) == 0);
    commitProducts();

    // Beside it: scales and values.
    float keyScale[pages][runs][2], largest = 1;  // of tokens q and q + 8; of the scales of values, at least 1
    uint32_t valueScale[pages][runs][2];          // twice each
    FASTMQA_UNROLL
    for (int page = 0; page < pages; page++)
      FASTMQA_UNROLL
      for (int run = 0; run < runs; run++)
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          keyScale[page][run][half] = scale, valueScale[page][run][half] = 0;
          if constexpr (Shape::isInt) {
            const int planes = (place.index * pages + page) * 2 * Shape::planeBytes;
            const uint32_t plane = scalesAt + (planes + (runs > 1 ? 8 * half * keyGroups * 2 : 16 * half));
            const uint32_t valuePlane = runs > 1 ? valueScalesAt + (planes + 8 * half * valueGroups * 2) : plane + Shape::planeBytes;
            keyScale[page][run][half] *= lowHalf(F16(), loadHalf(plane + 2 * run * (keyGroups - 1)));
            const uint32_t s = loadHalf(valuePlane + 2 * run * (valueGroups - 1));
            valueScale[page][run][half] = permuteBytes(s, s, 0x1010);
            largest = fmaxf(largest, lowHalf(F16(), s));
          }
        }
    if (!Shape::isInt && special && tiles.tile(at) * unit + unit > tiles.length) {  // what lies past the end may be NaN, and nothing times NaN is NaN
      for (int j = threadIndex() % warpgroupThreads + (tiles.length - tiles.tile(at) * unit) * Shape::chunks; j < unit * Shape::chunks; j += warpgroupThreads)
        storeWords(tile + j / (tokens * Shape::chunks) * 2 * Shape::sideBytes + Shape::sideBytes + j % (tokens * Shape::chunks) * 16, 0);
      joinBarrier(ownBarrier, warpgroupThreads);
    }
    // With registers for one page, its values are unpacked now; otherwise after the weights.
    uint32_t codes[pages][valueTiles][8], values[pages][valueTiles * valueSteps * 4];  // codes: blocks of 8 tokens
    const auto loadValues = [&](int page, int m) {
      FASTMQA_UNROLL
      for (int u = 0; u < 2; u++)
        loadMatricesTransposed(codes[page][m][4 * u], codes[page][m][4 * u + 1], codes[page][m][4 * u + 2], codes[page][m][4 * u + 3],
                               tile + (2 * page + 1) * Shape::sideBytes + u * 32 * Shape::rowBytes + (valueAt ^ static_cast<uint32_t>((Shape::nibbles ? 2 : 4) * m * 16)));
    };
    const auto unpackValues = [&](int page, int m) {
      FASTMQA_UNROLL
      for (int j = 0; j < 8; j++) {
        uint32_t* const to = values[page] + (m * valueSteps + j / 2) * 4 + j % 2 * 2;
        if constexpr (Shape::nibbles) {
          const uint32_t word = codes[page][m][j] >> (warp & 1) * 8;
          to[0] = Pairs::low(word), to[1] = Pairs::high(word);
        } else {
          Pairs::ofTokens(codes[page][m][j], to[0], to[1]);
        }
      }
    };
    if constexpr (pages > 1) {
      FASTMQA_UNROLL
      for (int page = 0; page < pages; page++)
        FASTMQA_UNROLL
        for (int m = 0; m < valueTiles; m++) loadValues(page, m);
    } else {
      loadValues(0, 0), unpackValues(0, 0);
    }
    waitProducts<0>();
    settledAll(keys);
    FASTMQA_UNROLL
    for (int page = 0; page < pages; page++) settledAll(scores[page]);
    if constexpr (pages == 1)
      FASTMQA_UNROLL
      for (int m = 1; m < valueTiles; m++) loadValues(0, m), unpackValues(0, m);  // not before: registers

    if (special) {
      FASTMQA_UNROLL
      for (int page = 0; page < pages; page++) {
        const int ownToken = tiles.tile(at) * unit + page * tokens + warp * 16 + q;
        FASTMQA_UNROLL
        for (int j = 0; j < columns; j++) {
          const RowMask mask = tiles.mask(p, block.token(8 * (j / 2) + 2 * t + j % 2));
          FASTMQA_UNROLL
          for (int half = 0; half < 2; half++) {
            const int at = 4 * (j / 2) + 2 * half + j % 2;
            float x = scores[page][0][at] * keyScale[page][0][half];
            if constexpr (runs > 1) x += scores[page][1][at] * keyScale[page][1][half], scores[page][1][at] = 0;
            if (p.softcap != 0) x = finishLogit(p, x, 1);
            scores[page][0][at] = mask.sees(ownToken + 8 * half) ? x : minusInfinity;
          }
        }
        keyScale[page][0][0] = keyScale[page][0][1] = 1;
        if constexpr (runs > 1) keyScale[page][1][0] = keyScale[page][1][1] = 0;
        FASTMQA_UNROLL
        for (int j = 0; j < 2 * runs; j++)
          if (ownToken + 8 * (j % 2) >= tiles.length) valueScale[page][j / 2][j % 2] = 0;  // past the end it may be anything
      }
    }

    float fresh[columns];
    /// Returns whether a weight may be too large for what its row's weights refer to.
    const auto passWeights = [&] {
      float sum = 0;
      FASTMQA_UNROLL
      for (int page = 0; page < pages; page++)
        FASTMQA_UNROLL
        for (int f = 0; f < rows / 8; f += 2) {
          float a[8];  // [2 blocks of 8 rows][2 halves][2 columns]
          FASTMQA_UNROLL
          for (int j = 0; j < 8; j++) {
            const int at = 4 * f + j, half = j % 4 / 2;
            float x = fmaf(scores[page][0][at], keyScale[page][0][half], -reference[2 * f + j / 4 * 2 + j % 2]);
            if constexpr (runs > 1) x = fmaf(scores[page][1][at], keyScale[page][1][half], x);
            a[j] = exp2Fast(x);
          }
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) {
            const float both = a[j / 2 * 4 + j % 2] + a[j / 2 * 4 + 2 + j % 2];
            fresh[2 * f + j] = page == 0 ? both : fresh[2 * f + j] + both;
            if (page == pages - 1) sum += fresh[2 * f + j];
          }
          uint32_t w[4];
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) w[j] = packWeights(F16(), a[2 * j], a[2 * j + 1]);
          FASTMQA_UNROLL
          for (int run = 0; run < runs; run++) {
            const uint32_t to = storeAt + buffer + (page * runs + run) * Shape::lineTile + f * 8 * lineBytes, low = valueScale[page][run][0], high = valueScale[page][run][1];
            if constexpr (Shape::isInt)
              storeMatricesTransposed(to, halfMultiply(w[0], low), halfMultiply(w[1], high), halfMultiply(w[2], low), halfMultiply(w[3], high));
            else
              storeMatricesTransposed(to, w[0], w[1], w[2], w[3]);
          }
        }
      fenceForMatrices();
      return sum * largest > largestWeight;
    };
    // After the barrier the page is used up, and so are the weights of the tile before.
    const bool tooLarge = anyLane(joinBarrierAny(ownBarrier, warpgroupThreads, passWeights()));
    arrive(free + 8 * place.index);  // each lane for its own: what one did for all, racecheck could not follow
    if (tooLarge) {  // rare once large logits have been met
      FASTMQA_UNROLL
      for (int j = 0; j < columns; j++) {
        float most = minusInfinity;
        FASTMQA_UNROLL
        for (int k = 0; k < 2 * pages; k++) {
          const int at = 4 * (j / 2) + 2 * (k % 2) + j % 2;
          float x = scores[k / 2][0][at] * keyScale[k / 2][0][k % 2];
          if constexpr (runs > 1) x += scores[k / 2][1][at] * keyScale[k / 2][1][k % 2];
          most = fmaxf(most, x);
        }
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
    settledAll(sums);
    const uint64_t bufferOperand = weightOperand + (buffer >> 4);
    FASTMQA_UNROLL
    for (int page = 0; page < pages; page++) {
      if constexpr (pages > 1)
        FASTMQA_UNROLL
        for (int m = 0; m < valueTiles; m++) unpackValues(page, m);
      settled(values[page]);
      beginProducts();
      FASTMQA_UNROLL
      for (int m = 0; m < valueTiles; m++)
        FASTMQA_UNROLL
        for (int s = 0; s < valueSteps; s++) {
          const uint32_t* const v = values[page] + (m * valueSteps + s) * 4;
          Product<F16, rows>::registersAlong(sums[m], v[0], v[1], v[2], v[3], bufferOperand + ((page * runs + m * runs / valueTiles) * Shape::lineTile + s * 32 >> 4), false);
        }
      commitProducts();
    }
    FASTMQA_UNROLL
    for (int j = 0; j < columns; j++) total[j] += fresh[j];
    place.advance();
    buffer ^= pages * runs * Shape::lineTile;
    if (at + groups < end) waitPhase(full + 8 * place.index, place.parity);
    unpackKeys(place.index);  // beside the products; of nothing in the end
    waitProducts<0>();
    settledAll(values), settledAll(sums);
  }

  joinBarrier(0, Shape::consumers);  // the ring is used up
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
  joinBarrier(0, Shape::consumers);
  if (threadIndex() < static_cast<int>(rows)) {  // a row's sums of each warpgroup are worth this much
    const int row = threadIndex();
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
    arrive(memory + Shape::factorsAt);
    if (row < block.rowsHere) block.storeLogSum(p, row, most, sum);
  }
  waitPhase(memory + Shape::factorsAt, 0);
  FASTMQA_ROLLED
  for (int i = threadIndex(); i < block.rowsHere * D; i += Shape::consumers) {
    const int row = i / D, channel = i % D;
    float x = 0;
    FASTMQA_UNROLL
    for (int w = 0; w < groups; w++)
      x += loadFloat(memory + Shape::referencesAt + (w * rows + row) * 4) * loadFloat(memory + ((w * rows + row) * Shape::sumRow + channel) * 4);
    block.store(p, row, channel, x);
  }
}

}  // namespace fastmqa::gpu::hopper
