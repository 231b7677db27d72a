#include "convert.h"

#include <string>

#include "fastmqa/sizes.h"

using namespace fastmqa;

namespace {

bool has(const Napi::Object& o, const char* name) { return o.Has(name) && !o.Get(name).IsUndefined() && !o.Get(name).IsNull(); }
double number(const Napi::Object& o, const char* name, double otherwise) {
  return has(o, name) ? o.Get(name).ToNumber().DoubleValue() : otherwise;
}
int64_t whole(const Napi::Object& o, const char* name, int64_t otherwise) {
  return has(o, name) ? o.Get(name).ToNumber().Int64Value() : otherwise;
}
bool truth(const Napi::Object& o, const char* name) { return has(o, name) && o.Get(name).ToBoolean(); }
std::string text(const Napi::Object& o, const char* name) { return has(o, name) ? o.Get(name).ToString().Utf8Value() : ""; }

[[noreturn]] void unknown(const Napi::Object& o, const char* name) {
  throw Napi::TypeError::New(o.Env(), std::string("expected a known value for ") + name + " but received " + text(o, name));
}

/// Of a check that is part of the engine: with the code that the engine's own refusals have.
template <class Check>
auto refusing(Napi::Env env, const Check& check) {
  try {
    return check();
  } catch (const Failure& failure) {
    Napi::TypeError error = Napi::TypeError::New(env, failure.what());
    error.Set("code", Napi::String::New(env, "refused"));
    throw error;
  }
}

Dtype dtypeOf(const Napi::Object& o, const char* name) {
  constexpr const char* names[] = {"f32", "f16", "bf16", "fp8-e4m3", "fp8-e5m2", "int8", "int4", "int3", "int2"};
  const std::string value = text(o, name);
  for (int i = 0; i < 9; i++)
    if (value == names[i]) return static_cast<Dtype>(i);
  unknown(o, name);
}

Technique::Grouping groupingOf(const Napi::Object& o, const char* name) {
  const std::string value = text(o, name);
  if (value.empty() || value == "token") return Technique::Grouping::token;
  if (value == "channel") return Technique::Grouping::channel;
  if (value == "tensor") return Technique::Grouping::tensor;
  unknown(o, name);
}

/// -1 for the CPU.
int deviceOf(const std::string& backend) { return backend.compare(0, 5, "cuda:") == 0 ? std::stoi(backend.substr(5)) : -1; }

std::vector<Technique::LatentBand> bandsOf(const std::string& from) {  // "256x8+768x4", checked by the schema
  std::vector<Technique::LatentBand> bands;
  for (size_t at = 0; at < from.size();) {
    const size_t end = std::min(from.find('+', at), from.size()), x = from.find('x', at);
    bands.push_back({std::stoll(from.substr(at, x - at)), std::stoi(from.substr(x + 1, end - x - 1))});
    at = end + 1;
  }
  return bands;
}

}  // namespace

PointSpec pointSpec(const Napi::Object& c) {
  PointSpec p;
  p.model.hiddenDim = whole(c, "hiddenDim", 0);
  p.model.heads = whole(c, "heads", 0);
  p.model.headDim = whole(c, "headDim", 0);
  p.model.kvHeads = whole(c, "referenceKvHeads", 0);
  p.model.ropeTheta = number(c, "ropeTheta", 0);
  p.model.seed = static_cast<uint64_t>(whole(c, "modelSeed", 1));
  p.model.latentRank = whole(c, "latentDim", 0);
  p.model.ropeDim = whole(c, "ropeDim", 0);
  p.model.valueDim = whole(c, "valueDim", 0);
  p.modelLayer = whole(c, "layer", -1);
  Technique& t = p.technique;
  t.naiveKernel = text(c, "kernel") == "naive";
  t.kvHeads = whole(c, "kvHeads", p.model.kvHeads);
  const std::string conversion = text(c, "kvConversion"), kind = text(c, "cacheKind"), phase = text(c, "phase");
  if (conversion == "aligned") t.conversion = Conversion::aligned;
  else if (conversion == "first") t.conversion = Conversion::first;
  else if (!conversion.empty() && conversion != "mean") unknown(c, "kvConversion");
  if (kind == "direct") t.cacheKind = CacheKind::direct;
  else if (kind == "latent-separate") t.cacheKind = CacheKind::latentSeparate;
  else if (kind == "latent-joint") t.cacheKind = CacheKind::latentJoint;
  else if (kind == "input") t.cacheKind = CacheKind::input;
  else unknown(c, "cacheKind");
  t.keyDtype = dtypeOf(c, "keyDtype");
  t.valueDtype = dtypeOf(c, "valueDtype");
  t.keyGrouping = groupingOf(c, "keyGrouping");
  t.valueGrouping = groupingOf(c, "valueGrouping");
  t.keyGroupSize = whole(c, "keyGroupSize", 32);
  t.valueGroupSize = whole(c, "valueGroupSize", 32);
  t.symmetric = truth(c, "symmetric");
  t.hadamard = truth(c, "hadamard");
  t.keysBeforeRope = text(c, "keyRope") == "pre";
  t.residual = whole(c, "residualTokens", 0);
  t.sinks = whole(c, "sinkTokens", 0);
  t.window = whole(c, "window", 0);
  t.rank = whole(c, "latentRank", 0);
  t.rankKey = whole(c, "latentRankKey", 0);
  t.rankValue = whole(c, "latentRankValue", 0);
  t.bands = bandsOf(text(c, "latentBands"));
  t.weightBasis = text(c, "latentBasis") == "weight";
  t.centred = truth(c, "latentCentred");
  t.adaptiveBudgetBytes = number(c, "adaptiveBudgetBytes", 0);
  t.adaptiveEnergy = number(c, "adaptiveEnergy", 0);
  if (phase == "prefill") p.phase = Phase::prefill;
  else if (phase == "decode") p.phase = Phase::decode;
  else if (phase == "verify") p.phase = Phase::verify;
  else if (phase == "speculate") p.phase = Phase::speculate;
  else unknown(c, "phase");
  const std::string backend = text(c, "backend");
  p.device = deviceOf(backend);
  p.batch = whole(c, "batch", 1);
  p.seqLen = whole(c, "seqLen", 1);
  p.verifyTokens = whole(c, "verifyTokens", 1);
  p.draftTokens = whole(c, "speculativeTokens", 4);
  p.inputSeed = static_cast<uint64_t>(whole(c, "seed", 100));
  p.calibrationTokens = whole(c, "calibrationTokens", 4096);
  refusing(c.Env(), [&] { checkSizes(p); });
  return p;
}

Napi::Object preparedPoint(Napi::Env env, const TimedPoint& point) {
  const PointMemory& m = point.memory();
  const auto count = [](int64_t n) { return static_cast<double>(n); };
  Napi::Object parts = Napi::Object::New(env);
  parts["payloadBytes"] = count(m.cache.payload);
  parts["scaleBytes"] = count(m.cache.scales);
  parts["sinkBytes"] = count(m.cache.sinks);
  parts["residualBytes"] = count(m.cache.residual);
  parts["slackBytes"] = count(m.cache.slack);
  parts["tableBytes"] = count(m.cache.table);
  Napi::Object memory = Napi::Object::New(env);
  memory["kvLogicalBytes"] = m.cache.logical;
  memory["kvAllocatedBytes"] = count(m.cache.allocated);
  memory["kvParts"] = parts;
  memory["peakBytes"] = count(m.peakBytes);
  memory["extraWeightBytes"] = count(m.extraWeightBytes);
  memory["cachedTokens"] = count(m.cachedTokens);
  if (m.ownTokens > 0) memory["ownTokens"] = count(m.ownTokens);
  const PointError& e = point.error();
  Napi::Object error = Napi::Object::New(env);
  error["relativeL2"] = e.relativeL2;
  error["cosine"] = e.cosine;
  error["rms"] = e.rms;
  error["maxAbs"] = e.maxAbs;
  error["referenceRms"] = e.referenceRms;
  error["tokenP95"] = e.tokenP95;
  error["tokenMedian"] = e.tokenMedian;
  Napi::Array positions = Napi::Array::New(env, e.positions.size());
  for (size_t i = 0; i < e.positions.size(); i++) positions[static_cast<uint32_t>(i)] = count(e.positions[i]);
  error["positions"] = positions;
  Napi::Object work = Napi::Object::New(env);
  work["flops"] = point.work().flops;
  work["bytes"] = point.work().bytes;
  work["tokens"] = count(point.work().tokens);
  Napi::Object out = Napi::Object::New(env);
  out["memory"] = memory;
  out["error"] = error;
  out["work"] = work;
  return out;
}

namespace {

/// What changes from moment to moment; what is not known is left out.
void setState(Napi::Object& out, const AcceleratorDevice& d) {
  const auto known = [&](const char* name, double value) {
    if (value >= 0) out[name] = value;
  };
  known("memoryBytes", static_cast<double>(d.memoryBytes));
  known("freeBytes", static_cast<double>(d.freeBytes));
  known("clockMHz", d.clockMHz);
  known("mostClockMHz", d.mostClockMHz);
  known("memoryClockMHz", d.memoryClockMHz);
  known("temperatureCelsius", d.temperatureCelsius);
  known("powerWatts", d.powerWatts);
  known("powerLimitWatts", d.powerLimitWatts);
  known("foreignProcesses", d.foreignProcesses);
  if (d.throttleReasons < 0) return;
  // Bits of NVML's clocks event reasons.
  constexpr const char* names[] = {"idle", "set clocks", "power limit", "hardware slow-down", "sync boost", "software heat limit", "hardware heat limit", "power brake", "display clocks"};
  Napi::Array reasons = Napi::Array::New(out.Env());
  for (int bit = 0; bit < 9; bit++)
    if (d.throttleReasons >> bit & 1) reasons[reasons.Length()] = Napi::String::New(out.Env(), names[bit]);
  out["clockReasons"] = reasons;
}

}  // namespace

Napi::Array cudaStates(Napi::Env env, const std::vector<AcceleratorDevice>& devices) {
  Napi::Array out = Napi::Array::New(env, devices.size());
  for (size_t i = 0; i < devices.size(); i++) {
    Napi::Object state = Napi::Object::New(env);
    setState(state, devices[i]);
    out[static_cast<uint32_t>(i)] = state;
  }
  return out;
}

Napi::Object cudaReport(Napi::Env env, const CudaReport& report) {
  Napi::Array devices = Napi::Array::New(env, report.devices.size());
  for (size_t i = 0; i < report.devices.size(); i++) {
    const AcceleratorDevice& d = report.devices[i];
    Napi::Object out = Napi::Object::New(env);
    out["name"] = std::string(d.name);
    out["computeCapability"] = std::to_string(d.capability / 10) + "." + std::to_string(d.capability % 10);
    out["multiprocessors"] = d.multiprocessors;
    // 13000 is 13.0
    const auto version = [](int32_t v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    out["driverCudaVersion"] = version(d.driverVersion);
    out["runtimeCudaVersion"] = version(d.runtimeVersion);
    out["cacheBytes"] = static_cast<double>(d.cacheBytes);
    setState(out, d);
    devices[static_cast<uint32_t>(i)] = out;
  }
  Napi::Object out = Napi::Object::New(env);
  out["devices"] = devices;
  if (!report.reason.empty()) out["reason"] = report.reason;
  return out;
}

BenchOptions benchOptions(const Napi::Object& o) {
  BenchOptions options;
  options.decodeTokens = whole(o, "decodeTokens", options.decodeTokens);
  options.secondsPerCase = number(o, "secondsPerCase", options.secondsPerCase);
  options.only = text(o, "only");
  options.warm = truth(o, "warm");
  return options;
}

Napi::Object benchCase(Napi::Env env, const BenchCase& result) {
  Napi::Object out = Napi::Object::New(env);
  out["name"] = result.name;
  out["shape"] = result.shape;
  out["flops"] = result.flops;
  out["bytes"] = result.bytes;
  out["medianSeconds"] = result.medianSeconds;
  out["fmaFlopsPerSecond"] = result.fmaFlopsPerSecond;
  out["readBytesPerSecond"] = result.readBytesPerSecond;
  return out;
}

std::vector<int64_t> shapeOf(const Napi::Object& tensor) {
  const Napi::Array shape = tensor.Get("shape").As<Napi::Array>();
  std::vector<int64_t> out;
  for (uint32_t i = 0; i < shape.Length(); i++) out.push_back(shape.Get(i).ToNumber().Int64Value());
  return out;
}

namespace {

/// The elements of a typed array, which must be as many as the shape says.
template <class Array, class T>
std::vector<T> dataOf(const Napi::Object& tensor) {
  const Array data = tensor.Get("data").As<Array>();
  const int64_t n = refusing(tensor.Env(), [&] {
    const int64_t wanted = elements(shapeOf(tensor)), received = static_cast<int64_t>(data.ElementLength());
    if (received != wanted) refuse("expected " + std::to_string(wanted) + " elements, as the shape says, but received " + std::to_string(received));
    return wanted;
  });
  return std::vector<T>(data.Data(), data.Data() + n);
}

}  // namespace

std::vector<int32_t> tokenData(const Napi::Object& tensor) { return dataOf<Napi::Int32Array, int32_t>(tensor); }
std::vector<float> floatData(const Napi::Object& tensor) { return dataOf<Napi::Float32Array, float>(tensor); }

OwnedTensors tensorAttention(const Napi::Object& o) {
  OwnedTensors owned;
  TensorAttention& r = owned.request;
  owned.floats.reserve(8);  // views point into it
  const auto view = [&](const char* name) {
    TensorView<float> out;
    if (!has(o, name)) return out;
    const Napi::Object tensor = o.Get(name).As<Napi::Object>();
    owned.floats.push_back(floatData(tensor));
    out.data = owned.floats.back().data();
    out.shape = shapeOf(tensor);
    return out;
  };
  r.q = view("q");
  r.k = view("k");
  r.v = view("v");
  r.pastK = view("pastK");
  r.pastV = view("pastV");
  r.cosine = view("cos");
  r.sine = view("sin");
  if (has(o, "mask")) {
    const Napi::Object mask = o.Get("mask").As<Napi::Object>();
    if (mask.Get("data").As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array) {
      owned.mask = dataOf<Napi::Uint8Array, uint8_t>(mask);
      r.booleanMask.data = owned.mask.data();
      r.booleanMask.shape = shapeOf(mask);
    } else {
      r.additiveMask = view("mask");
    }
  }
  if (has(o, "positionIds")) {
    const Napi::Object ids = o.Get("positionIds").As<Napi::Object>();
    owned.positions = dataOf<Napi::Int32Array, int32_t>(ids);
    r.positionIds.data = owned.positions.data();
    r.positionIds.shape = shapeOf(ids);
  }
  r.causal = truth(o, "causal");
  r.interleaved = truth(o, "interleavedRope");
  r.naive = text(o, "kernel") == "naive";
  r.scale = number(o, "scale", 0);
  r.softcap = number(o, "softcap", 0);
  r.windowLeft = whole(o, "windowLeft", -1);
  r.windowRight = whole(o, "windowRight", -1);
  r.sinks = whole(o, "sinkTokens", 0);
  r.cacheDtype = dtypeOf(o, "cacheDtype");
  r.device = deviceOf(text(o, "backend"));
  return owned;
}
