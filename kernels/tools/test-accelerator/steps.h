// What a decode step of a whole model asks of the device, counted where the device is the CPU (cuda/backend/runtime-host.cpp).
#pragma once
#include <string>

#include "fastmqa/accelerator.h"
#include "layer/point.h"

/// @param perLayer  kernels that a layer starts in a step
void countsStep(const fastmqa::Accelerator& accelerator, const std::string& name, const fastmqa::Technique& technique, int perLayer);
