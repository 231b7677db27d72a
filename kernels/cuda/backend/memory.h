// Device memory with exact accounts, the twin of Arena (fastmqa/memory.h): every block is rounded up, counted, and handed out
// again for the same size, so that a repeated step asks the driver for nothing.
#pragma once
#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "runtime.h"

namespace fastmqa::gpu {

class DevicePool {
 public:
  DevicePool() : DevicePool(smallestRegion, smallestRegion, 256) {}
  /// Blocks are cut from regions of `leastRegion` bytes, or, near the end of the device, of fewer; those of `ownRegion` and more
  /// have a region of their own. Blocks are aligned to, and rounded up to, `alignment` bytes.
  DevicePool(int64_t leastRegion, int64_t ownRegion, int64_t alignment)
      : leastRegion_(leastRegion), ownRegion_(ownRegion), alignment_(alignment), free_(runtime::freeBytes()), least_(free_) {}
  DevicePool(const DevicePool&) = delete;
  DevicePool& operator=(const DevicePool&) = delete;
  ~DevicePool() {
    for (void* region : regions_) runtime::release(region);
  }
  int64_t roundUp(int64_t bytes) const { return std::max<int64_t>(alignment_, (bytes + alignment_ - 1) / alignment_ * alignment_); }

  void* take(int64_t bytes) {
    const int64_t rounded = roundUp(bytes);
    if (rounded > limit_ - current_) throw Failure(FailureKind::outOfMemory, "the limit of " + std::to_string(limit_) + " bytes is reached");
    current_ += rounded;
    peak_ = std::max(peak_, current_);
    std::vector<void*>& waiting = waiting_[rounded];
    if (!waiting.empty()) {
      void* p = waiting.back();
      waiting.pop_back();
      return p;
    }
    if (rounded >= ownRegion_ || rounded > left_) {
      int64_t region = rounded >= ownRegion_ ? rounded : std::min(leastRegion_, std::max(rounded, limit_));
      void* fresh = nullptr;
      while (!fresh) {
        try {
          fresh = allocateOrTrim(region);
        } catch (const Failure& failure) {
          const bool canBeSmaller = failure.kind == FailureKind::outOfMemory && region / 2 >= std::max(rounded, smallestRegion);
          if (!canBeSmaller) {
            current_ -= rounded;
            throw;
          }
          region /= 2;
        }
      }
      regions_.insert(fresh);
      least_ = std::min(least_, runtime::freeBytes());
      // A block as long as its region leaves the rest of the last one in use.
      if (region == rounded) return fresh;
      next_ = static_cast<char*>(fresh);
      left_ = region;
    }
    void* p = next_;
    next_ += rounded;
    left_ -= rounded;
    return p;
  }
  void give(void* p, int64_t bytes) {
    const int64_t rounded = roundUp(bytes);
    current_ -= rounded;
    waiting_[rounded].push_back(p);
  }
  /// Gives large blocks that nobody holds back to the driver.
  void trim() {
    for (auto& [size, blocks] : waiting_) {
      if (size < ownRegion_) continue;  // else each is a region of its own
      for (void* p : blocks) {
        regions_.erase(p);
        runtime::release(p);
      }
      blocks.clear();
    }
  }
  /// Peaks count from now on, without what only waits to be used again.
  void resetPeak() {
    trim();
    peak_ = current_;
    least_ = runtime::freeBytes();
  }
  /// Blocks in use may not come to more than this.
  void limitTo(int64_t bytes) { limit_ = bytes; }
  int64_t currentBytes() const { return current_; }
  int64_t peakBytes() const { return peak_; }
  /// What the device had less free at the worst than before the pool.
  int64_t devicePeakBytes() const { return free_ - least_; }

 private:
  static constexpr int64_t smallestRegion = 2 << 20;
  void* allocateOrTrim(int64_t bytes) {
    try {
      return runtime::allocate(bytes);
    } catch (const Failure& failure) {
      if (failure.kind != FailureKind::outOfMemory) throw;
    }
    trim();  // sizes that grow from step to step leave many behind
    return runtime::allocate(bytes);
  }
  int64_t leastRegion_, ownRegion_, alignment_, free_, least_, limit_ = INT64_MAX, current_ = 0, peak_ = 0, left_ = 0;
  char* next_ = nullptr;
  std::unordered_set<void*> regions_;
  std::unordered_map<int64_t, std::vector<void*>> waiting_;  // by rounded size
};

/// An owned block of a pool.
class DeviceBlock {
 public:
  DeviceBlock() = default;
  DeviceBlock(DevicePool& pool, int64_t bytes) : pool_(&pool), data_(pool.take(bytes)), bytes_(bytes) {}
  DeviceBlock(DeviceBlock&& other) noexcept { swap(other); }
  DeviceBlock& operator=(DeviceBlock&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBlock() {
    if (data_) pool_->give(data_, bytes_);
  }
  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  int64_t allocatedBytes() const { return data_ ? pool_->roundUp(bytes_) : 0; }
  template <class T>
  Global<T> view() const {
    return Global<T>(static_cast<T*>(data_), bytes_ / static_cast<int64_t>(sizeof(T)));
  }

 private:
  void swap(DeviceBlock& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  DevicePool* pool_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace fastmqa::gpu
