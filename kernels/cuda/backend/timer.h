// Timing a step on its lane: recorded as a graph where it can be, by the device's own events, with the L2 cache overwritten
// before each, and what a slowed device gives left out.
#pragma once
#include <functional>

#include "lane.h"

namespace fastmqa::gpu {

class Timer {
 public:
  /// Runs the step once, so that recording it asks for no memory, records it, and warms the device up.
  Timer(Lane& lane, std::function<void()> step);
  void sample(double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to);

 private:
  void settleClocks();
  Lane& lane_;
  std::unique_ptr<runtime::Graph> step_;
  DevicePool flushPool_;
  DeviceBlock flush_;
  int64_t cacheBytes_;
};

}  // namespace fastmqa::gpu
