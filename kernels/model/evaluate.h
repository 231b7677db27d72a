// What a level does to a whole model: its answers on text against those of the same model with an exact cache.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "decoder.h"
#include "layer/point.h"

namespace fastmqa {

using Tokens = std::vector<int32_t>;

/// A fact to be found again: `question` and what must follow it, asked at the end of a haystack.
struct Probe {
  double depth = 0;  ///< where the fact stands, 0 the beginning, 1 the end
  Tokens question, answer;
};

struct EvaluationText {
  std::string key;  ///< the same for the same text
  int64_t prompt = 0;                      ///< tokens of a document that are read at once; the others come one by one
  std::vector<Tokens> documents;           ///< of one length
  std::vector<Tokens> haystacks;           ///< of one length
  std::vector<std::vector<Probe>> probes;  ///< per haystack, as many in each, at the same depths, equally long
  std::vector<Tokens> calibration;         ///< each of Calibration::streamTokens tokens
};

struct Quality {
  double logitKl = 0, logitKlP95 = 0;  ///< nats, from the exact model's distribution to the level's
  double top1Agreement = 0;
  double acceptance = 0;               ///< mean of sum min(p, q): chance that a draft of this level is accepted
  double perplexity = 0, exactPerplexity = 0;
  std::vector<double> depths, retrieval;  ///< share of the probes answered in full, by depth
  double retrieved = 0, exactRetrieved = 0;
  std::vector<double> layerErrors;     ///< relative L2 of the stream after each layer, errors of earlier layers included
  int64_t positions = 0;               ///< logits compared
};

/// A model on a text: what every level is compared with, and what levels are fitted to. Made once.
class EvaluatedModel {
 public:
  EvaluatedModel(std::shared_ptr<const DecoderWeights> weights, EvaluationText text, const CancelFlag* cancel);

  /// Runs the text through a decoder of these weights; `sequences`, one for each document, are then at their full length.
  Quality evaluate(Decoder& decoder, Sequences& sequences, PointError& error) const;
  /// Attention of every layer with its inputs on the calibration text, made at the first call.
  const AttentionModels& calibrated() const;
  const std::shared_ptr<const DecoderWeights>& weights() const { return weights_; }
  const EvaluationText& text() const { return text_; }
  /// Most tokens that a sequence has while the text is run.
  int64_t longest() const;

 private:
  struct Answers {
    std::vector<float> logits;                ///< [rows][vocabSize]
    std::vector<std::vector<float>> streams;  ///< per layer [rows][d]
    std::vector<double> found;                ///< by depth
  };
  /// Of the model with an exact cache, made at the first call.
  const Answers& exact() const;
  Answers answer(Decoder& decoder, Sequences& sequences) const;
  int64_t rowsPerDocument() const;
  /// Where a token's figures are kept; -1: they are not compared.
  int64_t rowOf(int64_t document, int64_t token) const;

  std::shared_ptr<const DecoderWeights> weights_;
  EvaluationText text_;
  const CancelFlag* cancel_;
  int64_t stride_ = 1;  ///< every so manyth position is compared: bounds what is kept for large vocabularies
  mutable std::mutex mutex_;
  mutable std::optional<Answers> exact_;
  mutable AttentionModels calibrated_;
};

/// @throws Failure refused for calibration texts that are not as long as they should be
void checkCalibration(const EvaluationText& text);

/// Technique of a model whose cache is exact.
Technique exactTechnique(const DecoderShape& shape);

/// Runs texts through a model with an exact cache and shows what the attention of layers 0 to `lastLayer` reads: rows [count][d],
/// text by text.
void visitAttentionInputs(const std::shared_ptr<const DecoderWeights>& weights, const std::vector<Tokens>& texts, int64_t lastLayer,
                          const CancelFlag* cancel, const std::function<void(int64_t layer, const float* x, int64_t rows)>& visit);

/// Whether a level is fitted to calibration text.
bool needsCalibration(const Technique& technique, int64_t kvHeads);

/// A whole model under a level: its quality, then its speed.
class ModelPoint : public TimedPoint {
 public:
  ModelPoint(std::shared_ptr<const EvaluatedModel> model, const PointSpec& spec, const CancelFlag* cancel);
  const Quality& quality() const { return quality_; }
  std::vector<double> sample(double seconds, int64_t most) override {
    return decoder_->executor().sample([this] { runStep(); }, seconds, most);
  }
  SampleConditions conditions() const override { return decoder_->executor().conditions(); }

 private:
  void runStep();

  PointSpec spec_;
  std::shared_ptr<const EvaluatedModel> model_;
  Arena arena_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Sequences> sequences_;
  Tokens prompts_, stepTokens_;  ///< of all sequences
  Quality quality_;
};

}  // namespace fastmqa
