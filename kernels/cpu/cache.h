// The key/value cache of one sequence: append, settle, roll back; exact first tokens, exact most recent tokens,
// and a body in any format, held in pages that a window recycles.
#pragma once
#include <memory>
#include <optional>

#include "panel-store.h"

namespace fastmqa {

struct CacheSpec {
  int64_t kvHeads = 1, keyDim = 0, valueDim = 0;
  /// Body. Direct cache: keys (channelRows) and values (tokenRows), one store head per KV head.
  /// Latent cache: one store head; keys = key or joint latent, values = value latent, absent when joint.
  StoreSpec keys;
  std::optional<StoreSpec> values;
  int64_t sinks = 0;     ///< first tokens also kept exactly (f16) and never dropped
  int64_t residual = 0;  ///< most recent tokens kept exactly (f16); direct caches only
  int64_t window = 0;    ///< keys a query sees, its own included; 0 = all
};

/// Whether recent tokens wait exactly, for their group or as long as they are recent.
bool hasExactTail(const CacheSpec& spec);

/// Where the bytes of a cache are. allocated = payload + scales + sinks + residual + slack + table.
struct CacheBytes {
  double logical = 0;  ///< by formula, for the tokens that the level keeps
  int64_t payload = 0, scales = 0, sinks = 0, residual = 0, slack = 0, table = 0, allocated = 0;
  CacheBytes& operator+=(const CacheBytes& other);
};

/// Bytes of the caches of `sequences` sequences of `length` tokens each, `settled` of them (sinks included) in the body,
/// for which `buffers` and `table` bytes were allocated.
CacheBytes accountOf(const CacheSpec& spec, int64_t sequences, int64_t length, int64_t settled, int64_t buffers, int64_t table);

/// Rows to append: body rows in the form the body stores, exact rows as keys and values of all KV heads.
struct CacheRows {
  const float* bodyKeys;     ///< [n][keyStride]
  const float* bodyValues;   ///< [n][valueStride], unused for joint latents
  const float* exactKeys;    ///< [n][kvHeads * keyDim]
  const float* exactValues;  ///< [n][kvHeads * valueDim]
  int64_t keyStride, valueStride;
};

class SequenceCache {
 public:
  SequenceCache(Arena& arena, const CacheSpec& spec);

  /// Adds n tokens. They may be rolled back until the next settle().
  void append(int64_t n, const CacheRows& rows);
  /// Commits what is cached: quantises full token groups that have left the residual, drops what left the window.
  void settle();
  /// Forgets tokens from `length` on, as if they had never been appended. Only tokens appended since settle().
  void rollback(int64_t length);
  /// Tokens [token, token + count) of one KV head of a direct cache, as cached.
  void readBack(int64_t head, int64_t token, int64_t count, float* keys, float* values) const;

  int64_t length() const { return length_; }
  int64_t settled() const { return tailKeys_ ? settled_ : length_; }
  const CacheSpec& spec() const { return spec_; }
  const PanelStore& bodyKeys() const { return *bodyKeys_; }
  const PanelStore* bodyValues() const { return bodyValues_.get(); }
  const PanelStore* sinkKeys() const { return sinkKeys_.get(); }
  const PanelStore* sinkValues() const { return sinkValues_.get(); }
  const PanelStore* tailKeys() const { return tailKeys_.get(); }
  const PanelStore* tailValues() const { return tailValues_.get(); }
  CacheBytes bytes() const;

 private:
  CacheSpec spec_;
  int64_t tokenGroup_;  ///< tokens that are quantised together
  int64_t length_ = 0, settled_ = 0, committed_ = 0;
  std::unique_ptr<PanelStore> bodyKeys_, bodyValues_, sinkKeys_, sinkValues_, tailKeys_, tailValues_;
};

}  // namespace fastmqa
