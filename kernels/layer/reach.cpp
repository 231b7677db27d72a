#include "reach.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "accelerator.h"
#include "fastmqa/sizes.h"
#include "layer.h"

namespace fastmqa {
namespace {

constexpr int64_t fillTokens = 16;  // between settlements, so that a window holds at most a page too much

/// A layer whose caches are filled. The generator of synthetic layers knows no latent attention: one of random weights,
/// with a single head, because queries and outputs play no part.
std::shared_ptr<const ReferenceModel> layerToFill(const PointSpec& spec) {
  const ModelSpec& m = spec.model;
  if (m.latentRank == 0) return referenceModel(m);
  const auto random = [&](const char* name, int64_t rows, int64_t columns) {
    std::vector<double> numbers(static_cast<size_t>(elements({rows, columns})));
    RandomStream(m.seed, name).normals(0, rows * columns, numbers.data());
    std::vector<float> out;
    for (const double x : numbers) out.push_back(static_cast<float>(x / std::sqrt(static_cast<double>(columns))));
    return out;
  };
  LayerWeights w;
  w.d = m.hiddenDim, w.heads = 1, w.kvHeads = spec.technique.kvHeads, w.headDim = m.headDim;
  w.latent.rank = m.latentRank, w.latent.ropeDim = m.ropeDim, w.latent.valueDim = m.valueDim;
  w.latent.down = random("down", m.latentRank + m.ropeDim, m.hiddenDim);
  w.latent.norm.assign(static_cast<size_t>(m.latentRank), 1.0f);
  w.latent.up = random("up", m.headDim - m.ropeDim + m.valueDim, m.latentRank);
  w.wq = random("query", m.headDim, m.hiddenDim);
  w.wo = random("output", m.hiddenDim, m.valueDim);
  if (m.ropeTheta > 0) w.rope.base = m.ropeTheta, w.rope.rotaryDim = m.ropeDim;
  const auto stream = std::make_shared<const std::vector<float>>(random("inputs", m.hiddenDim * Calibration::streamTokens, 1));
  return std::make_shared<const ReferenceModel>(std::move(w), CalibrationStreams{stream});
}

Reached reachOnCpu(const std::vector<LayerKind>& kinds, const ReachLimits& limits, const CancelFlag* cancel) {
  if (limits.bytes == INT64_MAX) refuse("expected a limit in bytes for the caches: the system would give more memory than there is");
  const int64_t tokens = limits.tokens, limitBytes = limits.bytes;
  Arena weights, memory(limitBytes);
  std::vector<std::unique_ptr<AttentionLayer>> layers;
  std::vector<std::shared_ptr<const std::vector<float>>> inputs;
  for (const LayerKind& kind : kinds) {
    const auto model = layerToFill(kind.spec);
    layers.push_back(std::make_unique<AttentionLayer>(weights, *model, kind.spec.technique, tokens + fillTokens,
                                                      kind.spec.calibrationTokens, kind.spec.inputSeed, cancel));
    inputs.push_back(model->calibrationStreams(1, kind.spec.inputSeed).front());
  }
  Reached out;
  out.limitBytes = limitBytes;
  std::vector<std::unique_ptr<SequenceCache>> kept;
  int64_t tableBytes = 0;  // of the complete sequences: the allocator does not see page tables
  while (out.sequences < limits.mostSequences) {
    std::vector<std::unique_ptr<SequenceCache>> sequence;
    for (const LayerKind& kind : kinds)
      for (int64_t i = 0; i < kind.layers; i++) sequence.push_back(layers[static_cast<size_t>(&kind - kinds.data())]->newCache(memory));
    int64_t done = 0, tables = 0;
    try {
      while (done < tokens) {
        const int64_t n = std::min(fillTokens, tokens - done);
        tables = 0;
        size_t cache = 0;
        for (size_t k = 0; k < kinds.size(); k++) {
          const int64_t from = done % (Calibration::streamTokens - fillTokens);
          for (int64_t i = 0; i < kinds[k].layers; i++, cache++) {
            layers[k]->fill(*sequence[cache], inputs[k]->data() + from * layers[k]->hiddenDim(), n, true);
            tables += sequence[cache]->bytes().table;
          }
        }
        if (memory.currentBytes() + tableBytes + tables > limitBytes) throw Failure(FailureKind::outOfMemory, "the limit is reached");
        done += n;
      }
    } catch (const Failure& failure) {
      if (failure.kind != FailureKind::outOfMemory) throw;
      out.tokensOfLast = done;
      return out;
    }
    tableBytes += tables;
    out.sequences++;
    out.allocatedBytes = memory.currentBytes() + tableBytes;
    for (auto& cache : sequence) kept.push_back(std::move(cache));
  }
  return out;
}

}  // namespace

Reached reachOn(const Accelerator& accelerator, const std::vector<LayerKind>& kinds, const ReachLimits& limits, const CancelFlag* cancel) {
  const int device = kinds.front().spec.device;
  std::vector<std::unique_ptr<HeldCaches>> layers;
  for (const LayerKind& kind : kinds)
    layers.push_back(holdOnAccelerator(accelerator, device, *layerToFill(kind.spec), kind.spec, kind.layers, limits.tokens, layers.empty() ? limits.reservedBytes : 0, cancel));
  AcceleratorDevice before{};
  accelerator.describe(device, &before);
  Reached out;
  out.limitBytes = before.freeBytes > 0 ? std::min(limits.bytes, before.freeBytes) : limits.bytes;
  const auto held = [&] {
    int64_t bytes = 0;
    for (const auto& layer : layers) bytes += layer->bytes();
    return bytes;
  };
  while (out.sequences < limits.mostSequences) {
    if (cancel) cancel->check();
    try {
      for (const auto& layer : layers) layer->hold(limits.bytes == INT64_MAX ? INT64_MAX : limits.bytes - held() + layer->bytes());
    } catch (const Failure& failure) {
      if (failure.kind != FailureKind::outOfMemory) throw;
      return out;
    }
    out.sequences++;
    out.allocatedBytes = held();
  }
  return out;
}

Reached reach(const std::vector<LayerKind>& kinds, const ReachLimits& limits, const CancelFlag* cancel) {
  if (kinds.empty()) refuse("expected at least one kind of layers");
  return kinds.front().spec.device < 0 ? reachOnCpu(kinds, limits, cancel) : reachOn(cudaLibrary(), kinds, limits, cancel);
}

}  // namespace fastmqa
