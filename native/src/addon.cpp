// The door between JavaScript and the engine: values are copied into plain structs, work runs on another thread,
// failures come back as errors with a code. The surface is src-main/worker/addon-types.ts.
#include <napi.h>

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <unordered_map>

#include "convert-model.h"
#include "convert.h"
#include "fastmqa/sizes.h"
#include "layer/accelerator.h"
#include "layer/bench.h"
#include "layer/point.h"
#include "layer/reach.h"
#include "layer/recent.h"
#include "layer/tensors.h"
#include "math/threads.h"
#include "model/accelerator-executor.h"
#include "model/layer-point.h"
#include "simd/simd.h"

namespace {

using namespace fastmqa;

CancelFlag cancelFlag;

/// Things JavaScript holds by number.
template <class T>
class Registry {
 public:
  int add(std::shared_ptr<T> item) {
    std::lock_guard<std::mutex> lock(mutex_);
    items_[++last_] = std::move(item);
    return last_;
  }
  std::shared_ptr<T> get(int handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = items_.find(handle);
    return found == items_.end() ? nullptr : found->second;
  }
  void remove(int handle) {
    std::lock_guard<std::mutex> lock(mutex_);
    items_.erase(handle);
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int, std::shared_ptr<T>> items_;
  int last_ = 0;
};

struct OwnedLayer {
  Arena arena;
  std::shared_ptr<const ReferenceModel> model;
  std::unique_ptr<AttentionLayer> layer;
  std::vector<std::unique_ptr<SequenceCache>> caches;
  int64_t positions = 0;
  std::mutex busy;
};

Registry<TimedPoint> points;
Registry<OwnedLayer> layers;
constexpr int layerHandles = 1 << 30;  // so that release() can tell the two apart

/// Runs `work` off the main thread, `toValue` on it, and settles a promise.
template <class Result>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;
  using ToValue = std::function<Napi::Value(Napi::Env, Result&)>;
  static Napi::Value run(Napi::Env env, Work work, ToValue toValue) {
    auto* task = new Task(env, std::move(work), std::move(toValue));
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      result_ = std::make_unique<Result>(work_());
    } catch (const Failure& failure) {
      constexpr const char* codes[] = {"refused", "out-of-memory", "cancelled", "failed", "poisoned"};
      fail(codes[static_cast<int>(failure.kind)], failure.what());
    } catch (const std::bad_alloc&) {
      fail("out-of-memory", "out of memory");
    } catch (const std::exception& error) {
      fail("failed", error.what());
    }
  }
  void OnOK() override {
    if (result_) {
      deferred_.Resolve(toValue_(Env(), *result_));
      return;
    }
    Napi::Error error = Napi::Error::New(Env(), message_);
    error.Set("code", Napi::String::New(Env(), code_));
    deferred_.Reject(error.Value());
  }

 private:
  Task(Napi::Env env, Work work, ToValue toValue)
      : Napi::AsyncWorker(env), deferred_(env), work_(std::move(work)), toValue_(std::move(toValue)) {}
  void fail(const char* code, const std::string& message) { code_ = code, message_ = message; }

  Napi::Promise::Deferred deferred_;
  Work work_;
  ToValue toValue_;
  std::unique_ptr<Result> result_;
  std::string code_, message_;
};

Napi::Float32Array floats(Napi::Env env, const std::vector<float>& from) {
  Napi::Float32Array out = Napi::Float32Array::New(env, from.size());
  std::copy(from.begin(), from.end(), out.Data());
  return out;
}

Napi::Value info(const Napi::CallbackInfo& call) {
  Napi::Object out = Napi::Object::New(call.Env());
  out["threads"] = threadCount();
  try {
    out["instructionSet"] = simd().name;
  } catch (const Failure& e) {  // FASTMQA_ISA names what does not run here
    throw Napi::Error::New(call.Env(), e.what());
  }
  out["buildFlags"] = FASTMQA_BUILD_FLAGS;
  return out;
}

Napi::Value ceilings(const Napi::CallbackInfo& call) {
  return Task<Ceilings>::run(call.Env(), measureCeilings, [](Napi::Env env, Ceilings& c) {
    Napi::Object out = Napi::Object::New(env);
    out["fmaFlopsPerSecond"] = c.fmaFlopsPerSecond;
    out["readBytesPerSecond"] = c.readBytesPerSecond;
    return out;
  });
}

Napi::Value cuda(const Napi::CallbackInfo& call) {
  return Task<CudaReport>::run(call.Env(), cudaDevices, [](Napi::Env env, CudaReport& report) { return cudaReport(env, report); });
}

Napi::Value cudaVitalsCall(const Napi::CallbackInfo& call) {
  using Devices = std::vector<AcceleratorDevice>;
  return Task<Devices>::run(call.Env(), cudaVitals, [](Napi::Env env, Devices& devices) { return cudaStates(env, devices); });
}

Napi::Value cudaCeilingsCall(const Napi::CallbackInfo& call) {
  const int device = call[0].ToNumber().Int32Value();
  return Task<AcceleratorCeilings>::run(
      call.Env(), [device] { return cudaCeilings(device); },
      [](Napi::Env env, AcceleratorCeilings& c) {
        Napi::Object out = Napi::Object::New(env);
        out["matrixFlopsPerSecond"] = c.matrixFlopsPerSecond;
        out["copyBytesPerSecond"] = c.copyBytesPerSecond;
        return out;
      });
}

/// What was noticed while a point was sampled.
Napi::Value conditions(const Napi::CallbackInfo& call) {
  const auto point = points.get(call[0].ToNumber().Int32Value());
  const SampleConditions noticed = point ? point->conditions() : SampleConditions{};
  Napi::Object out = Napi::Object::New(call.Env());
  out["throttledSamples"] = static_cast<double>(noticed.throttled);
  out["foreignProcesses"] = static_cast<double>(noticed.foreignProcesses);
  out["graphNodes"] = static_cast<double>(noticed.graphNodes);
  return out;
}

Napi::Value bench(const Napi::CallbackInfo& call) {
  const BenchOptions options = benchOptions(call[0].As<Napi::Object>());
  cancelFlag.clear();
  using Cases = std::vector<BenchCase>;
  return Task<Cases>::run(
      call.Env(), [options] { return runBench(options, nullptr, &cancelFlag); },
      [](Napi::Env env, Cases& cases) {
        Napi::Array out = Napi::Array::New(env, cases.size());
        for (size_t i = 0; i < cases.size(); i++) out[static_cast<uint32_t>(i)] = benchCase(env, cases[i]);
        return out;
      });
}

std::shared_ptr<const EvaluatedModel> evaluatedModel(const ModelSource& source, const EvaluationText& text) {
  static Recent<EvaluatedModel, 2> recent;
  return recent.get(source.key + "|" + text.key, [&] {
    return std::make_shared<const EvaluatedModel>(loadModel(source, &cancelFlag), text, &cancelFlag);
  });
}

void setControls(Napi::Object& out, const Workload& inputs) {
  Napi::Object controls = Napi::Object::New(out.Env());
  controls["zeroOutput"] = inputs.zeroOutput;
  controls["uniformAttention"] = inputs.uniformAttention;
  controls["independentLayer"] = inputs.independentLayer;
  out["controls"] = controls;
}

Napi::Value prepare(const Napi::CallbackInfo& call) {
  const PointSpec spec = pointSpec(call[0].As<Napi::Object>());
  cancelFlag.clear();
  using Point = std::shared_ptr<MeasuredPoint>;
  return Task<Point>::run(
      call.Env(),
      [spec] {
        forgetDeviceModels();
        return std::make_shared<MeasuredPoint>(spec, &cancelFlag);
      },
      [](Napi::Env env, Point& point) {
        Napi::Object out = preparedPoint(env, *point);
        setControls(out, point->inputs());
        out["handle"] = points.add(point);
        return out;
      });
}

Napi::Value prepareModel(const Napi::CallbackInfo& call) {
  const PointSpec spec = pointSpec(call[0].As<Napi::Object>());
  const auto source = std::make_shared<ModelSource>(modelSource(call[1].As<Napi::Object>()));
  const auto text = std::make_shared<EvaluationText>(evaluationText(call[2].As<Napi::Object>()));
  cancelFlag.clear();
  struct Made {
    std::shared_ptr<ModelPoint> whole;
    std::shared_ptr<MeasuredPoint> layer;
    std::shared_ptr<SpeculationPoint> speculation;
  };
  return Task<Made>::run(
      call.Env(),
      [=] {
        Made made;
        if (spec.phase == Phase::speculate)
          made.speculation = std::make_shared<SpeculationPoint>(evaluatedModel(*source, *text), spec, &cancelFlag);
        else if (spec.modelLayer < 0)
          made.whole = std::make_shared<ModelPoint>(evaluatedModel(*source, *text), spec, &cancelFlag);
        else
          made.layer = layerPoint(source->key + "|" + text->key, loadModel(*source, &cancelFlag), *text, spec, &cancelFlag);
        return made;
      },
      [](Napi::Env env, Made& made) {
        std::shared_ptr<TimedPoint> point = made.layer;
        if (made.whole) point = made.whole;
        if (made.speculation) point = made.speculation;
        Napi::Object out = preparedPoint(env, *point);
        if (made.whole) out["quality"] = qualityOf(env, made.whole->quality());
        if (made.layer) setControls(out, made.layer->inputs());
        if (made.speculation) {
          out["speculation"] = speculationOf(env, made.speculation->comparison());
          out["error"] = env.Undefined();  // it says what the model alone says
        }
        out["handle"] = points.add(point);
        return out;
      });
}

Napi::Value sample(const Napi::CallbackInfo& call) {
  const auto point = points.get(call[0].ToNumber().Int32Value());
  const double seconds = call[1].ToNumber();
  const int64_t most = call[2].ToNumber().Int64Value();
  using Samples = std::vector<double>;
  return Task<Samples>::run(
      call.Env(),
      [=] {
        if (!point) refuse("expected the handle of a prepared point");
        return point->sample(seconds, most);
      },
      [](Napi::Env env, Samples& samples) {
        Napi::Float64Array out = Napi::Float64Array::New(env, samples.size());
        std::copy(samples.begin(), samples.end(), out.Data());
        return out;
      });
}

void release(const Napi::CallbackInfo& call) {
  const int handle = call[0].ToNumber().Int32Value();
  if (handle >= layerHandles)
    layers.remove(handle - layerHandles);
  else
    points.remove(handle);
}

Napi::Value attendCall(const Napi::CallbackInfo& call) {
  const auto request = std::make_shared<OwnedTensors>(tensorAttention(call[0].As<Napi::Object>()));
  cancelFlag.clear();
  return Task<TensorAttentionResult>::run(
      call.Env(), [request] { return attendTensors(request->request, &cancelFlag); },
      [](Napi::Env env, TensorAttentionResult& result) {
        Napi::Object out = Napi::Object::New(env);
        out["out"] = floats(env, result.out);
        out["presentK"] = floats(env, result.presentK);
        out["presentV"] = floats(env, result.presentV);
        return out;
      });
}

/// Logits of token sequences under a level: the first `prompt` tokens at once, the others one by one from the cache.
std::vector<float> logitsOf(const ModelSource& source, const PointSpec& spec, const std::vector<int32_t>& tokens, int64_t batch, int64_t prompt) {
  const auto weights = loadModel(source, &cancelFlag);
  const DecoderShape& s = weights->shape;
  const auto count = static_cast<int64_t>(tokens.size()) / batch;
  Arena arena;
  Decoder decoder(arena, weights, std::vector<Technique>(static_cast<size_t>(s.layers), spec.technique), {}, count, 0, &cancelFlag, {spec.device});
  std::vector<float> out(static_cast<size_t>(elements({batch, count, s.vocabSize})));
  for (int64_t b = 0; b < batch; b++) {
    const int32_t* text = tokens.data() + b * count;
    float* to = out.data() + b * count * s.vocabSize;
    const auto sequence = decoder.newSequences(1);
    if (prompt > 0) decoder.prefill(*sequence, text, prompt, to);
    for (int64_t t = prompt; t < count; t++) {
      decoder.step(*sequence, text + t, 1, to + t * s.vocabSize);
      sequence->settle();
    }
  }
  return out;
}

Napi::Value logits(const Napi::CallbackInfo& call) {
  const auto source = std::make_shared<ModelSource>(modelSource(call[0].As<Napi::Object>()));
  const PointSpec spec = pointSpec(call[1].As<Napi::Object>());
  const Napi::Object tokens = call[2].As<Napi::Object>();
  const std::vector<int64_t> shape = shapeOf(tokens);
  const auto data = std::make_shared<std::vector<int32_t>>(tokenData(tokens));
  const int64_t prompt = call[3].ToNumber().Int64Value();
  cancelFlag.clear();
  using Logits = std::vector<float>;
  return Task<Logits>::run(
      call.Env(),
      [=] {
        if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || prompt < 0 || prompt > shape[1]) refuse("expected tokens [batch, tokens] and a prompt within");
        return logitsOf(*source, spec, *data, shape[0], prompt);
      },
      [](Napi::Env env, Logits& values) { return floats(env, values); });
}

Napi::Value speculateCall(const Napi::CallbackInfo& call) {
  const auto source = std::make_shared<ModelSource>(modelSource(call[0].As<Napi::Object>()));
  const auto text = std::make_shared<EvaluationText>(evaluationText(call[1].As<Napi::Object>()));
  const auto spec = std::make_shared<SpeculationSpec>(speculationSpec(call[2].As<Napi::Object>()));
  const auto prompts = std::make_shared<std::vector<Tokens>>(promptsOf(call[2].As<Napi::Object>()));
  const bool plain = call[2].As<Napi::Object>().Get("plain").ToBoolean();
  cancelFlag.clear();
  return Task<Speculation>::run(
      call.Env(), [=] {
        size_t longest = 0;
        for (const Tokens& prompt : *prompts) longest = std::max(longest, prompt.size());
        return Speculator(evaluatedModel(*source, *text), *spec, static_cast<int64_t>(longest), &cancelFlag).run(*prompts, plain);
      },
      [](Napi::Env env, Speculation& result) { return speculationOf(env, result); });
}

Napi::Value reachCall(const Napi::CallbackInfo& call) {
  const Napi::Array from = call[0].As<Napi::Array>();
  std::vector<LayerKind> kinds;
  for (uint32_t i = 0; i < from.Length(); i++) {
    const Napi::Object kind = from.Get(i).As<Napi::Object>();
    kinds.push_back({pointSpec(kind.Get("config").As<Napi::Object>()), kind.Get("layers").ToNumber().Int64Value()});
  }
  const Napi::Object asked = call[1].As<Napi::Object>();
  const auto number = [&](const char* name) { return asked.Get(name).ToNumber().Int64Value(); };
  ReachLimits limits;
  limits.tokens = number("tokens"), limits.mostSequences = number("mostSequences"), limits.reservedBytes = number("reservedBytes");
  if (!asked.Get("limitBytes").IsUndefined()) limits.bytes = number("limitBytes");
  cancelFlag.clear();
  return Task<Reached>::run(
      call.Env(),
      [=] {
        forgetDeviceModels();
        return reach(kinds, limits, &cancelFlag);
      },
      [](Napi::Env env, Reached& r) {
        Napi::Object out = Napi::Object::New(env);
        out["sequences"] = static_cast<double>(r.sequences);
        out["tokensOfLast"] = static_cast<double>(r.tokensOfLast);
        out["allocatedBytes"] = static_cast<double>(r.allocatedBytes);
        out["limitBytes"] = static_cast<double>(r.limitBytes);
        return out;
      });
}

Napi::Value createLayer(const Napi::CallbackInfo& call) {
  const PointSpec spec = pointSpec(call[0].As<Napi::Object>());
  cancelFlag.clear();
  using Layer = std::shared_ptr<OwnedLayer>;
  return Task<Layer>::run(
      call.Env(),
      [spec] {
        auto owned = std::make_shared<OwnedLayer>();
        owned->model = referenceModel(spec.model);
        owned->positions = std::max<int64_t>(spec.seqLen, 8192);
        owned->layer = std::make_unique<AttentionLayer>(owned->arena, *owned->model, spec.technique, owned->positions,
                                                        spec.calibrationTokens, spec.inputSeed, &cancelFlag);
        return owned;
      },
      [](Napi::Env env, Layer& layer) { return Napi::Number::New(env, layerHandles + layers.add(layer)); });
}

struct Forward {
  std::vector<float> y;
  CacheBytes bytes;
  int64_t tokens;
};

Forward forwardOn(OwnedLayer& owned, const std::vector<float>& x, const std::vector<int64_t>& shape, bool useCache) {
  std::lock_guard<std::mutex> lock(owned.busy);
  const int64_t d = owned.layer->hiddenDim();
  if (shape.size() != 3 || shape[2] != d || shape[0] < 1 || shape[1] < 1 || shape[0] * shape[1] * d != static_cast<int64_t>(x.size()))
    refuse("expected shape [batch, tokens, " + std::to_string(d) + "] for x");
  const int64_t batch = shape[0], tokens = shape[1];
  if (!useCache) owned.caches.clear();
  if (!owned.caches.empty() && static_cast<int64_t>(owned.caches.size()) != batch)
    refuse("expected a batch of " + std::to_string(owned.caches.size()) + " for x, as cached, but received " + std::to_string(batch));
  while (static_cast<int64_t>(owned.caches.size()) < batch) owned.caches.push_back(owned.layer->newCache(owned.arena));
  const int64_t length = owned.caches.front()->length();
  if (length + tokens > owned.positions)
    refuse("expected at most " + std::to_string(owned.positions) + " tokens in the cache but received " + std::to_string(length + tokens));
  Forward out{std::vector<float>(x.size()), {}, length + tokens};
  if (length == 0) {
    for (int64_t b = 0; b < batch; b++)
      owned.layer->prefill(*owned.caches[static_cast<size_t>(b)], x.data() + b * tokens * d, tokens, out.y.data() + b * tokens * d);
  } else {
    std::vector<SequenceCache*> caches;
    for (const auto& cache : owned.caches) caches.push_back(cache.get());
    owned.layer->step(caches, x.data(), tokens, out.y.data());
    for (SequenceCache* cache : caches) cache->settle();
  }
  for (const auto& cache : owned.caches) out.bytes += cache->bytes();
  return out;
}

Napi::Value forward(const Napi::CallbackInfo& call) {
  const auto layer = layers.get(call[0].ToNumber().Int32Value() - layerHandles);
  const Napi::Object x = call[1].As<Napi::Object>();
  const auto data = std::make_shared<std::vector<float>>(floatData(x));
  const std::vector<int64_t> shape = shapeOf(x);
  const bool useCache = call[2].ToBoolean();
  return Task<Forward>::run(
      call.Env(),
      [=] {
        if (!layer) refuse("expected the handle of a layer");
        return forwardOn(*layer, *data, shape, useCache);
      },
      [](Napi::Env env, Forward& f) {
        Napi::Object cache = Napi::Object::New(env);
        cache["kvAllocatedBytes"] = static_cast<double>(f.bytes.allocated);
        cache["kvLogicalBytes"] = f.bytes.logical;
        cache["tokens"] = static_cast<double>(f.tokens);
        Napi::Object out = Napi::Object::New(env);
        out["y"] = floats(env, f.y);
        out["cache"] = cache;
        return out;
      });
}

void cancel(const Napi::CallbackInfo&) { cancelFlag.raise(); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports["info"] = Napi::Function::New(env, info);
  exports["ceilings"] = Napi::Function::New(env, ceilings);
  exports["cuda"] = Napi::Function::New(env, cuda);
  exports["cudaVitals"] = Napi::Function::New(env, cudaVitalsCall);
  exports["cudaCeilings"] = Napi::Function::New(env, cudaCeilingsCall);
  exports["conditions"] = Napi::Function::New(env, conditions);
  exports["bench"] = Napi::Function::New(env, bench);
  exports["prepare"] = Napi::Function::New(env, prepare);
  exports["prepareModel"] = Napi::Function::New(env, prepareModel);
  exports["sample"] = Napi::Function::New(env, sample);
  exports["release"] = Napi::Function::New(env, release);
  exports["attend"] = Napi::Function::New(env, attendCall);
  exports["createLayer"] = Napi::Function::New(env, createLayer);
  exports["logits"] = Napi::Function::New(env, logits);
  exports["speculate"] = Napi::Function::New(env, speculateCall);
  exports["reach"] = Napi::Function::New(env, reachCall);
  exports["forward"] = Napi::Function::New(env, forward);
  exports["cancel"] = Napi::Function::New(env, cancel);
  return exports;
}

}  // namespace

NODE_API_MODULE(fastmqa, init)
