// Starting the kernels around attention: appending to a cache, quantising groups of tokens, projections.
#pragma once
#include "../kernels/append.h"
#include "../kernels/expand.h"
#include "../kernels/move.h"
#include "launch.h"

namespace fastmqa::gpu {

struct ProductProblem;
enum class ActivationKind : int;

/// Appends tokens in formats that need no other token: floating types, integers per token or per tensor.
/// @throws Failure refused
int append(AppendProblem problem, Stream stream);

/// Quantises whole groups of tokens per channel; sides[0] only.
/// @throws Failure refused
int settle(AppendProblem problem, Stream stream);

/// Reads tokens of a cache back as rows.
int expand(const ExpandProblem& problem, Stream stream);

/// Copies channels of heads from rows of one kind into rows of another, rotating them if asked to.
int move(const MoveProblem& problem, Stream stream);

/// Rotates rows in place; nothing where there are no pairs.
int rotate(const RotateProblem& problem, Stream stream);

/// y = x W^T (+ bias) on the matrix unit where type, size and device allow, else in f32.
int multiplyMatrices(const ProductProblem& problem, const Device& device, Stream stream);

/// `count` of them that differ in w, y, bias and n alone: where the rows are few, several in a launch.
int multiplyMatrices(const ProductProblem* problems, int count, const Device& device, Stream stream);

/// y = (activation(first k numbers of a row of x) * the next k) W^T (+ bias); for rows so few and short that `gatesInProduct`.
int multiplyGated(const ProductProblem& problem, ActivationKind activation, const Device& device, Stream stream);
bool gatesInProduct(int64_t m, int64_t k, const Device& device);

}  // namespace fastmqa::gpu
