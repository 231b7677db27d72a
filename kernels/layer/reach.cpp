#include "reach.h"

#include <algorithm>
#include <memory>

#include "layer.h"

namespace fastmqa {
namespace {

constexpr int64_t fillTokens = 16;  // between settlements, so that a window holds at most a page too much

}  // namespace

Reached reach(const std::vector<LayerKind>& kinds, int64_t tokens, int64_t limitBytes, int64_t mostSequences, const CancelFlag* cancel) {
  Arena weights, memory(limitBytes);
  std::vector<std::unique_ptr<AttentionLayer>> layers;
  std::vector<std::shared_ptr<const std::vector<float>>> inputs;
  for (const LayerKind& kind : kinds) {
    const auto model = referenceModel(kind.spec.model);
    layers.push_back(std::make_unique<AttentionLayer>(weights, *model, kind.spec.technique, tokens + fillTokens,
                                                      kind.spec.calibrationTokens, kind.spec.inputSeed, cancel));
    inputs.push_back(model->calibrationStreams(1, kind.spec.inputSeed).front());
  }
  Reached out;
  std::vector<std::unique_ptr<SequenceCache>> kept;
  int64_t tableBytes = 0;  // of the complete sequences: the allocator does not see page tables
  while (out.sequences < mostSequences) {
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

}  // namespace fastmqa
