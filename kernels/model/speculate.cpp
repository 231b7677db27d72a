#include "speculate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "layer/accelerator.h"

namespace fastmqa {
namespace {

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What a random number decides. Numbers belong to a position, so that none depends on what was accepted before.
enum class Draw : uint64_t { proposal, acceptance, correction };

double uniform(uint64_t seed, int64_t prompt, int64_t position, Draw draw) {
  uint64_t z = seed;
  for (const uint64_t part : {static_cast<uint64_t>(prompt), static_cast<uint64_t>(position), static_cast<uint64_t>(draw)}) {
    z += 0x9e3779b97f4a7c15 + part * 0xd1b54a32d192ed03;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
  }
  return (static_cast<double>(z >> 11) + 0.5) * 0x1p-53;
}

/// The distribution sampled from; at temperature 0 all of it on the likeliest token.
std::vector<double> distribution(const float* logits, int64_t n, double temperature) {
  std::vector<double> p(static_cast<size_t>(n), 0.0);
  const float* top = std::max_element(logits, logits + n);
  if (temperature <= 0) {
    p[static_cast<size_t>(top - logits)] = 1;
    return p;
  }
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += p[static_cast<size_t>(i)] = std::exp((static_cast<double>(logits[i]) - static_cast<double>(*top)) / temperature);
  for (double& x : p) x /= sum;
  return p;
}

int32_t pick(const std::vector<double>& weights, double u) {
  double sum = 0;
  for (double w : weights) sum += w;
  double left = u * sum;
  size_t last = 0;
  for (size_t i = 0; i < weights.size(); i++) {
    if (weights[i] <= 0) continue;
    last = i;
    left -= weights[i];
    if (left < 0) break;
  }
  return static_cast<int32_t>(last);
}

}  // namespace

/// A sequence under one level: tokens go in, distributions come out.
class Speculator::Side {
 public:
  Side(const EvaluatedModel& model, const Technique& technique, const DecoderPlace& place, int64_t positions, double temperature, const CancelFlag* cancel)
      : temperature_(temperature), vocab_(model.weights()->shape.vocabSize),
        decoder_(arena_, model.weights(), std::vector<Technique>(static_cast<size_t>(model.weights()->shape.layers), technique),
                 needsCalibration(technique, model.weights()->shape.kvHeads) ? model.calibrated() : AttentionModels(), positions,
                 static_cast<int64_t>(model.text().calibration.size()) * Calibration::streamTokens, cancel, place) {
    decoder_.executor().resetPeak();
  }

  void start(const int32_t* prompt, int64_t count) {
    sequence_ = decoder_.newSequences(1);
    if (count > 0) decoder_.prefill(*sequence_, prompt, count, nullptr);
  }
  /// Reads more tokens; one distribution after each.
  std::vector<std::vector<double>> read(const Tokens& tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    logits_.resize(static_cast<size_t>(n * vocab_));
    decoder_.step(*sequence_, tokens.data(), n, logits_.data());
    std::vector<std::vector<double>> out;
    for (int64_t i = 0; i < n; i++) out.push_back(distribution(logits_.data() + i * vocab_, vocab_, temperature_));
    return out;
  }
  int64_t length() const { return sequence_->length(); }
  void keep(int64_t length) {
    if (length < sequence_->length()) sequence_->rollback(length);
    sequence_->settle();
  }
  CacheBytes bytes() const { return sequence_->bytes(); }
  int64_t peakBytes() const { return decoder_.executor().peakBytes(); }
  int64_t sharedBytes() const { return decoder_.executor().sharedBytes(); }
  Work work(int64_t tokens, int64_t context) const { return decoder_.stepWork(1, tokens, context + tokens, static_cast<int64_t>(bytes().logical)); }

 private:
  double temperature_;
  int64_t vocab_;
  Arena arena_;
  Decoder decoder_;
  std::unique_ptr<Sequences> sequence_;
  std::vector<float> logits_;
};

Speculator::Speculator(std::shared_ptr<const EvaluatedModel> model, const SpeculationSpec& spec, int64_t longestPrompt, const CancelFlag* cancel)
    : model_(std::move(model)), spec_(spec), longestPrompt_(longestPrompt), cancel_(cancel) {
  if (spec.draftTokens < 1 || spec.tokens < 1) refuse("expected at least 1 token to draft and to make");
  const int64_t positions = longestPrompt + spec.tokens + spec.draftTokens + 2;
  // On a device both compute in the target's numbers: a draft may win by its cache only.
  DecoderPlace place = spec.place;
  if (!place.numbers) place.numbers = numberType(spec.target);
  target_ = std::make_unique<Side>(*model_, spec.target, place, positions, spec.temperature, cancel);
  draft_ = std::make_unique<Side>(*model_, spec.draft, place, positions, spec.temperature, cancel);
}

Speculator::~Speculator() = default;

CacheBytes Speculator::cacheBytes() const {
  CacheBytes sum = target_->bytes();
  sum += draft_->bytes();
  return sum;
}
int64_t Speculator::peakBytes() const { return target_->peakBytes() + draft_->peakBytes() + target_->sharedBytes(); }
Work Speculator::draftWork(int64_t context) const { return draft_->work(1, context); }
Work Speculator::verifyWork(int64_t context) const { return target_->work(spec_.draftTokens + 1, context); }

Speculation Speculator::run(const std::vector<Tokens>& prompts, bool plain) {
  for (const Tokens& prompt : prompts)
    if (prompt.empty() || static_cast<int64_t>(prompt.size()) > longestPrompt_)
      refuse("expected prompts of 1 to " + std::to_string(longestPrompt_) + " tokens but received one of " + std::to_string(prompt.size()));
  const SpeculationSpec& spec = spec_;
  const CancelFlag* cancel = cancel_;
  Side &target = *target_, &draft = *draft_;
  const auto gamma = static_cast<size_t>(spec.draftTokens);
  Speculation out;
  out.offered.assign(gamma, 0);
  out.accepted.assign(gamma, 0);

  for (size_t p = 0; p < prompts.size(); p++) {
    const Tokens& prompt = prompts[p];
    const auto number = static_cast<int64_t>(p), before = static_cast<int64_t>(prompt.size()) - 1;
    const auto draw = [&](int64_t position, Draw what) { return uniform(spec.seed, number, position, what); };

    if (plain) {
      target.start(prompt.data(), before);
      Tokens made;
      int32_t last = prompt.back();
      const double start = secondsNow();
      while (static_cast<int64_t>(made.size()) < spec.tokens) {
        if (cancel) cancel->check();
        const auto q = target.read({last});
        target.keep(target.length());
        last = pick(q.front(), draw(before + 1 + static_cast<int64_t>(made.size()), Draw::correction));
        made.push_back(last);
      }
      out.plainSeconds += secondsNow() - start;
      out.plainOutput.push_back(std::move(made));
    }

    // Both caches hold everything but the last token; what the draft did not read while proposing waits for its next turn.
    target.start(prompt.data(), before);
    draft.start(prompt.data(), before);
    Tokens made, unread;
    int32_t last = prompt.back();
    const double start = secondsNow();
    while (static_cast<int64_t>(made.size()) < spec.tokens) {
      if (cancel) cancel->check();
      const int64_t known = target.length();  // the last token stands at this position
      const double draftStart = secondsNow();
      Tokens proposed;
      std::vector<std::vector<double>> q;
      unread.push_back(last);
      for (size_t i = 0; i < gamma; i++) {
        q.push_back(draft.read(unread).back());
        proposed.push_back(pick(q.back(), draw(known + 1 + static_cast<int64_t>(i), Draw::proposal)));
        unread = {proposed.back()};
      }
      const double verifyStart = secondsNow();
      Tokens verified = {last};
      verified.insert(verified.end(), proposed.begin(), proposed.end());
      const auto t = target.read(verified);
      out.verifySeconds += secondsNow() - verifyStart;
      out.draftSeconds += verifyStart - draftStart;

      size_t kept = 0;
      for (; kept < gamma; kept++) {
        const auto x = static_cast<size_t>(proposed[kept]);
        out.offered[kept]++;
        // Accept with probability min(1, p / q); at temperature 0 that is: the target's likeliest token is the same.
        if (draw(known + 1 + static_cast<int64_t>(kept), Draw::acceptance) * q[kept][x] >= t[kept][x]) break;
        out.accepted[kept]++;
      }
      std::vector<double> rest = t[kept];
      if (kept < gamma)
        for (size_t i = 0; i < rest.size(); i++) rest[i] = std::max(0.0, rest[i] - q[kept][i]);
      last = pick(rest, draw(known + 1 + static_cast<int64_t>(kept), Draw::correction));
      made.insert(made.end(), proposed.begin(), proposed.begin() + static_cast<std::ptrdiff_t>(kept));
      made.push_back(last);

      const int64_t length = known + 1 + static_cast<int64_t>(kept);
      target.keep(length);
      if (kept < gamma) unread.clear();  // what was proposed last and never read is wrong
      draft.keep(std::min(length, draft.length()));
      out.rounds++;
    }
    out.seconds += secondsNow() - start;
    out.tokens += static_cast<int64_t>(made.size());
    made.resize(static_cast<size_t>(spec.tokens));
    out.output.push_back(std::move(made));
    out.targetCacheBytes = std::max(out.targetCacheBytes, target.bytes().allocated);
    out.draftCacheBytes = std::max(out.draftCacheBytes, draft.bytes().allocated);
  }
  return out;
}

namespace {

constexpr int64_t tokensOfSample = 48;

SpeculationSpec speculationOf(const PointSpec& spec, const DecoderShape& shape) {
  SpeculationSpec s;
  s.target = exactTechnique(shape);
  if (spec.device >= 0) s.target.keyDtype = s.target.valueDtype = Dtype::f16;  // as models are run there
  s.place.device = spec.device;
  s.draft = spec.technique;
  s.draftTokens = spec.draftTokens;
  s.tokens = tokensOfSample;
  return s;
}

}  // namespace

SpeculationPoint::SpeculationPoint(std::shared_ptr<const EvaluatedModel> model, const PointSpec& spec, const CancelFlag* cancel)
    : TimedPoint(cancel), model_(std::move(model)) {
  const DecoderShape& shape = model_->weights()->shape;
  const std::vector<Tokens>& prompts = model_->text().documents;
  if (spec.batch != 1) refuse("expected a batch of 1 for speculative decoding but received " + std::to_string(spec.batch));
  if (shape.kvHeads % spec.technique.kvHeads) refuse("expected KV heads that divide the model's " + std::to_string(shape.kvHeads) + " but received " + std::to_string(spec.technique.kvHeads));
  speculator_ = std::make_unique<Speculator>(model_, speculationOf(spec, shape), spec.seqLen, cancel);
  speculator_->run({prompts.front()}, false);  // a warm-up
  // Other work on the machine hits one side or the other: of three comparisons the middle one counts.
  std::vector<Speculation> comparisons;
  for (int i = 0; i < 3; i++) comparisons.push_back(speculator_->run(prompts, true));
  std::sort(comparisons.begin(), comparisons.end(), [](const Speculation& a, const Speculation& b) { return a.plainSeconds * b.seconds < b.plainSeconds * a.seconds; });
  comparison_ = std::move(comparisons[1]);
  memory_.cache = speculator_->cacheBytes();
  memory_.cachedTokens = spec.seqLen;
  for (int64_t window : shape.windows) memory_.ownTokens += window > 0 ? std::min(window, spec.seqLen) : spec.seqLen;
  memory_.peakBytes = speculator_->peakBytes();
  const Work draft = speculator_->draftWork(spec.seqLen), verify = speculator_->verifyWork(spec.seqLen);
  const double rounds = static_cast<double>(tokensOfSample) * static_cast<double>(comparison_.rounds) / static_cast<double>(comparison_.tokens);
  work_.flops = rounds * (static_cast<double>(spec.draftTokens) * draft.flops + verify.flops);
  work_.bytes = rounds * (static_cast<double>(spec.draftTokens) * draft.bytes + verify.bytes);
  work_.tokens = tokensOfSample;
}

std::vector<double> SpeculationPoint::sample(double seconds, int64_t most) {
  const auto& prompts = model_->text().documents;
  std::vector<double> samples;
  for (const double start = secondsNow(); samples.empty() || (static_cast<int64_t>(samples.size()) < most && secondsNow() - start < seconds);) {
    if (cancel_) cancel_->check();
    const Speculation made = speculator_->run({prompts[next_++ % prompts.size()]}, false);
    samples.push_back(made.seconds * static_cast<double>(tokensOfSample) / static_cast<double>(made.tokens));
  }
  return samples;
}

}  // namespace fastmqa
