#include "model.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "calibrate.h"
#include "math/gemm.h"
#include "math/threads.h"
#include "reference/layer.h"

namespace fastmqa {
namespace {

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
  weights_.d = spec.hiddenDim;
  weights_.heads = spec.heads;
  weights_.kvHeads = spec.kvHeads;
  weights_.headDim = spec.headDim;
  weights_.wq = narrowed(model->Wq);
  weights_.wk = narrowed(model->Wk);
  weights_.wv = narrowed(model->Wv);
  if (spec.ropeTheta > 0) {
    weights_.rope.base = spec.ropeTheta;
    weights_.rope.rotaryDim = spec.headDim;
  }
  const int64_t d = spec.hiddenDim, width = spec.heads * spec.headDim;
  std::vector<float> output(static_cast<size_t>(d * width));
  for (int64_t h = 0; h < spec.heads; h++)
    for (int64_t i = 0; i < d; i++)
      for (int64_t c = 0; c < spec.headDim; c++)
        output[static_cast<size_t>(i * width + h * spec.headDim + c)] =
            static_cast<float>(model->Wo[static_cast<size_t>((h * d + i) * spec.headDim + c)]);
  weights_.wo = std::move(output);
  model->Wq = model->Wk = model->Wv = model->Wo = {};
  synthetic_ = std::move(model);
}

ReferenceModel::ReferenceModel(LayerWeights weights, CalibrationStreams streams) : weights_(std::move(weights)), streams_(std::move(streams)) {
  spec_.hiddenDim = weights_.d;
  spec_.heads = weights_.heads;
  spec_.kvHeads = weights_.kvHeads;
  spec_.headDim = weights_.headDim;
  spec_.ropeTheta = weights_.rope.rotaryDim > 0 ? weights_.rope.base : 0;
}

std::vector<float> ReferenceModel::inputs(int64_t tokens, uint64_t seed) const {
  return narrowed(generateInputs(*synthetic_, tokens, seed));
}

CalibrationStreams ReferenceModel::calibrationStreams(int64_t tokens, uint64_t inputSeed) const {
  const int64_t each = Calibration::streamTokens;
  const auto count = static_cast<size_t>(std::max<int64_t>(1, (tokens + each - 1) / each));
  std::lock_guard<std::mutex> lock(streamsMutex_);
  if (!synthetic_) {
    if (streams_.empty()) refuse("expected calibration text for a level that is fitted to it but received none");
    return CalibrationStreams(streams_.begin(), streams_.begin() + static_cast<std::ptrdiff_t>(std::min(count, streams_.size())));
  }
  if (streamsSeed_ != inputSeed) streams_.clear();
  streamsSeed_ = inputSeed;
  while (streams_.size() < count)
    streams_.push_back(std::make_shared<const std::vector<float>>(inputs(each, calibrationSeed(inputSeed, static_cast<int64_t>(streams_.size())))));
  return CalibrationStreams(streams_.begin(), streams_.begin() + static_cast<std::ptrdiff_t>(count));
}

std::shared_ptr<const Calibration> ReferenceModel::calibration(int64_t tokens, int64_t skip, uint64_t inputSeed) const {
  return calibrations_.get(std::to_string(tokens) + "/" + std::to_string(skip) + "/" + std::to_string(inputSeed), [&] {
    auto out = std::make_shared<Calibration>();
    const int64_t d = spec_.hiddenDim, rows = Calibration::streamTokens - skip;
    out->streams = calibrationStreams(tokens, inputSeed);
    out->skipped = skip;
    out->mean.assign(static_cast<size_t>(d), 0.0);
    out->moment.assign(static_cast<size_t>(d * d), 0.0);
    for (const auto& stream : out->streams) {
      const std::vector<double> wide(stream->begin() + skip * d, stream->end());
      addGram(rows, d, wide.data(), out->moment.data());
      for (int64_t t = 0; t < rows; t++)
        for (int64_t c = 0; c < d; c++) out->mean[static_cast<size_t>(c)] += wide[static_cast<size_t>(t * d + c)];
      out->tokens += rows;
    }
    for (double& m : out->mean) m /= static_cast<double>(out->tokens);
    for (double& m : out->moment) m /= static_cast<double>(out->tokens);
    return out;
  });
}

std::shared_ptr<const Projection> ReferenceModel::basis(const std::string& name, const std::function<Projection()>& make) const {
  return bases_.get(name, [&] { return std::make_shared<const Projection>(make()); });
}

namespace {

std::string keyOf(const ModelSpec& s) {
  return std::to_string(s.hiddenDim) + "/" + std::to_string(s.heads) + "/" + std::to_string(s.kvHeads) + "/" +
         std::to_string(s.headDim) + "/" + std::to_string(s.ropeTheta) + "/" + std::to_string(s.seed);
}

}  // namespace

std::shared_ptr<const ReferenceModel> referenceModel(const ModelSpec& spec) {
  static Recent<ReferenceModel, 2> recent;
  return recent.get(keyOf(spec), [&] { return std::make_shared<const ReferenceModel>(spec); });
}

std::shared_ptr<const Workload> workload(const std::shared_ptr<const ReferenceModel>& model, int64_t batch,
                                         int64_t seqLen, uint64_t seed, const CancelFlag* cancel) {
  static Recent<Workload, 2> recent;
  const std::string key = keyOf(model->spec()) + "|" + std::to_string(batch) + "/" + std::to_string(seqLen) + "/" + std::to_string(seed);
  return recent.get(key, [&] {
    constexpr int64_t mostStepTokens = 65;
    std::vector<std::vector<float>> x;
    for (int64_t b = 0; b < batch; b++) {
      if (cancel) cancel->check();
      x.push_back(model->inputs(seqLen + mostStepTokens, evaluationSeed(seed, b)));
    }
    ModelSpec other = model->spec();
    other.seed += 1000;
    static Recent<ReferenceModel, 1> strangers;
    const auto stranger = strangers.get(keyOf(other), [&] { return std::make_shared<const ReferenceModel>(other); });
    return workloadOf(model->weights(), stranger->weights(), std::move(x), seqLen, seqLen + mostStepTokens, cancel);
  });
}

std::shared_ptr<const Workload> workloadOf(const LayerWeights& layer, const LayerWeights& stranger,
                                           std::vector<std::vector<float>> x, int64_t seqLen, int64_t room, const CancelFlag* cancel) {
  auto w = std::make_shared<Workload>();
  w->batch = static_cast<int64_t>(x.size());
  w->seqLen = seqLen;
  w->room = room;
  w->positions = samplePositions(seqLen, w->batch);
  w->x = std::move(x);
  const auto outputs = [&](const LayerWeights& of, const std::vector<float>& inputs, bool uniform) {
    if (cancel) cancel->check();
    return referenceOutput(of, inputs.data(), seqLen, w->positions, room, uniform);
  };
  for (const auto& inputs : w->x) w->y.push_back(outputs(layer, inputs, false));
  // Controls, on the first sequence: outputs that no method should resemble (attention-spec C).
  const std::vector<double>& y = w->y.front();
  w->uniformAttention = relativeL2(outputs(layer, w->x.front(), true), y);
  std::vector<double> foreign = outputs(stranger, w->x.front(), false);
  const double rescale = norm(y) / norm(foreign);
  for (double& v : foreign) v *= rescale;
  w->independentLayer = relativeL2(foreign, y);
  return w;
}

}  // namespace fastmqa
