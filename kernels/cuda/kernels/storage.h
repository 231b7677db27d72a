// How a warp holds a tile of 16 cached tokens in shared memory, and turns it into operands of the matrix unit.
// 16-bit rows go through ldmatrix. Coded rows are read by the lanes themselves: a dot product does not care for the
// order of its channels, so a lane takes consecutive codes and the queries are permuted to match.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

constexpr int tileRows = 16;

/// Scores of 16 query rows with 16 tokens: two fragments, tokens 0-7 and 8-15.
struct TileScores {
  FragmentC part[2];
};

/// Rows of 16-bit numbers, in 16-byte chunks that are shuffled so that eight rows of a column lie in different banks.
template <int D>
FASTMQA_DEVICE int chunkByte(int row, int chunk) {
  constexpr bool wholeLines = D % 64 == 0;
  const int shuffled = wholeLines ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3);
  return row * D * 2 + shuffled * 16;
}

/// The place `chunks` (an even number) further in the same row, from the place of chunk 0 or 1.
template <int D>
FASTMQA_DEVICE int chunksOn(int byte, int chunks) {
  constexpr int shuffledBits = D % 64 == 0 ? 127 : 63;
  return (byte ^ (chunks * 16 & shuffledBits)) + (chunks * 16 & ~shuffledBits);
}

template <class Type_, int D_>
struct PlainStorage {
  using Type = Type_;
  using Problem = AttentionProblem;
  static constexpr int D = D_;
  static constexpr int keyBytes = tileRows * D * 2, valueBytes = keyBytes, scaleBytes = 0;
  static constexpr int tileBytes = keyBytes + valueBytes;
  static constexpr bool coded = false, reconstructed = false;

  static FASTMQA_DEVICE void copyRows(Shared<uint8_t> to, int base, const TokenRows& rows, int64_t from, int token, int length) {
    constexpr int chunks = D / 8;
    FASTMQA_UNROLL
    for (int i = 0; i < tileRows * chunks / warpSize_; i++) {
      // Of rows that no warp fills evenly each copy has a place of its own: kept across tiles, they would not fit registers.
      const int at = i * warpSize_ + (D == 192 ? keepInLoop(laneIndex()) : laneIndex()), row = at / chunks, chunk = at % chunks;
      copyAsync<16>(to, base + chunkByte<D>(row, chunk), rows.data, from + static_cast<int64_t>(row) * rows.tokenBytes + chunk * 16, token + row < length);
    }
  }
  /// Where the rows of a head begin.
  struct Source {
    int b, g;
    FASTMQA_DEVICE Source(const AttentionProblem&, int b, int g) : b(b), g(g) {}
  };
  /// `count` tiles of one page, from `token` on.
  template <int count>
  static FASTMQA_DEVICE void copyTiles(const AttentionProblem& p, Shared<uint8_t> to, int base, const Source& source, int token, int length) {
    const int64_t key = p.keys.offset(source.b, source.g, token), value = p.values.offset(source.b, source.g, token);
    FASTMQA_UNROLL
    for (int n = 0; n < count; n++) {
      const int at = base + n * tileBytes, first = n * tileRows;
      copyRows(to, at, p.keys, key + first * p.keys.tokenBytes, token + first, length);
      copyRows(to, at + keyBytes, p.values, value + first * p.values.tokenBytes, token + first, length);
    }
  }

  /// Queries as [rows][D] in shuffled chunks.
  static FASTMQA_DEVICE int queryByte(int row, int channel) { return chunkByte<D>(row, channel / 8) + channel % 8 * 2; }
  static constexpr int queryRowBytes = D * 2;
  static FASTMQA_DEVICE void loadQuery(FragmentA& a, Shared<uint8_t> queries, int base, int row, int step) {
    const int lane = laneIndex();
    loadMatrices(a.r, queries, base + chunkByte<D>(row + (lane & 15), 2 * step + (lane >> 4)));
  }

  struct KeyOperands {
    uint32_t r[4];  ///< b0, b1 of tokens 0-7, b0, b1 of tokens 8-15
  };
  struct KeyReader {
    FASTMQA_DEVICE KeyReader(const AttentionProblem&, Shared<uint8_t> tile, int base) : tile_(tile), base_(base) {}
    FASTMQA_DEVICE void operands(KeyOperands& o, int step) const {
      const int lane = laneIndex();
      loadMatrices(o.r, tile_, base_ + chunkByte<D>((lane & 7) + (lane >> 4) * 8, 2 * step + (lane >> 3 & 1)));
    }
    Shared<uint8_t> tile_;
    int base_;
  };
  /// Channel of column c of fragment n of the sums.
  static FASTMQA_DEVICE int valueChannel(int fragment, int column) { return fragment * 8 + column; }
  struct ValueReader {
    FASTMQA_DEVICE ValueReader(const AttentionProblem&, Shared<uint8_t> tile, int base) : tile_(tile), base_(base + keyBytes) {}
    /// Operands of fragments 2 * pair and 2 * pair + 1.
    FASTMQA_DEVICE void operands(uint32_t (&r)[4], int pair) {
      const int lane = laneIndex();
      loadMatricesTransposed(r, tile_, base_ + chunkByte<D>((lane & 7) + (lane >> 3 & 1) * 8, 2 * pair + (lane >> 4)));
    }
    Shared<uint8_t> tile_;
    int base_;
  };
};

/// Rows of 8-bit or 4-bit codes. Sums are taken of f16 numbers, which hold every code, fp8 up to a power of two, exactly.
/// `folded`: scales of tokens, for whole runs of 64 channels, are left to whoever takes the products: one multiplication of a
/// score or a weight instead of one of every number. `inMatrices`: the rows are laid out for ldmatrix (decode-wide.h).
template <Dtype type, Sharing keySharing, int D_, bool folded_ = false, bool inMatrices = false>
struct CodedStorage {
  using Type = F16;
  static constexpr int D = D_;
  static constexpr bool folded = folded_, coded = true, isE5m2 = type == Dtype::e5m2, isInt = type == Dtype::int8 || type == Dtype::int4, nibbles = type == Dtype::int4;
  static constexpr int rowBytes = nibbles ? D / 2 : D;
  static constexpr int keyBytes = tileRows * rowBytes, valueBytes = keyBytes;
  static constexpr int leastGroup = folded ? 64 : 32;
  static constexpr int planeBytes = keySharing == Sharing::channel ? 2 * D : 16 * 2 * (D / leastGroup);
  static constexpr int valuePlaneBytes = 16 * 2 * (D / leastGroup);
  static constexpr int scaleBytes = isInt ? 2 * planeBytes + 2 * valuePlaneBytes : 0;
  static constexpr int tileBytes = keyBytes + valueBytes + scaleBytes;
  static constexpr bool converts = type == Dtype::e4m3 && hasFp8Conversions;
  /// e4m3 codes moved into f16 bits are too small by this factor.
  static constexpr float codeFactor = type == Dtype::e4m3 && !converts ? 256.0f : 1.0f;
  static constexpr int laneChannels = D < 64 ? 8 : nibbles && D >= 128 && !folded ? 32 : 16;  // consecutive channels of a lane's key read
  static constexpr int readBytes = nibbles ? laneChannels / 2 : laneChannels;

  /// Where 16-byte chunk `chunk` of `row` lies: lanes that read at once find different banks, for keys (4 consecutive
  /// chunks of 2 rows) as for values (rows 0, 2, 4, 6).
  static FASTMQA_DEVICE int chunkAt(int row, int chunk) {
    if constexpr (inMatrices) {  // chunk `chunk` of eight rows
      constexpr int perLine = rowBytes < 128 ? 128 / rowBytes : 1;
      const int line = row / perLine, place = (row % perLine * (rowBytes / 16) + chunk) ^ (line & (8 / perLine - 1));
      return line * 128 + place * 16;
    }
    if (rowBytes >= 128) return row * rowBytes + ((chunk ^ ((row >> 1 & 3) << 1) ^ ((row & 1) << 2)) * 16);
    constexpr int perLine = rowBytes < 128 ? 128 / rowBytes : 1;
    const int line = row / perLine, place = (row % perLine * (rowBytes / 16) + chunk) ^ ((line & 3) << 1);
    return line * 128 + place * 16;
  }
  static FASTMQA_DEVICE int byteAt(int row, int byte) { return chunkAt(row, byte / 16) + byte % 16; }

  /// Where a lane's pieces of the rows and scales of a head begin, in page 0 or, with a table, in any. Kept, since a tile is
  /// soon copied and long multiplications are not.
  struct Source {
    int b;
    int64_t keys, values, keyScales, valueScales;
    FASTMQA_DEVICE Source(const AttentionProblem& p, int b, int g) : b(b) {
      const int piece = laneIndex() * 16;
      keys = p.keys.start(b, g) + piece, values = p.values.start(b, g) + piece;
      keyScales = scaleStart(p.keys, p.keyScales, g) + piece, valueScales = scaleStart(p.values, p.valueScales, g) + piece;
    }
    FASTMQA_DEVICE int64_t scaleStart(const TokenRows& rows, const CodeScales& s, int g) const {
      return g * s.headBytes + (rows.pages ? 0 : static_cast<int64_t>(b) * rows.pagesPerSequence * s.pageBytes);
    }
  };
  /// Rows of a page lie one after another: the launcher checks it.
  static FASTMQA_DEVICE void copyRows(Shared<uint8_t> to, int base, const TokenRows& rows, int64_t from, int token, int length) {
    const int lane = laneIndex();
    constexpr int chunks = rowBytes / 16;
    FASTMQA_UNROLL
    for (int i = 0; i < (tileRows * chunks + warpSize_ - 1) / warpSize_; i++) {
      const int at = i * warpSize_ + lane, row = at / chunks, chunk = at % chunks;
      if (tileRows * chunks % warpSize_ == 0 || at < tileRows * chunks)
        copyAsync<16>(to, base + chunkAt(row, chunk), rows.data, from + i * warpSize_ * 16, token + row < length);
    }
  }
  /// The share of `count` tiles in a plane of scales, one 16-byte piece a lane; whole pages of scales exist, so it may run
  /// past the length.
  template <int count, Sharing sharing>
  static FASTMQA_DEVICE void copyScales(Shared<uint8_t> to, int base, int plane, const CodeScales& s, int64_t from, int inPage) {
    const int lane = laneIndex();
    int tile, piece;
    if constexpr (sharing == Sharing::token) {  // pieces of consecutive tiles follow each other
      const int piecesLog2 = (D == 32 ? 6 : D == 64 ? 7 : 8) - s.groupShift;  // of 2 * D / group pieces a tile
      static_assert(D == 32 || D == 64 || D == 128);
      tile = lane >> piecesLog2, piece = lane - (tile << piecesLog2);
      from += inPage << piecesLog2;
    } else {  // tiles of a group share theirs
      tile = lane / (D / 8), piece = lane % (D / 8);
      from += ((inPage + tile * tileRows) >> s.groupShift) * 2 * D - tile * 2 * D;
    }
    if (tile >= count) return;
    const int at = base + tile * tileBytes + piece * 16;
    copyAsync<16>(to, at, s.data, from, true);
    if (s.shiftBytes) copyAsync<16>(to, at + plane, s.data, from + s.shiftBytes, true);
  }
  /// `count` tiles of one page, from `token` on.
  template <int count>
  static FASTMQA_DEVICE void copyTiles(const AttentionProblem& p, Shared<uint8_t> to, int base, const Source& source, int token, int length) {
    static_assert(count * (D / 8) <= warpSize_);
    const int inPage = token % pageTokens, keyPage = p.keys.pageOf(source.b, token / pageTokens), valuePage = p.values.pageOf(source.b, token / pageTokens);
    const int64_t key = source.keys + wideProduct(keyPage, static_cast<int>(p.keys.batchBytes)) + inPage * rowBytes;
    const int64_t value = source.values + wideProduct(valuePage, static_cast<int>(p.values.batchBytes)) + inPage * rowBytes;
    FASTMQA_UNROLL
    for (int n = 0; n < count; n++) {
      const int at = base + n * tileBytes, first = n * tileRows;
      copyRows(to, at, p.keys, key + first * rowBytes, token + first, length);
      copyRows(to, at + keyBytes, p.values, value + first * rowBytes, token + first, length);
    }
    if constexpr (isInt) {
      const int planes = base + keyBytes + valueBytes;
      copyScales<count, keySharing>(to, planes, planeBytes, p.keyScales, source.keyScales + wideProduct(keyPage, static_cast<int>(p.keyScales.pageBytes)), inPage);
      copyScales<count, Sharing::token>(to, planes + 2 * planeBytes, valuePlaneBytes, p.valueScales, source.valueScales + wideProduct(valuePage, static_cast<int>(p.valueScales.pageBytes)), inPage);
    }
  }

  static constexpr int queryRowBytes = D * 2 + 16;  // padded: rows lie in different banks
  /// Nibbles come out of a word in the order 0 4 1 5 2 6 3 7: queries are stored so.
  static FASTMQA_DEVICE int codeOrder(int channel) { return nibbles ? (channel & ~7) | (channel & 3) << 1 | (channel >> 2 & 1) : channel; }
  static FASTMQA_DEVICE int queryByte(int row, int channel) { return row * queryRowBytes + codeOrder(channel) * 2; }
  static FASTMQA_DEVICE int stepChannel(int step) {
    constexpr int stepsOfRead = laneChannels / 4;
    return step / stepsOfRead * 4 * laneChannels + laneIndex() % 4 * laneChannels + step % stepsOfRead * 4;
  }
  static FASTMQA_DEVICE void loadQuery(FragmentA& a, Shared<uint8_t> queries, int base, int row, int step) {
    const int at = base + (row + laneIndex() / 4) * queryRowBytes + stepChannel(step) * 2;
    const Word2 upper = queries.load<Word2>(at), lower = queries.load<Word2>(at + 8 * queryRowBytes);
    a.r[0] = upper.x, a.r[1] = lower.x, a.r[2] = upper.y, a.r[3] = lower.y;
  }

  /// f16 1024 + code - (1024 + zero), where zero is the code of 0 in symmetric groups.
  static FASTMQA_DEVICE uint32_t zeroPair(bool symmetric, bool high) {
    const float zero = symmetric ? (nibbles ? 8.0f : 128.0f) : 0.0f, base = high ? 64.0f : 1024.0f;
    return packHalves(F16(), -(base + zero), -(base + zero));
  }
  static FASTMQA_DEVICE uint32_t fp8Pair(uint32_t bytesInHighPlaces) {
    if (type == Dtype::e5m2) return bytesInHighPlaces;
    return (bytesInHighPlaces >> 1 & 0x3f803f80u) | (bytesInHighPlaces & 0x80008000u);
  }
  static constexpr uint32_t f16Base = 0x64006400u;   // 1024, 1024
  static constexpr uint32_t f16HighBase = 0x54005400u;  // 64, 64: a nibble four bits further is worth one as well
  static constexpr uint32_t sixteenth = 0x2c002c00u;  // 1/16, 1/16

  struct KeyOperands {
    uint32_t r[4];
  };
  struct KeyReader {
    Shared<uint8_t> tile_;
    int base_;
    bool symmetric_;
    int groups_, shift2_;  // groups of a token, log2 of a group
    uint32_t zeroLow_, zeroHigh_;
    uint32_t codes_[2][readBytes / 4];  // tokens q and q + 8
    uint32_t scale_[2], shift_[2];
    uint32_t channelScale_[keySharing == Sharing::channel ? laneChannels / 2 : 1], channelShift_[keySharing == Sharing::channel ? laneChannels / 2 : 1];

    FASTMQA_DEVICE KeyReader(const AttentionProblem& p, Shared<uint8_t> tile, int base)
        : tile_(tile), base_(base), symmetric_(p.keyScales.shiftBytes == 0), groups_(p.keyScales.groups), shift2_(p.keyScales.groupShift),
          zeroLow_(zeroPair(symmetric_, false)), zeroHigh_(zeroPair(symmetric_, true)) {}

    FASTMQA_DEVICE uint32_t scalePair(int plane, int token, int channel) const {
      const uint16_t s = tile_.load<uint16_t>(base_ + keyBytes + valueBytes + plane + 2 * (token * groups_ + (channel >> shift2_)));
      return s | static_cast<uint32_t>(s) << 16;
    }
    /// Reads the codes and scales of the steps that follow.
    FASTMQA_DEVICE void advance(int step) {
      const int lane = laneIndex(), q = lane / 4, channel = stepChannel(step);
      const int byte = nibbles ? channel / 2 : channel;
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        if constexpr (readBytes == 16) {
          const Word4 w = tile_.load<Word4>(base_ + byteAt(q + 8 * half, byte));
          codes_[half][0] = w.x, codes_[half][1] = w.y, codes_[half][2] = w.z, codes_[half][3] = w.w;
        } else if constexpr (readBytes == 8) {
          const Word2 w = tile_.load<Word2>(base_ + byteAt(q + 8 * half, byte));
          codes_[half][0] = w.x, codes_[half][1] = w.y;
        } else {
          codes_[half][0] = tile_.load<uint32_t>(base_ + byteAt(q + 8 * half, byte));
        }
        if constexpr (isInt && keySharing == Sharing::token && !folded) {
          scale_[half] = scalePair(0, q + 8 * half, channel);
          shift_[half] = symmetric_ ? 0 : scalePair(planeBytes, q + 8 * half, channel);
        }
      }
      if constexpr (isInt && keySharing == Sharing::channel) {
        FASTMQA_UNROLL
        for (int i = 0; i < laneChannels / 8; i++) {
          readEight(channelScale_ + 4 * i, keyBytes + valueBytes + 2 * (channel + 8 * i));
          if (!symmetric_)
            readEight(channelShift_ + 4 * i, keyBytes + valueBytes + planeBytes + 2 * (channel + 8 * i));
          else
            channelShift_[4 * i] = channelShift_[4 * i + 1] = channelShift_[4 * i + 2] = channelShift_[4 * i + 3] = 0;
        }
      }
    }
    /// Eight f16 in the order in which codes leave their words.
    FASTMQA_DEVICE void readEight(uint32_t* to, int byte) const {
      const Word4 w = tile_.load<Word4>(base_ + byte);
      if (nibbles) {
        to[0] = permuteBytes(w.x, w.z, 0x5410), to[1] = permuteBytes(w.x, w.z, 0x7632);
        to[2] = permuteBytes(w.y, w.w, 0x5410), to[3] = permuteBytes(w.y, w.w, 0x7632);
      } else {
        to[0] = w.x, to[1] = w.y, to[2] = w.z, to[3] = w.w;
      }
    }
    FASTMQA_DEVICE void operands(KeyOperands& o, int step) {
      constexpr int stepsOfRead = laneChannels / 4;
      const int inRead = step % stepsOfRead;
      if (inRead == 0) advance(step);
      FASTMQA_UNROLL
      for (int half = 0; half < 2; half++) {
        uint32_t first, second;
        if constexpr (folded && nibbles) {
          const uint32_t w = codes_[half][inRead / 2] >> (inRead % 2 * 8);
          first = maskedOr(w, 0x000f000fu, f16Base), second = maskedOr(w, 0x00f000f0u, f16HighBase);
        } else if constexpr (folded) {
          first = permuteBytes(codes_[half][inRead], 0x64646464u, 0x4140), second = permuteBytes(codes_[half][inRead], 0x64646464u, 0x4342);
        } else if constexpr (nibbles) {
          const uint32_t w = codes_[half][inRead / 2] >> (inRead % 2 * 8);
          first = halfAdd(maskedOr(w, 0x000f000fu, f16Base), zeroLow_);
          second = halfFma(maskedOr(w, 0x00f000f0u, f16Base), sixteenth, zeroHigh_);
        } else if constexpr (type == Dtype::int8) {
          first = halfAdd(permuteBytes(codes_[half][inRead], 0x64646464u, 0x4140), zeroLow_);
          second = halfAdd(permuteBytes(codes_[half][inRead], 0x64646464u, 0x4342), zeroLow_);
        } else if constexpr (converts) {
          first = halvesOfE4m3<false>(codes_[half][inRead]), second = halvesOfE4m3<true>(codes_[half][inRead]);
        } else {
          first = fp8Pair(permuteBytes(codes_[half][inRead], 0, 0x1404));
          second = fp8Pair(permuteBytes(codes_[half][inRead], 0, 0x3424));
        }
        if constexpr (folded) {
        } else if constexpr (isInt && keySharing == Sharing::token) {
          first = halfFma(first, scale_[half], shift_[half]);
          second = halfFma(second, scale_[half], shift_[half]);
        } else if constexpr (isInt && keySharing == Sharing::channel) {
          first = halfFma(first, channelScale_[2 * inRead], channelShift_[2 * inRead]);
          second = halfFma(second, channelScale_[2 * inRead + 1], channelShift_[2 * inRead + 1]);
        }
        o.r[2 * half] = first, o.r[2 * half + 1] = second;
      }
    }
  };

  static constexpr int valueChannels = D / 8;  // consecutive channels of a lane's value read, one of each fragment
  static FASTMQA_DEVICE int valueChannel(int fragment, int column) {
    return folded ? fragment / 8 * 64 + column * 8 + fragment % 8 : column * valueChannels + fragment;
  }
  /// Reads `bytes` consecutive bytes of values of four tokens, piece number `piece` of a row.
  template <int bytes>
  struct ValueReaderOf {
    Shared<uint8_t> tile_;
    int base_;
    uint32_t zeroLow_, zeroHigh_;
    uint32_t codes_[4][(bytes + 3) / 4];  // tokens 2t, 2t+1, 2t+8, 2t+9
    uint32_t scale_[2], shift_[2];

    FASTMQA_DEVICE ValueReaderOf(const AttentionProblem& p, Shared<uint8_t> tile, int base, int piece) : tile_(tile), base_(base) {
      const int t = laneIndex() % 4;
      const bool symmetric = p.valueScales.shiftBytes == 0;
      zeroLow_ = zeroPair(symmetric, false);
      zeroHigh_ = zeroPair(symmetric, true);
      FASTMQA_UNROLL
      for (int i = 0; i < 4; i++) {
        const int at = base_ + keyBytes + byteAt(2 * t + (i & 1) + 8 * (i >> 1), piece * bytes);
        if constexpr (bytes == 16) {
          const Word4 w = tile_.load<Word4>(at);
          codes_[i][0] = w.x, codes_[i][1] = w.y, codes_[i][2] = w.z, codes_[i][3] = w.w;
        } else if constexpr (bytes == 8) {
          const Word2 w = tile_.load<Word2>(at);
          codes_[i][0] = w.x, codes_[i][1] = w.y;
        } else if constexpr (bytes == 4) {
          codes_[i][0] = tile_.load<uint32_t>(at);
        } else if constexpr (bytes == 2) {
          codes_[i][0] = tile_.load<uint16_t>(at);
        } else {
          codes_[i][0] = tile_.load<uint8_t>(at);
        }
      }
      if constexpr (isInt && !folded) {
        constexpr int channels = nibbles ? 2 * bytes : bytes;
        const int planes = base_ + keyBytes + valueBytes + 2 * planeBytes, column = piece * channels >> p.valueScales.groupShift, groups = p.valueScales.groups;
        FASTMQA_UNROLL
        for (int i = 0; i < 2; i++) {
          const int at = planes + 2 * ((2 * t + 8 * i) * groups + column);
          scale_[i] = tile_.load<uint16_t>(at) | static_cast<uint32_t>(tile_.load<uint16_t>(at + 2 * groups)) << 16;
          shift_[i] = symmetric ? 0
                                : tile_.load<uint16_t>(at + valuePlaneBytes) |
                                      static_cast<uint32_t>(tile_.load<uint16_t>(at + valuePlaneBytes + 2 * groups)) << 16;
        }
      }
    }
    FASTMQA_DEVICE void operands(uint32_t (&r)[4], int pair) {
      FASTMQA_UNROLL
      for (int f = 0; f < 2; f++) {
        const int channel = 2 * pair + f;  // within the lane's read
        FASTMQA_UNROLL
        for (int half = 0; half < 2; half++) {
          uint32_t x;
          if constexpr (nibbles) {
            const uint32_t both = permuteBytes(codes_[2 * half][channel / 8], codes_[2 * half + 1][channel / 8], channel % 8 < 4 ? 0x5410 : 0x7632);
            const uint32_t w = both >> (channel % 4 / 2 * 8);
            x = channel % 2 == 0 ? halfAdd(maskedOr(w, 0x000f000fu, f16Base), zeroLow_) : halfFma(maskedOr(w, 0x00f000f0u, f16Base), sixteenth, zeroHigh_);
          } else {
            const uint32_t both = permuteBytes(codes_[2 * half][channel / 4], codes_[2 * half + 1][channel / 4], channel % 4 < 2 ? 0x5140 : 0x7362);
            if constexpr (converts)
              x = channel % 2 == 0 ? halvesOfE4m3<false>(both) : halvesOfE4m3<true>(both);
            else if constexpr (type == Dtype::int8)
              x = halfAdd(permuteBytes(both, 0x64646464u, channel % 2 == 0 ? 0x4140 : 0x4342), zeroLow_);
            else
              x = fp8Pair(permuteBytes(both, 0, channel % 2 == 0 ? 0x1404 : 0x3424));
          }
          if constexpr (isInt && !folded) x = halfFma(x, scale_[half], shift_[half]);
          r[2 * f + half] = x;
        }
      }
    }
  };
  struct ValueReader : ValueReaderOf<rowBytes / 8> {
    FASTMQA_DEVICE ValueReader(const AttentionProblem& p, Shared<uint8_t> tile, int base) : ValueReaderOf<rowBytes / 8>(p, tile, base, laneIndex() / 4) {}
  };

  /// log2 of the largest weight. Weights times scales are f16: larger, so that few of them fall below its normal numbers, and
  /// none above the largest, since values are f16 as well and a scale is at most 2 * 65504 / (2^bits - 1).
  static constexpr float weightBoost = !folded ? 0.0f : nibbles ? 2.0f : 6.0f;

  // Folded: runs of 64 channels, each with a scale of its own for every token.
  static constexpr int runs = D / 64, runBytes = nibbles ? 4 : 8;  // bytes of a lane's value read
  /// What raw keys are worth too much, negated, as operands of tokens: times the queries, it is what scores start from.
  static FASTMQA_DEVICE FragmentA rawKeyBias(const AttentionProblem& p) {
    const bool symmetric = p.keyScales.shiftBytes == 0;
    const uint32_t low = zeroPair(symmetric, false), high = nibbles ? zeroPair(symmetric, true) : low;
    return {{low, low, high, high}};
  }
  /// Of a token in a run: scale (`plane` 0) or shift (1) of keys; scales of values, of the next token too; shift of values.
  static FASTMQA_DEVICE float keyScale(const AttentionProblem& p, Shared<uint8_t> tile, int base, int plane, int token, int run) {
    const int at = base + keyBytes + valueBytes + plane * planeBytes + 2 * (token * p.keyScales.groups + (run * 64 >> p.keyScales.groupShift));
    return lowHalf(F16(), tile.load<uint16_t>(at));
  }
  static FASTMQA_DEVICE int valueScaleByte(const AttentionProblem& p, int base, int plane, int token, int run) {
    return base + keyBytes + valueBytes + 2 * planeBytes + plane * valuePlaneBytes + 2 * (token * p.valueScales.groups + (run * 64 >> p.valueScales.groupShift));
  }
  static FASTMQA_DEVICE uint32_t valueScales(const AttentionProblem& p, Shared<uint8_t> tile, int base, int token, int run) {
    const int at = valueScaleByte(p, base, 0, token, run);
    return tile.load<uint16_t>(at) | static_cast<uint32_t>(tile.load<uint16_t>(at + 2 * p.valueScales.groups)) << 16;
  }
  // Where planes of scales lie in a tile.
  static constexpr int keyPlane = keyBytes + valueBytes, valuePlane = keyPlane + 2 * planeBytes;
  static FASTMQA_DEVICE float valueShift(const AttentionProblem& p, Shared<uint8_t> tile, int base, int token, int run) {
    return lowHalf(F16(), tile.load<uint16_t>(valueScaleByte(p, base, 1, token, run)));
  }
};

}  // namespace fastmqa::gpu
