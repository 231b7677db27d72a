// The reference model of a sweep: weights, inputs, fp64 outputs. Every level is derived from these and compared
// with these, so they are made once per shape and shared.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fastmqa/memory.h"
#include "fastmqa/problem.h"
#include "recent.h"
#include "reference/layer.h"
#include "reference/synthetic.h"

namespace fastmqa {

/// Inputs of calibration, each stream [Calibration::streamTokens][d]; they never overlap the evaluation stream.
using CalibrationStreams = std::vector<std::shared_ptr<const std::vector<float>>>;

/// Calibration statistics of the layer input.
struct Calibration {
  static constexpr int64_t streamTokens = 1024;
  CalibrationStreams streams;
  int64_t skipped = 0;                      ///< first tokens of each stream left out of the statistics
  int64_t tokens = 0;                       ///< that entered them
  std::vector<double> mean;                 ///< [d]
  std::vector<double> moment;               ///< [d][d], E[x x^T]
};

struct Projection;  // calibrate.h

class ReferenceModel {
 public:
  /// `knobs`: statistics of the generator (attention-spec D.3); its shape comes from the spec.
  explicit ReferenceModel(const ModelSpec& spec, GeneratorParameters knobs = {});
  /// A layer of a trained model, with the inputs it meets on calibration text: streams of Calibration::streamTokens tokens.
  ReferenceModel(LayerWeights weights, CalibrationStreams streams);
  const ModelSpec& spec() const { return spec_; }
  const LayerWeights& weights() const { return weights_; }
  /// One stream of inputs, [tokens][d]. Synthetic models only.
  std::vector<float> inputs(int64_t tokens, uint64_t seed) const;
  /// The first streams, enough for `tokens` tokens, or all there are. Cached.
  CalibrationStreams calibrationStreams(int64_t tokens, uint64_t inputSeed) const;
  /// Statistics over `tokens` calibration tokens, leaving out the first `skip` of every stream. Cached.
  std::shared_ptr<const Calibration> calibration(int64_t tokens, int64_t skip, uint64_t inputSeed) const;
  /// A full-rank basis of these weights, named by everything it depends on besides them. The last few are kept: a sweep
  /// asks for one basis at many ranks.
  std::shared_ptr<const Projection> basis(const std::string& name, const std::function<Projection()>& make) const;

 private:
  static constexpr size_t keptBases = 2;  // keys and values of a separate latent; at d = 2048 up to 100 MB each

  ModelSpec spec_;
  std::shared_ptr<const SyntheticModel> synthetic_;
  LayerWeights weights_;
  mutable std::mutex streamsMutex_;
  mutable CalibrationStreams streams_;
  mutable uint64_t streamsSeed_ = 0;
  mutable Recent<Calibration, 1> calibrations_;
  mutable Recent<Projection, keptBases> bases_;
};

/// Evaluation inputs and the fp64 outputs at a deterministic sample of query positions:
/// runs of `runTokens` consecutive positions, spread evenly, the last one ending at the last token.
struct Workload {
  static constexpr int64_t runTokens = 8;
  int64_t batch = 0, seqLen = 0;
  int64_t room = 0;                         ///< positions in use: seqLen, and those of a decode or verify step
  std::vector<std::vector<float>> x;        ///< per sequence [seqLen][d], or more rows: the inputs of a step
  std::vector<int64_t> positions;           ///< ascending
  std::vector<std::vector<double>> y;       ///< per sequence [positions][d]
  double zeroOutput = 1, uniformAttention = 0, independentLayer = 0;  ///< controls: relative L2
};

/// fp64 outputs of a layer for given inputs. `stranger`: another layer of the same kind, for the control.
/// @param x per sequence [seqLen][d] or more
std::shared_ptr<const Workload> workloadOf(const LayerWeights& layer, const LayerWeights& stranger,
                                           std::vector<std::vector<float>> x, int64_t seqLen, int64_t room,
                                           const CancelFlag* cancel = nullptr);

/// Made once per (model, batch, seqLen, seed) and kept while it is the last one asked for.
std::shared_ptr<const ReferenceModel> referenceModel(const ModelSpec& spec);
std::shared_ptr<const Workload> workload(const std::shared_ptr<const ReferenceModel>& model, int64_t batch,
                                         int64_t seqLen, uint64_t seed, const CancelFlag* cancel = nullptr);
/// Seeds of the streams of a batch, and of calibration: disjoint for every batch size.
uint64_t evaluationSeed(uint64_t seed, int64_t sequence);
uint64_t calibrationSeed(uint64_t seed, int64_t stream);

}  // namespace fastmqa
