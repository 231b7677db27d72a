#include "decoder.h"

#include <algorithm>

#include "accelerator-executor.h"
#include "cpu-executor.h"
#include "fastmqa/sizes.h"
#include "layer/accelerator.h"

namespace fastmqa {
namespace {

/// Reads the weights of a checkpoint by name and checks their sizes.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const CancelFlag* cancel) : checkpoint_(checkpoint), cancel_(cancel) {}
  bool has(const std::string& name) const { return checkpoint_.count(name) > 0; }
  Numbers take(const std::string& name, int64_t rows, int64_t columns) const {
    if (cancel_) cancel_->check();
    const auto found = checkpoint_.find(name);
    if (found == checkpoint_.end()) refuse("expected weights for " + name + " but received none");
    if (found->second.rows() != rows || found->second.columns != columns)
      refuse("expected [" + std::to_string(rows) + ", " + std::to_string(columns) + "] for " + name + " but received [" +
             std::to_string(found->second.rows()) + ", " + std::to_string(found->second.columns) + "]");
    return readRows(found->second, name);
  }
  std::vector<float> takeIfThere(const std::string& name, int64_t rows) const {
    return has(name) ? take(name, rows, 1).floats() : std::vector<float>();
  }

 private:
  const Checkpoint& checkpoint_;
  const CancelFlag* cancel_;
};

NormWeights normOf(const Reader& read, const std::string& name, int64_t size, bool plusOne) {
  NormWeights norm{read.takeIfThere(name, size), read.takeIfThere(name + ".bias", size)};
  if (plusOne)
    for (float& w : norm.weight) w += 1;
  return norm;
}

}  // namespace

DecoderWeights::DecoderWeights(const DecoderShape& s, const Checkpoint& checkpoint, const CancelFlag* cancel) : shape(s) {
  const Reader read(checkpoint, cancel);
  const int64_t d = s.hiddenDim, queryWidth = elements({s.heads, s.headDim}), keyWidth = elements({s.kvHeads, s.headDim});
  embedding = read.take("embedding", s.vocabSize, d);
  if (read.has("positions")) positions = read.take("positions", s.maxPositions, d);
  finalNorm = normOf(read, "finalNorm", d, s.normPlusOne);
  tiedHead = !read.has("head");
  head = !tiedHead ? PackedWeights(arena, s.vocabSize, d, read.take("head", s.vocabSize, d)) : PackedWeights(arena, s.vocabSize, d, embedding);
  const auto packed = [&](const std::string& name, int64_t rows, int64_t columns) {
    return PackedWeights(arena, rows, columns, read.take(name, rows, columns));
  };
  for (int64_t i = 0; i < s.layers; i++) {
    const std::string at = "layers." + std::to_string(i) + ".";
    Layer layer;
    layer.attentionNorm = normOf(read, at + "attentionNorm", d, s.normPlusOne);
    layer.mlpNorm = normOf(read, at + "mlpNorm", d, s.normPlusOne);
    layer.afterAttention = normOf(read, at + "afterAttention", d, s.normPlusOne);
    layer.afterMlp = normOf(read, at + "afterMlp", d, s.normPlusOne);
    if (s.experts.has(i)) {
      const auto gated = [&](const std::string& name, int64_t width) {
        return GatedMlp{packed(name + "gate", width, d), packed(name + "up", width, d), packed(name + "down", d, width)};
      };
      auto experts = std::make_unique<Experts>();
      experts->shape = s.experts;
      experts->router = packed(at + "router", s.experts.experts, d);
      experts->routerBias = read.takeIfThere(at + "router.bias", s.experts.experts);
      for (int64_t e = 0; e < s.experts.experts; e++) experts->experts.push_back(gated(at + "experts." + std::to_string(e) + ".", s.experts.mlpDim));
      if (s.experts.sharedMlpDim > 0) experts->shared = gated(at + "shared.", s.experts.sharedMlpDim);
      layer.experts = std::move(experts);
    } else {
      if (s.gatedMlp) layer.gate = packed(at + "gate", s.mlpDim, d);
      layer.up = packed(at + "up", s.mlpDim, d);
      layer.down = packed(at + "down", d, s.mlpDim);
      layer.upBias = read.takeIfThere(at + "up.bias", s.mlpDim);
      layer.downBias = read.takeIfThere(at + "down.bias", d);
    }
    LayerWeights w;
    w.d = d, w.heads = s.heads, w.kvHeads = s.kvHeads, w.headDim = s.headDim;
    if (s.latentRank > 0) {
      LatentWeights& m = w.latent;
      m.rank = s.latentRank, m.ropeDim = s.ropeDim, m.valueDim = s.valueDim;
      if (s.queryRank > 0) {
        m.queryDown = read.take(at + "queryDown", s.queryRank, d);
        m.queryNorm = read.takeIfThere(at + "queryDownNorm", s.queryRank);
      }
      w.wq = read.take(at + "q", queryWidth, s.queryRank > 0 ? s.queryRank : d);
      m.down = read.take(at + "latentDown", s.latentRank + s.ropeDim, d);
      m.norm = read.takeIfThere(at + "latentNorm", s.latentRank);
      m.up = read.take(at + "latentUp", elements({s.heads, s.headDim - s.ropeDim + s.valueDim}), s.latentRank);
    } else {
      w.wq = read.take(at + "q", queryWidth, d);
      w.wk = read.take(at + "k", keyWidth, d);
      w.wv = read.take(at + "v", keyWidth, d);
    }
    w.wo = read.take(at + "o", d, s.latentRank > 0 ? elements({s.heads, s.valueDim}) : queryWidth);
    w.bq = read.takeIfThere(at + "q.bias", queryWidth);
    w.bk = read.takeIfThere(at + "k.bias", keyWidth);
    w.bv = read.takeIfThere(at + "v.bias", keyWidth);
    w.bo = read.takeIfThere(at + "o.bias", d);
    w.queryNorm = normOf(read, at + "queryNorm", s.headDim, s.normPlusOne).weight;
    w.keyNorm = normOf(read, at + "keyNorm", s.headDim, s.normPlusOne).weight;
    w.normEpsilon = s.normEpsilon;
    w.scale = s.attentionScale;
    w.softcap = s.attentionSoftcap;
    w.window = s.windows[static_cast<size_t>(i)];
    w.rope = s.ropes[static_cast<size_t>(i)];
    layer.attention = std::make_shared<const ReferenceModel>(std::move(w), CalibrationStreams{});
    layers.push_back(std::move(layer));
  }
}

int64_t DecoderWeights::bytes() const {
  int64_t sum = arena.currentBytes() + embedding.bytes() + positions.bytes();
  for (const Layer& layer : layers) sum += weightBytes(layer.attention->weights());
  return sum;
}

Decoder::Decoder(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const std::vector<Technique>& techniques,
                 const AttentionModels& calibrated, int64_t positions, int64_t calibrationTokens, const CancelFlag* cancel,
                 const DecoderPlace& place)
    : weights_(std::move(weights)), positions_(positions), cancel_(cancel) {
  if (!weights_->positions.empty() && positions > weights_->shape.maxPositions)
    refuse("expected at most " + std::to_string(weights_->shape.maxPositions) + " tokens, the model's positions, but received " + std::to_string(positions));
  for (size_t i = 0; i < techniques.size(); i++) {
    const ReferenceModel& model = calibrated.empty() ? *weights_->layers[i].attention : *calibrated[i];
    attention_.push_back(std::make_unique<AttentionLayer>(arena, model, techniques[i], positions, calibrationTokens, 0, cancel));
  }
  if (place.device < 0)
    executor_ = executeOnCpu(arena, weights_, attention_, cancel);
  else
    executor_ = executeOn(place.accelerator ? *place.accelerator : cudaLibrary(), place.device, place.numbers.value_or(numberType(techniques.front())), weights_,
                          attention_, techniques, positions, cancel);
}

void Decoder::show(const std::function<void(int64_t, const float*, int64_t)>& to, int64_t layer, Executor::Place from, int64_t rows) {
  if (!to) return;
  shown_.resize(static_cast<size_t>(rows * weights_->shape.hiddenDim));
  executor_->read(from, shown_.data());
  to(layer, shown_.data(), rows);
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
    const DecoderWeights::Layer& layer = weights_->layers[static_cast<size_t>(i)];
    on.normalise(layer.attentionNorm, Place::stream, Place::normed);
    show(onAttentionInput, i, Place::normed, rows);
    attend(i);
    if (s.residual == Residual::parallel) {
      if (layer.mlpNorm) on.normalise(layer.mlpNorm, Place::stream, Place::normed);  // else the MLP reads what attention reads
      on.feedForward(i, Place::normed, Place::fed);
      on.add(Place::attended);
    } else {
      if (layer.afterAttention) on.normalise(layer.afterAttention, Place::attended, Place::attended);
      on.add(Place::attended);
      on.normalise(layer.mlpNorm, Place::stream, Place::normed);
      on.feedForward(i, Place::normed, Place::fed);
      if (layer.afterMlp) on.normalise(layer.afterMlp, Place::fed, Place::fed);
    }
    on.add(Place::fed);
    show(onLayerOutput, i, Place::stream, rows);
  }
}

void Decoder::finish(float* logits) {
  executor_->normalise(weights_->finalNorm, Executor::Place::stream, Executor::Place::normed);
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
