// A decoder on a device of an accelerator.
#pragma once
#include "decoder.h"
#include "fastmqa/accelerator.h"

namespace fastmqa {

/// The model's weights that no level changes go to the device once, and stay there while they are those asked for last.
/// @param numbers  type of weights and activations: f32, f16 or bf16
/// @param attention  of the layers, which outlive the executor
/// @param positions  most tokens of a sequence
std::unique_ptr<Executor> executeOn(const Accelerator& accelerator, int device, Dtype numbers, const std::shared_ptr<const DecoderWeights>& weights,
                                    const std::vector<std::unique_ptr<AttentionLayer>>& attention, const std::vector<Technique>& techniques,
                                    int64_t positions, const CancelFlag* cancel);

/// Takes the weights that no decoder works with off their device, where something else is to have its memory.
void forgetDeviceModels();

}  // namespace fastmqa
