#include "accelerator.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

namespace fastmqa {
namespace {

/// The library stands beside whatever this code is linked into: the addon, or a program.
/// FASTMQA_CUDA_LIBRARY names another, as tests do: the same sources, their kernels run on the CPU.
std::string libraryPath() {
  if (const char* named = std::getenv("FASTMQA_CUDA_LIBRARY")) return named;
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&cudaLibrary), &self) || !self.dli_fname) return "libfastmqa-cuda.so";
  const std::string path = self.dli_fname;
  const size_t slash = path.rfind('/');
  return (slash == std::string::npos ? "." : path.substr(0, slash)) + "/libfastmqa-cuda.so";
}

const Accelerator& load() {
  const std::string path = libraryPath();
  if (access(path.c_str(), F_OK) != 0)
    refuse("the CUDA backend is not built: run `npm run build:cuda`, which needs nvcc 12 or newer, or use the archive of `npm run gpu:package`");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* cause = dlerror();
    refuse(std::string("the CUDA backend cannot be loaded: ") + (cause ? cause : path) + "; run `npm run build:cuda` on this machine");
  }
  const auto entry = reinterpret_cast<const Accelerator* (*)(uint32_t)>(dlsym(library, "fastmqaAccelerator"));
  const Accelerator* found = entry ? entry(acceleratorVersion) : nullptr;
  if (!found) refuse("the CUDA backend is of another version than the engine: run `npm run build:cuda`");
  return *found;
}

AcceleratorMatrix viewOf(const LayerMatrix& m) { return {m.numbers.empty() ? nullptr : m.numbers.data(), m.rows, m.columns}; }
const float* viewOf(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

class AcceleratorRunning : public RunningLayer {
 public:
  AcceleratorRunning(const Accelerator& accelerator, int device, std::shared_ptr<const ReferenceModel> model, const PointSpec& spec, int64_t positions,
                     const CancelFlag* cancel)
      : accelerator_(accelerator), model_(std::move(model)), batch_(spec.batch), cancel_(cancel) {
    layer_ = std::make_unique<AttentionLayer>(arena_, *model_, spec.technique, positions, spec.calibrationTokens, spec.inputSeed, cancel);
    if (cancel) cancel->check();
    const Dtype numbers = numberType(spec.technique);
    numberBytes_ = bitsOf(numbers) / 8;
    const LayerDescription from(*layer_, spec.technique, numbers, batch_, positions);
    call(accelerator.createLayer(device, &from.view(), &handle_));
  }
  ~AcceleratorRunning() override {
    if (handle_) accelerator_.destroyLayer(handle_);
  }

  void fill(const Inputs& x, int64_t tokens, bool settles) override {
    if (cancel_) cancel_->check();
    call(accelerator_.fill(handle_, x.data(), tokens, settles));
    length_ += tokens;
  }
  void settle() override { call(accelerator_.settle(handle_)); }
  void attendAt(const Inputs& x, int64_t firstPosition, int64_t tokens, float* y) override {
    call(accelerator_.attendAt(handle_, x.data(), firstPosition, tokens, y));
  }
  void prefill(const Inputs& x, int64_t tokens, const std::vector<int64_t>& positions, float* y) override {
    call(accelerator_.prefill(handle_, x.data(), tokens, positions.data(), static_cast<int64_t>(positions.size()), y));
    length_ = tokens;
  }
  const CacheSpec& cacheSpec() const override { return layer_->cacheSpec(); }
  CacheBytes cacheBytes() const override {
    const AcceleratorMemory m = memory();
    return accountOf(layer_->cacheSpec(), batch_, length_, m.settledTokens, m.cacheBufferBytes, m.tableBytes);
  }
  int64_t peakBytes() const override {
    const AcceleratorMemory m = memory();
    return std::max(m.devicePeakBytes, m.peakBytes);
  }
  int64_t extraWeightBytes() const override { return fastmqa::extraWeightBytes(*model_, memory().weightBytes, numberBytes_); }
  Work prefillWork(int64_t tokens) const override { return layer_->prefillWork(batch_, tokens, numberBytes_, memory().weightBytes); }
  Work stepWork(int64_t tokens, int64_t visible, int64_t bytes) const override { return layer_->stepWork(batch_, tokens, visible, bytes, numberBytes_); }

  void prepareStep(const Inputs& x, int64_t tokens) override { call(accelerator_.prepareStep(handle_, x.data(), tokens)); }
  std::vector<double> sample(double seconds, int64_t most) override {
    std::vector<double> samples(static_cast<size_t>(most));
    AcceleratorSamples to{samples.data(), 0, most, 0, 0, 0};
    const AcceleratorCancel cancel = cancelOf(cancel_);
    call(accelerator_.sample(handle_, seconds, &cancel, &to));
    samples.resize(static_cast<size_t>(to.count));
    conditions_.throttled += to.throttled;
    conditions_.foreignProcesses = std::max<int64_t>(conditions_.foreignProcesses, to.foreignProcesses);
    conditions_.graphNodes = to.graphNodes;
    return samples;
  }
  SampleConditions conditions() const override { return conditions_; }

 private:
  void call(AcceleratorStatus status) const { check(accelerator_, status); }
  AcceleratorMemory memory() const {
    AcceleratorMemory m;
    call(accelerator_.memory(handle_, &m));
    return m;
  }

  const Accelerator& accelerator_;
  std::shared_ptr<const ReferenceModel> model_;
  int64_t batch_, numberBytes_ = 4;
  const CancelFlag* cancel_;
  Arena arena_;
  std::unique_ptr<AttentionLayer> layer_;
  void* handle_ = nullptr;
  SampleConditions conditions_;
};

class AcceleratorCaches : public HeldCaches {
 public:
  AcceleratorCaches(const Accelerator& accelerator, int device, const ReferenceModel& model, const PointSpec& spec, int64_t layers, int64_t tokens, int64_t reservedBytes,
                    const CancelFlag* cancel)
      : accelerator_(accelerator), tokens_(tokens) {
    Arena arena;
    const AttentionLayer layer(arena, model, spec.technique, tokens, spec.calibrationTokens, spec.inputSeed, cancel);
    inputs_ = model.calibrationStreams(1, spec.inputSeed).front();
    const LayerDescription description(layer, spec.technique, numberType(spec.technique), layers, tokens);
    AcceleratorLayer from = description.view();
    from.tokens = 1;  // nothing is cached but what is held
    from.reservedBytes = reservedBytes;
    check(accelerator, accelerator.createLayer(device, &from, &handle_));
  }
  ~AcceleratorCaches() override {
    if (handle_) accelerator_.destroyLayer(handle_);
  }
  void hold(int64_t limitBytes) override {
    constexpr int64_t rows = 256;  // a multiple of every group of tokens
    check(accelerator_, accelerator_.hold(handle_, inputs_->data(), rows, tokens_, limitBytes));
  }
  int64_t bytes() const override {
    AcceleratorMemory m;
    check(accelerator_, accelerator_.memory(handle_, &m));
    return m.heldBytes;
  }

 private:
  const Accelerator& accelerator_;
  int64_t tokens_;
  std::shared_ptr<const std::vector<float>> inputs_;
  void* handle_ = nullptr;
};

}  // namespace

void check(const Accelerator& accelerator, AcceleratorStatus status) {
  constexpr FailureKind kinds[] = {FailureKind::failed, FailureKind::refused, FailureKind::outOfMemory, FailureKind::cancelled, FailureKind::failed, FailureKind::poisoned};
  if (status != AcceleratorStatus::done) throw Failure(kinds[static_cast<int>(status)], accelerator.message());
}

AcceleratorStore storeOf(const StoreSpec& spec, std::vector<AcceleratorBand>& bands) {
  for (const Band& b : spec.bands) bands.push_back({b.channels, static_cast<int32_t>(b.dtype), b.symmetric});
  return {spec.heads, spec.channels, bands.data(), static_cast<int64_t>(bands.size()), static_cast<int32_t>(spec.grouping), spec.groupSize, spec.tensorScale};
}

AcceleratorCancel cancelOf(const CancelFlag* cancel) {
  return {[](const void* flag) -> int32_t { return flag && static_cast<const CancelFlag*>(flag)->isRaised(); }, cancel};
}

Dtype numberType(const Technique& t) {
  if (t.keyDtype == Dtype::f32 || t.valueDtype == Dtype::f32) return Dtype::f32;
  return t.keyDtype == Dtype::bf16 && t.valueDtype == Dtype::bf16 ? Dtype::bf16 : Dtype::f16;
}

LayerDescription::LayerDescription(const AttentionLayer& layer, const Technique& technique, Dtype numbers, int64_t batch, int64_t positions)
    : numbers_(layer.numbers()) {
  if (technique.naiveKernel) refuse("the naive kernel runs on the CPU only");
  if (technique.hadamard) refuse("the Hadamard transform runs on the CPU only");
  const LayerNumbers& n = numbers_;
  AcceleratorLayer& l = view_;
  l.batch = batch, l.tokens = positions;
  l.hiddenDim = layer.hiddenDim(), l.heads = n.shape.heads, l.kvHeads = n.cache.kvHeads, l.headDim = n.shape.keyDim;
  l.dtype = static_cast<int32_t>(numbers);
  l.scale = n.shape.scale, l.softcap = n.shape.softcap;
  l.window = n.cache.window, l.sinks = n.cache.sinks, l.residual = n.cache.residual;
  l.keys = storeOf(n.cache.keys, keyBands_);
  if (n.cache.values) l.values = storeOf(*n.cache.values, valueBands_);
  l.query = viewOf(n.query), l.key = viewOf(n.key), l.value = viewOf(n.value), l.output = viewOf(n.output);
  l.queryBias = viewOf(n.queryBias), l.keyBias = viewOf(n.keyBias), l.valueBias = viewOf(n.valueBias), l.outputBias = viewOf(n.outputBias);
  l.queryNorm = viewOf(n.queryNorm), l.keyNorm = viewOf(n.keyNorm);
  l.normEpsilon = static_cast<float>(n.normEpsilon);
  l.downKeys = viewOf(n.downKeys), l.downValues = viewOf(n.downValues);
  l.upKeys = viewOf(n.upKeys), l.upValues = viewOf(n.upValues);
  l.biasKeys = viewOf(n.biasKeys), l.biasValues = viewOf(n.biasValues);
  l.meanKeys = viewOf(n.meanKeys), l.meanValues = viewOf(n.meanValues);
  l.isLatent = n.isLatent, l.cachesInput = n.cachesInput, l.latentsOfRotatedKeys = n.latentsOfRotatedKeys, l.rotatesOnRead = n.rotatesOnRead;
  l.rotaryPairs = n.rotaryPairs, l.positions = n.positions;
  l.cosine = viewOf(n.cosine), l.sine = viewOf(n.sine);
  l.turnsNeighbours = n.turnsNeighbours;
  l.inputOrder = n.inputOrder.empty() ? nullptr : n.inputOrder.data();
  const LatentNumbers& own = n.own;
  l.latent = {own.rank, own.ropeDim, own.valueDim, viewOf(own.queryDown), viewOf(own.down), viewOf(own.up), viewOf(own.queryNorm), viewOf(own.norm),
              static_cast<float>(LatentWeights::normEpsilon)};
}

void LayerDescription::dropWeights() {
  numbers_ = {};
  for (AcceleratorMatrix* m : {&view_.query, &view_.key, &view_.value, &view_.output, &view_.downKeys, &view_.downValues, &view_.upKeys, &view_.upValues, &view_.latent.queryDown,
                               &view_.latent.down, &view_.latent.up})
    *m = {};
  for (const float** list : {&view_.queryBias, &view_.keyBias, &view_.valueBias, &view_.outputBias, &view_.queryNorm, &view_.keyNorm, &view_.biasKeys,
                             &view_.biasValues, &view_.meanKeys, &view_.meanValues, &view_.cosine, &view_.sine, &view_.latent.queryNorm, &view_.latent.norm})
    *list = nullptr;
  view_.inputOrder = nullptr;
}

const Accelerator& cudaLibrary() {
  static const Accelerator& library = load();
  return library;
}

CudaReport cudaDevices() {
  CudaReport report;
  try {
    const Accelerator& library = cudaLibrary();
    int32_t count = 0;
    const AcceleratorStatus counted = library.deviceCount(&count);
    // Without a driver the CUDA runtime calls it too old: say what is so.
    if (counted != AcceleratorStatus::done && !dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
      refuse("no NVIDIA driver (libcuda.so.1 is not found): install the driver, then run the command again");
    check(library, counted);
    for (int32_t i = 0; i < count; i++) {
      AcceleratorDevice device;
      check(library, library.describe(i, &device));
      report.devices.push_back(device);
    }
    if (count == 0) report.reason = "the NVIDIA driver shows no device";
  } catch (const Failure& failure) {
    report.reason = failure.what();
  }
  return report;
}

std::vector<AcceleratorDevice> cudaVitals() {
  std::vector<AcceleratorDevice> devices;
  int32_t count = 0;
  const Accelerator& library = cudaLibrary();
  if (library.deviceCount(&count) != AcceleratorStatus::done) return devices;
  for (int32_t i = 0; i < count; i++) {
    devices.emplace_back();
    check(library, library.vitals(i, &devices.back()));
  }
  return devices;
}

AcceleratorCeilings cudaCeilings(int device) {
  AcceleratorCeilings out;
  check(cudaLibrary(), cudaLibrary().ceilings(device, &out));
  return out;
}

std::unique_ptr<RunningLayer> runOnAccelerator(const Accelerator& accelerator, int device, const std::shared_ptr<const ReferenceModel>& model,
                                               const PointSpec& spec, int64_t positions, const CancelFlag* cancel) {
  return std::make_unique<AcceleratorRunning>(accelerator, device, model, spec, positions, cancel);
}

std::unique_ptr<HeldCaches> holdOnAccelerator(const Accelerator& accelerator, int device, const ReferenceModel& model, const PointSpec& spec, int64_t layers,
                                              int64_t tokens, int64_t reservedBytes, const CancelFlag* cancel) {
  return std::make_unique<AcceleratorCaches>(accelerator, device, model, spec, layers, tokens, reservedBytes, cancel);
}

}  // namespace fastmqa
