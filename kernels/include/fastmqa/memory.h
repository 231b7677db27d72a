// Counted memory: what the profiler reports as "allocated" and "peak" is read off here, never off a formula.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "status.h"

namespace fastmqa {

/// One account of bytes, for one sweep point. Every allocation is aligned to, and rounded up to, 64 bytes.
/// Large ones are carved from regions backed by huge pages where the system grants them (a cache is read once a step,
/// in no order that hardware could guess: with small pages address translation costs more than the bytes), and are
/// handed out again for the same size, so that a repeated step meets no page fault.
class Arena {
 public:
  explicit Arena(int64_t limitBytes = INT64_MAX) : limit_(limitBytes) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  /// Uninitialised memory. @throws Failure outOfMemory
  void* allocate(int64_t bytes);
  void release(void* p, int64_t bytes);
  int64_t currentBytes() const { return current_; }
  int64_t peakBytes() const { return peak_; }
  void resetPeak() { peak_ = current_.load(); }
  static int64_t roundUp(int64_t bytes) { return bytes <= 0 ? alignment : (bytes + alignment - 1) / alignment * alignment; }

 private:
  static constexpr int64_t alignment = 64;
  void* carve(int64_t rounded);

  const int64_t limit_;
  std::atomic<int64_t> current_{0}, peak_{0};
  std::mutex mutex_;
  std::vector<std::pair<void*, int64_t>> regions_;
  std::unordered_map<int64_t, std::vector<void*>> free_;  // by rounded size
  char* next_ = nullptr;                                  // unused rest of the last region
  int64_t left_ = 0;
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
