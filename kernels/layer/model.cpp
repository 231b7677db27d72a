#include "model.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <string>

#include "math/gemm.h"
#include "math/threads.h"
#include "reference/layer.h"

namespace fastmqa {
namespace {

ReferenceLayer referenceOf(const ReferenceModel& model) {
  const LayerWeights& w = model.weights();
  return {w.d, w.heads, w.kvHeads, w.headDim, w.wq.data(), w.wk.data(), w.wv.data(), w.wo.data(), model.spec().ropeTheta};
}

std::vector<float> narrowed(const std::vector<double>& x) { return std::vector<float>(x.begin(), x.end()); }

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v * v;
  return std::sqrt(sum);
}

double relativeL2(const std::vector<double>& a, const std::vector<double>& reference) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += (a[i] - reference[i]) * (a[i] - reference[i]);
  return std::sqrt(sum) / norm(reference);
}

std::vector<int64_t> samplePositions(int64_t seqLen, int64_t batch) {
  const int64_t run = Workload::runTokens;
  const int64_t runs = std::min(std::max<int64_t>(4, 32 / batch), std::max<int64_t>(1, seqLen / run));
  std::vector<int64_t> positions;
  for (int64_t i = 1; i <= runs; i++) {
    const int64_t end = seqLen * i / runs;
    for (int64_t t = std::max<int64_t>(0, end - run); t < end; t++) positions.push_back(t);
  }
  return positions;
}

}  // namespace

uint64_t evaluationSeed(uint64_t seed, int64_t sequence) { return sequence == 0 ? seed : seed + 1000000 + static_cast<uint64_t>(sequence); }
uint64_t calibrationSeed(uint64_t seed, int64_t stream) { return seed + 100 + static_cast<uint64_t>(stream); }

ReferenceModel::ReferenceModel(const ModelSpec& spec, GeneratorParameters parameters) : spec_(spec) {
  parameters.d = spec.hiddenDim;
  parameters.H = spec.heads;
  parameters.G = spec.kvHeads;
  parameters.D = spec.headDim;
  parameters.theta = spec.ropeTheta > 0 ? spec.ropeTheta : 10000.0;
  auto model = std::make_shared<SyntheticModel>(generateModel(parameters, spec.seed));
  weights_ = {spec.hiddenDim, spec.heads, spec.kvHeads, spec.headDim, narrowed(model->Wq), narrowed(model->Wk), narrowed(model->Wv), {}};
  const int64_t d = spec.hiddenDim, width = spec.heads * spec.headDim;
  weights_.wo.resize(static_cast<size_t>(d * width));
  for (int64_t h = 0; h < spec.heads; h++)
    for (int64_t i = 0; i < d; i++)
      for (int64_t c = 0; c < spec.headDim; c++)
        weights_.wo[static_cast<size_t>(i * width + h * spec.headDim + c)] =
            static_cast<float>(model->Wo[static_cast<size_t>((h * d + i) * spec.headDim + c)]);
  model->Wq = model->Wk = model->Wv = model->Wo = {};
  synthetic_ = std::move(model);
}

std::vector<float> ReferenceModel::inputs(int64_t tokens, uint64_t seed) const {
  return narrowed(generateInputs(*synthetic_, tokens, seed));
}

std::shared_ptr<const Calibration> ReferenceModel::calibration(int64_t tokens, int64_t skip, uint64_t inputSeed) const {
  if (lastCalibration_ && lastTokens_ == tokens && lastSkip_ == skip && lastSeed_ == inputSeed) return lastCalibration_;
  auto out = std::make_shared<Calibration>();
  const int64_t d = spec_.hiddenDim, each = Calibration::streamTokens;
  const int64_t streams = std::max<int64_t>(1, (tokens + each - 1) / each);
  if (lastCalibration_ && lastTokens_ == tokens && lastSeed_ == inputSeed)
    out->streams = lastCalibration_->streams;
  else
    for (int64_t i = 0; i < streams; i++) out->streams.push_back(inputs(each, calibrationSeed(inputSeed, i)));
  out->skipped = skip;
  out->mean.assign(static_cast<size_t>(d), 0.0);
  out->moment.assign(static_cast<size_t>(d * d), 0.0);
  for (const auto& stream : out->streams) {
    const std::vector<double> wide(stream.begin() + skip * d, stream.end());
    const int64_t rows = each - skip;
    gemm(d, d, rows, wide.data(), d, true, wide.data(), d, false, out->moment.data(), d, true);
    for (int64_t t = 0; t < rows; t++)
      for (int64_t c = 0; c < d; c++) out->mean[static_cast<size_t>(c)] += wide[static_cast<size_t>(t * d + c)];
    out->tokens += rows;
  }
  for (double& m : out->mean) m /= static_cast<double>(out->tokens);
  for (double& m : out->moment) m /= static_cast<double>(out->tokens);
  lastCalibration_ = out;
  lastTokens_ = tokens, lastSkip_ = skip, lastSeed_ = inputSeed;
  return out;
}

namespace {

std::string keyOf(const ModelSpec& s) {
  return std::to_string(s.hiddenDim) + "/" + std::to_string(s.heads) + "/" + std::to_string(s.kvHeads) + "/" +
         std::to_string(s.headDim) + "/" + std::to_string(s.ropeTheta) + "/" + std::to_string(s.seed);
}

/// The last few things asked for, by key.
template <class T, size_t capacity>
class Recent {
 public:
  template <class Make>
  std::shared_ptr<const T> get(const std::string& key, const Make& make) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = items_.begin(); it != items_.end(); ++it)
      if (it->first == key) return it->second;
    auto made = make();
    if (items_.size() >= capacity) items_.erase(items_.begin());
    items_.emplace_back(key, made);
    return made;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::shared_ptr<const T>>> items_;
};

}  // namespace

std::shared_ptr<const ReferenceModel> referenceModel(const ModelSpec& spec) {
  static Recent<ReferenceModel, 2> recent;
  return recent.get(keyOf(spec), [&] { return std::make_shared<const ReferenceModel>(spec); });
}

std::shared_ptr<const Workload> workload(const std::shared_ptr<const ReferenceModel>& model, int64_t batch,
                                         int64_t seqLen, uint64_t seed) {
  static Recent<Workload, 2> recent;
  const std::string key = keyOf(model->spec()) + "|" + std::to_string(batch) + "/" + std::to_string(seqLen) + "/" + std::to_string(seed);
  return recent.get(key, [&] {
    auto w = std::make_shared<Workload>();
    w->batch = batch;
    w->seqLen = seqLen;
    w->extraTokens = 65;
    w->positions = samplePositions(seqLen, batch);
    const ReferenceLayer layer = referenceOf(*model);
    for (int64_t b = 0; b < batch; b++) {
      w->x.push_back(model->inputs(seqLen + w->extraTokens, evaluationSeed(seed, b)));
      w->y.push_back(referenceOutput(layer, w->x.back().data(), seqLen, w->positions, false));
    }
    // Controls, on the first sequence: outputs that no method should resemble (attention-spec C).
    const std::vector<double>& y = w->y.front();
    w->uniformAttention = relativeL2(referenceOutput(layer, w->x.front().data(), seqLen, w->positions, true), y);
    ModelSpec other = model->spec();
    other.seed += 1000;
    const ReferenceModel stranger(other);
    std::vector<double> foreign = referenceOutput(referenceOf(stranger), w->x.front().data(), seqLen, w->positions, false);
    const double rescale = norm(y) / norm(foreign);
    for (double& v : foreign) v *= rescale;
    w->independentLayer = relativeL2(foreign, y);
    return std::shared_ptr<const Workload>(w);
  });
}

}  // namespace fastmqa
