#include "speculate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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

/// A sequence under one level: tokens go in, distributions come out.
class Side {
 public:
  Side(const EvaluatedModel& model, const Technique& technique, int64_t positions, double temperature, const CancelFlag* cancel)
      : temperature_(temperature), vocab_(model.weights()->shape.vocabSize), d_(model.weights()->shape.hiddenDim),
        decoder_(arena_, model.weights(), std::vector<Technique>(model.weights()->layers.size(), technique),
                 needsCalibration(technique, model.weights()->shape.kvHeads) ? model.calibrated() : AttentionModels(), positions,
                 static_cast<int64_t>(model.text().calibration.size()) * Calibration::streamTokens, cancel) {}

  void start(const int32_t* prompt, int64_t count) {
    sequence_ = decoder_.newSequence(arena_);
    if (count > 0) decoder_.prefill(sequence_, prompt, count, nullptr);
  }
  /// Reads more tokens; one distribution after each.
  std::vector<std::vector<double>> read(const Tokens& tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    hidden_.resize(static_cast<size_t>(n * d_));
    logits_.resize(static_cast<size_t>(n * vocab_));
    decoder_.step({&sequence_}, tokens.data(), n, hidden_.data());
    decoder_.logits(hidden_.data(), n, logits_.data());
    std::vector<std::vector<double>> out;
    for (int64_t i = 0; i < n; i++) out.push_back(distribution(logits_.data() + i * vocab_, vocab_, temperature_));
    return out;
  }
  int64_t length() const { return sequence_.length(); }
  void keep(int64_t length) {
    if (length < sequence_.length()) sequence_.rollback(length);
    sequence_.settle();
  }
  int64_t allocatedBytes() const { return sequence_.bytes().allocated; }

 private:
  double temperature_;
  int64_t vocab_, d_;
  Arena arena_;
  Decoder decoder_;
  SequenceState sequence_;
  std::vector<float> hidden_, logits_;
};

}  // namespace

Speculation speculate(const EvaluatedModel& model, const std::vector<Tokens>& prompts, const SpeculationSpec& spec, const CancelFlag* cancel) {
  size_t longest = 0;
  for (const Tokens& prompt : prompts) {
    if (prompt.empty()) refuse("expected prompts of at least 1 token");
    longest = std::max(longest, prompt.size());
  }
  if (spec.draftTokens < 1 || spec.tokens < 1) refuse("expected at least 1 token to draft and to make");
  const int64_t positions = static_cast<int64_t>(longest) + spec.tokens + spec.draftTokens + 2;
  const auto gamma = static_cast<size_t>(spec.draftTokens);
  Side target(model, spec.target, positions, spec.temperature, cancel), draft(model, spec.draft, positions, spec.temperature, cancel);
  Speculation out;
  out.offered.assign(gamma, 0);
  out.accepted.assign(gamma, 0);

  for (size_t p = 0; p < prompts.size(); p++) {
    const Tokens& prompt = prompts[p];
    const auto number = static_cast<int64_t>(p), before = static_cast<int64_t>(prompt.size()) - 1;
    const auto draw = [&](int64_t position, Draw what) { return uniform(spec.seed, number, position, what); };

    if (spec.plain) {
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
    out.targetCacheBytes = std::max(out.targetCacheBytes, target.allocatedBytes());
    out.draftCacheBytes = std::max(out.draftCacheBytes, draft.allocatedBytes());
  }
  return out;
}

}  // namespace fastmqa
