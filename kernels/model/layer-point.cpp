#include "layer-point.h"

#include "layer/recent.h"

namespace fastmqa {
namespace {

/// What one layer reads, a list of rows [tokens][d] per text.
std::vector<std::vector<float>> inputsOf(const std::shared_ptr<const DecoderWeights>& weights, const std::vector<Tokens>& texts,
                                         int64_t layer, const CancelFlag* cancel) {
  std::vector<std::vector<float>> inputs;
  visitAttentionInputs(weights, texts, layer, cancel, [&](int64_t at, const float* x, int64_t rows) {
    if (at == layer) inputs.emplace_back(x, x + rows * weights->shape.hiddenDim);
  });
  return inputs;
}

}  // namespace

std::shared_ptr<MeasuredPoint> layerPoint(const std::string& key, const std::shared_ptr<const DecoderWeights>& weights,
                                          const EvaluationText& text, const PointSpec& spec, const CancelFlag* cancel) {
  const int64_t layer = spec.modelLayer, layers = weights->shape.layers;
  if (layer < 0 || layer >= layers) refuse("expected a layer from 0 to " + std::to_string(layers - 1) + " but received " + std::to_string(layer));
  if (layers < 2) refuse("expected a model of at least 2 layers, one of them to compare with, but received one of 1");
  if (text.documents.empty()) refuse("expected at least one document");
  for (const Tokens& document : text.documents)
    if (static_cast<int64_t>(document.size()) != spec.seqLen) refuse("expected documents of " + std::to_string(spec.seqLen) + " tokens but received one of " + std::to_string(document.size()));
  checkCalibration(text);
  const std::string name = key + "|" + std::to_string(layer);
  std::shared_ptr<const ReferenceModel> model = weights->attention(layer, cancel).model;
  const LayerWeights& own = model->weights();

  const int64_t room = spec.seqLen + (spec.phase == Phase::verify ? spec.verifyTokens : 1);
  static Recent<Workload, 2> workloads;
  const auto workload = workloads.get(name + "|" + std::to_string(spec.batch) + "|" + std::to_string(room), [&] {
    std::vector<std::vector<float>> x = inputsOf(weights, text.documents, layer, cancel);
    x.resize(static_cast<size_t>(std::min(spec.batch, static_cast<int64_t>(x.size()))));
    const size_t distinct = x.size();
    while (static_cast<int64_t>(x.size()) < spec.batch) x.push_back(x[x.size() % distinct]);
    const LayerWeights& stranger = weights->attention((layer + 1) % layers, cancel).model->weights();
    return workloadOf(own, stranger, std::move(x), spec.seqLen, room);
  });

  static Recent<ReferenceModel, 2> calibrated;
  if (needsCalibration(spec.technique, weights->shape.kvHeads))
    model = calibrated.get(name, [&] {
      CalibrationStreams streams;
      for (std::vector<float>& stream : inputsOf(weights, text.calibration, layer, cancel))
        streams.push_back(std::make_shared<const std::vector<float>>(std::move(stream)));
      return std::make_shared<const ReferenceModel>(own, std::move(streams));
    });
  return std::make_shared<MeasuredPoint>(spec, model, workload, cancel);
}

}  // namespace fastmqa
