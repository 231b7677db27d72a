#include "accelerator-executor.h"

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>

#include "layer/accelerator.h"

namespace fastmqa {
namespace {

using Layers = std::vector<std::unique_ptr<AttentionLayer>>;

/// Something on the device, ended by the call that belongs to it.
class Handle {
 public:
  explicit Handle(void (*end)(void*)) : end_(end) {}
  Handle(Handle&& other) noexcept : end_(other.end_), handle_(other.handle_) { other.handle_ = nullptr; }
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (handle_) end_(handle_);
  }
  void** place() { return &handle_; }
  void* get() const { return handle_; }

 private:
  void (*end_)(void*);
  void* handle_ = nullptr;
};

/// Embedding, norms, MLPs and head of a model on a device.
class DeviceWeights {
 public:
  DeviceWeights(const Accelerator& accelerator, int device, Dtype numbers, std::shared_ptr<const DecoderWeights> weights, const CancelFlag* cancel)
      : accelerator_(accelerator), device_(device), numbers_(numbers), weights_(std::move(weights)), model_(accelerator.destroyModel) {
    const DecoderWeights& w = *weights_;
    const DecoderShape& s = w.shape;
    if (s.experts.experts > 0) refuse("mixtures of experts run on the CPU only");  // before anything goes there
    call(accelerator.createModel(device, static_cast<int32_t>(numbers), model_.place()));
    embedding = matrix(w.embedding().floats(), s.vocabSize, s.hiddenDim, {});
    if (!w.positions().empty()) positions = matrix(w.positions().floats(), s.maxPositions, s.hiddenDim, {});
    const DecoderWeights::Head& last = w.head(cancel);
    head = last.isTied ? embedding : matrix(last.weights, {});
    add(last.norm);
    for (int64_t i = 0; i < s.layers; i++) {
      if (cancel) cancel->check();
      const DecoderWeights::FeedForward& mlp = w.feedForward(i, cancel);
      for (const NormWeights* norm : {&w.attention(i, cancel).norm, &mlp.norm, &mlp.afterAttention, &mlp.after}) add(*norm);
      const int32_t up = s.gatedMlp ? gateAndUp(mlp) : matrix(mlp.up, mlp.upBias);
      mlps.push_back({up, matrix(mlp.down, mlp.downBias), s.gatedMlp, static_cast<int32_t>(s.activation)});
    }
  }
  bool is(const Accelerator& accelerator, int device, Dtype numbers, const DecoderWeights* weights) const {
    return &accelerator == &accelerator_ && device == device_ && numbers == numbers_ && weights == weights_.get();
  }
  const AcceleratorNorm& norm(const NormWeights& of) const { return norms_.at(&of); }
  void* handle() const { return model_.get(); }
  int64_t bytes() const {
    int64_t bytes = 0;
    call(accelerator_.modelBytes(model_.get(), &bytes));
    return bytes;
  }

  int32_t embedding = -1, positions = -1, head = -1;
  std::vector<AcceleratorMlp> mlps;  ///< by layer

 private:
  void call(AcceleratorStatus status) const { check(accelerator_, status); }
  int32_t matrix(const std::vector<float>& from, int64_t rows, int64_t columns, const std::vector<float>& bias) {
    const AcceleratorMatrix view{from.data(), rows, columns};
    int32_t number = -1;
    call(accelerator_.addMatrix(model_.get(), &view, bias.empty() ? nullptr : bias.data(), &number));
    return number;
  }
  int32_t matrix(const PackedWeights& from, const std::vector<float>& bias) { return matrix(from.unpacked(), from.rows(), from.columns(), bias); }
  /// As one product: gate above up, each filled up to a multiple of 8 rows, as the device has the columns of `down`.
  int32_t gateAndUp(const DecoderWeights::FeedForward& mlp) {
    const int64_t rows = mlp.up.rows(), filled = (rows + 7) / 8 * 8, columns = mlp.up.columns();
    std::vector<float> both(static_cast<size_t>(2 * filled * columns), 0.0f), bias;
    const std::vector<float> gate = mlp.gate.unpacked(), up = mlp.up.unpacked();
    std::copy(gate.begin(), gate.end(), both.begin());
    std::copy(up.begin(), up.end(), both.begin() + filled * columns);
    if (!mlp.upBias.empty()) {
      bias.resize(static_cast<size_t>(2 * filled), 0.0f);
      std::copy(mlp.upBias.begin(), mlp.upBias.end(), bias.begin() + filled);
    }
    return matrix(both, 2 * filled, columns, bias);
  }
  int32_t vector(const std::vector<float>& from) {
    int32_t number = -1;
    if (!from.empty()) call(accelerator_.addVector(model_.get(), from.data(), static_cast<int64_t>(from.size()), &number));
    return number;
  }
  void add(const NormWeights& norm) {
    if (!norm) return;
    const DecoderShape& s = weights_->shape;
    norms_[&norm] = {vector(norm.weight), vector(norm.bias), s.norm == Norm::layer, static_cast<float>(s.normEpsilon)};
  }

  const Accelerator& accelerator_;
  int device_;
  Dtype numbers_;
  std::shared_ptr<const DecoderWeights> weights_;
  Handle model_;
  std::map<const NormWeights*, AcceleratorNorm> norms_;
};

std::mutex lastMutex;
std::shared_ptr<const DeviceWeights> last;

/// Those asked for last. Others leave the device before new ones come, unless a decoder still works with them.
std::shared_ptr<const DeviceWeights> weightsOn(const Accelerator& accelerator, int device, Dtype numbers, const std::shared_ptr<const DecoderWeights>& weights,
                                               const CancelFlag* cancel) {
  std::lock_guard<std::mutex> lock(lastMutex);
  if (last && last->is(accelerator, device, numbers, weights.get())) return last;
  last = nullptr;
  return last = std::make_shared<const DeviceWeights>(accelerator, device, numbers, weights, cancel);
}

AcceleratorPlace placeOf(Executor::Place place) { return static_cast<AcceleratorPlace>(place); }

class DeviceSequences : public Sequences {
 public:
  DeviceSequences(const Accelerator& accelerator, const Layers& attention, int64_t count, std::vector<Handle> layers)
      : accelerator_(accelerator), attention_(attention), count_(count), layers_(std::move(layers)) {}
  int64_t count() const override { return count_; }
  int64_t length() const override { return length_; }
  void settle() override {
    for (const Handle& layer : layers_) check(accelerator_, accelerator_.settle(layer.get()));
  }
  void rollback(int64_t length) override {
    for (const Handle& layer : layers_) check(accelerator_, accelerator_.rollback(layer.get(), length));
    length_ = length;
  }
  CacheBytes bytes() const override {
    CacheBytes sum;
    for (size_t i = 0; i < layers_.size(); i++) {
      AcceleratorMemory m;
      check(accelerator_, accelerator_.memory(layers_[i].get(), &m));
      sum += accountOf(attention_[i]->cacheSpec(), count_, length_, m.settledTokens, m.cacheBufferBytes, m.tableBytes);
    }
    return sum;
  }
  void* layer(int64_t i) const { return layers_[static_cast<size_t>(i)].get(); }
  /// Of the step or prompt that the layers are reading, from the last layer on.
  void setLength(int64_t length) { length_ = length; }

 private:
  const Accelerator& accelerator_;
  const Layers& attention_;
  int64_t count_, length_ = 0;
  std::vector<Handle> layers_;
};

class AcceleratorExecutor : public Executor {
 public:
  AcceleratorExecutor(const Accelerator& accelerator, int device, Dtype numbers, const std::shared_ptr<const DecoderWeights>& weights, const Layers& attention,
                      const std::vector<Technique>& techniques, int64_t positions, const CancelFlag* cancel)
      : accelerator_(accelerator), numberBytes_(bitsOf(numbers) / 8), shape_(weights->shape), attention_(attention), cancel_(cancel),
        weights_(weightsOn(accelerator, device, numbers, weights, cancel)), run_(accelerator.destroyRun) {
    call(accelerator.createRun(weights_->handle(), run_.place()));
    for (size_t i = 0; i < attention.size(); i++) {
      if (cancel) cancel->check();
      descriptions_.push_back(std::make_unique<LayerDescription>(*attention[i], techniques[i], numbers, 1, positions));
      layerWeights_.emplace_back(accelerator.destroyWeights);
      call(accelerator.addWeights(run_.get(), &descriptions_.back()->view(), layerWeights_.back().place()));
      descriptions_.back()->dropWeights();
    }
    attentionBytes_ = memory(false).currentBytes;
  }

  std::unique_ptr<Sequences> newSequences(int64_t count) override {
    std::vector<Handle> layers;
    for (size_t i = 0; i < descriptions_.size(); i++) {
      layers.emplace_back(accelerator_.destroyLayer);
      call(accelerator_.addLayer(run_.get(), &descriptions_[i]->ofBatch(count), layerWeights_[i].get(), layers.back().place()));
    }
    return std::make_unique<DeviceSequences>(accelerator_, attention_, count, std::move(layers));
  }
  int64_t promptsAtOnce(int64_t count) const override { return count; }

  void embed(const int32_t* tokens, int64_t sequences, int64_t count, int64_t firstPosition) override {
    count_ = count;
    call(accelerator_.embed(run_.get(), weights_->embedding, weights_->positions, tokens, sequences * count, count, firstPosition,
                            static_cast<float>(shape_.embeddingScale)));
  }
  void normalise(const NormWeights& norm, Place from, Place to) override {
    call(accelerator_.normalise(run_.get(), &weights_->norm(norm), placeOf(from), placeOf(to)));
  }
  void prefill(int64_t layer, Sequences& sequences, int64_t, int64_t, Place from, Place to) override { attend(layer, sequences, true, from, to); }
  void step(int64_t layer, Sequences& sequences, Place from, Place to) override { attend(layer, sequences, false, from, to); }
  void feedForward(int64_t layer, Place from, Place to) override {
    call(accelerator_.feedForward(run_.get(), &weights_->mlps[static_cast<size_t>(layer)], placeOf(from), placeOf(to)));
  }
  void add(Place from) override { call(accelerator_.add(run_.get(), placeOf(from))); }
  void read(Place from, float* to) override { call(accelerator_.read(run_.get(), placeOf(from), to)); }
  void logits(Place from, float* to) override {
    call(accelerator_.logits(run_.get(), weights_->head, static_cast<float>(shape_.logitSoftcap), placeOf(from), to));
  }

  /// On the device's own clock.
  std::vector<double> sample(const std::function<void()>& step, double seconds, int64_t most) override {
    struct Asked {
      const std::function<void()>& step;
      std::exception_ptr thrown;
    } asked{step, nullptr};
    const auto ask = [](void* context) {
      auto& a = *static_cast<Asked*>(context);
      try {
        a.step();
        return AcceleratorStatus::done;
      } catch (...) {  // nothing may pass through the library
        a.thrown = std::current_exception();
        return AcceleratorStatus::failed;
      }
    };
    std::vector<double> samples(static_cast<size_t>(most));
    AcceleratorSamples to{samples.data(), 0, most, 0, 0, 0};
    const AcceleratorCancel cancel = cancelOf(cancel_);
    const AcceleratorStatus status = accelerator_.sampleRun(run_.get(), ask, &asked, seconds, &cancel, &to);
    if (asked.thrown) std::rethrow_exception(asked.thrown);
    call(status);
    samples.resize(static_cast<size_t>(to.count));
    conditions_.throttled += to.throttled;
    conditions_.foreignProcesses = std::max<int64_t>(conditions_.foreignProcesses, to.foreignProcesses);
    conditions_.graphNodes = to.graphNodes;
    return samples;
  }
  SampleConditions conditions() const override { return conditions_; }
  int64_t numberBytes() const override { return numberBytes_; }
  int64_t attentionBytes() const override { return attentionBytes_; }
  int64_t peakBytes() const override {
    const AcceleratorMemory m = memory(false);
    return std::max(m.peakBytes, m.devicePeakBytes);
  }
  void resetPeak() override { memory(true); }
  int64_t sharedBytes() const override { return weights_->bytes(); }

 private:
  void call(AcceleratorStatus status) const { check(accelerator_, status); }
  AcceleratorMemory memory(bool resetsPeak) const {
    AcceleratorMemory m;
    call(accelerator_.runMemory(run_.get(), resetsPeak, &m));
    return m;
  }
  void attend(int64_t layer, Sequences& sequences, bool prefills, Place from, Place to) {
    if (cancel_) cancel_->check();
    auto& of = static_cast<DeviceSequences&>(sequences);
    call(accelerator_.attend(run_.get(), of.layer(layer), prefills, placeOf(from), placeOf(to)));
    if (layer + 1 == static_cast<int64_t>(descriptions_.size())) of.setLength((prefills ? 0 : of.length()) + count_);
  }

  const Accelerator& accelerator_;
  int64_t numberBytes_, attentionBytes_ = 0, count_ = 0;
  const DecoderShape shape_;
  const Layers& attention_;
  const CancelFlag* cancel_;
  std::shared_ptr<const DeviceWeights> weights_;
  Handle run_;
  std::vector<std::unique_ptr<LayerDescription>> descriptions_;
  std::vector<Handle> layerWeights_;
  SampleConditions conditions_;
};

}  // namespace

void forgetDeviceModels() {
  std::lock_guard<std::mutex> lock(lastMutex);
  last = nullptr;
}

std::unique_ptr<Executor> executeOn(const Accelerator& accelerator, int device, Dtype numbers, const std::shared_ptr<const DecoderWeights>& weights,
                                    const Layers& attention, const std::vector<Technique>& techniques, int64_t positions, const CancelFlag* cancel) {
  return std::make_unique<AcceleratorExecutor>(accelerator, device, numbers, weights, attention, techniques, positions, cancel);
}

}  // namespace fastmqa
