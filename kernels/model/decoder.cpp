#include "decoder.h"

#include <algorithm>

#include "accelerator-executor.h"
#include "cpu-executor.h"
#include "layer/accelerator.h"

namespace fastmqa {

Decoder::Decoder(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const std::vector<Technique>& techniques,
                 const AttentionModels& calibrated, int64_t positions, int64_t calibrationTokens, const CancelFlag* cancel,
                 const DecoderPlace& place)
    : weights_(std::move(weights)), positions_(positions), cancel_(cancel) {
  if (!weights_->positions().empty() && positions > weights_->shape.maxPositions)
    refuse("expected at most " + std::to_string(weights_->shape.maxPositions) + " tokens, the model's positions, but received " + std::to_string(positions));
  const bool isWhole = static_cast<int64_t>(techniques.size()) == weights_->shape.layers;
  if (isWhole) weights_->readAll(cancel);  // no step is to wait for a file
  for (size_t i = 0; i < techniques.size(); i++) {
    const ReferenceModel& model = calibrated.empty() ? *weights_->attention(static_cast<int64_t>(i), cancel).model : *calibrated[i];
    attention_.push_back(std::make_unique<AttentionLayer>(arena, model, techniques[i], positions, calibrationTokens, 0, cancel));
  }
  if (place.device < 0)
    executor_ = executeOnCpu(arena, weights_, attention_, cancel);
  else
    executor_ = executeOn(place.accelerator ? *place.accelerator : cudaLibrary(), place.device, place.numbers.value_or(numberType(techniques.front())), weights_,
                          attention_, techniques, positions, cancel);
}

const float* Decoder::shown(Executor::Place from, int64_t rows) {
  shown_.resize(static_cast<size_t>(rows * weights_->shape.hiddenDim));
  executor_->read(from, shown_.data());
  return shown_.data();
}

void Decoder::run(const int32_t* tokens, int64_t sequences, int64_t count, int64_t firstPosition, const Attend& attend) {
  using Place = Executor::Place;
  const DecoderShape& s = weights_->shape;
  const int64_t rows = sequences * count;
  if (firstPosition + count > positions_)
    refuse("expected at most " + std::to_string(positions_) + " tokens in a sequence but received " + std::to_string(firstPosition + count));
  for (int64_t r = 0; r < rows; r++)
    if (tokens[r] < 0 || tokens[r] >= s.vocabSize)
      refuse("expected tokens below " + std::to_string(s.vocabSize) + " but received " + std::to_string(tokens[r]));
  Executor& on = *executor_;
  on.embed(tokens, sequences, count, firstPosition);
  for (int64_t i = 0; i < static_cast<int64_t>(attention_.size()); i++) {
    if (cancel_) cancel_->check();
    on.normalise(weights_->attention(i, cancel_).norm, Place::stream, Place::normed);
    if (onAttentionInput && !onAttentionInput(i, shown(Place::normed, rows), rows)) return;
    attend(i);
    const DecoderWeights::FeedForward& mlp = weights_->feedForward(i, cancel_);
    if (s.residual == Residual::parallel) {
      if (mlp.norm) on.normalise(mlp.norm, Place::stream, Place::normed);  // else the MLP reads what attention reads
      on.feedForward(i, Place::normed, Place::fed);
      on.add(Place::attended);
    } else {
      if (mlp.afterAttention) on.normalise(mlp.afterAttention, Place::attended, Place::attended);
      on.add(Place::attended);
      on.normalise(mlp.norm, Place::stream, Place::normed);
      on.feedForward(i, Place::normed, Place::fed);
      if (mlp.after) on.normalise(mlp.after, Place::fed, Place::fed);
    }
    on.add(Place::fed);
    if (onLayerOutput) onLayerOutput(i, shown(Place::stream, rows), rows);
  }
}

void Decoder::finish(float* logits) {
  executor_->normalise(weights_->head(cancel_).norm, Executor::Place::stream, Executor::Place::normed);
  executor_->logits(Executor::Place::normed, logits);
}

void Decoder::prefill(Sequences& sequences, const int32_t* tokens, int64_t count, float* logits) {
  const int64_t atOnce = executor_->promptsAtOnce(sequences.count());
  for (int64_t first = 0; first < sequences.count(); first += atOnce) {
    const int64_t n = std::min(atOnce, sequences.count() - first);
    run(tokens + first * count, n, count, 0, [&](int64_t layer) {
      executor_->prefill(layer, sequences, first, n, Executor::Place::normed, Executor::Place::attended);
    });
    if (logits) finish(logits + first * count * weights_->shape.vocabSize);
  }
}

void Decoder::step(Sequences& sequences, const int32_t* tokens, int64_t count, float* logits) {
  run(tokens, sequences.count(), count, sequences.length(), [&](int64_t layer) {
    executor_->step(layer, sequences, Executor::Place::normed, Executor::Place::attended);
  });
  finish(logits);
}

/// What all levels have in common: the MLPs that a token meets, and the head where it is asked.
Work Decoder::sharedWork(int64_t rows, bool hasLogits) const {
  const DecoderShape& s = weights_->shape;
  const ExpertShape& e = s.experts;
  int64_t width = 0;
  for (int64_t i = 0; i < s.layers; i++) width += e.has(i) ? e.chosen * e.mlpDim + e.sharedMlpDim + e.experts / 3 : s.mlpDim;
  const int64_t numbers = s.hiddenDim * ((s.gatedMlp ? 3 : 2) * width + (hasLogits ? s.vocabSize : 0));
  Work out;
  out.flops = 2 * static_cast<double>(rows) * static_cast<double>(numbers);
  out.bytes = static_cast<double>(numbers * executor_->numberBytes());
  out.tokens = rows;
  return out;
}

Work Decoder::stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes) const {
  Work sum = sharedWork(batch * tokens, true);
  for (const auto& layer : attention_) {
    const int64_t window = layer->cacheSpec().window, seen = window > 0 ? std::min(cached, window + layer->cacheSpec().sinks) : cached;
    const Work w = layer->stepWork(batch, tokens, seen, 0, executor_->numberBytes());
    sum.flops += w.flops;
    sum.bytes += w.bytes;
  }
  sum.bytes += static_cast<double>(cacheBytes);
  return sum;
}

Work Decoder::prefillWork(int64_t batch, int64_t tokens) const {
  Work sum = sharedWork(batch * tokens, false);
  for (const auto& layer : attention_) {
    const Work w = layer->prefillWork(batch, tokens, executor_->activationBytes(), layer->weightBytes() / layer->numberBytes() * executor_->numberBytes());
    sum.flops += w.flops;
    sum.bytes += w.bytes;
  }
  return sum;
}

}  // namespace fastmqa
