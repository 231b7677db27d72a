#include "steps.h"

#include <unistd.h>

#include <cstdio>

#include "cuda/primitives/device.h"
#include "model/decoder.h"
#include "test-engine/checks.h"

using namespace fastmqa;

namespace {

using Counts = gpu::host::Counts;
constexpr int64_t layers = 2, sequences = 2, prompt = 70;

DecoderShape shapeOf() {
  DecoderShape s;
  s.hiddenDim = 64, s.heads = 2, s.kvHeads = 2, s.headDim = 64, s.layers = layers, s.mlpDim = 72, s.vocabSize = 32, s.maxPositions = 128;
  s.attentionScale = 0.125;
  RopeParameters rope;
  rope.rotaryDim = s.headDim;
  s.windows.assign(layers, 0);
  s.ropes.assign(layers, rope);
  return s;
}

/// Random weights, read from a file as those of every model are.
std::shared_ptr<const DecoderWeights> weightsOf(const DecoderShape& s) {
  char path[] = "/tmp/fastmqa-steps-XXXXXX";
  const int file = mkstemp(path);
  std::FILE* out = fdopen(file, "wb");
  check::Random random(3);
  Checkpoint checkpoint;
  int64_t offset = 0;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    const std::vector<float> numbers = columns == 1 ? std::vector<float>(static_cast<size_t>(rows), 1.0f) : random.normals(rows * columns, 0.15);
    std::fwrite(numbers.data(), sizeof(float), numbers.size(), out);
    checkpoint[name] = {path, offset, StoredType::f32, columns, {{0, rows}}, {}};
    offset += static_cast<int64_t>(numbers.size() * sizeof(float));
  };
  const int64_t d = s.hiddenDim, width = s.heads * s.headDim, keyWidth = s.kvHeads * s.headDim;
  add("embedding", s.vocabSize, d);
  add("finalNorm", d, 1);
  for (int64_t i = 0; i < layers; i++) {
    const std::string at = "layers." + std::to_string(i) + ".";
    add(at + "attentionNorm", d, 1), add(at + "mlpNorm", d, 1);
    add(at + "q", width, d), add(at + "k", keyWidth, d), add(at + "v", keyWidth, d), add(at + "o", d, width);
    add(at + "gate", s.mlpDim, d), add(at + "up", s.mlpDim, d), add(at + "down", d, s.mlpDim);
  }
  std::fclose(out);
  auto weights = std::make_shared<const DecoderWeights>(s, checkpoint);
  weights->readAll(nullptr);
  unlink(path);
  return weights;
}

Counts since(const Counts& before) {
  Counts c = gpu::host::counts();
  c.launches -= before.launches, c.recordings -= before.recordings, c.replays -= before.replays, c.allocations -= before.allocations;
  c.waits -= before.waits, c.uploadedBytes -= before.uploadedBytes, c.downloadedBytes -= before.downloadedBytes;
  return c;
}

}  // namespace

void countsStep(const Accelerator& accelerator, const std::string& name, const Technique& technique, int perLayer) {
  static const std::shared_ptr<const DecoderWeights> weights = weightsOf(shapeOf());
  const DecoderShape& s = weights->shape;
  const std::string step = "step, " + name + ", ";
  AttentionModels calibrated;
  for (int64_t layer = 0; layer < layers; layer++)
    calibrated.push_back(std::make_shared<const ReferenceModel>(
        weights->attention(layer).model->weights(), CalibrationStreams{std::make_shared<const std::vector<float>>(check::Random(7).normals(Calibration::streamTokens * s.hiddenDim))}));
  Arena arena;
  Decoder decoder(arena, weights, std::vector<Technique>(layers, technique), calibrated, s.maxPositions, Calibration::streamTokens, nullptr,
                  DecoderPlace{0, &accelerator, Dtype::f16});
  const auto cached = decoder.newSequences(sequences);
  std::vector<int32_t> text(sequences * prompt);
  for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<int32_t>(i * i * 7 % 32);
  decoder.prefill(*cached, text.data(), prompt, nullptr);
  cached->settle();

  std::vector<float> logits(sequences * static_cast<size_t>(s.vocabSize));
  using Rows = std::vector<float>;
  const auto decode = [&](std::vector<int32_t> tokens, float* to) {
    decoder.step(*cached, tokens.data(), 1, to);
    cached->rollback(prompt);
  };
  const auto normed = [&] {
    Rows rows(sequences * static_cast<size_t>(s.hiddenDim));
    decoder.executor().read(Executor::Place::normed, rows.data());
    return rows;
  };
  decode({3, 9}, logits.data());
  const Rows expected = normed();

  // A token that was just chosen: its number goes there, logits come back, and nothing else is asked for.
  decode({5, 1}, logits.data());
  Counts before = gpu::host::counts();
  decode({3, 9}, logits.data());
  Counts asked = since(before);
  const int64_t kernels = 3 + layers * perLayer;  // embedding, last norm, head
  check::equal(step + "kernels", static_cast<double>(asked.launches), static_cast<double>(kernels));
  check::equal(step + "allocations", static_cast<double>(asked.allocations), 0);
  check::equal(step + "bytes to the device", static_cast<double>(asked.uploadedBytes), sequences * sizeof(int32_t));
  check::equal(step + "bytes from the device", static_cast<double>(asked.downloadedBytes), static_cast<double>(logits.size() * sizeof(float)));
  check::atMost(step + "waits", static_cast<double>(asked.waits), 2);

  // A step that is timed: recorded once, then started as one.
  const auto timed = [&](int64_t most) { return decoder.executor().sample([&] { decode({3, 9}, nullptr); }, 1, most); };
  before = gpu::host::counts();
  timed(1);
  check::equal(step + "recordings", static_cast<double>(since(before).recordings), 1);
  check::equal(step + "nodes of the graph", static_cast<double>(decoder.executor().conditions().graphNodes), static_cast<double>(kernels));
  decoder.executor().normalise(weights->head().norm, Executor::Place::fed, Executor::Place::normed);
  check::isTrue(step + "rows overwritten", normed() != expected);
  before = gpu::host::counts();
  const auto taken = static_cast<double>(timed(3).size());
  asked = since(before);
  check::equal(step + "replays", static_cast<double>(asked.replays), taken);
  check::equal(step + "started, allocated, moved besides", static_cast<double>(asked.launches + asked.recordings + asked.allocations + asked.uploadedBytes + asked.downloadedBytes), 0);
  check::atMost(step + "waits of replays", static_cast<double>(asked.waits), taken);
  check::isTrue(step + "replays give the same rows", normed() == expected);
}
