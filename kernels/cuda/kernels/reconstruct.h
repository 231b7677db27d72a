// Decoding from latents that keys and values are made of, a product with a head's part of the projections (attention-spec
// B.3). A tile of rows is made of them in shared memory, keys rotated on the way, as the plain rows that decode.h reads.
#pragma once
#include "decode.h"
#include "expand.h"

namespace fastmqa::gpu {

/// How keys and values come from what is cached.
struct Reconstruction {
  static constexpr int mostBands = ExpandProblem::mostBands, mostRank = 128;
  ExpandBand keyBands[mostBands], valueBands[mostBands];
  int keyBandCount = 1, valueBandCount = 1;  ///< no band of values: they are made of the keys' latents
  Global<const uint8_t> upKeys, upValues;    ///< [kvHeads * headDim][rank], rank a multiple of 8, zeros past the channels cached
  int keyRank = 0, valueRank = 0;
  Global<const float> meanKeys, meanValues;  ///< [kvHeads * headDim], added to rows, or nothing
  bool rotates = false;                      ///< keys, rotate-half over all of a head's channels
  Global<const float> cosine, sine;          ///< [positions][headDim / 2]
};

struct ReconstructProblem : AttentionProblem, Reconstruction {};

template <class Type_, int D_>
struct ReconstructedStorage : PlainStorage<Type_, D_> {
  using Base = PlainStorage<Type_, D_>;
  using Type = Type_;
  using Problem = ReconstructProblem;
  static constexpr int D = D_, rank = Reconstruction::mostRank;
  static constexpr bool reconstructed = true;
  static constexpr int latentsAt = Base::tileBytes, tileBytes = latentsAt + tileRows * rank * 2;

  /// Latents of a tile as [16][rank], zeros up to a multiple of 16 channels.
  static FASTMQA_DEVICE void fillLatents(Shared<uint8_t> to, int base, const ExpandBand* bands, int bandCount, int channels, int b, int token, int length) {
    const int end = bands[bandCount - 1].firstChannel + bands[bandCount - 1].channels, row = laneIndex() % tileRows;
    const auto put = [&](int channel, float x) {
      to.template store<uint16_t>(base + chunkByte<rank>(row, channel / 8) + channel % 8 * 2, static_cast<uint16_t>(packHalves(Type(), x, x)));
    };
    for (int n = 0; n < bandCount; n++) {
      const ExpandBand& band = bands[n];
      for (int run = laneIndex() / tileRows; run * expandRun < band.channels; run += warpSize_ / tileRows) {
        float x[expandRun] = {};
        if (token + row < length) expandNumbers(band, b, 0, token + row, run * expandRun, x);
        const int first = band.firstChannel + run * expandRun, count = band.channels - run * expandRun;
        if (first % 8 == 0 && count >= expandRun) {
          to.template store<Word4>(base + chunkByte<rank>(row, first / 8),
                                   Word4{packHalves(Type(), x[0], x[1]), packHalves(Type(), x[2], x[3]), packHalves(Type(), x[4], x[5]), packHalves(Type(), x[6], x[7])});
        } else {
          for (int c = 0; c < expandRun && c < count; c++) put(first + c, x[c]);
        }
      }
    }
    for (int channel = end + laneIndex() / tileRows; channel < (channels + 15) / 16 * 16; channel += warpSize_ / tileRows) put(channel, 0);
  }

  /// Rows of keys or values from latents, a product with the head's part of `up`.
  static FASTMQA_DEVICE void multiplyUp(const Problem& p, Shared<uint8_t> to, int base, int latents, Global<const uint8_t> up, int channels, Global<const float> mean, bool rotates,
                                        int g, int token, int length) {
    constexpr int fragments = D / 8;
    const int lane = laneIndex(), q = lane / 4, t = lane % 4;
    FragmentC sums[fragments];
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++) {
      const int64_t channel = g * D + 8 * f + 2 * t;
      const float x = mean ? mean[channel] : 0, y = mean ? mean[channel + 1] : 0;
      sums[f] = {{x, y, x, y}};
    }
    for (int s = 0; 16 * s < channels; s++) {
      const int64_t here = (static_cast<int64_t>(g * D + q) * channels + 16 * s + 2 * t) * 2;
      const int further = 16 * keepInLoop(channels);  // the places of all fragments would not fit registers
      FragmentA a;
      loadMatrices(a.r, to, latents + chunkByte<rank>(lane & 15, 2 * s + (lane >> 4)));
      FASTMQA_UNROLL
      for (int f = 0; f < fragments; f++) {
        const int64_t at = here + f * further;
        multiply(Type(), sums[f], a, up.template load<uint32_t>(at), 16 * s + 8 < channels ? up.template load<uint32_t>(at + 16) : 0u);
      }
    }
    if (rotates) {
      FASTMQA_UNROLL
      for (int h = 0; h < 2; h++) {
        if (token + q + 8 * h >= length) continue;
        const int64_t position = static_cast<int64_t>(p.firstKey + token + q + 8 * h) * (D / 2);
        FASTMQA_UNROLL
        for (int f = 0; f < fragments / 2; f++)
          FASTMQA_UNROLL
          for (int c = 0; c < 2; c++) {
            const float cosine = p.cosine[position + 8 * f + 2 * t + c], sine = p.sine[position + 8 * f + 2 * t + c];
            float &x = sums[f].r[2 * h + c], &y = sums[f + fragments / 2].r[2 * h + c];
            const float first = x;
            x = first * cosine - y * sine;
            y = y * cosine + first * sine;
          }
      }
    }
    FASTMQA_UNROLL
    for (int f = 0; f < fragments; f++)
      FASTMQA_UNROLL
      for (int h = 0; h < 2; h++)
        to.template store<uint32_t>(base + chunkByte<D>(q + 8 * h, f) + 4 * t, packHalves(Type(), sums[f].r[2 * h], sums[f].r[2 * h + 1]));
  }

  template <int count>
  static FASTMQA_DEVICE void copyTiles(const Problem& p, Shared<uint8_t> to, int base, const typename Base::Source& source, int token, int length) {
    const int b = source.b, g = source.g;
    for (int n = 0; n < count; n++) {
      const int keys = base + n * tileBytes, values = keys + Base::keyBytes, first = token + n * tileRows;
      const int latents = keys + latentsAt;
      fillLatents(to, latents, p.keyBands, p.keyBandCount, p.keyRank, b, first, length);
      warpBarrier();
      multiplyUp(p, to, keys, latents, p.upKeys, p.keyRank, p.meanKeys, p.rotates, g, first, length);
      if (p.valueBandCount > 0) {
        warpBarrier();
        fillLatents(to, latents, p.valueBands, p.valueBandCount, p.valueRank, b, first, length);
        warpBarrier();
      }
      multiplyUp(p, to, values, latents, p.upValues, p.valueRank, p.meanValues, false, g, first, length);
    }
  }

  struct KeyReader : Base::KeyReader {
    FASTMQA_DEVICE KeyReader(const Problem& p, Shared<uint8_t> tile, int base) : Base::KeyReader(p, tile, base) {}
  };
  struct ValueReader : Base::ValueReader {
    FASTMQA_DEVICE ValueReader(const Problem& p, Shared<uint8_t> tile, int base) : Base::ValueReader(p, tile, base) {}
  };
};

}  // namespace fastmqa::gpu
