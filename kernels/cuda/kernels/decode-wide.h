// Decode for more than eight query rows of a KV head over a coded cache, as MQA has them, where scales are shared by whole
// runs of 64 channels (decode-many.h takes the others). Instructions decide here, so a code costs little more than half of one:
//
//   ldmatrix, of 16-bit units, gives a lane the codes of two channels (keys) or of two tokens (values) a register, and a mask
//   makes a pair of f16 of them: the code's bits alone are the f16 number code * 2^-24 (subnormal; bits 4 to 7: * 2^-20).
//   The power of two goes into queries or results; scales of tokens into scores and weights; what the code of 0 is worth too
//   much into one more product a run. Sums of values would grow on that surplus and lose bits: every other pair of tokens
//   holds -(largest code - code) instead, so that it cancels, and a column of a product beside the sums adds up the rest.
//
// Query rows fill the 16 rows of the matrix unit. Warps run on their own tiles and meet once, at the end, as in decode.h.
#pragma once
#include "decode.h"

namespace fastmqa::gpu {

template <class Storage, int rowTiles_, int runs_>
struct DecodeWideShape {
  static constexpr int D = Storage::D, warps = 4, threads = warps * warpSize_, rowTiles = rowTiles_, rows = 16 * rowTiles;
  static constexpr int runs = runs_;  ///< of channels that share a scale
  static constexpr int queryBytes = rows * D * 2;
  static constexpr bool keepsQueries = rowTiles * D <= 128;
  static constexpr int tilesAtOnce = Storage::rowBytes < 128 ? 4 : 2;
  static constexpr int stageBytes = tilesAtOnce * Storage::tileBytes;
  static constexpr int stages(bool asynchronous) { return asynchronous ? 2 : 1; }
  static constexpr int blocks = rowTiles * D <= 64 ? 4 : rowTiles * D <= 128 ? 3 : 2;  ///< resident on a multiprocessor
  /// What the warps leave for each other in the end: of each row, numbers of `Note` and 64 channels of sums.
  static constexpr int noteBytes = 32;
  static constexpr int ringBytes(bool asynchronous) {
    const int ring = warps * stages(asynchronous) * stageBytes, merge = warps * rows * (noteBytes + 64 * 4);
    return ring > merge ? ring : merge;
  }
  static constexpr int sharedBytes(bool asynchronous) { return queryBytes + ringBytes(asynchronous); }
};

/// How codes become f16, and what those are worth.
template <class Storage>
struct WideCodes {
  static constexpr bool nibbles = Storage::nibbles, isInt = Storage::isInt, converts = Storage::converts, isE5m2 = Storage::isE5m2;
  static constexpr int pairs = nibbles ? 4 : 2;                 ///< of a word
  static constexpr int bits = nibbles ? 4 : 8;
  static constexpr float codes = nibbles ? 16 : 256, zero = codes / 2;
  static constexpr float codeUnit = isInt ? 16777216.0f : 1.0f;  ///< of pair 0; a nibble of an odd pair is 16 times larger
  static constexpr float queryUnit = nibbles ? 4.0f : 1.0f;      ///< of products of codes and queries

  /// Order in which the codes of a word become halves of `pairs`.
  static FASTMQA_DEVICE int order(int code) {
    if (nibbles) return (code & 3) << 1 | code >> 2;
    return converts ? code : (code & 1) << 1 | code >> 1;
  }
  /// What a query is multiplied by that meets a half of pair `pair`.
  static FASTMQA_DEVICE float queryFactor(int pair) { return !nibbles ? 1.0f : pair % 2 ? 0.25f : 4.0f; }

  /// `negated`: code - (codes - 1) in the place of code.
  template <bool ofTokens, bool negated>
  static FASTMQA_DEVICE void unpack(uint32_t (&to)[pairs], uint32_t word) {
    constexpr uint32_t signs = negated ? 0x80008000u : 0u;
    if constexpr (nibbles) {
      constexpr uint32_t even = 0x000f000fu, odd = 0x00f000f0u, all = negated ? ~0u : 0u;
      const uint32_t next = word >> 8;
      to[0] = maskedXor(word, even, (even & all) | signs), to[1] = maskedXor(word, odd, (odd & all) | signs);
      to[2] = maskedXor(next, even, (even & all) | signs), to[3] = maskedXor(next, odd, (odd & all) | signs);
    } else if constexpr (isInt) {
      constexpr uint32_t low = 0x00ff00ffu;
      to[0] = negated ? maskedXor(word, low, low | signs) : word & low;
      to[1] = negated ? maskedXor(word >> 8, low, low | signs) : permuteBytes(word, 0, 0x4341);
    } else if constexpr (converts) {
      const uint32_t w = ofTokens ? permuteBytes(word, 0, 0x3120) : word;
      to[0] = halvesOfE4m3<false>(w), to[1] = halvesOfE4m3<true>(w);
    } else {
      to[0] = isE5m2 ? word << 8 & 0xff00ff00u : Storage::fp8Pair(word << 8), to[1] = isE5m2 ? word & 0xff00ff00u : Storage::fp8Pair(word);
    }
  }
  /// Channel of column `column` of tile `tile` of the sums.
  static FASTMQA_DEVICE int valueChannel(int tile, int column) { return tile / pairs * 8 * pairs + column * pairs + tile % pairs; }
  static FASTMQA_DEVICE float valueUnit(int tile) { return nibbles && tile % 2 ? codeUnit / 16 : codeUnit; }

  /// Queries lie as a warp reads them: of 16 rows and a step of 16 channels, a fragment's four registers of each lane.
  static FASTMQA_DEVICE int queryPlace(int channel) { return order(channel % (2 * pairs)); }
  static FASTMQA_DEVICE int queryByte(int row, int channel) {
    constexpr int steps = Storage::D / 16, word = 2 * pairs;
    const int place = queryPlace(channel), step = channel / (4 * word) * (pairs / 2) + place / 4, lane = row % 8 * 4 + channel / word % 4;
    return ((row / 16 * steps + step) * warpSize_ + lane) * 16 + (place % 4 / 2 * 2 + row / 8 % 2) * 4 + place % 2 * 2;
  }
};

/// Numbers of two consecutive tokens in a plane of scales, [token][run]; pairOfRun: of one run.
template <int runs>
FASTMQA_DEVICE Word2 loadScales(Shared<uint8_t> from, int plane, int token) {
  if constexpr (runs == 1) {
    const uint32_t both = from.load<uint32_t>(plane + token * 2);
    return {both, 0};
  } else {
    const Word2 w = from.load<Word2>(plane + token * 4);
    return {permuteBytes(w.x, w.y, 0x5410), permuteBytes(w.x, w.y, 0x7632)};
  }
}
FASTMQA_DEVICE uint32_t pairOfRun(const Word2& w, int run) { return run == 0 ? w.x : w.y; }

/// Copies of a warp: where a lane's pieces of a head's rows and scales begin, in page 0 or, with a table, in any, and where they
/// go. Rows of a page lie one after another, and so do their scales: the launcher checks it.
template <class Storage, int count, int runs>
struct WideCopies {
  static constexpr int rowBytes = Storage::rowBytes, pieces = count * tileRows * rowBytes / 512, tokens = count * tileRows;
  static constexpr int scalePieces = 2 * runs;  // of 16 bytes a tile, one a lane
  int64_t keys_, values_, keyScales_, valueScales_;
  int keyPages_, valuePages_;   // places in the tables
  int place_, scalePlace_ = 0;  // in a stage; of scales, from the plane on

  FASTMQA_DEVICE WideCopies(const AttentionProblem& p, int b, int g) {
    const int lane = laneIndex();
    constexpr int chunks = rowBytes / 16;
    keyPages_ = b * p.keys.pagesPerSequence, valuePages_ = b * p.values.pagesPerSequence;
    keys_ = p.keys.start(b, g) + lane * 16, values_ = p.values.start(b, g) + lane * 16;
    keyScales_ = scaleStart(p.keys, p.keyScales, keyPages_, g), valueScales_ = scaleStart(p.values, p.valueScales, valuePages_, g);
    place_ = Storage::chunkAt(lane / chunks, lane % chunks);
    if (Storage::isInt) scalePlace_ = lane / scalePieces * Storage::tileBytes + lane % scalePieces * 16;
    static_assert(count * scalePieces <= warpSize_);
  }
  static FASTMQA_DEVICE int64_t scaleStart(const TokenRows& rows, const CodeScales& s, int firstPage, int g) {
    return g * s.headBytes + (rows.pages ? 0 : firstPage * s.pageBytes) + laneIndex() * 16;
  }
  FASTMQA_DEVICE void operator()(const AttentionProblem& p, Shared<uint8_t> to, int base, int token, int length) const {
    const int inPage = tokens == pageTokens ? 0 : token % pageTokens, n = token / pageTokens;
    const int keyPage = p.keys.pages ? p.keys.pages[keyPages_ + n] : n, valuePage = p.values.pages ? p.values.pages[valuePages_ + n] : n;
    const int64_t key = keys_ + wideProduct(keyPage, static_cast<int>(p.keys.batchBytes)) + inPage * rowBytes;
    const int64_t value = values_ + wideProduct(valuePage, static_cast<int>(p.values.batchBytes)) + inPage * rowBytes;
    if (token + tokens <= length) {
      FASTMQA_UNROLL
      for (int i = 0; i < pieces; i++) copyAsync<16>(to, base + placeOf(i), p.keys.data, key + i * 512, true);
      FASTMQA_UNROLL
      for (int i = 0; i < pieces; i++) copyAsync<16>(to, base + Storage::keyBytes + placeOf(i), p.values.data, value + i * 512, true);
    } else {
      FASTMQA_ROLLED
      for (int i = 0; i < pieces; i++) {
        const bool valid = token + (i * 512 + laneIndex() * 16) / rowBytes < length;
        copyAsync<16>(to, base + placeOf(i), p.keys.data, key + i * 512, valid);
        copyAsync<16>(to, base + Storage::keyBytes + placeOf(i), p.values.data, value + i * 512, valid);
      }
    }
    if (Storage::isInt && laneIndex() < count * scalePieces) {  // whole pages of scales exist
      const int at = base + scalePlace_;
      const int64_t keyScale = keyScales_ + wideProduct(keyPage, static_cast<int>(p.keyScales.pageBytes)) + inPage * 2 * runs;
      const int64_t valueScale = valueScales_ + wideProduct(valuePage, static_cast<int>(p.valueScales.pageBytes)) + inPage * 2 * runs;
      copyAsync<16>(to, at + Storage::keyPlane, p.keyScales.data, keyScale, true);
      copyAsync<16>(to, at + Storage::valuePlane, p.valueScales.data, valueScale, true);
      if (p.keyScales.shiftBytes) copyAsync<16>(to, at + Storage::keyPlane + Storage::planeBytes, p.keyScales.data, keyScale + p.keyScales.shiftBytes, true);
      if (p.valueScales.shiftBytes) copyAsync<16>(to, at + Storage::valuePlane + Storage::valuePlaneBytes, p.valueScales.data, valueScale + p.valueScales.shiftBytes, true);
    }
  }
  /// Of piece i, 32 chunks of rows: eight rows of 128 bytes take turns in two ways.
  FASTMQA_DEVICE int placeOf(int i) const {
    constexpr int piecesOfTile = tileRows * rowBytes / 512;
    return i / piecesOfTile * Storage::tileBytes + i % piecesOfTile * 512 + (rowBytes == 128 && i % 2 ? place_ ^ 64 : place_);
  }
};

/// Weights refer to this much, in units of log2, more than a row's largest logit was when they were last set; where one
/// exceeds 2 they are set again, and so are sums: seldom, since a logit must have grown by one more than this.
constexpr float decodeWideHeadroom = 3;

template <class Storage, int rowTiles, int runs>
FASTMQA_KERNEL((DecodeWideShape<Storage, rowTiles, runs>::threads), (DecodeWideShape<Storage, rowTiles, runs>::blocks))
decodeWideKernel(const AttentionProblem p) {
  using Shape = DecodeWideShape<Storage, rowTiles, runs>;
  using Codes = WideCodes<Storage>;
  constexpr int stages = Shape::stages(hasAsyncCopies), D = Storage::D, warps = Shape::warps, rows = Shape::rows;
  constexpr int steps = D / 16, valueTiles = D / 8, atOnce = Shape::tilesAtOnce, tokens = atOnce * tileRows;
  constexpr int pairs = Codes::pairs, chunkPairs = Storage::rowBytes / 32, stepsOfChunk = pairs / 2;
  constexpr int stepsOfRun = steps / runs;
  const int lane = laneIndex(), warp = warpIndex(), q = lane / 4, t = lane % 4;
  const QueryBlock block(p, p.blockRows);

  releaseFollower();
  awaitPredecessor();
  SharedCarver carver;
  const auto ring = carver.take<uint8_t>(Shape::ringBytes(hasAsyncCopies));
  const auto queries = carver.take<uint8_t>(Shape::queryBytes);

  const BlockTiles tiles(p, block, tokens);
  const int mine = tiles.share.countOf(warp, warps);
  const auto firstTokenOf = [&](int i) { return tiles.tile(tiles.share.begin + warp + i * warps) * tokens; };  // of the warp's tile i
  const int ringBase = warp * stages * Shape::stageBytes;
  const WideCopies<Storage, atOnce, runs> copies(p, block.b, block.g);
  const auto copy = [&](int i, int stage) {
    if (i < mine) copies(p, ring, stage, firstTokenOf(i), tiles.length);
    commitCopies();
  };
  FASTMQA_UNROLL
  for (int i = 0; i < stages - 1; i++) copy(i, ringBase + i * Shape::stageBytes);

  FASTMQA_ROLLED
  for (int i = threadIndex(); i < rows * D / 2; i += Shape::threads) {
    const int row = i / (D / 2), channel = i % (D / 2) * 2;
    float x = 0, y = 0;
    if (row < block.rowsHere) loadPair(p.queryType, p.queries, block.query(p, row) + channel, x, y);
    const uint32_t both = packHalves(F16(), x * Codes::queryFactor(Codes::queryPlace(channel) / 2), y * Codes::queryFactor(Codes::queryPlace(channel + 1) / 2));
    queries.template store<uint16_t>(Codes::queryByte(row, channel), static_cast<uint16_t>(both));
    queries.template store<uint16_t>(Codes::queryByte(row, channel + 1), static_cast<uint16_t>(both >> 16));
  }
  blockBarrier();
  const auto loadQuery = [&](int m, int s) {
    const Word4 w = queries.template load<Word4>(((m * steps + s) * warpSize_ + lane) * 16);
    return FragmentA{{w.x, w.y, w.z, w.w}};
  };
  FragmentA kept[Shape::keepsQueries ? rowTiles : 1][Shape::keepsQueries ? steps : 1];
  if constexpr (Shape::keepsQueries)
    FASTMQA_UNROLL
    for (int m = 0; m < rowTiles; m++)
      FASTMQA_UNROLL
      for (int s = 0; s < steps; s++) kept[m][s] = loadQuery(m, s);

  // Sums of a row's queries in each run, as the two halves (more and less of the number) of a pair that is zero elsewhere.
  const bool symmetricKeys = p.keyScales.shiftBytes == 0, symmetricValues = p.valueScales.shiftBytes == 0;
  uint32_t querySums[runs][rowTiles][2];
  if constexpr (Storage::isInt) {
    constexpr uint32_t one = 0x3c003c00u, sixteen = 0x4c004c00u;
    FASTMQA_UNROLL
    for (int run = 0; run < runs; run++)
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++) {
        FragmentC sum = {};
        FASTMQA_UNROLL
        for (int s = run * stepsOfRun; s < (run + 1) * stepsOfRun; s++) multiply(F16(), sum, loadQuery(m, s), one, Codes::nibbles ? sixteen : one);
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          const float x = sum.r[2 * half] * 0.25f, more = lowHalf(F16(), packHalves(F16(), x, 0));
          querySums[run][m][half] = t == 0 ? packHalves(F16(), more, x - more) : 0;
        }
      }
  }
  const float zeroKey = symmetricKeys ? -4 * Codes::zero / Codes::codeUnit : 0;
  const uint32_t zeroKeys = packHalves(F16(), zeroKey, zeroKey);
  // A column of the product beside the sums is a lane's q: 0 adds up weights; 1 and 2, weights times scales for what values of a
  // run are short of, in units of `codes`; 3 and 4, weights times shifts.
  const auto beside = [&](float symmetric, float asymmetric) {
    const float x = q == 0 || q > runs ? 0 : (symmetricValues ? symmetric : asymmetric) / Codes::codes;
    return packHalves(F16(), x, x);
  };
  const uint32_t besideFactor[2] = {beside(-Codes::zero, 0), beside(Codes::zero - 1, Codes::codes - 1)}, besideAddend = q == 0 ? 0x3c003c00u : 0;
  constexpr float scaleBoost = Codes::nibbles ? 2 : 32;  // weights, below 2, times scales, at most 2 * 65504 / (codes - 1), are f16
  const uint32_t scaleBoosts = packHalves(F16(), scaleBoost, scaleBoost);

  constexpr int places = 2 * rowTiles;  // of a lane's rows: row 8 * place + q
  float reference[places];
  FragmentC sums[rowTiles][valueTiles], totals[rowTiles];
  FASTMQA_UNROLL
  for (int i = 0; i < places; i++) reference[i] = lowestReference;
  FASTMQA_UNROLL
  for (int m = 0; m < rowTiles; m++) {
    totals[m] = {};
    FASTMQA_UNROLL
    for (int f = 0; f < valueTiles; f++) sums[m][f] = {};
  }
  const float scale = p.scale * log2OfE * Storage::codeFactor * p.keyScales.wholeScale() / Codes::queryUnit;
  /// Where this lane points ldmatrix: eight tokens each of chunks 0 and 1.
  const int lanePlace = Storage::chunkAt((lane & 7) + (lane >> 3 & 1) * 8, lane >> 4);

  int stage = ringBase, used = ringBase + (stages - 1) * Shape::stageBytes;  // of this iteration and the one before
  for (int i = 0; i < mine; i++) {
    if constexpr (stages == 1) {
      warpBarrier();
      copy(i, stage);
      waitCopies<0>();
      warpBarrier();
    } else {
      waitCopies<stages - 2>();
      warpBarrier();
      copy(i + stages - 1, used);
    }
    const int base = stage, firstToken = firstTokenOf(i);
    used = stage, stage += Shape::stageBytes;
    if (stage == ringBase + stages * Shape::stageBytes) stage = ringBase;
    const bool masked = tiles.needsMask(firstToken, tokens), special = masked || p.softcap != 0 || (Storage::isInt && !symmetricKeys);

    FASTMQA_ROLLED
    for (int n = 0; n < atOnce; n++) {
      const int tile = base + n * Storage::tileBytes;
      FragmentC scores[rowTiles][2];  // tokens 2t, 2t + 1 of each eight
      Word2 keyWords[2], valueWords[2];
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++)
        if constexpr (Storage::isInt) {
          keyWords[half] = loadScales<runs>(ring, tile + Storage::keyPlane, 2 * t + 8 * half);
          valueWords[half] = loadScales<runs>(ring, tile + Storage::valuePlane, 2 * t + 8 * half);
        }
      float factor[4];                // of scores of tokens 2t, 2t + 1, 2t + 8, 2t + 9, for units of log2
      FASTMQA_UNROLL
      for (int run = 0; run < runs; run++) {
        FragmentC raw[rowTiles][2];
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++)
          FASTMQA_UNROLL
          for (int half = 0; half < 2; half++)
            if (Storage::isInt) multiplyFirst(F16(), raw[m][half], querySums[run][m][0], querySums[run][m][1], zeroKeys);
        FASTMQA_UNROLL
        for (int c = run * chunkPairs / runs; c < (run + 1) * chunkPairs / runs; c++) {
          uint32_t words[4];  // of tokens 0-7, 8-15 of one chunk, then of the next
          loadMatrices(words, ring, tile + (lanePlace ^ c * 32));
          FASTMQA_UNROLL
          for (int k = 0; k < 2; k++) {
            uint32_t first[pairs], last[pairs];
            Codes::template unpack<false, false>(first, words[2 * k]);
            Codes::template unpack<false, false>(last, words[2 * k + 1]);
            FASTMQA_UNROLL
            for (int j = 0; j < stepsOfChunk; j++)
              FASTMQA_UNROLL
              for (int m = 0; m < rowTiles; m++) {
                const int s = (2 * c + k) * stepsOfChunk + j;
                FragmentA a;
                if constexpr (Shape::keepsQueries)
                  a = kept[m][s];
                else
                  a = loadQuery(m, s);
                if (!Storage::isInt && s == 0) {
                  multiplyFirst(F16(), raw[m][0], a, first[0], first[1]);
                  multiplyFirst(F16(), raw[m][1], a, last[0], last[1]);
                } else {
                  multiply(F16(), raw[m][0], a, first[2 * j], first[2 * j + 1]);
                  multiply(F16(), raw[m][1], a, last[2 * j], last[2 * j + 1]);
                }
              }
          }
        }
        // Scores of one run alone are scaled with what follows, if nothing comes between.
        if (Storage::isInt)
          FASTMQA_UNROLL
          for (int half = 0; half < 2; half++) {
            const uint32_t s = pairOfRun(keyWords[half], run);
            const float unit = runs == 1 ? Codes::codeUnit * scale : Codes::codeUnit;
            factor[2 * half] = lowHalf(F16(), s) * unit, factor[2 * half + 1] = highHalf(F16(), s) * unit;
          }
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++)
          FASTMQA_UNROLL
          for (int j = 0; j < 8; j++) {
            float& x = scores[m][j / 4].r[j % 4];
            const float y = raw[m][j / 4].r[j % 4];
            x = runs == 1 ? y : run == 0 ? y * factor[j / 4 * 2 + j % 2] : fmaf(y, factor[j / 4 * 2 + j % 2], x);
          }
      }
      if constexpr (runs > 1 || !Storage::isInt) factor[0] = factor[1] = factor[2] = factor[3] = scale;
      if (special) {
        const float unscale = reciprocal(scale);
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++)
          FASTMQA_UNROLL
          for (int j = 0; j < 8; j++) scores[m][j / 4].r[j % 4] *= runs == 1 && Storage::isInt ? factor[j / 4 * 2 + j % 2] * unscale : 1;
        factor[0] = factor[1] = factor[2] = factor[3] = scale;
        if (Storage::isInt && !symmetricKeys)
          FASTMQA_UNROLL
          for (int run = 0; run < runs; run++)
            FASTMQA_UNROLL
            for (int half = 0; half < 2; half++) {
              const uint32_t s = ring.template load<uint16_t>(tile + Storage::keyPlane + Storage::planeBytes + ((q + 8 * half) * runs + run) * 2);
              const uint32_t shift = halfMultiply(s | s << 16, 0x44004400u);  // 4
              FASTMQA_UNROLL
              for (int m = 0; m < rowTiles; m++) multiply(F16(), scores[m][half], FragmentA{{querySums[run][m][0], querySums[run][m][1], 0, 0}}, shift, 0);
            }
        if (p.softcap != 0)
          FASTMQA_UNROLL
          for (int m = 0; m < rowTiles; m++)
            FASTMQA_UNROLL
            for (int j = 0; j < 8; j++) scores[m][j / 4].r[j % 4] = finishLogit(p, scores[m][j / 4].r[j % 4], scale) * unscale;
        if (masked)
          FASTMQA_UNROLL
          for (int place = 0; place < places; place++) {
            const RowMask mask = tiles.mask(p, block.token(8 * place + q));
            FASTMQA_UNROLL
            for (int j = 0; j < 4; j++) {
              float& x = scores[place / 2][j / 2].r[place % 2 * 2 + j % 2];
              x = mask.sees(firstToken + n * tileRows + j / 2 * 8 + 2 * t + j % 2) ? x : minusInfinity;
            }
          }
      }

      uint32_t weights[rowTiles][4];  // as operands: rows q, q + 8 of tokens 2t, 2t + 1, then of 2t + 8, 2t + 9
      /// Returns whether a weight is too large: 2 or more.
      const auto weigh = [&] {
        uint32_t any = 0;
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++)
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) {
            const float* x = scores[m][j / 2].r + j % 2 * 2;
            const float r = reference[2 * m + j % 2];
            weights[m][j] = packWeights(F16(), exp2Fast(fmaf(x[0], factor[j / 2 * 2], -r)), exp2Fast(fmaf(x[1], factor[j / 2 * 2 + 1], -r)));
            any |= weights[m][j];
          }
        return (any & 0x40004000u) != 0;
      };
      if (anyLane(weigh())) {  // rare once the largest logits have been met
        FASTMQA_UNROLL
        for (int place = 0; place < places; place++) {
          float most = minusInfinity;
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) most = fmaxf(most, scores[place / 2][j / 2].r[place % 2 * 2 + j % 2] * factor[j]);
          most = fmaxf(most, shuffleXor(most, 1));
          most = fmaxf(most, shuffleXor(most, 2));
          const float before = reference[place];
          reference[place] = fmaxf(before, most + decodeWideHeadroom);
          const float fade = exp2Fast(before - reference[place]);
          FASTMQA_UNROLL
          for (int f = 0; f <= valueTiles; f++) {
            FragmentC& sum = f < valueTiles ? sums[place / 2][f] : totals[place / 2];
            sum.r[place % 2 * 2] *= fade, sum.r[place % 2 * 2 + 1] *= fade;
          }
        }
        weigh();
      }

      uint32_t scales[runs][2];  // of tokens 2t and 2t + 1, 2t + 8 and 2t + 9
      uint32_t extra[2] = {besideAddend, besideAddend};
      if (Storage::isInt)
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          FASTMQA_UNROLL
          for (int run = 0; run < runs; run++)
            scales[run][half] = halfMultiply(pairOfRun(valueWords[half], run), scaleBoosts);
          extra[half] = halfFma(runs > 1 && q == 2 ? scales[runs - 1][half] : scales[0][half], besideFactor[half], besideAddend);
          if (!symmetricValues) {
            const Word2 w = loadScales<runs>(ring, tile + Storage::valuePlane + Storage::valuePlaneBytes, 2 * t + 8 * half);
            extra[half] = q == 3 ? pairOfRun(w, 0) : runs > 1 && q == 4 ? pairOfRun(w, runs - 1) : extra[half];
          }
        }
      FASTMQA_UNROLL
      for (int m = 0; m < rowTiles; m++) multiply(F16(), totals[m], FragmentA{{weights[m][0], weights[m][1], weights[m][2], weights[m][3]}}, extra[0], extra[1]);
      FASTMQA_UNROLL
      for (int run = 0; run < runs; run++) {
        FragmentA w[rowTiles];
        FASTMQA_UNROLL
        for (int m = 0; m < rowTiles; m++)
          FASTMQA_UNROLL
          for (int j = 0; j < 4; j++) w[m].r[j] = Storage::isInt ? halfMultiply(weights[m][j], scales[run][j / 2]) : weights[m][j];
        FASTMQA_UNROLL
        for (int c = run * chunkPairs / runs; c < (run + 1) * chunkPairs / runs; c++) {
          uint32_t words[4];
          loadMatricesTransposed(words, ring, tile + Storage::keyBytes + (lanePlace ^ c * 32));
          FASTMQA_UNROLL
          for (int k = 0; k < 2; k++) {
            uint32_t first[pairs], last[pairs];
            Codes::template unpack<true, false>(first, words[2 * k]);
            Codes::template unpack<true, true>(last, words[2 * k + 1]);
            FASTMQA_UNROLL
            for (int j = 0; j < pairs; j++)
              FASTMQA_UNROLL
              for (int m = 0; m < rowTiles; m++) multiply(F16(), sums[m][(2 * c + k) * pairs + j], w[m], first[j], last[j]);
          }
        }
      }
    }
  }

  // Notes of a warp's row: what its weights refer to, then the columns of `totals`.
  waitCopies<0>();
  constexpr int noteBytes = Shape::noteBytes, sumBase = warps * rows * noteBytes;
  FASTMQA_UNROLL
  for (int run = 0; run < D / 64; run++) {
    blockBarrier();
    FASTMQA_UNROLL
    for (int place = 0; place < places; place++) {
      const int row = warp * rows + 8 * place + q;
      if (run == 0) {
        if (t == 3) ring.template store<float>(row * noteBytes, reference[place]);
        if (t < 3) {
          ring.template store<float>(row * noteBytes + 4 + 8 * t, totals[place / 2].r[place % 2 * 2]);
          ring.template store<float>(row * noteBytes + 8 + 8 * t, totals[place / 2].r[place % 2 * 2 + 1]);
        }
      }
      FASTMQA_UNROLL
      for (int f = 0; f < 8; f++)
        FASTMQA_UNROLL
        for (int c = 0; c < 2; c++)
          ring.template store<float>(sumBase + (row * 64 + Codes::valueChannel(f, 2 * t + c)) * 4, sums[place / 2][run * 8 + f].r[place % 2 * 2 + c] * Codes::valueUnit(f));
    }
    blockBarrier();
    FASTMQA_ROLLED
    for (int i = threadIndex(); i < block.rowsHere * 64; i += Shape::threads) {
      const int row = i / 64;
      const auto note = [&](int w, int number) { return ring.template load<float>((w * rows + row) * noteBytes + 4 * number); };
      float most = note(0, 0);
      FASTMQA_UNROLL
      for (int w = 1; w < warps; w++) most = fmaxf(most, note(w, 0));
      float sum = 0, weight = 0;
      FASTMQA_UNROLL
      for (int w = 0; w < warps; w++) {
        const float fade = exp2Fast(note(w, 0) - most);
        float x = ring.template load<float>(sumBase + (w * rows * 64 + i) * 4);
        if constexpr (Storage::isInt) {
          x = (x + note(w, 2 + run % runs) * Codes::codes) * (1 / scaleBoost);
          if (!symmetricValues) x += note(w, 4 + run % runs);
        }
        weight += fade * note(w, 1), sum += fade * x;
      }
      sum = weight > 0 ? sum * Storage::codeFactor * p.valueScales.wholeScale() / weight : 0;
      block.store(p, row, run * 64 + i % 64, sum);
      if (run == 0 && i % 64 == 0) block.storeLogSum(p, row, most, weight);
    }
  }
}

}  // namespace fastmqa::gpu
