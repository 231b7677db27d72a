// JavaScript values to plain structs and back. Throws Napi::TypeError for what no caller of ours sends.
#pragma once
#include <napi.h>

#include <vector>

#include "fastmqa/problem.h"
#include "layer/accelerator.h"
#include "layer/bench.h"
#include "layer/point.h"
#include "layer/tensors.h"

/// A PointConfig, already checked against its schema.
fastmqa::PointSpec pointSpec(const Napi::Object& config);

/// The `Prepared` object without handle and generation.
Napi::Object preparedPoint(Napi::Env env, const fastmqa::TimedPoint& point);

Napi::Object cudaReport(Napi::Env env, const fastmqa::CudaReport& report);
Napi::Array cudaStates(Napi::Env env, const std::vector<fastmqa::AcceleratorDevice>& devices);

fastmqa::BenchOptions benchOptions(const Napi::Object& options);
Napi::Object benchCase(Napi::Env env, const fastmqa::BenchCase& result);

/// An attend request with copies of its tensors, so that JavaScript may change them meanwhile.
struct OwnedTensors {
  std::vector<std::vector<float>> floats;
  std::vector<uint8_t> mask;
  std::vector<int32_t> positions;
  fastmqa::TensorAttention request;
};
OwnedTensors tensorAttention(const Napi::Object& request);

std::vector<int32_t> tokenData(const Napi::Object& tensor);
std::vector<float> floatData(const Napi::Object& tensor);
std::vector<int64_t> shapeOf(const Napi::Object& tensor);
