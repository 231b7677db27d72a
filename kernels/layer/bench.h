// The kernels against the ceilings of this machine, both read in the same rounds.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fastmqa/status.h"

namespace fastmqa {

struct BenchCase {
  std::string name;   ///< "prefill P1 f32", "decode D1 int8", …
  std::string shape;  ///< "B4 H32 G32 D64 S8192"
  double flops = 0;   ///< operations of a step (causal prefill counts half)
  double bytes = 0;   ///< bytes of cache or weights that a step must read
  double medianSeconds = 0;
  double fmaFlopsPerSecond = 0, readBytesPerSecond = 0;  ///< medians of the ceilings read between its samples
};

struct BenchOptions {
  int64_t decodeTokens = 32768;  ///< context of the decode cases
  double secondsPerCase = 1;
  /// Each timed step follows an untimed one. Otherwise it follows the reading of the ceilings, which leaves the caches cold, as
  /// the other layers of a model would.
  bool warm = false;
  std::string only;  ///< runs the cases whose name contains it
};

/// Runs every case; `told` sees each as it is done.
std::vector<BenchCase> runBench(const BenchOptions& options, const std::function<void(const BenchCase&)>& told,
                                const CancelFlag* cancel);

}  // namespace fastmqa
