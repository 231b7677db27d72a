// Counted memory: what the profiler reports as "allocated" and "peak" is read off here, never off a formula.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "status.h"

namespace fastmqa {

/// One account of bytes, for one sweep point. Every allocation is aligned to, and rounded up to, 64 bytes.
class Arena {
 public:
  explicit Arena(int64_t limitBytes = INT64_MAX) : limit_(limitBytes) {}
  void* allocate(int64_t bytes) {
    const int64_t rounded = roundUp(bytes);
    const int64_t now = current_.fetch_add(rounded) + rounded;
    void* p = now <= limit_ ? std::aligned_alloc(alignment, static_cast<size_t>(rounded)) : nullptr;
    if (!p) {
      current_ -= rounded;
      throw Failure(FailureKind::outOfMemory, "out of memory: " + std::to_string(bytes) + " bytes were refused with " +
                                                  std::to_string(now - rounded) + " in use");
    }
    for (int64_t top = peak_; now > top && !peak_.compare_exchange_weak(top, now);) {
    }
    return p;
  }
  void release(void* p, int64_t bytes) {
    std::free(p);
    current_ -= roundUp(bytes);
  }
  int64_t currentBytes() const { return current_; }
  int64_t peakBytes() const { return peak_; }
  void resetPeak() { peak_ = current_.load(); }
  static int64_t roundUp(int64_t bytes) { return bytes <= 0 ? alignment : (bytes + alignment - 1) / alignment * alignment; }

 private:
  static constexpr int64_t alignment = 64;
  const int64_t limit_;
  std::atomic<int64_t> current_{0}, peak_{0};
};

/// An owned, counted array of n zeroed elements.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Arena& arena, int64_t n) : arena_(&arena), n_(n) {
    if (n < 0 || n > INT64_MAX / 2 / static_cast<int64_t>(sizeof(T))) refuse("expected a size that fits in memory");
    data_ = static_cast<T*>(arena.allocate(bytes()));
    std::memset(static_cast<void*>(data_), 0, static_cast<size_t>(bytes()));
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(data_, other.data_);
    std::swap(n_, other.n_);
    return *this;
  }
  ~Buffer() {
    if (data_) arena_->release(data_, bytes());
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  int64_t size() const { return n_; }
  int64_t bytes() const { return n_ * static_cast<int64_t>(sizeof(T)); }
  /// What the arena counts for it.
  int64_t allocatedBytes() const { return data_ ? Arena::roundUp(bytes()) : 0; }

 private:
  Arena* arena_ = nullptr;
  T* data_ = nullptr;
  int64_t n_ = 0;
};

}  // namespace fastmqa
