// How the engine says no. Nothing in the engine calls exit or abort.
#pragma once
#include <atomic>
#include <stdexcept>
#include <string>

namespace fastmqa {

/// poisoned: a device is in a state that only the end of the process heals.
enum class FailureKind { refused, outOfMemory, cancelled, failed, poisoned };

/// Thrown across the engine; `refused` means the request itself cannot be met.
struct Failure : std::runtime_error {
  FailureKind kind;
  Failure(FailureKind k, const std::string& message) : std::runtime_error(message), kind(k) {}
};

[[noreturn]] inline void refuse(const std::string& message) { throw Failure(FailureKind::refused, message); }

/// Raised by the host from another thread; long work looks at it between tiles and steps.
class CancelFlag {
 public:
  void raise() { raised_ = true; }
  void clear() { raised_ = false; }
  bool isRaised() const { return raised_.load(std::memory_order_relaxed); }
  void check() const {
    if (isRaised()) throw Failure(FailureKind::cancelled, "cancelled");
  }

 private:
  std::atomic<bool> raised_{false};
};

}  // namespace fastmqa
