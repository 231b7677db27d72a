#include "running-layer.h"

#include <algorithm>
#include <chrono>

#include "accelerator.h"

namespace fastmqa {
namespace {

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class CpuLayer : public RunningLayer {
 public:
  CpuLayer(std::shared_ptr<const ReferenceModel> model, const PointSpec& spec, int64_t positions, const CancelFlag* cancel)
      : model_(std::move(model)), cancel_(cancel),
        layer_(arena_, *model_, spec.technique, positions, spec.calibrationTokens, spec.inputSeed, cancel) {
    for (int64_t b = 0; b < spec.batch; b++) caches_.push_back(layer_.newCache(arena_));
    resetWorkspaceBytes();
  }

  void fill(const Inputs& x, int64_t tokens, bool settles) override {
    for (size_t b = 0; b < caches_.size(); b++) layer_.fill(*caches_[b], x[b], tokens, settles);
    length_ += tokens;
  }
  void settle() override {
    for (const auto& cache : caches_) cache->settle();
  }
  void attendAt(const Inputs& x, int64_t firstPosition, int64_t tokens, float* y) override {
    for (size_t b = 0; b < caches_.size(); b++)
      layer_.attendAt({caches_[b].get()}, x[b], firstPosition, tokens, y + static_cast<int64_t>(b) * tokens * layer_.hiddenDim());
  }
  void prefill(const Inputs& x, int64_t tokens, const std::vector<int64_t>& positions, float* y) override {
    const int64_t d = layer_.hiddenDim();
    prompts_ = x;
    length_ = tokens;
    outputs_ = Buffer<float>(arena_, tokens * d);
    for (size_t b = 0; b < caches_.size(); b++) {
      prefillOne(b);
      for (int64_t p : positions) y = std::copy_n(outputs_.data() + p * d, d, y);
    }
  }
  const CacheSpec& cacheSpec() const override { return layer_.cacheSpec(); }
  CacheBytes cacheBytes() const override {
    CacheBytes sum;
    for (const auto& cache : caches_) sum += cache->bytes();
    return sum;
  }
  int64_t peakBytes() const override { return arena_.peakBytes() + workspaceBytes(); }
  int64_t extraWeightBytes() const override { return std::max<int64_t>(0, layer_.weightBytes() - weightBytes(model_->weights())); }
  Work prefillWork(int64_t tokens) const override { return layer_.prefillWork(batch(), tokens, sizeof(float), layer_.weightBytes()); }
  Work stepWork(int64_t tokens, int64_t visible, int64_t bytes) const override { return layer_.stepWork(batch(), tokens, visible, bytes, layer_.numberBytes()); }

  void prepareStep(const Inputs& x, int64_t tokens) override {
    const int64_t d = layer_.hiddenDim();
    prompts_.clear();
    stepTokens_ = tokens;
    stepInputs_ = Buffer<float>(arena_, batch() * tokens * d);
    outputs_ = Buffer<float>(arena_, batch() * tokens * d);
    for (size_t b = 0; b < x.size(); b++) std::copy_n(x[b], tokens * d, stepInputs_.data() + static_cast<int64_t>(b) * tokens * d);
    arena_.resetPeak();
    resetWorkspaceBytes();
    step();
  }
  std::vector<double> sample(double seconds, int64_t most) override {
    return sampleSteps([this] { step(); }, seconds, most, cancel_);
  }

 private:
  int64_t batch() const { return static_cast<int64_t>(caches_.size()); }
  void prefillOne(size_t b) {
    caches_[b] = nullptr;
    caches_[b] = layer_.newCache(arena_);
    layer_.prefill(*caches_[b], prompts_[b], length_, outputs_.data());
  }
  void step() {
    if (!prompts_.empty()) {
      for (size_t b = 0; b < caches_.size(); b++) prefillOne(b);
      return;
    }
    std::vector<SequenceCache*> caches;
    for (const auto& cache : caches_) caches.push_back(cache.get());
    layer_.step(caches, stepInputs_.data(), stepTokens_, outputs_.data());
    for (SequenceCache* cache : caches) cache->rollback(cache->length() - stepTokens_);
  }

  std::shared_ptr<const ReferenceModel> model_;
  const CancelFlag* cancel_;
  Arena arena_;
  AttentionLayer layer_;
  std::vector<std::unique_ptr<SequenceCache>> caches_;
  Inputs prompts_;  ///< of the last prefill, while it is the step
  Buffer<float> stepInputs_, outputs_;
  int64_t stepTokens_ = 0;
};

}  // namespace

int64_t extraWeightBytes(const ReferenceModel& model, int64_t weightBytes, int64_t numberBytes) {
  return std::max<int64_t>(0, weightBytes - weightCount(model.weights()) * numberBytes);
}

std::vector<double> sampleSteps(const std::function<void()>& step, double seconds, int64_t most, const CancelFlag* cancel) {
  constexpr double leastSampleSeconds = 2e-4;  // far above the clock's resolution: short steps are batched
  std::vector<double> samples;
  const double start = secondsNow();
  int64_t repeats = 1;
  do {
    if (cancel) cancel->check();
    const double before = secondsNow();
    for (int64_t i = 0; i < repeats; i++) step();
    const double took = secondsNow() - before;
    if (took < leastSampleSeconds && repeats < 1 << 20) {
      repeats = std::max(repeats + 1, static_cast<int64_t>(static_cast<double>(repeats) * std::min(16.0, 1.5 * leastSampleSeconds / std::max(took, 1e-9))));
      continue;
    }
    samples.push_back(took / static_cast<double>(repeats));
  } while (samples.empty() || (static_cast<int64_t>(samples.size()) < most && secondsNow() - start < seconds));
  return samples;
}

std::unique_ptr<RunningLayer> runLayer(int device, const std::shared_ptr<const ReferenceModel>& model, const PointSpec& spec, int64_t positions,
                                       const CancelFlag* cancel) {
  if (device < 0) return std::make_unique<CpuLayer>(model, spec, positions, cancel);
  return runOnAccelerator(cudaLibrary(), device, model, spec, positions, cancel);
}

}  // namespace fastmqa
