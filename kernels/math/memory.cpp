#include "fastmqa/memory.h"

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastmqa {
namespace {

constexpr int64_t hugePage = 2 << 20;
constexpr int64_t regionBytes = 16 * hugePage;
#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t carvedFrom = INT64_MAX;  // the sanitizer sees the edges of what comes from malloc only
#else
constexpr int64_t carvedFrom = 16 << 10;  // smaller ones come from malloc
#endif

}  // namespace

Arena::~Arena() {
  for (const auto& region : regions_) std::free(region.first);
}

void* Arena::carve(int64_t rounded) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& free = free_[rounded];
  if (!free.empty()) {
    void* p = free.back();
    free.pop_back();
    return p;
  }
  if (left_ < rounded) {
    const int64_t size = std::max(regionBytes, (rounded + hugePage - 1) / hugePage * hugePage);
    void* region = std::aligned_alloc(static_cast<size_t>(hugePage), static_cast<size_t>(size));
    if (!region) return nullptr;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(region, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint: refused is as good as granted
#endif
    regions_.emplace_back(region, size);
    next_ = static_cast<char*>(region);
    left_ = size;
  }
  void* p = next_;
  next_ += rounded;
  left_ -= rounded;
  return p;
}

void* Arena::allocate(int64_t bytes) {
  const int64_t rounded = roundUp(bytes);
  const int64_t now = current_.fetch_add(rounded) + rounded;
  void* p = nullptr;
  if (now <= limit_) p = rounded >= carvedFrom ? carve(rounded) : std::aligned_alloc(alignment, static_cast<size_t>(rounded));
  if (!p) {
    current_ -= rounded;
    throw Failure(FailureKind::outOfMemory, "out of memory: " + std::to_string(bytes) + " bytes were refused with " +
                                                std::to_string(now - rounded) + " in use");
  }
  for (int64_t top = peak_; now > top && !peak_.compare_exchange_weak(top, now);) {
  }
  return p;
}

void Arena::release(void* p, int64_t bytes) {
  const int64_t rounded = roundUp(bytes);
  current_ -= rounded;
  if (rounded < carvedFrom) return std::free(p);
  std::lock_guard<std::mutex> lock(mutex_);
  free_[rounded].push_back(p);
}

}  // namespace fastmqa
