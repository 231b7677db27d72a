#include "point.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "math/threads.h"
#include "simd/simd.h"

namespace fastmqa {
namespace {

double secondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double quantile(std::vector<double> sorted, double q) {
  std::sort(sorted.begin(), sorted.end());
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

}  // namespace

MeasuredPoint::MeasuredPoint(const PointSpec& spec, const CancelFlag* cancel)
    : MeasuredPoint(spec, referenceModel(spec.model), nullptr, cancel) {}

MeasuredPoint::MeasuredPoint(const PointSpec& spec, std::shared_ptr<const ReferenceModel> model, std::shared_ptr<const Workload> workload, const CancelFlag* cancel)
    : TimedPoint(cancel), spec_(spec), model_(std::move(model)), workload_(std::move(workload)) {
  const LayerWeights& w = model_->weights();
  if (w.heads % w.kvHeads || w.kvHeads % spec.technique.kvHeads) refuse("expected KV heads that divide the heads they serve");
  if (spec.technique.hadamard && (w.headDim & (w.headDim - 1))) refuse("expected a head size that is a power of two for hadamard but received " + std::to_string(w.headDim));
  if (cancel) cancel->check();
  if (!workload_) workload_ = fastmqa::workload(model_, spec.batch, spec.seqLen, spec.inputSeed);
  if (cancel) cancel->check();
  layer_ = std::make_unique<AttentionLayer>(arena_, *model_, spec.technique, workload_->room, spec.calibrationTokens,
                                            spec.inputSeed, cancel);
  const int64_t plain = (2 * w.heads + 2 * w.kvHeads) * w.headDim * w.d * static_cast<int64_t>(sizeof(float));
  memory_.extraWeightBytes = std::max<int64_t>(0, layer_->weightBytes() - plain);
  if (spec.phase == Phase::prefill)
    evaluatePrefill();
  else
    evaluateSteps();
  if (spec.phase != Phase::prefill) {
    arena_.resetPeak();
    runStep();  // a warm-up, and shows the peak; for prefill the evaluation was both
  }
  memory_.peakBytes = arena_.peakBytes() + workspaceBytes();
  if (w.window > 0) memory_.ownTokens = std::min(w.window, spec.seqLen);
}

template <class Reference>
void ErrorSum::add(const float* out, const Reference* reference, int64_t width) {
  double e2 = 0, y2 = 0, o2 = 0, dot = 0;
  for (int64_t c = 0; c < width; c++) {
    const auto o = static_cast<double>(out[c]), y = static_cast<double>(reference[c]);
    const double e = o - y;
    e2 += e * e, y2 += y * y, o2 += o * o, dot += o * y;
    largest_ = std::max(largest_, std::fabs(e));
  }
  if (!std::isfinite(e2)) throw Failure(FailureKind::failed, "the output is not finite");
  difference_ += e2, reference_ += y2;
  cosines_ += o2 > 0 && y2 > 0 ? dot / std::sqrt(o2 * y2) : 0;
  rows_.push_back(y2 > 0 ? std::sqrt(e2 / y2) : 0);
  numbers_ += width;
}
template void ErrorSum::add(const float*, const float*, int64_t);
template void ErrorSum::add(const float*, const double*, int64_t);

PointError ErrorSum::result() const {
  PointError error;
  const auto n = static_cast<double>(numbers_);
  error.relativeL2 = std::sqrt(difference_ / reference_);
  error.cosine = cosines_ / static_cast<double>(rows_.size());
  error.rms = std::sqrt(difference_ / n);
  error.maxAbs = largest_;
  error.referenceRms = std::sqrt(reference_ / n);
  error.tokenMedian = quantile(rows_, 0.5);
  error.tokenP95 = quantile(rows_, 0.95);
  return error;
}

void MeasuredPoint::compare(const std::vector<float>& outputs, const std::vector<size_t>& used) {
  const int64_t d = model_->weights().d;
  ErrorSum sum;
  size_t row = 0;
  for (int64_t b = 0; b < spec_.batch; b++)
    for (size_t p : used)
      sum.add(outputs.data() + static_cast<int64_t>(row++) * d, workload_->y[static_cast<size_t>(b)].data() + static_cast<int64_t>(p) * d, d);
  error_ = sum.result();
  for (size_t p : used) error_.positions.push_back(workload_->positions[p]);
}

// Positions that a window actually cuts, where there are any: before that a window has no effect to show. The window of
// the model itself cuts the reference alike.
std::vector<size_t> MeasuredPoint::positionsUsed() const {
  const Workload& w = *workload_;
  const int64_t window = model_->weights().window > 0 ? 0 : spec_.technique.window;
  std::vector<size_t> all, beyond;
  for (size_t p = 0; p < w.positions.size(); p++) {
    all.push_back(p);
    // Whole runs only: their first position decides.
    if (window > 0 && w.positions[p / Workload::runTokens * Workload::runTokens] >= window) beyond.push_back(p);
  }
  return beyond.empty() ? all : beyond;
}

void MeasuredPoint::evaluatePrefill() {
  const int64_t d = model_->weights().d, n = spec_.seqLen;
  stepOutputs_ = Buffer<float>(arena_, n * d);
  const std::vector<size_t> used = positionsUsed();
  std::vector<float> outputs;
  for (int64_t b = 0; b < spec_.batch; b++) {
    caches_.push_back(layer_->newCache(arena_));
    layer_->prefill(*caches_.back(), workload_->x[static_cast<size_t>(b)].data(), n, stepOutputs_.data());
    for (size_t p : used) {
      const float* row = stepOutputs_.data() + workload_->positions[p] * d;
      outputs.insert(outputs.end(), row, row + d);
    }
    memory_.cache += caches_.back()->bytes();
  }
  compare(outputs, used);
  memory_.cachedTokens = n;
  work_ = layer_->prefillWork(spec_.batch, n);
}

// Every sampled query reads the compressed cache as it stands at its position: the tokens before it settled, its own
// run of `runTokens` included, as in steady decoding.
void MeasuredPoint::evaluateSteps() {
  const int64_t d = model_->weights().d, run = Workload::runTokens;
  const std::vector<size_t> used = positionsUsed();
  const int64_t window = layer_->cacheSpec().window;
  std::vector<float> outputs(used.size() * static_cast<size_t>(spec_.batch * d));
  for (int64_t b = 0; b < spec_.batch; b++) {
    const float* x = workload_->x[static_cast<size_t>(b)].data();
    auto cache = layer_->newCache(arena_);
    for (size_t k = 0; k < used.size();) {
      const int64_t start = workload_->positions[used[k]];
      size_t end = k + 1;
      while (end < used.size() && static_cast<int64_t>(end - k) < run && workload_->positions[used[end]] == start + static_cast<int64_t>(end - k)) end++;
      const auto n = static_cast<int64_t>(end - k);
      float* y = outputs.data() + (static_cast<size_t>(b) * used.size() + k) * static_cast<size_t>(d);
      layer_->fill(*cache, x + cache->length() * d, start - cache->length(), true);
      layer_->fill(*cache, x + start * d, n, window == 0);
      layer_->attendAt({cache.get()}, x + start * d, start, n, y);
      cache->settle();
      k = end;
    }
    layer_->fill(*cache, x + cache->length() * d, spec_.seqLen - cache->length(), true);
    memory_.cache += cache->bytes();
    caches_.push_back(std::move(cache));
  }
  compare(outputs, used);
  memory_.cachedTokens = spec_.seqLen;

  const int64_t tokens = spec_.phase == Phase::verify ? spec_.verifyTokens : 1;
  stepInputs_ = Buffer<float>(arena_, spec_.batch * tokens * d);
  stepOutputs_ = Buffer<float>(arena_, spec_.batch * tokens * d);
  for (int64_t b = 0; b < spec_.batch; b++)
    for (int64_t i = 0; i < tokens; i++) {  // what comes next, or any text again where nothing does
      const std::vector<float>& x = workload_->x[static_cast<size_t>(b)];
      std::copy_n(x.data() + (spec_.seqLen + i) * d % static_cast<int64_t>(x.size()), d, stepInputs_.data() + (b * tokens + i) * d);
    }
  int64_t visible = spec_.seqLen + tokens;
  if (window > 0) visible = std::min(visible, window + layer_->cacheSpec().sinks);
  work_ = layer_->stepWork(spec_.batch, tokens, visible, static_cast<int64_t>(memory_.cache.logical));
}

void MeasuredPoint::runStep() {
  const int64_t d = model_->weights().d;
  if (spec_.phase == Phase::prefill) {
    for (int64_t b = 0; b < spec_.batch; b++) {
      caches_[static_cast<size_t>(b)] = nullptr;
      caches_[static_cast<size_t>(b)] = layer_->newCache(arena_);
      layer_->prefill(*caches_[static_cast<size_t>(b)], workload_->x[static_cast<size_t>(b)].data(), spec_.seqLen, stepOutputs_.data());
    }
    return;
  }
  std::vector<SequenceCache*> caches;
  for (const auto& cache : caches_) caches.push_back(cache.get());
  const int64_t tokens = stepInputs_.size() / (spec_.batch * d);
  layer_->step(caches, stepInputs_.data(), tokens, stepOutputs_.data());
  for (SequenceCache* cache : caches) cache->rollback(cache->length() - tokens);
}

std::vector<double> TimedPoint::sample(double seconds, int64_t most) {
  constexpr double leastSampleSeconds = 2e-4;  // far above the clock's resolution: short steps are batched
  std::vector<double> samples;
  const double start = secondsNow();
  int64_t repeats = 1;
  do {
    if (cancel_) cancel_->check();
    const double before = secondsNow();
    for (int64_t i = 0; i < repeats; i++) runStep();
    const double took = secondsNow() - before;
    if (took < leastSampleSeconds && repeats < 1 << 20) {
      repeats = std::max(repeats + 1, static_cast<int64_t>(static_cast<double>(repeats) * std::min(16.0, 1.5 * leastSampleSeconds / std::max(took, 1e-9))));
      continue;
    }
    samples.push_back(took / static_cast<double>(repeats));
  } while (samples.empty() || (static_cast<int64_t>(samples.size()) < most && secondsNow() - start < seconds));
  return samples;
}

Ceilings measureCeilings() {
  const int64_t threads = threadCount();
  Ceilings best{0, 0};
  constexpr int64_t iterations = 400000, floats = 1 << 25;  // 128 MiB a thread: beyond any last-level cache
  Arena arena;  // as caches are: in huge pages where the system grants them
  const Buffer<float> data(arena, threads * floats);
  std::vector<double> done(static_cast<size_t>(threads));
  std::vector<float> sums(static_cast<size_t>(threads));
  for (int round = 0; round < 7; round++) {
    double before = secondsNow();
    parallelFor(threads, [&](int64_t i) {
      float sink[3] = {0, 0, 0};
      done[static_cast<size_t>(i)] = simd().burnFma(iterations, sink);
      sums[static_cast<size_t>(i)] = sink[2];
    });
    double total = 0;
    for (double d : done) total += d;
    best.fmaFlopsPerSecond = std::max(best.fmaFlopsPerSecond, total / (secondsNow() - before));
    before = secondsNow();
    parallelFor(threads, [&](int64_t i) { sums[static_cast<size_t>(i)] += simd().readAll(data.data() + i * floats, floats); });
    best.readBytesPerSecond = std::max(best.readBytesPerSecond, static_cast<double>(threads * floats * 4) / (secondsNow() - before));
  }
  volatile float keep = sums[0];  // the sums must not be optimised away
  (void)keep;
  return best;
}

}  // namespace fastmqa
