// A model in files, as JavaScript describes it.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "model/speculate.h"

struct ModelSource {
  std::string key;
  fastmqa::DecoderShape shape;
  fastmqa::Checkpoint checkpoint;
};
ModelSource modelSource(const Napi::Object& files);

/// Read once and kept while it is among the last few asked for.
std::shared_ptr<const fastmqa::DecoderWeights> loadModel(const ModelSource& source, const fastmqa::CancelFlag* cancel);

fastmqa::EvaluationText evaluationText(const Napi::Object& text);
Napi::Object qualityOf(Napi::Env env, const fastmqa::Quality& quality);

fastmqa::SpeculationSpec speculationSpec(const Napi::Object& request);
std::vector<fastmqa::Tokens> promptsOf(const Napi::Object& request);
Napi::Object speculationOf(Napi::Env env, const fastmqa::Speculation& result);
