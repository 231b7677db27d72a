// The kernels against the ceilings of this machine: fastmqa-bench [tokens] [only] [warm] prints a table.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "layer/bench.h"

int main(int argc, char** argv) {
  fastmqa::BenchOptions options;
  if (argc > 1) options.decodeTokens = std::atoll(argv[1]);
  if (argc > 2) options.only = argv[2];
  options.warm = argc > 3 && !std::strcmp(argv[3], "warm");
  std::printf("%-26s %-24s %10s %9s %6s %8s %6s\n", "case", "shape", "ms", "GFLOP/s", "/fma", "GB/s", "/read");
  fastmqa::runBench(options, [](const fastmqa::BenchCase& c) {
    std::printf("%-26s %-24s %10.3f %9.1f %6.2f %8.1f %6.2f\n", c.name.c_str(), c.shape.c_str(), c.medianSeconds * 1e3,
                c.flops / c.medianSeconds * 1e-9, c.flops / c.medianSeconds / c.fmaFlopsPerSecond,
                c.bytes / c.medianSeconds * 1e-9, c.bytes / c.medianSeconds / c.readBytesPerSecond);
    std::fflush(stdout);
  }, nullptr);
}
