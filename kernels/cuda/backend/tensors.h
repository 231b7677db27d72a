// Attention on given numbers, through the same cache and kernels as a layer.
#pragma once
#include "fastmqa/accelerator.h"

namespace fastmqa::gpu {

/// @throws Failure refused for what no kernel takes
void attendTensors(int device, const AcceleratorTensors& request);

}  // namespace fastmqa::gpu
