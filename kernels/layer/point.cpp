#include "point.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "accelerator.h"
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
    : MeasuredPoint(spec, referenceModel(spec.model), nullptr, nullptr, cancel) {}
MeasuredPoint::MeasuredPoint(const PointSpec& spec, const Accelerator& accelerator, const CancelFlag* cancel)
    : MeasuredPoint(spec, referenceModel(spec.model), nullptr, &accelerator, cancel) {}
MeasuredPoint::MeasuredPoint(const PointSpec& spec, std::shared_ptr<const ReferenceModel> model, std::shared_ptr<const Workload> workload, const CancelFlag* cancel)
    : MeasuredPoint(spec, std::move(model), std::move(workload), nullptr, cancel) {}

MeasuredPoint::MeasuredPoint(const PointSpec& spec, std::shared_ptr<const ReferenceModel> model, std::shared_ptr<const Workload> workload,
                             const Accelerator* accelerator, const CancelFlag* cancel)
    : TimedPoint(cancel), spec_(spec), model_(std::move(model)), workload_(std::move(workload)) {
  const LayerWeights& w = model_->weights();
  if (w.heads % w.kvHeads || w.kvHeads % spec.technique.kvHeads) refuse("expected KV heads that divide the heads they serve");
  if (spec.technique.hadamard && (w.headDim & (w.headDim - 1))) refuse("expected a head size that is a power of two for hadamard but received " + std::to_string(w.headDim));
  if (cancel) cancel->check();
  if (!workload_) workload_ = fastmqa::workload(model_, spec.batch, spec.seqLen, spec.inputSeed, cancel);
  if (cancel) cancel->check();
  layer_ = accelerator ? runOnAccelerator(*accelerator, spec.device, model_, spec, workload_->room, cancel)
                       : runLayer(spec.device, model_, spec, workload_->room, cancel);
  memory_.extraWeightBytes = layer_->extraWeightBytes();
  if (spec.phase == Phase::prefill)
    evaluatePrefill();
  else
    evaluateSteps();
  memory_.peakBytes = layer_->peakBytes();
  if (w.window > 0) memory_.ownTokens = std::min(w.window, spec.seqLen);
}

RunningLayer::Inputs MeasuredPoint::inputsFrom(int64_t token) const {
  RunningLayer::Inputs x;
  for (const std::vector<float>& sequence : workload_->x) x.push_back(sequence.data() + token * model_->weights().d);
  return x;
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
  const std::vector<size_t> used = positionsUsed();
  std::vector<int64_t> positions;
  for (size_t p : used) positions.push_back(workload_->positions[p]);
  std::vector<float> outputs(used.size() * static_cast<size_t>(spec_.batch * model_->weights().d));
  layer_->prefill(inputsFrom(0), spec_.seqLen, positions, outputs.data());
  compare(outputs, used);
  memory_.cache = layer_->cacheBytes();
  memory_.cachedTokens = spec_.seqLen;
  work_ = layer_->prefillWork(spec_.seqLen);
}

// Every sampled query reads the compressed cache as it stands at its position: the tokens before it settled, its own
// run of `runTokens` included, as in steady decoding.
void MeasuredPoint::evaluateSteps() {
  const int64_t d = model_->weights().d, run = Workload::runTokens;
  const std::vector<size_t> used = positionsUsed();
  const int64_t window = layer_->cacheSpec().window;
  std::vector<float> outputs(used.size() * static_cast<size_t>(spec_.batch * d)), y(static_cast<size_t>(spec_.batch * run * d));
  for (size_t k = 0; k < used.size();) {
    const int64_t start = workload_->positions[used[k]];
    size_t end = k + 1;
    while (end < used.size() && static_cast<int64_t>(end - k) < run && workload_->positions[used[end]] == start + static_cast<int64_t>(end - k)) end++;
    const auto n = static_cast<int64_t>(end - k);
    layer_->fill(inputsFrom(layer_->length()), start - layer_->length(), true);
    layer_->fill(inputsFrom(start), n, window == 0);
    layer_->attendAt(inputsFrom(start), start, n, y.data());
    layer_->settle();
    for (int64_t b = 0; b < spec_.batch; b++)
      std::copy_n(y.data() + b * n * d, n * d, outputs.data() + (static_cast<size_t>(b) * used.size() + k) * static_cast<size_t>(d));
    k = end;
  }
  layer_->fill(inputsFrom(layer_->length()), spec_.seqLen - layer_->length(), true);
  memory_.cache = layer_->cacheBytes();
  compare(outputs, used);
  memory_.cachedTokens = spec_.seqLen;

  const int64_t tokens = spec_.phase == Phase::verify ? spec_.verifyTokens : 1;
  std::vector<float> next(static_cast<size_t>(spec_.batch * tokens * d));
  RunningLayer::Inputs inputs;
  for (int64_t b = 0; b < spec_.batch; b++) {
    inputs.push_back(next.data() + b * tokens * d);
    for (int64_t i = 0; i < tokens; i++) {  // what comes next, or any text again where nothing does
      const std::vector<float>& x = workload_->x[static_cast<size_t>(b)];
      std::copy_n(x.data() + (spec_.seqLen + i) * d % static_cast<int64_t>(x.size()), d, next.data() + (b * tokens + i) * d);
    }
  }
  layer_->prepareStep(inputs, tokens);
  int64_t visible = spec_.seqLen + tokens;
  if (window > 0) visible = std::min(visible, window + layer_->cacheSpec().sinks);
  work_ = layer_->stepWork(tokens, visible, static_cast<int64_t>(memory_.cache.logical));
}

Ceilings measureCeilings() {
  const int64_t threads = threadCount();
  Ceilings best{0, 0};
  constexpr int64_t iterations = 400000, floats = 1 << 24;  // 64 MiB a thread: beyond the last-level cache of most
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
