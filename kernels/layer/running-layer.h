// A layer with the caches of a batch of sequences of equal length, wherever it runs. What a sweep point asks of a backend.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "layer.h"

namespace fastmqa {

/// What was noticed while samples were taken.
struct SampleConditions {
  int64_t throttled = 0;        ///< samples discarded because the device slowed itself down
  int64_t foreignProcesses = 0; ///< others on the device
  int64_t graphNodes = 0;       ///< of a step that was recorded and started as one
};

class RunningLayer {
 public:
  using Inputs = std::vector<const float*>;  ///< of each sequence, rows of hiddenDim numbers
  virtual ~RunningLayer() = default;

  /// Appends tokens without attending, settling as it goes if asked to.
  virtual void fill(const Inputs& x, int64_t tokens, bool settles) = 0;
  virtual void settle() = 0;
  /// Attends from tokens that are in the caches already. y [batch][tokens][d].
  virtual void attendAt(const Inputs& x, int64_t firstPosition, int64_t tokens, float* y) = 0;
  /// Whole prompts into empty caches; what came before is dropped. y [batch][positions][d], of those positions only.
  virtual void prefill(const Inputs& x, int64_t tokens, const std::vector<int64_t>& positions, float* y) = 0;
  int64_t length() const { return length_; }

  virtual const CacheSpec& cacheSpec() const = 0;
  virtual CacheBytes cacheBytes() const = 0;
  virtual int64_t peakBytes() const = 0;
  virtual int64_t extraWeightBytes() const = 0;
  virtual Work prefillWork(int64_t tokens) const = 0;
  virtual Work stepWork(int64_t tokens, int64_t visible, int64_t cacheBytes) const = 0;

  /// The step to be timed appends these tokens to what is cached; it is run once. Without it the step is the last prefill.
  virtual void prepareStep(const Inputs& x, int64_t tokens) = 0;
  /// Seconds per step, at least one, until `seconds` have passed or `most` are taken.
  virtual std::vector<double> sample(double seconds, int64_t most) = 0;
  virtual SampleConditions conditions() const { return {}; }

 protected:
  int64_t length_ = 0;
};

/// What the layer costs beyond the reference model's own projections.
int64_t extraWeightBytes(const ReferenceModel& model, int64_t weightBytes, int64_t numberBytes);

/// Times steps on the host's clock, several at once where one is too short for it.
std::vector<double> sampleSteps(const std::function<void()>& step, double seconds, int64_t most, const CancelFlag* cancel);

/// Where a point runs: -1 the CPU, else the number of a CUDA device. @throws Failure
std::unique_ptr<RunningLayer> runLayer(int device, const std::shared_ptr<const ReferenceModel>& model, const PointSpec& spec, int64_t positions,
                                       const CancelFlag* cancel);

}  // namespace fastmqa
