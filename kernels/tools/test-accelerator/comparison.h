// A point on the CUDA backend beside the same point on the CPU.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "layer/point.h"
#include "test-engine/checks.h"

/// @param tolerance  of the relative L2 against fp64. Neither may it be better than the CPU's: then it would measure something else
inline void comparePoints(const std::string& name, fastmqa::MeasuredPoint& gpu, fastmqa::MeasuredPoint& cpu, double tolerance) {
  const double expected = cpu.error().relativeL2, got = gpu.error().relativeL2;
  std::printf("# %s: relative L2 %.3g, on the CPU %.3g\n", name.c_str(), got, expected);
  check::report(std::fabs(got - expected) <= tolerance, name, got, "about ", expected);
  const fastmqa::CacheBytes &a = gpu.memory().cache, &b = cpu.memory().cache;
  check::report(a.logical == b.logical, name + " bytes by formula", a.logical, "", b.logical);
  // Pages alike; rows are rounded up elsewhere.
  check::report(static_cast<double>(a.allocated) <= 1.02 * static_cast<double>(b.allocated) + 4096, name + " bytes as on the CPU", static_cast<double>(a.allocated), "at most about ",
                static_cast<double>(b.allocated));
  check::report(a.payload + a.scales + a.sinks + a.residual + a.slack + a.table == a.allocated && static_cast<double>(a.allocated) >= a.logical, name + " bytes allocated",
                static_cast<double>(a.allocated), "at least ", a.logical);
  const std::vector<double> samples = gpu.sample(0.001, 3);
  check::report(!samples.empty() && samples.size() <= 3 && samples[0] > 0, name + " samples", static_cast<double>(samples.size()), "1 to ", 3);
  check::report(gpu.memory().peakBytes >= a.allocated, name + " peak", static_cast<double>(gpu.memory().peakBytes), "at least ", static_cast<double>(a.allocated));
}
