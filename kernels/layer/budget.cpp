#include "budget.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "fastmqa/status.h"

namespace fastmqa {

Dtype dtypeOfBits(int bits) {
  switch (bits) {
    case 16: return Dtype::f16;
    case 8: return Dtype::int8;
    case 4: return Dtype::int4;
    case 3: return Dtype::int3;
    case 2: return Dtype::int2;
    default: refuse("expected 2, 3, 4, 8 or 16 bits for a latent band but received " + std::to_string(bits));
  }
}

StoreSpec latentStore(std::vector<Band> bands, Layout layout, int64_t groupSize) {
  StoreSpec spec;
  for (const Band& b : bands) spec.channels += b.channels;
  spec.bands = std::move(bands);
  spec.layout = layout;
  spec.groupSize = groupSize;
  return spec;
}

std::vector<StoreSpec> separateStores(const Technique& t, int64_t rankKey, int64_t rankValue) {
  return {latentStore({{rankKey, t.keyDtype, t.symmetric}}, Layout::channelRows, t.keyGroupSize),
          latentStore({{rankValue, t.valueDtype, t.symmetric}}, Layout::tokenRows, t.valueGroupSize)};
}

std::vector<std::pair<int64_t, int64_t>> splitsOf(const Technique& t, int64_t most) {
  constexpr int64_t eights = 8;  // rows of values are stored in whole eights of channels
  std::vector<std::pair<int64_t, int64_t>> splits;
  const auto cost = [&](int64_t rankKey, int64_t rankValue) {
    const auto stores = separateStores(t, rankKey, rankValue);
    return stores[0].pageBytes() + stores[1].pageBytes();
  };
  int64_t dearest = 0, rankKey = 0;
  for (int64_t rankValue = (most + eights - 1) / eights * eights; rankValue > 0; rankValue -= eights) {
    const int64_t values = std::min(rankValue, most);
    const auto fits = [&](int64_t keys) {
      return static_cast<double>(cost(keys, values)) <= t.adaptiveBudgetBytes * static_cast<double>(StoreSpec{}.pageTokens);
    };
    while (rankKey < most && fits(rankKey + 1)) rankKey++;
    if (rankKey == 0) continue;
    const int64_t spent = cost(rankKey, values);
    if (spent > dearest) splits.clear();
    if (spent >= dearest) splits.emplace_back(rankKey, values);
    dearest = std::max(dearest, spent);
  }
  return splits;
}

std::vector<Band> waterFilling(const std::vector<double>& energy, double budget, int64_t groupSize) {
  constexpr int64_t run = 32;
  constexpr int choices[] = {0, 2, 3, 4, 8};
  const int64_t runs = static_cast<int64_t>(energy.size()) / run;
  std::vector<double> mu(static_cast<size_t>(runs), 0.0);
  for (int64_t i = 0; i < runs * run; i++) mu[static_cast<size_t>(i / run)] += std::max(energy[static_cast<size_t>(i)], 1e-300) / run;
  const int64_t groups = (run + groupSize - 1) / groupSize;
  const auto costOf = [&](int bits) { return bits ? run * bits / 8.0 + static_cast<double>(groups * (bits == 8 ? 2 : 4)) : 0.0; };
  const auto bitsAt = [&](double lambda) {
    std::vector<int> bits;
    for (double m : mu) {
      const double ideal = std::max(0.0, 0.5 * std::log2(m / lambda));
      int best = 0;
      for (int c : choices)
        if (std::fabs(c - ideal) < std::fabs(best - ideal)) best = c;
      bits.push_back(best);
    }
    return bits;
  };
  const auto cost = [&](const std::vector<int>& bits) {
    double sum = 0;
    for (int b : bits) sum += costOf(b);
    return sum;
  };
  double low = -1100, high = 1100;  // log2 of lambda
  for (int i = 0; i < 100; i++) {
    const double middle = (low + high) / 2;
    (cost(bitsAt(std::exp2(middle))) <= budget ? high : low) = middle;
  }
  std::vector<int> bits = bitsAt(std::exp2(high));
  for (bool spent = true; spent;) {  // the remainder: raise the run that gains most and still fits
    spent = false;
    double bestGain = 0;
    size_t bestRun = 0;
    int bestBits = 0;
    const double left = budget - cost(bits);
    for (size_t i = 0; i < bits.size(); i++)
      for (int c : choices)
        if (c > bits[i] && costOf(c) - costOf(bits[i]) <= left && (i == 0 || c <= bits[i - 1])) {
          const double gain = mu[i] * (std::exp2(-2.0 * bits[i]) - std::exp2(-2.0 * c)) / (costOf(c) - costOf(bits[i]));
          if (gain > bestGain) bestGain = gain, bestRun = i, bestBits = c;
          break;
        }
    if (bestGain > 0) bits[bestRun] = bestBits, spent = true;
  }
  std::vector<Band> bands;
  for (int b : bits) {
    if (b == 0) break;
    if (bands.empty() || bitsOf(bands.back().dtype) != b) bands.push_back({0, dtypeOfBits(b), b == 8});
    bands.back().channels += run;
  }
  if (bands.empty()) refuse("expected an adaptive budget of at least " + std::to_string(costOf(2)) + " bytes a token but received " + std::to_string(budget));
  return bands;
}

}  // namespace fastmqa
