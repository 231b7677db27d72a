#include "decoder-weights.h"

#include <utility>

#include "fastmqa/sizes.h"

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

std::string nameOf(int64_t layer) { return "layers." + std::to_string(layer) + "."; }

}  // namespace

DecoderWeights::DecoderWeights(const DecoderShape& s, Checkpoint checkpoint, const CancelFlag* cancel)
    : shape(s), checkpoint_(std::move(checkpoint)), attention_(static_cast<size_t>(s.layers)), feedForward_(static_cast<size_t>(s.layers)) {
  const Reader read(checkpoint_, cancel);
  embedding_ = read.take("embedding", s.vocabSize, s.hiddenDim);
  if (read.has("positions")) positions_ = read.take("positions", s.maxPositions, s.hiddenDim);
}

const DecoderWeights::Attention& DecoderWeights::attention(int64_t layer, const CancelFlag* cancel) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& at = attention_[static_cast<size_t>(layer)];
  return at ? *at : at.emplace(readAttention(layer, cancel));
}

const DecoderWeights::FeedForward& DecoderWeights::feedForward(int64_t layer, const CancelFlag* cancel) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto& at = feedForward_[static_cast<size_t>(layer)];
  return at ? *at : at.emplace(readFeedForward(layer, cancel));
}

const DecoderWeights::Head& DecoderWeights::head(const CancelFlag* cancel) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return head_ ? *head_ : head_.emplace(readHead(cancel));
}

void DecoderWeights::readAll(const CancelFlag* cancel) const {
  for (int64_t i = 0; i < shape.layers; i++) {
    attention(i, cancel);
    feedForward(i, cancel);
  }
  head(cancel);
}

int64_t DecoderWeights::bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  int64_t sum = arena_.currentBytes() + embedding_.bytes() + positions_.bytes();
  for (const auto& at : attention_)
    if (at) sum += weightBytes(at->model->weights());
  return sum;
}

DecoderWeights::Head DecoderWeights::readHead(const CancelFlag* cancel) const {
  const Reader read(checkpoint_, cancel);
  const int64_t vocabulary = shape.vocabSize, d = shape.hiddenDim;
  Head out;
  out.norm = normOf(read, "finalNorm", d, shape.normPlusOne);
  out.isTied = !read.has("head");
  out.weights = PackedWeights(arena_, vocabulary, d, out.isTied ? embedding_ : read.take("head", vocabulary, d));
  return out;
}

DecoderWeights::FeedForward DecoderWeights::readFeedForward(int64_t i, const CancelFlag* cancel) const {
  const Reader read(checkpoint_, cancel);
  const DecoderShape& s = shape;
  const int64_t d = s.hiddenDim;
  const std::string at = nameOf(i);
  const auto packed = [&](const std::string& name, int64_t rows, int64_t columns) {
    return PackedWeights(arena_, rows, columns, read.take(name, rows, columns));
  };
  FeedForward out;
  out.norm = normOf(read, at + "mlpNorm", d, s.normPlusOne);
  out.afterAttention = normOf(read, at + "afterAttention", d, s.normPlusOne);
  out.after = normOf(read, at + "afterMlp", d, s.normPlusOne);
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
    out.experts = std::move(experts);
  } else {
    if (s.gatedMlp) out.gate = packed(at + "gate", s.mlpDim, d);
    out.up = packed(at + "up", s.mlpDim, d);
    out.down = packed(at + "down", d, s.mlpDim);
    out.upBias = read.takeIfThere(at + "up.bias", s.mlpDim);
    out.downBias = read.takeIfThere(at + "down.bias", d);
  }
  return out;
}

DecoderWeights::Attention DecoderWeights::readAttention(int64_t i, const CancelFlag* cancel) const {
  const Reader read(checkpoint_, cancel);
  const DecoderShape& s = shape;
  const int64_t d = s.hiddenDim, queryWidth = elements({s.heads, s.headDim}), keyWidth = elements({s.kvHeads, s.headDim});
  const std::string at = nameOf(i);
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
  return {normOf(read, at + "attentionNorm", d, s.normPlusOne), std::make_shared<const ReferenceModel>(std::move(w), CalibrationStreams{})};
}

}  // namespace fastmqa
