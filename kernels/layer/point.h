// One sweep point: built, compared with the reference, then timed.
#pragma once
#include <memory>
#include <vector>

#include "running-layer.h"

namespace fastmqa {

struct Accelerator;

struct PointMemory {
  CacheBytes cache;           ///< of the whole batch, after its last token
  int64_t cachedTokens = 0;   ///< tokens a cache has seen, per sequence
  int64_t ownTokens = 0;      ///< tokens that a whole model itself would cache, summed over its layers; 0 for one layer
  int64_t peakBytes = 0;      ///< everything allocated for the point, cache, weights and workspace
  int64_t extraWeightBytes = 0;
};

struct PointError {
  double relativeL2 = 0, cosine = 0, rms = 0, maxAbs = 0, referenceRms = 0, tokenMedian = 0, tokenP95 = 0;
  std::vector<int64_t> positions;
};

/// Something that was built and checked, and can now be timed.
class TimedPoint {
 public:
  explicit TimedPoint(const CancelFlag* cancel) : cancel_(cancel) {}
  virtual ~TimedPoint() = default;
  const PointMemory& memory() const { return memory_; }
  const PointError& error() const { return error_; }
  Work work() const { return work_; }
  /// Times steps until `seconds` have passed or `most` samples are taken, at least one. Seconds per step.
  virtual std::vector<double> sample(double seconds, int64_t most) = 0;
  virtual SampleConditions conditions() const { return {}; }

 protected:
  const CancelFlag* cancel_;
  PointMemory memory_;
  PointError error_;
  Work work_;
};

/// Adds up how far outputs are from their reference, row by row.
class ErrorSum {
 public:
  /// @throws Failure failed, for an output that is not finite
  template <class Reference>
  void add(const float* out, const Reference* reference, int64_t width);
  PointError result() const;

 private:
  double difference_ = 0, reference_ = 0, cosines_ = 0, largest_ = 0;
  int64_t numbers_ = 0;
  std::vector<double> rows_;
};

/// One attention layer under a level, against fp64.
class MeasuredPoint : public TimedPoint {
 public:
  /// Builds the layer, fills its caches, and compares its output with the fp64 reference.
  /// @throws Failure: refused (the point cannot exist), outOfMemory, cancelled, failed (a non-finite output)
  MeasuredPoint(const PointSpec& spec, const CancelFlag* cancel);
  /// The same for a given layer and the inputs it is to be judged on.
  MeasuredPoint(const PointSpec& spec, std::shared_ptr<const ReferenceModel> model, std::shared_ptr<const Workload> workload, const CancelFlag* cancel);

  /// @param accelerator  stands for the CUDA library, in tests
  MeasuredPoint(const PointSpec& spec, const Accelerator& accelerator, const CancelFlag* cancel);
  MeasuredPoint(const PointSpec& spec, std::shared_ptr<const ReferenceModel> model, std::shared_ptr<const Workload> workload,
                const Accelerator* accelerator, const CancelFlag* cancel);

  const Workload& inputs() const { return *workload_; }
  std::vector<double> sample(double seconds, int64_t most) override { return layer_->sample(seconds, most); }
  SampleConditions conditions() const override { return layer_->conditions(); }

 private:
  RunningLayer::Inputs inputsFrom(int64_t token) const;
  void evaluatePrefill();
  void evaluateSteps();
  void compare(const std::vector<float>& outputs, const std::vector<size_t>& used);
  std::vector<size_t> positionsUsed() const;

  PointSpec spec_;
  std::shared_ptr<const ReferenceModel> model_;
  std::shared_ptr<const Workload> workload_;
  std::unique_ptr<RunningLayer> layer_;
};

/// Fused multiply-adds and bytes read per second on all cores, each the best of several short runs.
struct Ceilings {
  double fmaFlopsPerSecond, readBytesPerSecond;
};
Ceilings measureCeilings();

}  // namespace fastmqa
