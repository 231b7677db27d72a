// How a latent cache spends its bytes: ranks of keys and values, and bits along the coordinates (attention-spec B.9).
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/cache.h"
#include "fastmqa/problem.h"

namespace fastmqa {

/// The type of a latent's band. @throws Failure refused for bits other than 2, 3, 4, 8 and 16
Dtype dtypeOfBits(int bits);

StoreSpec latentStore(std::vector<Band> bands, Layout layout, int64_t groupSize);

/// Keys, then values.
std::vector<StoreSpec> separateStores(const Technique& technique, int64_t rankKey, int64_t rankValue);

/// Ranks of keys and values, each at most `most`, that spend an adaptive budget: those whose pages cost most within it, by
/// falling rank of the values. Twin of `dearestSplit` in src-main/engine/memory-plan.ts.
std::vector<std::pair<int64_t, int64_t>> splitsOf(const Technique& technique, int64_t most);

/// Bits per run of 32 coordinates by reverse water-filling (attention-spec B.9), never more than `budget` bytes a token.
/// Bands of several runs share groups larger than a run, so a run costs a whole group at the most.
/// @param energy of the coordinates, descending
/// @throws Failure refused for a budget below the cheapest run
std::vector<Band> waterFilling(const std::vector<double>& energy, double budget, int64_t groupSize);

}  // namespace fastmqa
