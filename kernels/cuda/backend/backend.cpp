// The library's door: every exception becomes a status, and nothing else leaves.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../kernels/product.h"
#include "../launch/cache.h"
#include "blas.h"
#include "device-model.h"
#include "nvml.h"
#include "tensors.h"

#if defined(_WIN32)
#define FASTMQA_EXPORTED __declspec(dllexport)
#else
#define FASTMQA_EXPORTED __attribute__((visibility("default")))
#endif

namespace fastmqa::gpu {
namespace {

/// Without a destructor: what outlives the thread, or main, is still ended through this door.
thread_local char lastMessage[1024];
void remember(const char* message) { std::snprintf(lastMessage, sizeof(lastMessage), "%s", message); }

/// A failure inside of a step is its caller's own.
struct StepEnded {
  AcceleratorStatus status;
};

template <class Work>
AcceleratorStatus guarded(const Work& work) {
  try {
    work();
    return AcceleratorStatus::done;
  } catch (const StepEnded& ended) {
    return ended.status;
  } catch (const runtime::Poisoned& error) {
    remember(error.what());
    return AcceleratorStatus::poisoned;
  } catch (const Failure& error) {
    remember(error.what());
    switch (error.kind) {
      case FailureKind::refused: return AcceleratorStatus::refused;
      case FailureKind::outOfMemory: return AcceleratorStatus::outOfMemory;
      case FailureKind::cancelled: return AcceleratorStatus::cancelled;
      default: return AcceleratorStatus::failed;
    }
  } catch (const std::bad_alloc&) {
    remember("out of memory on the host");
    return AcceleratorStatus::outOfMemory;
  } catch (const std::exception& error) {
    remember(error.what());
    return AcceleratorStatus::failed;
  }
}

DeviceLayer& layerOf(void* handle) {
  auto& layer = *static_cast<DeviceLayer*>(handle);
  runtime::use(layer.device());
  return layer;
}

/// A model, for as long as somebody holds it or a run works with it.
using HeldModel = std::shared_ptr<DeviceModel>;

HeldModel& modelOf(void* handle) {
  auto& model = *static_cast<HeldModel*>(handle);
  runtime::use(model->device());
  return model;
}

struct HeldWeights {
  int device;
  std::unique_ptr<LayerWeights> weights;
};

HeldWeights& weightsOf(void* handle) {
  auto& held = *static_cast<HeldWeights*>(handle);
  runtime::use(held.device);
  return held;
}

DeviceRun& runOf(void* handle) {
  auto& run = *static_cast<DeviceRun*>(handle);
  runtime::use(run.device());
  return run;
}

AcceleratorDevice described(int device) {
  AcceleratorDevice out = runtime::describe(device);
  char address[32] = {};
  runtime::busAddress(device, address, sizeof(address));
  nvml::read(address, out);
  return out;
}

AcceleratorDevice vitalsOf(int device) {
  AcceleratorDevice out{};
  char address[32] = {};
  runtime::busAddress(device, address, sizeof(address));
  nvml::read(address, out);
  nvml::readMemory(address, out);
  return out;
}

double best(std::vector<double> seconds) { return *std::min_element(seconds.begin(), seconds.end()); }

/// The most that copies and products reach here now; both with sizes far beyond any cache.
AcceleratorCeilings measureCeilings(int device) {
  const Device limits = runtime::limitsOf(device);
  DevicePool pool;
  const Stream stream = runtime::newStream();
  const struct Ended {
    Stream stream;
    ~Ended() { runtime::endStream(stream); }
  } ended{stream};
  AcceleratorCeilings out{};
  std::vector<double> seconds(12);
  const auto nothing = [] {};
  const bool isReal = runtime::describe(device).cacheBytes > 0;
  {
    const int64_t bytes = isReal ? std::min<int64_t>(1 << 30, runtime::freeBytes() / 4 / 256 * 256) : 1 << 20;
    const DeviceBlock from(pool, bytes), to(pool, bytes);
    runtime::clear(from.data(), bytes, stream);
    runtime::time(stream, static_cast<int64_t>(seconds.size()), nothing, [&] { runtime::copy(to.data(), from.data(), bytes, stream); }, seconds.data());
    out.copyBytesPerSecond = 2 * static_cast<double>(bytes) / best(seconds);
  }
  const int side = isReal ? 8192 : 64;
  std::vector<uint16_t> numbers(static_cast<size_t>(side) * static_cast<size_t>(side));
  uint32_t state = 1;
  for (uint16_t& x : numbers) {  // random f16 of magnitude 0.25 to 2: products run faster on zeros
    state = state * 1664525u + 1013904223u;
    x = static_cast<uint16_t>((state >> 16 & 0x8000u) | (0x3400u + (state >> 8 & 0xbffu)));
  }
  const auto bytes = static_cast<int64_t>(numbers.size() * sizeof(uint16_t));
  const DeviceBlock x(pool, bytes), w(pool, bytes), y(pool, bytes);
  for (const DeviceBlock* block : {&x, &w}) runtime::upload(block->data(), numbers.data(), bytes, stream);
  const ProductProblem p{side, side, side, Dtype::f16, Dtype::f16, x.view<const uint8_t>(), w.view<const uint8_t>(), y.view<uint8_t>(), {}};
  runtime::time(stream, static_cast<int64_t>(seconds.size()), nothing, [&] { runtime::check(multiplyMatrices(p, limits, stream), "starting a product"); }, seconds.data());
  out.matrixFlopsPerSecond = 2.0 * side * side * side / best(seconds);
  if (blas::multiply(p, stream)) {
    runtime::time(stream, static_cast<int64_t>(seconds.size()), nothing, [&] { blas::multiply(p, stream); }, seconds.data());
    out.matrixFlopsPerSecond = std::max(out.matrixFlopsPerSecond, 2.0 * side * side * side / best(seconds));
  }
  return out;
}

const Accelerator table{
    acceleratorVersion,
    [](int32_t* count) { return guarded([&] { *count = runtime::deviceCount(); }); },
    [](int32_t device, AcceleratorDevice* to) { return guarded([&] { *to = described(device); }); },
    [](int32_t device, AcceleratorDevice* to) { return guarded([&] { *to = vitalsOf(device); }); },
    [](int32_t device, AcceleratorCeilings* to) {
      return guarded([&] {
        runtime::use(device);
        *to = measureCeilings(device);
      });
    },
    [](int32_t device, const AcceleratorLayer* from, void** layer) {
      return guarded([&] {
        runtime::use(device);
        const auto lane = std::make_shared<Lane>(device, static_cast<Dtype>(from->dtype));
        *layer = new DeviceLayer(*from, LayerWeights(lane, *from));
      });
    },
    [](void* layer) { guarded([&] { delete &layerOf(layer); }); },
    [](void* layer, const float* const* x, int64_t tokens, int32_t settles) { return guarded([&] { layerOf(layer).fill(x, tokens, settles != 0); }); },
    [](void* layer) { return guarded([&] { layerOf(layer).settle(); }); },
    [](void* layer, const float* const* x, int64_t firstPosition, int64_t tokens, float* y) {
      return guarded([&] { layerOf(layer).attendAt(x, firstPosition, tokens, y); });
    },
    [](void* layer, const float* const* x, int64_t tokens, const int64_t* positions, int64_t count, float* y) {
      return guarded([&] { layerOf(layer).prefill(x, tokens, positions, count, y); });
    },
    [](void* layer, AcceleratorMemory* to) { return guarded([&] { *to = layerOf(layer).memory(); }); },
    [](void* layer, const float* x, int64_t rows, int64_t tokens, int64_t limitBytes) {
      return guarded([&] { layerOf(layer).hold(x, rows, tokens, limitBytes); });
    },
    [](void* layer, const float* const* x, int64_t tokens) { return guarded([&] { layerOf(layer).prepareStep(x, tokens); }); },
    [](void* layer, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples* to) {
      return guarded([&] { layerOf(layer).sample(seconds, cancel, *to); });
    },
    [](int32_t device, int32_t dtype, void** model) {
      return guarded([&] {
        runtime::use(device);
        *model = new HeldModel(std::make_shared<DeviceModel>(device, static_cast<Dtype>(dtype)));
      });
    },
    [](void* model) { guarded([&] { delete &modelOf(model); }); },
    [](void* model, const AcceleratorMatrix* from, const float* bias, int32_t* number) { return guarded([&] { *number = modelOf(model)->addMatrix(*from, bias); }); },
    [](void* model, const float* from, int64_t count, int32_t* number) { return guarded([&] { *number = modelOf(model)->addVector(from, count); }); },
    [](void* model, int64_t* bytes) { return guarded([&] { *bytes = modelOf(model)->bytes(); }); },
    [](void* model, void** run) { return guarded([&] { *run = new DeviceRun(modelOf(model)); }); },
    [](void* run) { guarded([&] { delete &runOf(run); }); },
    [](void* run, const AcceleratorLayer* from, void** weights) { return guarded([&] { *weights = new HeldWeights{runOf(run).device(), runOf(run).newWeights(*from)}; }); },
    [](void* weights) { guarded([&] { delete &weightsOf(weights); }); },
    [](void* run, const AcceleratorLayer* from, void* weights, void** layer) {
      return guarded([&] { *layer = runOf(run).newLayer(*from, *weightsOf(weights).weights).release(); });
    },
    [](void* run, int32_t embedding, int32_t positions, const int32_t* tokens, int64_t rows, int64_t perSequence, int64_t firstPosition, float scale) {
      return guarded([&] { runOf(run).embed(embedding, positions, tokens, rows, perSequence, firstPosition, scale); });
    },
    [](void* run, const AcceleratorNorm* norm, AcceleratorPlace from, AcceleratorPlace to) { return guarded([&] { runOf(run).normalise(*norm, from, to); }); },
    [](void* run, void* layer, int32_t prefills, AcceleratorPlace from, AcceleratorPlace to) {
      return guarded([&] { runOf(run).attend(layerOf(layer), prefills != 0, from, to); });
    },
    [](void* layer, int64_t length) { return guarded([&] { layerOf(layer).rollback(length); }); },
    [](void* run, const AcceleratorMlp* mlp, AcceleratorPlace from, AcceleratorPlace to) { return guarded([&] { runOf(run).feedForward(*mlp, from, to); }); },
    [](void* run, AcceleratorPlace from) { return guarded([&] { runOf(run).add(from); }); },
    [](void* run, AcceleratorPlace from, float* to) { return guarded([&] { runOf(run).read(from, to); }); },
    [](void* run, int32_t head, float softcap, AcceleratorPlace from, float* to) { return guarded([&] { runOf(run).logits(head, softcap, from, to); }); },
    [](void* run, int32_t resetsPeak, AcceleratorMemory* to) { return guarded([&] { *to = runOf(run).memory(resetsPeak != 0); }); },
    [](void* run, AcceleratorStatus (*step)(void*), void* context, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples* to) {
      return guarded([&] {
        const auto asked = [step, context] {
          const AcceleratorStatus status = step(context);
          if (status != AcceleratorStatus::done) throw StepEnded{status};
        };
        runOf(run).sample(asked, seconds, cancel, *to);
      });
    },
    [](int32_t device, const AcceleratorTensors* request) {
      return guarded([&] {
        runtime::use(device);
        attendTensors(device, *request);
      });
    },
    []() -> const char* { return lastMessage; },
};

}  // namespace
}  // namespace fastmqa::gpu

extern "C" FASTMQA_EXPORTED const fastmqa::Accelerator* fastmqaAccelerator(uint32_t version) {
  return version == fastmqa::acceleratorVersion ? &fastmqa::gpu::table : nullptr;
}
