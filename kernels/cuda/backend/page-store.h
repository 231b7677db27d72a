// Compressed tokens of a batch of sequences of equal length, in pages of 64 tokens, and the few that are kept exactly.
// The twin of PanelStore and of the exact parts of SequenceCache; rows lie token by token here, as the GPU's kernels read.
#pragma once
#include <deque>
#include <vector>

#include "../kernels/append.h"
#include "../kernels/expand.h"
#include "memory.h"

namespace fastmqa::gpu {

class PageStore {
 public:
  /// Room for `mostPages` pages of each sequence, none at all too; a page counts as allocated while it is handed out.
  PageStore(DevicePool& pool, Stream stream, const AcceleratorStore& spec, int64_t batch, int64_t mostPages);
  /// An empty one of another size.
  PageStore(DevicePool& pool, const PageStore& like, int64_t mostPages);

  int64_t heads() const { return heads_; }
  int64_t channels() const { return channels_; }
  /// Tokens that are quantised together; 1 if each by itself.
  int64_t tokenGroup() const { return tokenGroup_; }
  int64_t bandCount() const { return static_cast<int64_t>(bands_.size()); }

  /// Tokens count from the store's own token 0. Pages that a window has passed are gone for good, until clear().
  void reserve(int64_t end);
  void dropBefore(int64_t token);
  void truncate(int64_t token);
  void clear();
  /// The first token that still has a page.
  int64_t firstToken() const { return firstPage_ * pageTokens; }
  /// Brings the page table up to date on the device; before kernels use it, outside of recordings.
  void publish();

  /// Where a band lies, tokens counted from firstToken().
  ExpandBand band(int64_t i) const;
  AppendSide side(int64_t i) const;
  /// Some channels of a store of floats in one band.
  AppendSide part(int64_t firstChannel, int64_t channels) const;

  int64_t allocatedBytes() const { return static_cast<int64_t>(pages_.size()) * batch_ * pageBytes_; }
  int64_t tableBytes() const { return static_cast<int64_t>(pages_.size()) * batch_ * static_cast<int64_t>(sizeof(int32_t)); }

 private:
  struct Band {
    Dtype type;
    bool symmetric;
    int firstChannel, channels;
    int64_t rowBytes, planeBytes;  // planeBytes: of the scales of a head in a page, 0 if it has none of its own
    DeviceBlock codes, scales;
  };
  void allocate(DevicePool& pool);
  TokenRows rows(const Band& band) const;
  CodeScales scales(const Band& band) const;

  Stream stream_;
  int64_t heads_, channels_, batch_, mostPages_, pageBytes_ = 0, tokenGroup_ = 1;
  Sharing sharing_;
  int group_;
  float tensorScale_;
  std::vector<Band> bands_;
  DeviceBlock table_;                        // [batch][mostPages]
  std::vector<int32_t> free_;
  std::deque<std::vector<int32_t>> pages_;   // by page, of each sequence
  int64_t firstPage_ = 0;
  bool isPublished_ = false;
};

/// The same few tokens of every sequence as rows of f16 keys and values, [batch][capacity][heads][keyDim or valueDim].
class ExactRows {
 public:
  ExactRows() = default;
  /// Room is made in steps of `step` tokens.
  ExactRows(DevicePool& pool, Stream stream, int64_t batch, int64_t heads, int64_t keyDim, int64_t valueDim, int64_t step)
      : pool_(&pool), stream_(stream), batch_(batch), heads_(heads), keyDim_(keyDim), valueDim_(valueDim), step_(step) {}
  /// Empty ones.
  ExactRows(DevicePool& pool, const ExactRows& like) : ExactRows(pool, like.stream_, like.batch_, like.heads_, like.keyDim_, like.valueDim_, like.step_) {}
  /// Makes room for `tokens` tokens, keeping the first `kept` of what is there from token `from` on.
  void resize(int64_t tokens, int64_t from, int64_t kept);
  int64_t capacity() const { return capacity_; }
  /// Beginning with token `first`.
  TokenRows rows(bool values, int64_t first = 0) const;
  AppendSide side(bool values) const;
  ExpandBand band(bool values) const { return {rows(values), {}, Dtype::f16, 0, static_cast<int>(channels(values))}; }
  int64_t allocatedBytes() const { return keys_.allocatedBytes() + values_.allocatedBytes(); }

 private:
  int64_t channels(bool values) const { return values ? valueDim_ : keyDim_; }
  int64_t rowBytes(bool values) const { return heads_ * channels(values) * 2; }
  DevicePool* pool_ = nullptr;
  Stream stream_{};
  int64_t batch_ = 0, heads_ = 0, keyDim_ = 0, valueDim_ = 0, step_ = 1, capacity_ = 0;
  DeviceBlock keys_, values_;
};

}  // namespace fastmqa::gpu
