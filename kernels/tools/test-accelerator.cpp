// Whole sweep points on the CUDA backend, its kernels run on the CPU (cuda/primitives/host.h): every technique of the named
// levels and some more, compared with the fp64 reference and with the same point on the CPU backend.
// One line a check: "ok name" or "FAIL name got ... expected ..."; the exit code is 1 if any failed.
// Usage: test-accelerator [--gpu] [--memory TURNS] [name ...]; --gpu: on device 0 of the CUDA backend, with larger shapes too; name: these levels alone;
// --memory: nothing but layers that do not fit and layers that do, in turns
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "fastmqa/accelerator.h"
#include "layer/accelerator.h"
#include "layer/point.h"
#include "layer/reach.h"
#include "test-accelerator/comparison.h"
#include "test-accelerator/latent.h"
#include "test-accelerator/steps.h"
#include "test-engine/checks.h"

using namespace fastmqa;

namespace {

const Accelerator* accelerator = nullptr;
int device = 0;
constexpr double floor16 = 7e-4;  // what weights and activations of f16 cost by themselves, at most

struct Stack {
  std::string name;
  Technique technique;
  bool sharedModel = false;  ///< the reference has one KV head itself
};

Technique direct(Dtype key, Dtype value) {
  Technique t;
  t.kvHeads = 2;
  t.keyDtype = key, t.valueDtype = value;
  return t;
}

/// The levels of src-main/engine/levels.ts at this size, and combinations that they leave out.
std::vector<Stack> stacks() {
  using G = Technique::Grouping;
  std::vector<Stack> out;
  const auto add = [&](const char* name, Technique t, bool shared = false) {
    if (shared) t.kvHeads = 1;
    out.push_back({name, t, shared});
  };
  add("baseline", direct(Dtype::f32, Dtype::f32));
  add("f16", direct(Dtype::f16, Dtype::f16));
  add("bf16", direct(Dtype::bf16, Dtype::bf16));
  add("fp8", direct(Dtype::e4m3, Dtype::e4m3));
  add("fp8-e5m2", direct(Dtype::e5m2, Dtype::e5m2));
  Technique t = direct(Dtype::f16, Dtype::f16);
  t.cacheKind = CacheKind::latentSeparate;
  t.kvHeads = 1;
  t.rankKey = t.rankValue = 32;
  t.centred = true;
  add("conservative", t);
  t.keysBeforeRope = true;
  t.window = 40, t.sinks = 4;
  t.rankKey = t.rankValue = 0;
  t.adaptiveBudgetBytes = 96;
  add("balanced", t);
  t.keyDtype = t.valueDtype = Dtype::int8;
  t.symmetric = true;
  t.adaptiveBudgetBytes = 52;
  add("aggressive", t);
  t = direct(Dtype::int8, Dtype::int8);
  t.keyGrouping = G::channel, t.keyGroupSize = 64;
  t.valueGroupSize = 64;
  t.symmetric = true;
  add("near-lossless", t);
  t.window = 70;
  add("near-lossless, window", t);
  t.window = 0, t.residual = 20;
  add("near-lossless, residual", t);
  t.residual = 0;
  add("shared-64x", t, true);
  t = direct(Dtype::int4, Dtype::int4);
  t.keysBeforeRope = true, t.sinks = 4;
  t.keyGrouping = G::channel;
  add("four-bit", t);
  t.keyGroupSize = 16;
  t.valueDtype = Dtype::int8, t.valueGroupSize = 64;
  add("shared-128x", t, true);
  t.keyDtype = Dtype::int3, t.valueDtype = Dtype::int2;
  t.keyGroupSize = t.valueGroupSize = 64;
  t.window = 90;
  add("shared-512x", t, true);
  t = direct(Dtype::int8, Dtype::int8);
  t.cacheKind = CacheKind::input;
  t.symmetric = true, t.sinks = 4;
  add("near-lossless-input", t);
  t.keyDtype = t.valueDtype = Dtype::int4;
  t.symmetric = false;
  add("four-bit-input", t);
  t.cacheKind = CacheKind::latentJoint;
  t.keysBeforeRope = true, t.centred = true;
  t.bands = {{8, 8}, {24, 4}, {8, 3}, {16, 2}};
  add("mixed-latent", t);
  t = direct(Dtype::int8, Dtype::int4);
  t.sinks = 3;
  add("int8 keys, int4 values", t);
  t.keysBeforeRope = true;
  add("int8 keys before rope", t);
  return out;
}

/// What a layer of a model starts in a decode step, of those whose keys are read where they lie, and of others.
constexpr std::pair<const char*, int> kernelsOfStep[] = {{"f16", 9}, {"near-lossless", 11}, {"conservative", 11}, {"four-bit", 15}, {"near-lossless-input", 12}};

void runs(const Stack& stack, Phase phase, const ModelSpec& model, int64_t tokens, int64_t batch) {
  PointSpec spec;
  spec.model = model;
  if (stack.sharedModel) spec.model.kvHeads = 1;
  spec.technique = stack.technique;
  spec.phase = phase;
  spec.seqLen = tokens, spec.batch = batch, spec.verifyTokens = 3;
  spec.calibrationTokens = 1024;
  constexpr const char* phases[] = {"prefill", "decode", "verify"};
  const std::string name = stack.name + " " + phases[static_cast<int>(phase)] + " d" + std::to_string(model.hiddenDim) + " H" + std::to_string(model.heads) +
                           " S" + std::to_string(tokens) + " B" + std::to_string(batch);
  try {
    MeasuredPoint cpu(spec, nullptr);
    spec.device = device;
    MeasuredPoint gpu(spec, *accelerator, nullptr);
    const double expected = cpu.error().relativeL2;
    const Dtype key = stack.technique.keyDtype;
    // Quantising numbers that were rounded to f16 first moves some codes: a tenth is allowed for. bf16 has 3 bits less.
    const double floor = key == Dtype::f32 ? 2e-6 : key == Dtype::bf16 ? 8 * floor16 : floor16;
    comparePoints(name, gpu, cpu, 0.1 * expected + 2 * floor);
  } catch (const std::exception& error) {
    check::report(false, name + ": " + error.what(), NAN, "", 0);
  }
}

/// Layers of a terabyte and small ones, in turns: the former are out of memory, and what they had taken comes back.
void memoryComesBack(int turns) {
  PointSpec spec;
  spec.model.hiddenDim = 64, spec.model.heads = 2, spec.model.headDim = 64, spec.model.kvHeads = 2;
  spec.technique = direct(Dtype::f32, Dtype::f32);
  const auto model = referenceModel(spec.model);
  constexpr int64_t tokens = 64;
  const std::vector<float> x(static_cast<size_t>(tokens * spec.model.hiddenDim), 0.1f);
  const auto fills = [&](int64_t batch, int64_t positions) {
    spec.batch = batch;
    const auto layer = runOnAccelerator(*accelerator, device, model, spec, positions, nullptr);
    layer->fill(std::vector<const float*>(static_cast<size_t>(batch), x.data()), tokens, true);
  };
  const auto freeBytes = [&] {
    AcceleratorDevice now{};
    accelerator->describe(device, &now);
    return static_cast<double>(now.freeBytes);
  };
  int refused = 0, filled = 0;
  double before = 0;
  for (int turn = 0; turn < turns; turn++) {
    try {
      fills(int64_t{1} << 17, int64_t{1} << 13);
    } catch (const Failure& failure) {
      refused += failure.kind == FailureKind::outOfMemory;
    }
    fills(2, 2 * tokens);
    filled++;
    if (turn == 0) before = freeBytes();  // what the runtime itself keeps is there from now on
  }
  check::report(refused == turns && filled == turns, "memory, layers that do not fit", refused, "", turns);
  if (before == 0) return;  // the CPU in its place has no memory of its own to look at
  const double drift = before - freeBytes();
  std::printf("# memory: %d layers out of memory, %d filled between them, %.0f bytes less free than after the first\n", refused, filled, drift);
  check::report(drift <= 64 << 20, "memory, comes back", drift, "at most ", 64 << 20);
}

/// Caches of a whole model, sequence after sequence until a limit refuses: as many as on the CPU, of as many bytes.
void reaches(const Stack& stack) {
  PointSpec spec;
  spec.model.hiddenDim = 64, spec.model.heads = 2, spec.model.headDim = 64, spec.model.kvHeads = stack.sharedModel ? 1 : 2;
  spec.technique = stack.technique;
  spec.calibrationTokens = 1024;
  ReachLimits limits;
  limits.tokens = 700, limits.bytes = 3 << 20, limits.mostSequences = 9;
  const std::string name = stack.name + " until a limit";
  try {
    // Layers with a window of their own beside others.
    std::vector<LayerKind> kinds{{spec, 3}};
    if (spec.technique.window == 0) {
      spec.technique.window = 200, spec.technique.sinks = 0;
      kinds.push_back({spec, 2});
    }
    const Reached cpu = reach(kinds, limits, nullptr);
    for (LayerKind& kind : kinds) kind.spec.device = device;
    const Reached gpu = reachOn(*accelerator, kinds, limits, nullptr);
    std::printf("# %s: %lld sequences of %lld bytes, on the CPU %lld of %lld\n", name.c_str(), static_cast<long long>(gpu.sequences),
                static_cast<long long>(gpu.allocatedBytes / std::max<int64_t>(1, gpu.sequences)), static_cast<long long>(cpu.sequences),
                static_cast<long long>(cpu.allocatedBytes / std::max<int64_t>(1, cpu.sequences)));
    check::report(gpu.sequences > 0 && gpu.allocatedBytes <= limits.bytes, name + ", sequences", static_cast<double>(gpu.sequences), "at least ", 1);
    const double got = static_cast<double>(gpu.allocatedBytes) / static_cast<double>(gpu.sequences), expected = static_cast<double>(cpu.allocatedBytes) / static_cast<double>(cpu.sequences);
    // Blocks are rounded up to 256 bytes, not 64, and tables have 4 bytes a page, not 56.
    check::report(std::fabs(got - expected) <= 0.02 * expected + 8192, name + ", bytes", got, "about ", expected);
    check::report(gpu.sequences == limits.mostSequences || static_cast<double>(limits.bytes) - static_cast<double>(gpu.allocatedBytes) < 1.01 * got, name + ", no room for another",
                  static_cast<double>(gpu.allocatedBytes), "about ", static_cast<double>(limits.bytes));
    limits.mostSequences = std::min<int64_t>(2, gpu.sequences);  // of the largest caches only one fits
    const int64_t asked = reachOn(*accelerator, kinds, limits, nullptr).sequences;
    check::report(asked == limits.mostSequences, name + ", as many as asked for", static_cast<double>(asked), "", static_cast<double>(limits.mostSequences));
  } catch (const std::exception& error) {
    check::report(false, name + ": " + error.what(), NAN, "", 0);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool onGpu = false;
  int turns = 0;
  std::vector<std::string> names;
  for (int i = 1; i < argc; i++) {
    if (!std::strcmp(argv[i], "--gpu"))
      onGpu = true;
    else if (!std::strcmp(argv[i], "--memory") && i + 1 < argc)
      turns = std::atoi(argv[++i]);
    else
      names.push_back(argv[i]);
  }
  try {
    accelerator = onGpu ? &cudaLibrary() : fastmqaAccelerator(acceleratorVersion);
  } catch (const Failure& failure) {
    std::printf("FAIL the CUDA backend: %s\n", failure.what());
    return 1;
  }
  const auto start = std::chrono::steady_clock::now();
  if (turns > 0 || names.empty()) memoryComesBack(turns > 0 ? turns : 20);  // what is free says nothing where others run beside a named one
  if (turns > 0) return check::failures > 0;
  ModelSpec model;
  model.hiddenDim = 64, model.heads = 2, model.headDim = 64, model.kvHeads = 2;
  const std::vector<Stack> all = stacks();
  for (Phase phase : {Phase::decode, Phase::prefill, Phase::verify})
    for (const Stack& stack : all) {
      bool wanted = names.empty() || stack.name == "f16";
      for (const std::string& name : names) wanted |= stack.name == name;
      if (phase == Phase::verify && stack.technique.cacheKind == CacheKind::direct && bitsOf(stack.technique.keyDtype) > 8) continue;
      if (wanted) runs(stack, phase, model, 110, phase == Phase::decode ? 2 : 1);
    }
  testOwnLatents(*accelerator, device, names);
  if (!onGpu)
    for (const auto& [name, perLayer] : kernelsOfStep)
      for (const Stack& stack : all)
        if (stack.name == name && (names.empty() || std::find(names.begin(), names.end(), name) != names.end())) countsStep(*accelerator, name, stack.technique, perLayer);
  for (const Stack& stack : all)
    if (names.empty() || std::find(names.begin(), names.end(), stack.name) != names.end()) reaches(stack);
  // Sinks within the first group, a window that has passed it, and no exact tail at the end.
  for (const char* name : {"four-bit", "shared-512x", "near-lossless, window", "aggressive"})
    for (const Stack& stack : all)
      if (stack.name == name && names.empty()) runs(stack, Phase::decode, model, 256, 1);
  // Heads of 32, as the models that come with the program have them; sequences enough for whole blocks, and one.
  model.heads = 8, model.headDim = 32;
  for (const char* name : {"f16", "near-lossless", "four-bit", "shared-64x", "shared-128x"})
    for (const Stack& stack : all)
      if (stack.name == name && (names.empty() || std::find(names.begin(), names.end(), "heads-of-32") != names.end())) {
        model.kvHeads = stack.sharedModel ? 1 : 2;
        runs(stack, Phase::decode, model, 330, 1);
        runs(stack, Phase::verify, model, 330, onGpu ? 40 : 3);
      }
  if (onGpu) {
    model.hiddenDim = 1024, model.heads = 16, model.headDim = 64, model.kvHeads = 16;
    for (Phase phase : {Phase::decode, Phase::prefill})
      for (const Stack& stack : all) {
        Stack wide = stack;
        if (wide.technique.kvHeads == 2) wide.technique.kvHeads = 16;
        runs(wide, phase, model, 600, 2);
      }
  }
  std::printf("# %d checks, %d failed, %.1f s\n", check::checks, check::failures,
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return check::failures > 0;
}
