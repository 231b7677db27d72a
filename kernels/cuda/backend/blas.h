// Products by cuBLAS where it is installed; it is found at run time, and everything works without it.
#pragma once
#include "../kernels/product.h"
#include "runtime.h"

namespace fastmqa::gpu::blas {

/// y = x W^T of 16-bit numbers on the stream, without a bias. False where cuBLAS is not there or does not take it.
bool multiply(const ProductProblem& problem, Stream stream);

}  // namespace fastmqa::gpu::blas
