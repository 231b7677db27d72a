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
#include "math/rope.h"
#include "recent.h"
#include "reference/synthetic.h"

namespace fastmqa {

/// f32 weights of one attention layer, row-major, y = x W^T. The values are exact: the reference uses them in fp64.
struct LayerWeights {
  int64_t d = 0, heads = 0, kvHeads = 0, headDim = 0;
  std::vector<float> wq;  ///< [heads * headDim][d]
  std::vector<float> wk;  ///< [kvHeads * headDim][d]
  std::vector<float> wv;  ///< [kvHeads * headDim][d]
  std::vector<float> wo;  ///< [d][heads * headDim]
  // What some trained models add; empty or zero where a model has none.
  std::vector<float> bq, bk, bv, bo;
  std::vector<float> queryNorm, keyNorm;  ///< [headDim] RMSNorm of every head, before the rotary embedding
  double normEpsilon = 1e-6;
  double scale = 0;    ///< of the scores; 0: 1 / sqrt(headDim)
  double softcap = 0;  ///< scores become softcap * tanh(score / softcap)
  int64_t window = 0;  ///< keys a query sees in the model itself: such a layer is not windowed further and has no sinks
  RopeParameters rope;  ///< rotaryDim 0: no rotary embedding
};

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
  bool isSynthetic() const { return synthetic_ != nullptr; }
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
  std::vector<std::vector<float>> x;        ///< per sequence [seqLen + extraTokens][d]
  int64_t extraTokens = 0;                  ///< inputs beyond seqLen, for decode and verify steps
  std::vector<int64_t> positions;           ///< ascending
  std::vector<std::vector<double>> y;       ///< per sequence [positions][d]
  double zeroOutput = 1, uniformAttention = 0, independentLayer = 0;  ///< controls: relative L2
};

/// Made once per (model, batch, seqLen, seed) and kept while it is the last one asked for.
std::shared_ptr<const ReferenceModel> referenceModel(const ModelSpec& spec);
std::shared_ptr<const Workload> workload(const std::shared_ptr<const ReferenceModel>& model, int64_t batch,
                                         int64_t seqLen, uint64_t seed);
/// Seeds of the streams of a batch, and of calibration: disjoint for every batch size.
uint64_t evaluationSeed(uint64_t seed, int64_t sequence);
uint64_t calibrationSeed(uint64_t seed, int64_t stream);

}  // namespace fastmqa
