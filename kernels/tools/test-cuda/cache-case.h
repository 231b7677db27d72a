// Appending, quantising and projecting against the CPU's codec and fp64.
#pragma once
#include "attention-case.h"

namespace fastmqa::gpu {

struct AppendCase {
  std::string name;
  Dtype fromType = Dtype::f32, cacheType = Dtype::f16;
  Sharing sharing = Sharing::tensor;
  int group = 32;
  bool symmetric = false;
  int channels = 64, kvHeads = 2, batch = 2, tokens = 3, length = 62;
  int pairs = 0;
  bool interleaved = false;
  float magnitude = 1;
  int misfits = 0;  ///< expected
};

struct AppendResult {
  int numbersWrong = 0;  ///< codes, scales or numbers that differ from the codec's
  int outside = 0;       ///< bytes written that belong to no new token
  int misfits = 0;
};

/// A cache read back as rows, by the codec's definition of what it holds.
struct ExpandCase {
  Dtype cacheType = Dtype::int8;
  Sharing sharing = Sharing::token;
  int group = 16;
  bool symmetric = false;
  int channels = 48, heads = 2, batch = 2, tokens = 70, firstToken = 3, pairs = 0;
};

std::vector<AppendCase> appendCases();
AppendResult runAppend(const AppendCase& c);
/// Returns how many numbers are wrong.
int runExpand(const ExpandCase& c);
CaseResult runProduct(int m, int n, int k, Dtype type, Dtype outType, const Device& device);

}  // namespace fastmqa::gpu
