#include "cpu-executor.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "math/threads.h"

namespace fastmqa {
namespace {

using Layers = std::vector<std::unique_ptr<AttentionLayer>>;

class CpuSequences : public Sequences {
 public:
  CpuSequences(Arena& arena, const Layers& layers, int64_t count) : arena_(arena), layers_(layers) {
    for (const auto& layer : layers) {
      caches_.emplace_back();
      for (int64_t i = 0; i < count; i++) caches_.back().push_back(layer->newCache(arena));
    }
  }
  int64_t count() const override { return static_cast<int64_t>(caches_.front().size()); }
  int64_t length() const override { return caches_.front().back()->length(); }
  void settle() override {
    for (auto& layer : caches_)
      for (auto& cache : layer) cache->settle();
  }
  void rollback(int64_t length) override {
    for (auto& layer : caches_)
      for (auto& cache : layer) cache->rollback(length);
  }
  CacheBytes bytes() const override {
    CacheBytes sum;
    for (const auto& layer : caches_)
      for (const auto& cache : layer) sum += cache->bytes();
    return sum;
  }
  std::vector<SequenceCache*> of(int64_t layer) {
    std::vector<SequenceCache*> out;
    for (auto& cache : caches_[static_cast<size_t>(layer)]) out.push_back(cache.get());
    return out;
  }
  SequenceCache& emptied(int64_t layer, int64_t sequence) {
    auto& cache = caches_[static_cast<size_t>(layer)][static_cast<size_t>(sequence)];
    if (cache->length() > 0) {
      cache = nullptr;  // its memory is there for the next one
      cache = layers_[static_cast<size_t>(layer)]->newCache(arena_);
    }
    return *cache;
  }

 private:
  Arena& arena_;
  const Layers& layers_;
  std::vector<std::vector<std::unique_ptr<SequenceCache>>> caches_;  // by layer, then by sequence
};

class CpuExecutor : public Executor {
 public:
  CpuExecutor(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const Layers& attention, const CancelFlag* cancel)
      : arena_(arena), weights_(std::move(weights)), attention_(attention), cancel_(cancel) {}

  std::unique_ptr<Sequences> newSequences(int64_t count) override { return std::make_unique<CpuSequences>(arena_, attention_, count); }
  /// More at once would take more workspace and no less time.
  int64_t promptsAtOnce(int64_t) const override { return 1; }

  void embed(const int32_t* tokens, int64_t sequences, int64_t count, int64_t firstPosition) override {
    const DecoderShape& s = weights_->shape;
    const int64_t d = s.hiddenDim;
    rows_ = sequences * count;
    if (places_.front().size() != rows_ * d) {
      clearPlaces();
      for (auto& place : places_) place = Buffer<float>(arena_, rows_ * d);
    }
    std::vector<float> position(static_cast<size_t>(d));
    for (int64_t r = 0; r < rows_; r++) {
      float* x = at(Place::stream) + r * d;
      weights_->embedding().read(static_cast<size_t>(tokens[r] * d), static_cast<size_t>(d), x);
      for (int64_t c = 0; c < d; c++) x[c] *= static_cast<float>(s.embeddingScale);
      if (weights_->positions().empty()) continue;
      weights_->positions().read(static_cast<size_t>((firstPosition + r % count) * d), static_cast<size_t>(d), position.data());
      for (int64_t c = 0; c < d; c++) x[c] += position[static_cast<size_t>(c)];
    }
  }

  void normalise(const NormWeights& norm, Place from, Place to) override {
    const int64_t d = weights_->shape.hiddenDim;
    const bool centred = weights_->shape.norm == Norm::layer;
    const double epsilon = weights_->shape.normEpsilon;
    const float* rows = at(from);
    float* out = at(to);
    parallelFor((rows_ + 15) / 16, [&](int64_t block) {
      for (int64_t r = block * 16; r < std::min(rows_, block * 16 + 16); r++) {
        const float* x = rows + r * d;
        float* y = out + r * d;
        double mean = 0, squares = 0;
        if (centred) {
          for (int64_t c = 0; c < d; c++) mean += static_cast<double>(x[c]);
          mean /= static_cast<double>(d);
        }
        for (int64_t c = 0; c < d; c++) squares += (static_cast<double>(x[c]) - mean) * (static_cast<double>(x[c]) - mean);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + epsilon);
        for (int64_t c = 0; c < d; c++)
          y[c] = static_cast<float>((static_cast<double>(x[c]) - mean) * scale) * norm.weight[static_cast<size_t>(c)] +
                 (norm.bias.empty() ? 0.0f : norm.bias[static_cast<size_t>(c)]);
      }
    });
  }

  void prefill(int64_t layer, Sequences& sequences, int64_t first, int64_t count, Place from, Place to) override {
    if (cancel_) cancel_->check();
    const int64_t tokens = rows_ / count, d = weights_->shape.hiddenDim;
    for (int64_t i = 0; i < count; i++)
      layerAt(layer).prefill(static_cast<CpuSequences&>(sequences).emptied(layer, first + i), at(from) + i * tokens * d, tokens, at(to) + i * tokens * d);
  }
  void step(int64_t layer, Sequences& sequences, Place from, Place to) override {
    if (cancel_) cancel_->check();
    layerAt(layer).step(static_cast<CpuSequences&>(sequences).of(layer), at(from), rows_ / sequences.count(), at(to));
  }

  void feedForward(int64_t index, Place from, Place to) override {
    const DecoderShape& s = weights_->shape;
    const DecoderWeights::FeedForward& layer = weights_->feedForward(index, cancel_);
    if (layer.experts) return layer.experts->run(arena_, at(from), rows_, s.activation, at(to));
    const int64_t numbers = rows_ * s.mlpDim;
    Buffer<float> room(arena_, s.gatedMlp ? 2 * numbers : numbers);
    float *up = room.data(), *gate = s.gatedMlp ? up + numbers : nullptr;
    std::vector<Product> products = {{layer.up, up, s.mlpDim}};
    if (gate) products.push_back({layer.gate, gate, s.mlpDim});
    multiply(products, rows_, at(from), s.hiddenDim);
    if (!layer.upBias.empty())
      for (int64_t i = 0; i < numbers; i++) up[i] += layer.upBias[static_cast<size_t>(i % s.mlpDim)];
    activate(s.activation, numbers, gate, up);
    float* y = at(to);
    layer.down.multiply(rows_, up, s.mlpDim, y, s.hiddenDim);
    if (!layer.downBias.empty())
      for (int64_t i = 0; i < rows_ * s.hiddenDim; i++) y[i] += layer.downBias[static_cast<size_t>(i % s.hiddenDim)];
  }

  void add(Place from) override {
    float* x = at(Place::stream);
    const float* added = at(from);
    for (int64_t i = 0; i < rows_ * weights_->shape.hiddenDim; i++) x[i] += added[i];
  }
  void read(Place from, float* to) override { std::copy_n(at(from), rows_ * weights_->shape.hiddenDim, to); }

  void logits(Place from, float* to) override {
    const DecoderShape& s = weights_->shape;
    Buffer<float> own;
    if (!to) own = Buffer<float>(arena_, rows_ * s.vocabSize);
    float* out = to ? to : own.data();
    weights_->head(cancel_).weights.multiply(rows_, at(from), s.hiddenDim, out, s.vocabSize);
    if (s.logitSoftcap > 0) {
      const auto cap = static_cast<float>(s.logitSoftcap);
      for (int64_t i = 0; i < rows_ * s.vocabSize; i++) out[i] = cap * std::tanh(out[i] / cap);
    }
  }

  std::vector<double> sample(const std::function<void()>& step, double seconds, int64_t most) override { return sampleSteps(step, seconds, most, cancel_); }
  int64_t numberBytes() const override { return weights_->numberBytes(); }
  int64_t activationBytes() const override { return sizeof(float); }
  int64_t attentionBytes() const override {
    int64_t sum = 0;
    for (const auto& layer : attention_) sum += layer->weightBytes();
    return sum;
  }
  int64_t peakBytes() const override { return arena_.peakBytes(); }
  void resetPeak() override {
    clearPlaces();  // of another step than the one that is to come
    arena_.resetPeak();
    resetWorkspaceBytes();
  }
  int64_t sharedBytes() const override { return weights_->bytes() + workspaceBytes(); }

 private:
  void clearPlaces() {
    for (auto& place : places_) place = Buffer<float>();
  }
  float* at(Place place) { return places_[static_cast<size_t>(place)].data(); }
  const AttentionLayer& layerAt(int64_t layer) const { return *attention_[static_cast<size_t>(layer)]; }

  Arena& arena_;
  std::shared_ptr<const DecoderWeights> weights_;
  const Layers& attention_;
  const CancelFlag* cancel_;
  int64_t rows_ = 0;
  std::array<Buffer<float>, 4> places_;
};

}  // namespace

std::unique_ptr<Executor> executeOnCpu(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const Layers& attention, const CancelFlag* cancel) {
  return std::make_unique<CpuExecutor>(arena, std::move(weights), attention, cancel);
}

}  // namespace fastmqa
