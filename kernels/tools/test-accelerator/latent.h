// Layers of models with multi-head latent attention (DeepSeek) on the CUDA backend.
#pragma once
#include <string>
#include <vector>

#include "fastmqa/accelerator.h"

/// @param names  of checks, of which each begins with "own latent"; none: all
void testOwnLatents(const fastmqa::Accelerator& accelerator, int device, const std::vector<std::string>& names);
