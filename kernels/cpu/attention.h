// Attention of query rows over cached sequences. One tile step (scores, online softmax, value sum) serves prefill,
// one-token decode, several-token verify, every cache format, and the merge of exact and compressed parts.
#pragma once
#include <cstdint>
#include <vector>

#include "cache.h"
#include "fastmqa/status.h"
#include "rope-table.h"

namespace fastmqa {

constexpr int64_t unlimited = INT64_MAX / 4;

struct AttentionShape {
  int64_t heads = 1, kvHeads = 1, keyDim = 1, valueDim = 1;
  float scale = 1;
  float softcap = 0;  ///< 0 = none; else logits become cap * tanh(logits / cap), before the mask
  /// Query at position p sees keys p - left .. p + right, and keys before `sinks` that are not right of it.
  int64_t left = unlimited, right = 0, sinks = 0;
  /// Accumulate logits in f64: for inputs so large that f32 logits would have no correct digits.
  bool wideScores = false;
};

/// Explicit mask of one sequence, broadcast by zero strides: additive (added to logits) or boolean (0 hides).
struct MaskView {
  const float* additive = nullptr;
  const uint8_t* boolean = nullptr;
  int64_t headStride = 0, queryStride = 0, keyStride = 0;
};

/// Queries of one sequence and where their output goes; strides in floats.
struct SequenceQueries {
  const SequenceCache* cache;
  const float* q;  ///< [tokens][heads][keyDim], rotated, not scaled
  int64_t tokens, firstPosition, qTokenStride, qHeadStride;
  float* out;  ///< [tokens][heads][valueDim]; a row that sees no key becomes zeros
  int64_t outTokenStride, outHeadStride;
  MaskView mask;
};

/// How a latent body becomes keys and values (attention-spec B.3).
struct LatentMaps {
  int64_t keyRank = 0, valueRank = 0;
  bool joint = false;     ///< the key store holds the latent of both
  bool absorbed = false;  ///< scores in latent space; else keys are rebuilt per tile and rotated (exact RoPE, option A)
  /// A latent that the model itself caches (multi-head latent attention), shared by all heads: the value store holds it, the
  /// key store the rotated key beside it. One KV head, keyDim = valueRank + keyRank: queries are in coordinates of the latent,
  /// then of the key, and what comes out is in those of the latent. Exact parts are stored alike; no maps below.
  bool own = false;
  int64_t keyStride = 0;  ///< row stride of upKeys
  const float* upKeys = nullptr;       ///< [kvHeads * keyDim][keyStride]
  const float* meanKeys = nullptr;     ///< [kvHeads * keyDim]
  const float* upValues = nullptr;     ///< [kvHeads][valueRank][padded(valueDim)]
  const float* meanValues = nullptr;   ///< [kvHeads * valueDim]
};

enum class Kernel { flash, naive };

/// Bytes of tile workspace that the threads come to hold by what was attended to since the last reset: of every use the largest
/// block, for each thread, so that it depends neither on what ran before nor on which thread took which block. It does not grow
/// with the number of cached tokens.
int64_t workspaceBytes();
void resetWorkspaceBytes();

/// `rope`: rotates keys that are cached before the rotary embedding; null when they are cached after it. With `own`: those
/// beside the latent.
/// `latent`: null for direct caches. Results do not depend on the number of threads.
void attend(const AttentionShape& shape, const std::vector<SequenceQueries>& sequences, const LatentMaps* latent,
            const RopeTable* rope, Kernel kernel, const CancelFlag* cancel);

}  // namespace fastmqa
