#include "evaluate.h"

#include <algorithm>
#include <cmath>

namespace fastmqa {
namespace {

constexpr int64_t keptFloats = 1 << 26;  // of exact logits: 256 MiB
/// Tokens between settlements. Caches with an exact tail settle often, so that the tail is no longer than in steady
/// decoding; for the others the number changes nothing but speed.
constexpr int64_t tailTokens = 8, plainTokens = 64;

struct Distribution {
  std::vector<double> p, logP;
  size_t top = 0;
  Distribution(const float* logits, int64_t n) : p(static_cast<size_t>(n)), logP(p.size()) {
    top = static_cast<size_t>(std::max_element(logits, logits + n) - logits);
    const auto most = static_cast<double>(logits[top]);
    double sum = 0;
    for (size_t i = 0; i < p.size(); i++) sum += std::exp(static_cast<double>(logits[i]) - most);
    const double logSum = most + std::log(sum);
    for (size_t i = 0; i < p.size(); i++) {
      logP[i] = static_cast<double>(logits[i]) - logSum;
      p[i] = std::exp(logP[i]);
    }
  }
};

/// Tokens [texts][count] from token `first` on.
Tokens partOf(const std::vector<Tokens>& texts, int64_t first, int64_t count) {
  Tokens out;
  for (const Tokens& text : texts) out.insert(out.end(), text.begin() + first, text.begin() + first + count);
  return out;
}

}  // namespace

bool needsCalibration(const Technique& t, int64_t kvHeads) {
  return t.cacheKind != CacheKind::direct || t.keyGrouping == Technique::Grouping::tensor || t.valueGrouping == Technique::Grouping::tensor ||
         (t.kvHeads < kvHeads && t.conversion == Conversion::aligned);
}

Technique exactTechnique(const DecoderShape& shape) {
  Technique t;
  t.kvHeads = shape.kvHeads;
  return t;
}

void checkCalibration(const EvaluationText& text) {
  for (const Tokens& t : text.calibration)
    if (static_cast<int64_t>(t.size()) != Calibration::streamTokens) refuse("expected calibration texts of " + std::to_string(Calibration::streamTokens) + " tokens");
}

void visitAttentionInputs(const std::shared_ptr<const DecoderWeights>& weights, const std::vector<Tokens>& texts, int64_t lastLayer,
                          const CancelFlag* cancel, const std::function<void(int64_t layer, const float* x, int64_t rows)>& visit) {
  size_t longest = 1;
  for (const Tokens& text : texts) longest = std::max(longest, text.size());
  Arena arena;
  Decoder decoder(arena, weights, std::vector<Technique>(static_cast<size_t>(lastLayer) + 1, exactTechnique(weights->shape)), {},
                  static_cast<int64_t>(longest), 0, cancel);
  decoder.onAttentionInput = [&](int64_t layer, const float* x, int64_t rows) {
    visit(layer, x, rows);
    return layer < lastLayer;
  };
  const auto sequence = decoder.newSequences(1);
  for (const Tokens& text : texts) decoder.prefill(*sequence, text.data(), static_cast<int64_t>(text.size()), nullptr);
}

EvaluatedModel::EvaluatedModel(std::shared_ptr<const DecoderWeights> weights, EvaluationText text, const CancelFlag* cancel)
    : weights_(std::move(weights)), text_(std::move(text)), cancel_(cancel) {
  if (text_.documents.empty() || text_.prompt < 1 || static_cast<int64_t>(text_.documents.front().size()) < text_.prompt + 2)
    refuse("expected documents longer than their prompt of " + std::to_string(text_.prompt) + " tokens");
  const auto alike = [](const std::vector<Tokens>& texts) {
    return std::all_of(texts.begin(), texts.end(), [&](const Tokens& t) { return t.size() == texts.front().size(); });
  };
  if (!alike(text_.documents) || !alike(text_.haystacks)) refuse("expected texts of one length");
  if (text_.probes.size() != text_.haystacks.size()) refuse("expected probes for every haystack");
  for (const auto& probes : text_.probes)
    for (size_t i = 0; i < probes.size(); i++) {
      const auto& first = text_.probes.front();
      if (probes.size() != first.size() || probes[i].question.size() != first[i].question.size() ||
          probes[i].answer.size() != first[i].answer.size() || probes[i].question.empty() || probes[i].answer.empty())
        refuse("expected the same kinds of probes in every haystack");
    }
  checkCalibration(text_);
  const auto rows = static_cast<int64_t>(text_.documents.size()) * (static_cast<int64_t>(text_.documents.front().size()) - text_.prompt);
  stride_ = std::max<int64_t>(1, rows * weights_->shape.vocabSize / keptFloats);
}

const EvaluatedModel::Answers& EvaluatedModel::exact() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (exact_) return *exact_;
  Arena arena;
  Decoder decoder(arena, weights_, std::vector<Technique>(static_cast<size_t>(weights_->shape.layers), exactTechnique(weights_->shape)), {}, longest(), 0, cancel_);
  exact_ = answer(decoder, *decoder.newSequences(static_cast<int64_t>(text_.documents.size())));
  return *exact_;
}

const AttentionModels& EvaluatedModel::calibrated() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!calibrated_.empty()) return calibrated_;
  const auto layers = static_cast<size_t>(weights_->shape.layers);
  std::vector<CalibrationStreams> streams(layers);
  visitAttentionInputs(weights_, text_.calibration, static_cast<int64_t>(layers) - 1, cancel_, [&](int64_t layer, const float* x, int64_t rows) {
    streams[static_cast<size_t>(layer)].push_back(std::make_shared<const std::vector<float>>(x, x + rows * weights_->shape.hiddenDim));
  });
  AttentionModels made;
  for (size_t i = 0; i < layers; i++)
    made.push_back(std::make_shared<const ReferenceModel>(weights_->attention(static_cast<int64_t>(i)).model->weights(), std::move(streams[i])));
  calibrated_ = std::move(made);
  return calibrated_;
}

EvaluatedModel::Answers EvaluatedModel::answer(Decoder& decoder, Sequences& sequences) const {
  const DecoderShape& s = weights_->shape;
  const int64_t d = s.hiddenDim, prompt = text_.prompt;
  const auto documents = static_cast<int64_t>(text_.documents.size());
  const auto length = static_cast<int64_t>(text_.documents.front().size());
  Answers out;
  out.streams.resize(static_cast<size_t>(s.layers));

  decoder.prefill(sequences, partOf(text_.documents, 0, prompt).data(), prompt, nullptr);

  const int64_t rows = documents * rowsPerDocument();
  out.logits.resize(static_cast<size_t>(rows * s.vocabSize));
  for (auto& stream : out.streams) stream.resize(static_cast<size_t>(rows * d));
  // Rows of `count` tokens of every document from token `first` on: those that are compared go to their places.
  const auto keep = [&](int64_t first, int64_t count, const float* from, int64_t width, std::vector<float>& to) {
    for (int64_t doc = 0; doc < documents; doc++)
      for (int64_t t = 0; t < count; t++)
        if (const int64_t row = rowOf(doc, first + t); row >= 0) std::copy_n(from + (doc * count + t) * width, width, to.data() + row * width);
  };
  const bool hasTail = hasExactTail(decoder.attention(0).cacheSpec());
  int64_t at = prompt;
  int64_t count = 0;
  decoder.onLayerOutput = [&](int64_t layer, const float* stream, int64_t) { keep(at, count, stream, d, out.streams[static_cast<size_t>(layer)]); };
  std::vector<float> logits;
  for (; at < length; at += count) {
    count = std::min(hasTail ? tailTokens : plainTokens, length - at);
    logits.resize(static_cast<size_t>(documents * count * s.vocabSize));
    decoder.step(sequences, partOf(text_.documents, at, count).data(), count, logits.data());
    sequences.settle();
    keep(at, count, logits.data(), s.vocabSize, out.logits);
  }
  decoder.onLayerOutput = nullptr;

  // Haystacks are read at once; every probe is asked of them in turn and forgotten again.
  const size_t probes = text_.probes.empty() ? 0 : text_.probes.front().size();
  if (probes == 0) return out;
  const auto hay = static_cast<int64_t>(text_.haystacks.front().size()), asked = static_cast<int64_t>(text_.haystacks.size());
  const auto stacks = decoder.newSequences(asked);
  decoder.prefill(*stacks, partOf(text_.haystacks, 0, hay).data(), hay, nullptr);
  for (size_t p = 0; p < probes; p++) {
    Tokens tokens;
    const Probe& shape = text_.probes.front()[p];
    const auto question = static_cast<int64_t>(shape.question.size()), answers = static_cast<int64_t>(shape.answer.size());
    const int64_t n = question + answers - 1;
    for (const auto& of : text_.probes) {
      tokens.insert(tokens.end(), of[p].question.begin(), of[p].question.end());
      tokens.insert(tokens.end(), of[p].answer.begin(), of[p].answer.end() - 1);
    }
    logits.resize(static_cast<size_t>(asked * n * s.vocabSize));
    decoder.step(*stacks, tokens.data(), n, logits.data());
    stacks->rollback(hay);
    double found = 0;
    for (size_t h = 0; h < text_.haystacks.size(); h++) {
      // Right only if each token of the answer is the likeliest after the ones before it: what greedy decoding would say.
      bool right = true;
      for (int64_t a = 0; a < answers; a++) {
        const float* row = logits.data() + (static_cast<int64_t>(h) * n + question - 1 + a) * s.vocabSize;
        right = right && std::max_element(row, row + s.vocabSize) - row == text_.probes[h][p].answer[static_cast<size_t>(a)];
      }
      found += right ? 1 : 0;
    }
    out.found.push_back(found / static_cast<double>(asked));
  }
  return out;
}

int64_t EvaluatedModel::rowsPerDocument() const {
  return (static_cast<int64_t>(text_.documents.front().size()) - text_.prompt + stride_ - 1) / stride_;
}

int64_t EvaluatedModel::rowOf(int64_t document, int64_t token) const {
  const int64_t since = token - text_.prompt;
  return since % stride_ == 0 ? document * rowsPerDocument() + since / stride_ : -1;
}

int64_t EvaluatedModel::longest() const {
  auto tokens = static_cast<int64_t>(text_.documents.front().size());
  if (!text_.probes.empty() && !text_.probes.front().empty()) {
    const Probe& probe = text_.probes.front().front();
    tokens = std::max(tokens, static_cast<int64_t>(text_.haystacks.front().size() + probe.question.size() + probe.answer.size()));
  }
  return tokens;
}

Quality EvaluatedModel::evaluate(Decoder& decoder, Sequences& sequences, PointError& error) const {
  const DecoderShape& s = weights_->shape;
  const Answers answers = answer(decoder, sequences);
  const Answers& exact = this->exact();
  Quality q;
  const int64_t rows = static_cast<int64_t>(text_.documents.size()) * rowsPerDocument();
  const auto length = static_cast<int64_t>(text_.documents.front().size());
  std::vector<double> kls;
  double same = 0, overlap = 0, nll = 0, exactNll = 0;
  int64_t scored = 0;
  for (size_t doc = 0; doc < text_.documents.size(); doc++)
    for (int64_t t = text_.prompt; t < length; t++) {
      const int64_t row = rowOf(static_cast<int64_t>(doc), t);
      if (row < 0) continue;
      const Distribution p(exact.logits.data() + row * s.vocabSize, s.vocabSize);
      const Distribution r(answers.logits.data() + row * s.vocabSize, s.vocabSize);
      double kl = 0, shared = 0;
      for (size_t i = 0; i < p.p.size(); i++) {
        if (p.p[i] > 0) kl += p.p[i] * (p.logP[i] - r.logP[i]);
        shared += std::min(p.p[i], r.p[i]);
      }
      if (!std::isfinite(kl)) throw Failure(FailureKind::failed, "the logits are not finite");
      kls.push_back(std::max(0.0, kl));
      overlap += shared;
      same += p.top == r.top ? 1 : 0;
      if (t + 1 == length) continue;
      const auto next = static_cast<size_t>(text_.documents[doc][static_cast<size_t>(t + 1)]);
      nll -= r.logP[next];
      exactNll -= p.logP[next];
      scored++;
    }
  const auto n = static_cast<double>(rows);
  for (double kl : kls) q.logitKl += kl / n;
  std::sort(kls.begin(), kls.end());
  q.logitKlP95 = kls[static_cast<size_t>(0.95 * static_cast<double>(kls.size() - 1))];
  q.top1Agreement = same / n;
  q.acceptance = std::min(1.0, overlap / n);  // sums of rounded probabilities
  q.perplexity = std::exp(nll / static_cast<double>(scored));
  q.exactPerplexity = std::exp(exactNll / static_cast<double>(scored));
  q.positions = rows;
  for (size_t i = 0; i < answers.found.size(); i++) {
    q.depths.push_back(text_.probes.front()[i].depth);
    q.retrieval.push_back(answers.found[i]);
    q.retrieved += answers.found[i];
    q.exactRetrieved += exact.found[i];
  }
  if (!answers.found.empty()) {
    q.retrieved /= static_cast<double>(answers.found.size());
    q.exactRetrieved /= static_cast<double>(answers.found.size());
  }
  for (size_t layer = 0; layer < answers.streams.size(); layer++) {
    ErrorSum sum;
    for (int64_t row = 0; row < rows; row++)
      sum.add(answers.streams[layer].data() + row * s.hiddenDim, exact.streams[layer].data() + row * s.hiddenDim, s.hiddenDim);
    error = sum.result();  // the last layer's stays
    q.layerErrors.push_back(error.relativeL2);
  }
  for (int64_t t = text_.prompt; t < length; t++)
    if (rowOf(0, t) >= 0) error.positions.push_back(t);
  return q;
}

ModelPoint::ModelPoint(std::shared_ptr<const EvaluatedModel> model, const PointSpec& spec, const CancelFlag* cancel)
    : TimedPoint(cancel), spec_(spec), model_(std::move(model)) {
  const DecoderShape& s = model_->weights()->shape;
  const EvaluationText& text = model_->text();
  const Technique& t = spec.technique;
  if (s.kvHeads % t.kvHeads) refuse("expected KV heads that divide the model's " + std::to_string(s.kvHeads) + " but received " + std::to_string(t.kvHeads));
  const int64_t room = std::max(model_->longest(), spec.seqLen + (spec.phase == Phase::verify ? spec.verifyTokens : 1));
  decoder_ = std::make_unique<Decoder>(arena_, model_->weights(), std::vector<Technique>(static_cast<size_t>(s.layers), t),
                                       needsCalibration(t, s.kvHeads) ? model_->calibrated() : AttentionModels(), room, spec.calibrationTokens, cancel,
                                       DecoderPlace{spec.device});
  Executor& executor = decoder_->executor();
  int64_t plain = 0;
  for (int64_t i = 0; i < s.layers; i++) plain += weightCount(model_->weights()->attention(i).model->weights()) * executor.numberBytes();
  memory_.extraWeightBytes = std::max<int64_t>(0, executor.attentionBytes() - plain);

  const auto documents = static_cast<int64_t>(text.documents.size());
  sequences_ = decoder_->newSequences(documents);
  quality_ = model_->evaluate(*decoder_, *sequences_, error_);
  // The batch is the documents, over again where there are too few.
  for (int64_t b = 0; b < spec.batch; b++) {
    const Tokens& document = text.documents[static_cast<size_t>(b % documents)];
    prompts_.insert(prompts_.end(), document.begin(), document.begin() + spec.seqLen);
  }
  if (spec.batch != documents) {
    sequences_ = nullptr;
    sequences_ = decoder_->newSequences(spec.batch);
    decoder_->prefill(*sequences_, prompts_.data(), spec.seqLen, nullptr);
  }
  memory_.cache = sequences_->bytes();
  memory_.cachedTokens = spec.seqLen;
  for (int64_t window : s.windows) memory_.ownTokens += window > 0 ? std::min(window, spec.seqLen) : spec.seqLen;
  const int64_t count = spec.phase == Phase::verify ? spec.verifyTokens : 1;
  for (int64_t b = 0; b < spec.batch; b++)
    for (int64_t i = 0; i < count; i++)
      stepTokens_.push_back(text.documents[static_cast<size_t>(b % documents)][static_cast<size_t>(i)]);
  work_ = spec.phase == Phase::prefill ? decoder_->prefillWork(spec.batch, spec.seqLen)
                                       : decoder_->stepWork(spec.batch, count, spec.seqLen + count, static_cast<int64_t>(memory_.cache.logical));
  executor.resetPeak();
  runStep();  // a warm-up, and shows the peak
  memory_.peakBytes = executor.peakBytes() + executor.sharedBytes();
}

void ModelPoint::runStep() {
  if (spec_.phase == Phase::prefill) {
    decoder_->prefill(*sequences_, prompts_.data(), spec_.seqLen, nullptr);
    return;
  }
  const int64_t before = sequences_->length();
  decoder_->step(*sequences_, stepTokens_.data(), static_cast<int64_t>(stepTokens_.size()) / spec_.batch, nullptr);
  sequences_->rollback(before);
}

}  // namespace fastmqa
