// A decoder on the CPU.
#pragma once
#include "decoder.h"

namespace fastmqa {

/// @param attention  of the layers, which outlive the executor
std::unique_ptr<Executor> executeOnCpu(Arena& arena, std::shared_ptr<const DecoderWeights> weights,
                                       const std::vector<std::unique_ptr<AttentionLayer>>& attention, const CancelFlag* cancel);

}  // namespace fastmqa
