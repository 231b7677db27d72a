// One sweep point as the engine sees it: the C++ twin of PointConfig in src-main/contract/sweep.ts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "dtype.h"

namespace fastmqa {

enum class Phase { prefill, decode, verify, speculate };
enum class CacheKind { direct, latentSeparate, latentJoint, input };
enum class Conversion { mean, aligned, first };

struct ModelSpec {
  int64_t hiddenDim = 1024, heads = 16, headDim = 64, kvHeads = 16;
  double ropeTheta = 10000;  ///< 0: no rotary embedding
  uint64_t seed = 1;
  /// Multi-head latent attention: what the layer caches of a token by itself. 0: keys and values of its heads.
  int64_t latentRank = 0, ropeDim = 0, valueDim = 0;
};

struct Technique {
  bool naiveKernel = false;
  int64_t kvHeads = 16;
  Conversion conversion = Conversion::mean;
  CacheKind cacheKind = CacheKind::direct;
  Dtype keyDtype = Dtype::f32, valueDtype = Dtype::f32;
  enum class Grouping { token, channel, tensor };
  Grouping keyGrouping = Grouping::token, valueGrouping = Grouping::token;
  int64_t keyGroupSize = 32, valueGroupSize = 32;
  bool symmetric = false, hadamard = false, keysBeforeRope = false;
  int64_t residual = 0, sinks = 0, window = 0;
  int64_t rank = 0, rankKey = 0, rankValue = 0;
  struct LatentBand {
    int64_t channels;
    int bits;
  };
  std::vector<LatentBand> bands;
  bool weightBasis = false, centred = false;
  double adaptiveBudgetBytes = 0, adaptiveEnergy = 0;
};

struct PointSpec {
  int device = -1;  ///< -1: the CPU; else the number of a CUDA device
  ModelSpec model;
  int64_t modelLayer = -1;  ///< of a trained model: this layer on its own; -1: the whole model, or a synthetic layer
  Technique technique;
  Phase phase = Phase::decode;
  int64_t batch = 1, seqLen = 512, verifyTokens = 1;
  int64_t draftTokens = 4;  ///< of the phase speculate: proposed in a round
  uint64_t inputSeed = 100;
  int64_t calibrationTokens = 4096;
};

}  // namespace fastmqa
