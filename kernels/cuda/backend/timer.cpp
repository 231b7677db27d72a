#include "timer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "nvml.h"

namespace fastmqa::gpu {
namespace {

double secondsNow() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

Timer::Timer(Lane& lane, std::function<void()> step) : lane_(lane), cacheBytes_(runtime::describe(lane.device).cacheBytes) {
  step();
  runtime::finish(lane.stream);
  step_ = std::make_unique<runtime::Graph>(lane.stream, std::move(step));
  if (lane.address[0]) settleClocks();
  flush_ = DeviceBlock(flushPool_, std::max<int64_t>(256, 2 * cacheBytes_));
}

/// Runs until three readings of the clock agree, or for a while where nobody knows it.
void Timer::settleClocks() {
  constexpr double mostSeconds = 0.6, unknownSeconds = 0.2, readingSeconds = 0.03;
  double last = 0;
  int agreeing = 0;
  for (const double start = secondsNow(); agreeing < 3 && secondsNow() - start < mostSeconds;) {
    for (const double from = secondsNow(); secondsNow() - from < readingSeconds;) {
      for (int i = 0; i < 8; i++) step_->start();
      runtime::finish(lane_.stream);
    }
    AcceleratorDevice now{};
    nvml::read(lane_.address, now);
    if (now.clockMHz < 0) {
      if (secondsNow() - start > unknownSeconds) return;
      continue;
    }
    agreeing = std::fabs(now.clockMHz - last) <= 0.02 * now.clockMHz ? agreeing + 1 : 0;
    last = now.clockMHz;
  }
}

void Timer::sample(double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to) {
  to.count = to.throttled = 0;
  const auto flush = [&] {
    if (cacheBytes_ > 0) runtime::clear(flush_.data(), flush_.bytes(), lane_.stream);
  };
  constexpr double batchSeconds = 0.02;
  constexpr int64_t mostOfBatch = 64;
  constexpr int mostDiscarded = 20;
  double step = batchSeconds;
  int discarded = 0;
  std::vector<double> batch;
  AcceleratorDevice now{};
  for (const double start = secondsNow(); to.count == 0 || (to.count < to.most && secondsNow() - start < seconds);) {
    if (cancel && cancel->isRaised(cancel->flag)) throw Failure(FailureKind::cancelled, "cancelled");
    const int64_t n = std::max<int64_t>(1, std::min({mostOfBatch, to.most - to.count, static_cast<int64_t>(batchSeconds / step)}));
    batch.resize(static_cast<size_t>(n));
    runtime::time(lane_.stream, n, flush, [&] { step_->start(); }, batch.data());
    step = std::max(1e-7, *std::min_element(batch.begin(), batch.end()));
    nvml::read(lane_.address, now);
    // What a slowed device gives is no measurement; where it gives nothing else, the count says so.
    if (now.throttleReasons > 0 && (now.throttleReasons & nvml::spoiling)) {
      to.throttled += n;
      if (++discarded < mostDiscarded) continue;
    }
    std::copy(batch.begin(), batch.end(), to.seconds + to.count);
    to.count += n;
  }
  to.foreignProcesses = now.foreignProcesses;
  to.graphNodes = step_->nodes();
}

}  // namespace fastmqa::gpu
