#include "decoder.h"

#include <algorithm>
#include <cmath>

#include "fastmqa/sizes.h"
#include "math/threads.h"

namespace fastmqa {
namespace {

float silu(float x) { return x / (1 + std::exp(-x)); }
float gelu(float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678118654752f)); }
float geluTanh(float x) { return 0.5f * x * (1 + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x))); }

float activated(float x, Activation activation) {
  switch (activation) {
    case Activation::silu: return silu(x);
    case Activation::gelu: return gelu(x);
    case Activation::geluTanh: return geluTanh(x);
  }
  return x;
}

/// Reads the weights of a checkpoint by name and checks their sizes.
class Reader {
 public:
  Reader(const Checkpoint& checkpoint, const CancelFlag* cancel) : checkpoint_(checkpoint), cancel_(cancel) {}
  bool has(const std::string& name) const { return checkpoint_.count(name) > 0; }
  std::vector<float> take(const std::string& name, int64_t rows, int64_t columns) const {
    if (cancel_) cancel_->check();
    const auto found = checkpoint_.find(name);
    if (found == checkpoint_.end()) refuse("expected weights for " + name + " but received none");
    if (found->second.rows() != rows || found->second.columns != columns)
      refuse("expected [" + std::to_string(rows) + ", " + std::to_string(columns) + "] for " + name + " but received [" +
             std::to_string(found->second.rows()) + ", " + std::to_string(found->second.columns) + "]");
    return readRows(found->second, name);
  }
  std::vector<float> takeIfThere(const std::string& name, int64_t rows) const {
    return has(name) ? take(name, rows, 1) : std::vector<float>();
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
  head = read.has("head") ? PackedWeights(arena, s.vocabSize, d, read.take("head", s.vocabSize, d).data(), d)
                          : PackedWeights(arena, s.vocabSize, d, embedding.data(), d);
  const auto packed = [&](const std::string& name, int64_t rows, int64_t columns) {
    return PackedWeights(arena, rows, columns, read.take(name, rows, columns).data(), columns);
  };
  for (int64_t i = 0; i < s.layers; i++) {
    const std::string at = "layers." + std::to_string(i) + ".";
    Layer layer;
    layer.attentionNorm = normOf(read, at + "attentionNorm", d, s.normPlusOne);
    layer.mlpNorm = normOf(read, at + "mlpNorm", d, s.normPlusOne);
    layer.afterAttention = normOf(read, at + "afterAttention", d, s.normPlusOne);
    layer.afterMlp = normOf(read, at + "afterMlp", d, s.normPlusOne);
    if (s.gatedMlp) layer.gate = packed(at + "gate", s.mlpDim, d);
    layer.up = packed(at + "up", s.mlpDim, d);
    layer.down = packed(at + "down", d, s.mlpDim);
    layer.upBias = read.takeIfThere(at + "up.bias", s.mlpDim);
    layer.downBias = read.takeIfThere(at + "down.bias", d);
    LayerWeights w;
    w.d = d, w.heads = s.heads, w.kvHeads = s.kvHeads, w.headDim = s.headDim;
    w.wq = read.take(at + "q", queryWidth, d);
    w.wk = read.take(at + "k", keyWidth, d);
    w.wv = read.take(at + "v", keyWidth, d);
    w.wo = read.take(at + "o", d, queryWidth);
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

Decoder::Decoder(Arena& arena, std::shared_ptr<const DecoderWeights> weights, const std::vector<Technique>& techniques,
                 const AttentionModels& calibrated, int64_t positions, int64_t calibrationTokens, const CancelFlag* cancel)
    : weights_(std::move(weights)), positions_(positions), cancel_(cancel) {
  if (!weights_->positions.empty() && positions > weights_->shape.maxPositions)
    refuse("expected at most " + std::to_string(weights_->shape.maxPositions) + " tokens, the model's positions, but received " + std::to_string(positions));
  for (size_t i = 0; i < techniques.size(); i++) {
    const ReferenceModel& model = calibrated.empty() ? *weights_->layers[i].attention : *calibrated[i];
    attention_.push_back(std::make_unique<AttentionLayer>(arena, model, techniques[i], positions, calibrationTokens, 0, cancel));
  }
}

SequenceState Decoder::newSequence(Arena& arena) const {
  SequenceState out;
  for (const auto& layer : attention_) out.caches.push_back(layer->newCache(arena));
  return out;
}

void Decoder::normalise(const NormWeights& norm, const float* x, int64_t rows, float* y) const {
  const int64_t d = weights_->shape.hiddenDim;
  const bool centred = weights_->shape.norm == Norm::layer;
  const double epsilon = weights_->shape.normEpsilon;
  parallelFor((rows + 15) / 16, [&](int64_t block) {
    for (int64_t r = block * 16; r < std::min(rows, block * 16 + 16); r++) {
      const float* from = x + r * d;
      float* to = y + r * d;
      double mean = 0, squares = 0;
      if (centred) {
        for (int64_t c = 0; c < d; c++) mean += static_cast<double>(from[c]);
        mean /= static_cast<double>(d);
      }
      for (int64_t c = 0; c < d; c++) squares += (static_cast<double>(from[c]) - mean) * (static_cast<double>(from[c]) - mean);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + epsilon);
      for (int64_t c = 0; c < d; c++)
        to[c] = static_cast<float>((static_cast<double>(from[c]) - mean) * scale) * norm.weight[static_cast<size_t>(c)] +
                (norm.bias.empty() ? 0.0f : norm.bias[static_cast<size_t>(c)]);
    }
  });
}

void Decoder::mlp(const DecoderWeights::Layer& layer, const float* x, int64_t rows, float* y) const {
  const DecoderShape& s = weights_->shape;
  std::vector<float> up(static_cast<size_t>(rows * s.mlpDim)), gate(s.gatedMlp ? up.size() : 0);
  layer.up.multiply(rows, x, s.hiddenDim, up.data(), s.mlpDim);
  if (s.gatedMlp) layer.gate.multiply(rows, x, s.hiddenDim, gate.data(), s.mlpDim);
  parallelFor(rows, [&](int64_t r) {
    float* u = up.data() + r * s.mlpDim;
    const float* g = gate.data() + r * s.mlpDim;
    for (int64_t c = 0; c < s.mlpDim; c++) {
      if (!layer.upBias.empty()) u[c] += layer.upBias[static_cast<size_t>(c)];
      u[c] = s.gatedMlp ? activated(g[c], s.activation) * u[c] : activated(u[c], s.activation);
    }
  });
  layer.down.multiply(rows, up.data(), s.mlpDim, y, s.hiddenDim);
  if (!layer.downBias.empty())
    for (int64_t i = 0; i < rows * s.hiddenDim; i++) y[i] += layer.downBias[static_cast<size_t>(i % s.hiddenDim)];
}

void Decoder::run(const int32_t* tokens, int64_t rows, int64_t firstPosition, int64_t perSequence, const Attend& attend, float* hidden) const {
  const DecoderShape& s = weights_->shape;
  const int64_t d = s.hiddenDim;
  if (firstPosition + perSequence > positions_)
    refuse("expected at most " + std::to_string(positions_) + " tokens in a sequence but received " + std::to_string(firstPosition + perSequence));
  std::vector<float> x(static_cast<size_t>(rows * d)), a(x.size()), b(x.size()), m(x.size());
  for (int64_t r = 0; r < rows; r++) {
    if (tokens[r] < 0 || tokens[r] >= s.vocabSize)
      refuse("expected tokens below " + std::to_string(s.vocabSize) + " but received " + std::to_string(tokens[r]));
    for (int64_t c = 0; c < d; c++)
      x[static_cast<size_t>(r * d + c)] = weights_->embedding[static_cast<size_t>(tokens[r] * d + c)] * static_cast<float>(s.embeddingScale);
    if (!weights_->positions.empty())
      for (int64_t c = 0; c < d; c++)
        x[static_cast<size_t>(r * d + c)] += weights_->positions[static_cast<size_t>((firstPosition + r % perSequence) * d + c)];
  }
  const auto add = [&](const std::vector<float>& from) {
    for (size_t i = 0; i < x.size(); i++) x[i] += from[i];
  };
  for (int64_t i = 0; i < static_cast<int64_t>(attention_.size()); i++) {
    if (cancel_) cancel_->check();
    const DecoderWeights::Layer& layer = weights_->layers[static_cast<size_t>(i)];
    normalise(layer.attentionNorm, x.data(), rows, a.data());
    if (onAttentionInput) onAttentionInput(i, a.data(), rows);
    attend(i, a.data(), b.data());
    if (s.residual == Residual::parallel) {
      if (layer.mlpNorm) normalise(layer.mlpNorm, x.data(), rows, a.data());  // else the MLP reads what attention reads
      mlp(layer, a.data(), rows, m.data());
      add(b);
      add(m);
    } else {
      if (layer.afterAttention) normalise(layer.afterAttention, b.data(), rows, b.data());
      add(b);
      normalise(layer.mlpNorm, x.data(), rows, a.data());
      mlp(layer, a.data(), rows, m.data());
      if (layer.afterMlp) normalise(layer.afterMlp, m.data(), rows, m.data());
      add(m);
    }
    if (onLayerOutput) onLayerOutput(i, x.data(), rows);
  }
  if (hidden) std::copy(x.begin(), x.end(), hidden);
}

void Decoder::prefill(SequenceState& sequence, const int32_t* tokens, int64_t count, float* hidden) const {
  run(tokens, count, 0, count, [&](int64_t i, const float* x, float* y) {
    attention_[static_cast<size_t>(i)]->prefill(*sequence.caches[static_cast<size_t>(i)], x, count, y);
  }, hidden);
}

void Decoder::step(const std::vector<SequenceState*>& sequences, const int32_t* tokens, int64_t count, float* hidden) const {
  const auto rows = static_cast<int64_t>(sequences.size()) * count;
  run(tokens, rows, sequences.front()->length(), count, [&](int64_t i, const float* x, float* y) {
    std::vector<SequenceCache*> caches;
    for (SequenceState* sequence : sequences) caches.push_back(sequence->caches[static_cast<size_t>(i)].get());
    attention_[static_cast<size_t>(i)]->step(caches, x, count, y);
  }, hidden);
}

void Decoder::logits(const float* hidden, int64_t rows, float* out) const {
  const DecoderShape& s = weights_->shape;
  std::vector<float> x(static_cast<size_t>(rows * s.hiddenDim));
  normalise(weights_->finalNorm, hidden, rows, x.data());
  weights_->head.multiply(rows, x.data(), s.hiddenDim, out, s.vocabSize);
  if (s.logitSoftcap > 0) {
    const auto cap = static_cast<float>(s.logitSoftcap);
    for (int64_t i = 0; i < rows * s.vocabSize; i++) out[i] = cap * std::tanh(out[i] / cap);
  }
}

int64_t Decoder::attentionBytes() const {
  int64_t sum = 0;
  for (const auto& layer : attention_) sum += layer->weightBytes();
  return sum;
}

double Decoder::mlpFlops() const {
  const DecoderShape& s = weights_->shape;
  return 2.0 * static_cast<double>(s.hiddenDim) * static_cast<double>((s.gatedMlp ? 3 : 2) * s.mlpDim * s.layers + s.vocabSize);
}

Work Decoder::stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes) const {
  Work sum;
  for (const auto& layer : attention_) {
    const int64_t window = layer->cacheSpec().window, seen = window > 0 ? std::min(cached, window + layer->cacheSpec().sinks) : cached;
    const Work w = layer->stepWork(batch, tokens, seen, 0, sizeof(float));
    sum.flops += w.flops;
    sum.bytes += w.bytes;
  }
  sum.flops += static_cast<double>(batch * tokens) * mlpFlops();
  sum.bytes += mlpFlops() / 2 * sizeof(float) + static_cast<double>(cacheBytes);
  sum.tokens = batch * tokens;
  return sum;
}

Work Decoder::prefillWork(int64_t batch, int64_t tokens) const {
  Work sum;
  for (const auto& layer : attention_) {
    const Work w = layer->prefillWork(batch, tokens, sizeof(float), layer->weightBytes());
    sum.flops += w.flops;
    sum.bytes += w.bytes;
  }
  sum.flops += static_cast<double>(batch * tokens) * mlpFlops();
  sum.bytes += mlpFlops() / 2 * sizeof(float);
  sum.tokens = batch * tokens;
  return sum;
}

}  // namespace fastmqa
