#include "convert-model.h"

#include "convert.h"
#include "layer/recent.h"

using namespace fastmqa;

namespace {

bool has(const Napi::Object& o, const char* name) { return o.Has(name) && !o.Get(name).IsUndefined() && !o.Get(name).IsNull(); }
double number(const Napi::Object& o, const char* name, double otherwise = 0) {
  return has(o, name) ? o.Get(name).ToNumber().DoubleValue() : otherwise;
}
int64_t whole(const Napi::Object& o, const char* name, int64_t otherwise = 0) {
  return has(o, name) ? o.Get(name).ToNumber().Int64Value() : otherwise;
}
std::string text(const Napi::Object& o, const char* name) { return has(o, name) ? o.Get(name).ToString().Utf8Value() : ""; }
bool truth(const Napi::Object& o, const char* name) { return has(o, name) && o.Get(name).ToBoolean(); }

template <class Value, size_t count>
Value oneOf(const Napi::Object& o, const char* name, const std::pair<const char*, Value> (&choices)[count]) {
  const std::string value = text(o, name);
  for (const auto& choice : choices)
    if (value == choice.first) return choice.second;
  throw Napi::TypeError::New(o.Env(), std::string("expected a known value for ") + name + " but received " + value);
}

std::vector<double> numbers(const Napi::Object& o, const char* name) {
  std::vector<double> out;
  if (!has(o, name)) return out;
  const Napi::Array from = o.Get(name).As<Napi::Array>();
  for (uint32_t i = 0; i < from.Length(); i++) out.push_back(from.Get(i).ToNumber().DoubleValue());
  return out;
}

RopeParameters ropeOf(const Napi::Object& layer) {
  RopeParameters p;
  if (!has(layer, "rope")) return p;
  const Napi::Object rope = layer.Get("rope").As<Napi::Object>();
  p.base = number(rope, "theta");
  p.rotaryDim = whole(rope, "rotaryDim");
  p.interleaved = truth(rope, "interleaved");
  if (!has(rope, "scaling")) return p;
  const Napi::Object s = rope.Get("scaling").As<Napi::Object>();
  p.scaling = oneOf<RopeScaling>(s, "kind", {{"linear", RopeScaling::linear}, {"dynamic", RopeScaling::dynamicNtk}, {"yarn", RopeScaling::yarn},
                                             {"longrope", RopeScaling::longrope}, {"llama3", RopeScaling::llama3}});
  p.factor = number(s, "factor", p.factor);
  p.originalMaxPositions = number(s, "originalMaxPositions");
  p.betaFast = number(s, "betaFast", p.betaFast);
  p.betaSlow = number(s, "betaSlow", p.betaSlow);
  p.mscale = number(s, "mscale");
  p.mscaleAllDim = number(s, "mscaleAllDim");
  p.lowFrequencyFactor = number(s, "lowFrequencyFactor", p.lowFrequencyFactor);
  p.highFrequencyFactor = number(s, "highFrequencyFactor", p.highFrequencyFactor);
  p.attentionFactor = number(s, "attentionFactor");
  p.shortFactors = numbers(s, "shortFactors");
  p.longFactors = numbers(s, "longFactors");
  return p;
}

DecoderShape shapeOfModel(const Napi::Object& c) {
  DecoderShape s;
  s.hiddenDim = whole(c, "hiddenDim");
  s.heads = whole(c, "heads");
  s.kvHeads = whole(c, "kvHeads");
  s.headDim = whole(c, "headDim");
  s.mlpDim = whole(c, "mlpDim");
  s.vocabSize = whole(c, "vocabSize");
  s.maxPositions = whole(c, "maxPositions");
  s.norm = text(c, "norm") == "layer" ? Norm::layer : Norm::rms;
  s.normPlusOne = text(c, "norm") == "rms-plus-one";
  s.normEpsilon = number(c, "normEpsilon");
  s.residual = oneOf<Residual>(c, "residual", {{"sequential", Residual::sequential}, {"sandwich", Residual::sandwich}, {"parallel", Residual::parallel}});
  s.attentionScale = number(c, "attentionScale");
  s.attentionSoftcap = number(c, "attentionSoftcap");
  s.logitSoftcap = number(c, "logitSoftcap");
  s.embeddingScale = number(c, "embeddingScale", 1);
  s.activation = oneOf<Activation>(c, "activation", {{"silu", Activation::silu}, {"gelu", Activation::gelu}, {"gelu-tanh", Activation::geluTanh}});
  s.gatedMlp = truth(c, "gatedMlp");
  if (has(c, "mla")) {
    const Napi::Object mla = c.Get("mla").As<Napi::Object>();
    s.latentRank = whole(mla, "rank");
    s.ropeDim = whole(mla, "ropeDim");
    s.valueDim = whole(mla, "valueDim");
    s.queryRank = whole(mla, "queryRank");
  }
  if (has(c, "experts")) {
    const Napi::Object experts = c.Get("experts").As<Napi::Object>();
    s.experts.experts = whole(experts, "count");
    s.experts.chosen = whole(experts, "chosen");
    s.experts.mlpDim = whole(experts, "mlpDim");
    s.experts.sharedMlpDim = whole(experts, "sharedMlpDim");
    s.experts.firstLayer = whole(experts, "firstLayer");
    s.experts.everyLayers = whole(experts, "everyLayers", 1);
    s.experts.sigmoid = truth(experts, "sigmoid");
    s.experts.groups = whole(experts, "groups", 1);
    s.experts.chosenGroups = whole(experts, "chosenGroups", 1);
    s.experts.normalises = truth(experts, "normalises");
    s.experts.scaling = number(experts, "scaling", 1);
  }
  const Napi::Array layers = c.Get("layers").As<Napi::Array>();
  s.layers = layers.Length();
  for (uint32_t i = 0; i < layers.Length(); i++) {
    const Napi::Object layer = layers.Get(i).As<Napi::Object>();
    s.windows.push_back(whole(layer, "window"));
    s.ropes.push_back(ropeOf(layer));
  }
  return s;
}

StoredRows storedRows(const Napi::Object& from) {
  StoredRows rows;
  rows.file = text(from, "file");
  rows.offset = whole(from, "offset");
  rows.type = oneOf<StoredType>(from, "dtype", {{"F32", StoredType::f32}, {"F64", StoredType::f64}, {"F16", StoredType::f16},
                                                {"BF16", StoredType::bf16}, {"F8_E4M3", StoredType::e4m3}, {"F8_E5M2", StoredType::e5m2}});
  rows.columns = whole(from, "columns");
  const Napi::Array ranges = from.Get("ranges").As<Napi::Array>();
  for (uint32_t i = 0; i < ranges.Length(); i++) {
    const Napi::Array range = ranges.Get(i).As<Napi::Array>();
    rows.ranges.emplace_back(range.Get(0u).ToNumber().Int64Value(), range.Get(1u).ToNumber().Int64Value());
  }
  if (has(from, "scales")) {
    const Napi::Object scales = from.Get("scales").As<Napi::Object>();
    rows.scales = BlockScales{text(scales, "file"), whole(scales, "offset"), whole(scales, "rows"), whole(scales, "columns")};
    if (rows.scales->rows < 1 || rows.scales->columns < 1) refuse("expected blocks of at least one weight for the scales of a matrix");
  }
  return rows;
}

}  // namespace

ModelSource modelSource(const Napi::Object& files) {
  ModelSource source;
  source.key = text(files, "key");
  source.shape = shapeOfModel(files.Get("config").As<Napi::Object>());
  const Napi::Object tensors = files.Get("tensors").As<Napi::Object>();
  const Napi::Array names = tensors.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    const std::string name = names.Get(i).ToString().Utf8Value();
    source.checkpoint[name] = storedRows(tensors.Get(name).As<Napi::Object>());
  }
  return source;
}

std::shared_ptr<const DecoderWeights> loadModel(const ModelSource& source, const CancelFlag* cancel) {
  static Recent<DecoderWeights, 2> recent;
  return recent.get(source.key, [&] { return std::make_shared<const DecoderWeights>(source.shape, source.checkpoint, cancel); });
}

namespace {

std::vector<Tokens> tokenLists(const Napi::Object& o, const char* name) {
  std::vector<Tokens> out;
  const Napi::Array lists = o.Get(name).As<Napi::Array>();
  for (uint32_t i = 0; i < lists.Length(); i++) {
    const Napi::Int32Array list = lists.Get(i).As<Napi::Int32Array>();
    out.emplace_back(list.Data(), list.Data() + list.ElementLength());
  }
  return out;
}

Tokens tokenList(const Napi::Object& o, const char* name) {
  const Napi::Int32Array list = o.Get(name).As<Napi::Int32Array>();
  return Tokens(list.Data(), list.Data() + list.ElementLength());
}

Napi::Array arrayOf(Napi::Env env, const std::vector<double>& from) {
  Napi::Array out = Napi::Array::New(env, from.size());
  for (size_t i = 0; i < from.size(); i++) out[static_cast<uint32_t>(i)] = from[i];
  return out;
}

}  // namespace

EvaluationText evaluationText(const Napi::Object& o) {
  EvaluationText out;
  out.key = text(o, "key");
  out.prompt = whole(o, "prompt");
  out.documents = tokenLists(o, "documents");
  out.haystacks = tokenLists(o, "haystacks");
  out.calibration = tokenLists(o, "calibration");
  const Napi::Array stacks = o.Get("probes").As<Napi::Array>();
  for (uint32_t i = 0; i < stacks.Length(); i++) {
    const Napi::Array from = stacks.Get(i).As<Napi::Array>();
    std::vector<Probe> probes;
    for (uint32_t p = 0; p < from.Length(); p++) {
      const Napi::Object probe = from.Get(p).As<Napi::Object>();
      probes.push_back({number(probe, "depth"), tokenList(probe, "question"), tokenList(probe, "answer")});
    }
    out.probes.push_back(std::move(probes));
  }
  return out;
}

Napi::Object qualityOf(Napi::Env env, const Quality& q) {
  Napi::Object out = Napi::Object::New(env);
  out["logitKl"] = q.logitKl;
  out["logitKlP95"] = q.logitKlP95;
  out["top1Agreement"] = q.top1Agreement;
  out["acceptance"] = q.acceptance;
  out["perplexity"] = q.perplexity;
  out["exactPerplexity"] = q.exactPerplexity;
  if (!q.depths.empty()) {
    out["retrieved"] = q.retrieved;
    out["exactRetrieved"] = q.exactRetrieved;
    out["retrievalDepths"] = arrayOf(env, q.depths);
    out["retrievedByDepth"] = arrayOf(env, q.retrieval);
  }
  out["layerErrors"] = arrayOf(env, q.layerErrors);
  out["positions"] = static_cast<double>(q.positions);
  return out;
}

SpeculationSpec speculationSpec(const Napi::Object& o) {
  SpeculationSpec spec;
  const PointSpec target = pointSpec(o.Get("target").As<Napi::Object>());
  spec.target = target.technique;
  spec.place.device = target.device;
  spec.draft = pointSpec(o.Get("draft").As<Napi::Object>()).technique;
  spec.draftTokens = whole(o, "draftTokens");
  spec.tokens = whole(o, "tokens");
  spec.temperature = number(o, "temperature");
  spec.seed = static_cast<uint64_t>(whole(o, "seed", 1));
  return spec;
}

std::vector<Tokens> promptsOf(const Napi::Object& o) { return tokenLists(o, "prompts"); }

Napi::Object speculationOf(Napi::Env env, const Speculation& s) {
  const auto lists = [&](const std::vector<Tokens>& from) {
    Napi::Array out = Napi::Array::New(env, from.size());
    for (size_t i = 0; i < from.size(); i++) {
      Napi::Int32Array list = Napi::Int32Array::New(env, from[i].size());
      std::copy(from[i].begin(), from[i].end(), list.Data());
      out[static_cast<uint32_t>(i)] = list;
    }
    return out;
  };
  const auto counts = [&](const std::vector<int64_t>& from) { return arrayOf(env, std::vector<double>(from.begin(), from.end())); };
  Napi::Object out = Napi::Object::New(env);
  out["output"] = lists(s.output);
  out["plainOutput"] = lists(s.plainOutput);
  out["offered"] = counts(s.offered);
  out["accepted"] = counts(s.accepted);
  out["rounds"] = static_cast<double>(s.rounds);
  out["tokens"] = static_cast<double>(s.tokens);
  out["seconds"] = s.seconds;
  out["plainSeconds"] = s.plainSeconds;
  out["draftSeconds"] = s.draftSeconds;
  out["verifySeconds"] = s.verifySeconds;
  out["targetCacheBytes"] = static_cast<double>(s.targetCacheBytes);
  out["draftCacheBytes"] = static_cast<double>(s.draftCacheBytes);
  return out;
}
