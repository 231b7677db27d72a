// A matrix of tokens by channels, kept in pages of a fixed number of tokens, in any cache format.
// It is the only place that knows how cached numbers lie in memory; keys, values, latents and layer inputs all use it.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "fastmqa/dtype.h"
#include "fastmqa/memory.h"

#include "../simd/simd.h"
#include "codec.h"

namespace fastmqa {

/// channelRows: [channel][token], what score products read. tokenRows: [token][channel], what value sums read.
enum class Layout { channelRows, tokenRows };
/// Which numbers share a scale: n channels of a token, n tokens of a channel, or the whole tensor (fixed beforehand).
enum class Grouping { token, channel, tensor };

/// A run of channels stored in one format.
struct Band {
  int64_t channels;
  Dtype dtype;
  bool symmetric = false;  ///< integers: a scale only; else a scale and a minimum
};

struct StoreSpec {
  int64_t heads = 1;
  int64_t channels = 0;     ///< per head
  std::vector<Band> bands;  ///< their channels add up to `channels`
  Layout layout = Layout::channelRows;
  Grouping grouping = Grouping::token;
  int64_t groupSize = 32;  ///< Grouping::channel: divides pageTokens
  float tensorScale = 1;   ///< Grouping::tensor: integers x = code * scale; floats below f32 x = value * scale
  int64_t pageTokens = 64;  ///< a multiple of 8, 64 at the most

  bool groupsTokens() const;
  /// Bytes of codes and of scales for one token of all heads, by formula (attention-spec 0), fractions kept.
  double payloadBytesPerToken() const;
  double scaleBytesPerToken() const;
  /// What a page takes: its buffers as the arena rounds them. Pages whose scales do not fit f16 take more.
  int64_t pageBytes() const;
};

class PanelStore {
 public:
  PanelStore(Arena& arena, StoreSpec spec);

  const StoreSpec& spec() const { return spec_; }
  /// Makes pages for tokens [0, end) that are not dropped yet.
  void reserve(int64_t end);
  /// Stores tokens [token, token + count) of all heads from rows[count][stride], head h at channel h * channels;
  /// pages must be reserved. On all cores.
  /// Channel groups: token and count are multiples of groupSize; tokens before `firstValid` do not shape the scales.
  void write(int64_t token, int64_t count, const float* rows, int64_t stride, int64_t firstValid = 0);
  /// One page as f32: channelRows [channels][tileStride()], tokenRows [pageTokens][rowStride()].
  /// Points into the page where it already is f32 in that shape, else into `scratch` (tileFloats() long).
  const float* read(int64_t page, int64_t head, float* scratch) const;
  static constexpr int64_t mostRows = 128;
  /// C[m][tileStride() or rowStride()] = A[m] times the page (+ C * beta[row], beta == nullptr: C is overwritten).
  /// A has a column per channel (channelRows) or per token (tokenRows). For few rows: the page is dequantised in
  /// registers, and a result does not depend on m, at most mostRows. Ragged pages go through `scratch`.
  void multiply(int64_t page, int64_t head, int64_t m, const float* a, int64_t lda, float* c, int64_t ldc,
                const float* beta, float* scratch) const;
  /// Asks for what multiply() reads first: no page is near the last one in memory, so hardware cannot guess it.
  void prefetch(int64_t page, int64_t head) const {
    const uint8_t* from = this->page(page).codes.data() + head * headBytes_;
    for (int64_t i = 0; i < std::min(fetchAhead, headBytes_ * (spec_.heads - head)); i += 64) __builtin_prefetch(from + i, 0, 2);
  }
  /// What read() reads.
  Ahead ahead(int64_t page, int64_t head) const { return {this->page(page).codes.data() + head * headBytes_, headBytes_}; }
  /// Tokens [token, token + count) of one head as f32 rows[count][stride].
  void readRows(int64_t head, int64_t token, int64_t count, float* rows, int64_t stride) const;
  /// Frees pages that lie wholly before `token`.
  void dropBefore(int64_t token);
  /// Frees pages that lie wholly at or after `token`.
  void truncate(int64_t token);

  int64_t firstPage() const { return firstPage_; }
  int64_t endPage() const { return firstPage_ + static_cast<int64_t>(pages_.size()); }
  int64_t tileStride() const;
  int64_t rowStride() const;
  int64_t tileFloats() const;
  int64_t allocatedBytes() const;
  int64_t tableBytes() const { return static_cast<int64_t>(pages_.size() * sizeof(Page)); }

 private:
  struct Page {
    Buffer<uint8_t> codes;
    Buffer<uint8_t> scales;
    bool wide = false;  ///< scales are f32: some group's scale does not fit f16
  };
  struct Run {  ///< where a band lies
    Band band;
    int64_t firstChannel, byteOffset;
    bool scaled;                    // has scales of its own
    int64_t firstScale, firstShift;  // its planes of scales and of minima: [group][token], or [group of tokens][channel]
  };

  Page& pageOf(int64_t token) { return pages_[static_cast<size_t>(token / spec_.pageTokens - firstPage_)]; }
  const Page& page(int64_t index) const { return pages_[static_cast<size_t>(index - firstPage_)]; }
  void widen(Page& page);
  /// Scales and minima of one head as f32; valid until the next call on this thread.
  const float* numbersOf(const Page& page, int64_t head) const;
  /// The rows of a run in one head, `columns` of them.
  PackedBlock blockOf(const Page& page, int64_t head, const Run& run, const float* numbers, int64_t columns) const;
  /// Place of a group's scale, or minimum, among the numbers of one head.
  int64_t scaleIndex(const Run& run, int64_t channel, int64_t slot) const { return planeIndex(run, run.firstScale, channel, slot); }
  int64_t shiftIndex(const Run& run, int64_t channel, int64_t slot) const { return planeIndex(run, run.firstShift, channel, slot); }
  int64_t planeIndex(const Run& run, int64_t first, int64_t channel, int64_t slot) const;
  void putNumber(Page& page, int64_t head, int64_t index, float x);
  void writeFloats(int64_t head, const Run& run, int64_t channel, int64_t channels, int64_t token, int64_t tokens,
                   const float* rows, int64_t stride);
  void writeGroup(int64_t head, const Run& run, int64_t channel, int64_t channels, int64_t token, int64_t tokens,
                  const float* rows, int64_t stride, int64_t firstValid);
  /// Packed row that holds a channel (channelRows) or a token (tokenRows) of a band.
  uint8_t* rowOf(Page& page, int64_t head, const Run& run, int64_t channel, int64_t slot);

  Arena* arena_;
  StoreSpec spec_;
  std::vector<Run> runs_;
  int64_t headBytes_ = 0, rowBytes_ = 0;
  int64_t numberCount_ = 0;  // scales and minima, per head and page
  int64_t firstPage_ = 0;
  std::deque<Page> pages_;
  std::atomic<bool> needsWide_{false};
};

}  // namespace fastmqa
