// One layer of a trained model under a level: its own weights, and the inputs it meets when the model reads a text, against fp64.
#pragma once
#include <memory>
#include <string>

#include "evaluate.h"

namespace fastmqa {

/// @param key  the same for the same weights and text: what the layer meets is kept under it
/// @param text documents of `spec.seqLen` tokens, one for each sequence of the batch or read again where there are fewer
/// @throws Failure
std::shared_ptr<MeasuredPoint> layerPoint(const std::string& key, const std::shared_ptr<const DecoderWeights>& weights,
                                          const EvaluationText& text, const PointSpec& spec, const CancelFlag* cancel);

}  // namespace fastmqa
