// Starting the kernels of a decoder that are neither products nor attention.
#pragma once
#include "../kernels/decoder.h"
#include "launch.h"

namespace fastmqa::gpu {

int embed(const EmbedProblem& problem, Stream stream);
int normalise(const NormProblem& problem, int64_t rows, Stream stream);
int eachElement(const ElementProblem& problem, Stream stream);

}  // namespace fastmqa::gpu
