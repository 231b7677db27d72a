// A mixture of experts in place of an MLP (DeepSeek-V2 and -V3): a router chooses a few of many gated MLPs for every token,
// shared ones read all tokens.
#pragma once
#include <vector>

#include "activation.h"
#include "math/gemm.h"

namespace fastmqa {

struct ExpertShape {
  int64_t experts = 0;  ///< that the router chooses from; 0: no layer has any
  int64_t chosen = 0;   ///< for a token
  int64_t mlpDim = 0, sharedMlpDim = 0;  ///< of one expert; of all shared ones together, 0 without any
  int64_t firstLayer = 0, everyLayers = 1;  ///< layers from the first on, every so manyth, have experts
  bool sigmoid = false;    ///< scores of experts are sigmoids of the router's logits (V3), else their softmax (V2)
  /// Experts stand in groups, of which the best few are looked at; 1: one group of all. A group is worth its best expert, or
  /// with `sigmoid` the sum of its two best.
  int64_t groups = 1, chosenGroups = 1;
  bool normalises = false;  ///< the scores of those chosen are divided by their sum
  double scaling = 1;       ///< of what the experts give, shared ones apart
  bool has(int64_t layer) const { return experts > 0 && layer >= firstLayer && layer % everyLayers == 0; }
};

/// A gated MLP without biases: down (act(gate x) * up x).
struct GatedMlp {
  PackedWeights gate, up, down;
  /// x, y [rows][d]; what lies between takes its room from `arena`.
  void run(Arena& arena, const float* x, int64_t rows, Activation activation, float* y) const;
};

/// Which experts a token goes to, and what each of them counts.
struct Route {
  std::vector<int64_t> experts;
  std::vector<double> weights;
};
/// @param logits [experts] of the router  @param bias [experts] added to scores where experts are chosen, not where they are weighed; or empty
Route routeOf(const ExpertShape& shape, const float* logits, const std::vector<float>& bias);

struct Experts {
  ExpertShape shape;
  PackedWeights router;           ///< [experts][d]
  std::vector<float> routerBias;  ///< [experts] or empty
  std::vector<GatedMlp> experts;
  GatedMlp shared;
  /// x, y [rows][d]; what lies between takes its room from `arena`.
  void run(Arena& arena, const float* x, int64_t rows, Activation activation, float* y) const;
};

}  // namespace fastmqa
