#include "layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "calibrate.h"
#include "heads.h"
#include "math/rope.h"
#include "math/threads.h"
#include "reference/layer.h"
#include "simd/simd.h"

namespace fastmqa {

/// Bases of a latent cache at its ranks, and how the coordinates are stored.
struct LatentBasis {
  Projection keys, values;  ///< joint: keys holds both, key channels first
  std::vector<StoreSpec> stores;
};

/// Projections of some tokens: what the cache stores, and full-precision keys and values where asked for.
struct AttentionLayer::Rows {
  Buffer<float> keys, values;              // [tokens][keyWidth], keys as direct caches store them
  Buffer<float> latentKeys, latentValues;  // [tokens][rank]
  Buffer<float> sinkKeys, sinkValues;      // exact rows of the first tokens, rotated
};

namespace {

constexpr int64_t fillChunk = 256;  // tokens appended between settlements: bounds what a window keeps too long

std::vector<float> narrowed(const std::vector<double>& x) { return std::vector<float>(x.begin(), x.end()); }

Grouping groupingOf(Technique::Grouping g) {
  return g == Technique::Grouping::token ? Grouping::token : g == Technique::Grouping::channel ? Grouping::channel : Grouping::tensor;
}

Dtype dtypeOfBits(int bits) {
  switch (bits) {
    case 16: return Dtype::f16;
    case 8: return Dtype::int8;
    case 4: return Dtype::int4;
    case 3: return Dtype::int3;
    case 2: return Dtype::int2;
    default: refuse("expected 2, 3, 4, 8 or 16 bits for a latent band but received " + std::to_string(bits));
  }
}

StoreSpec latentStore(std::vector<Band> bands, Layout layout, int64_t groupSize) {
  StoreSpec spec;
  for (const Band& b : bands) spec.channels += b.channels;
  spec.bands = std::move(bands);
  spec.layout = layout;
  spec.groupSize = groupSize;
  return spec;
}

std::vector<StoreSpec> separateStores(const Technique& t, int64_t rankKey, int64_t rankValue) {
  return {latentStore({{rankKey, t.keyDtype, t.symmetric}}, Layout::channelRows, t.keyGroupSize),
          latentStore({{rankValue, t.valueDtype, t.symmetric}}, Layout::tokenRows, t.valueGroupSize)};
}

/// Ranks of keys and values, each at most `most`, that spend an adaptive budget: those whose pages cost most within it, by
/// falling rank of the values. Twin of `dearestSplit` in src-main/engine/memory-plan.ts.
std::vector<std::pair<int64_t, int64_t>> splitsOf(const Technique& t, int64_t most) {
  constexpr int64_t eights = 8;  // rows of values are stored in whole eights of channels
  std::vector<std::pair<int64_t, int64_t>> splits;
  const auto cost = [&](int64_t rankKey, int64_t rankValue) {
    const auto stores = separateStores(t, rankKey, rankValue);
    return stores[0].pageBytes() + stores[1].pageBytes();
  };
  int64_t dearest = 0, rankKey = 0;
  for (int64_t rankValue = (most + eights - 1) / eights * eights; rankValue > 0; rankValue -= eights) {
    const int64_t values = std::min(rankValue, most);
    const auto fits = [&](int64_t keys) {
      return static_cast<double>(cost(keys, values)) <= t.adaptiveBudgetBytes * static_cast<double>(StoreSpec{}.pageTokens);
    };
    while (rankKey < most && fits(rankKey + 1)) rankKey++;
    if (rankKey == 0) continue;
    const int64_t spent = cost(rankKey, values);
    if (spent > dearest) splits.clear();
    if (spent >= dearest) splits.emplace_back(rankKey, values);
    dearest = std::max(dearest, spent);
  }
  return splits;
}

/// Channels of a layer's input that are kept in 16 bit. Trained models have a handful that are far louder than the rest.
int64_t loudChannels(int64_t hiddenDim) { return std::min(hiddenDim / 2, std::max<int64_t>(4, hiddenDim / 256)); }

void addBias(float* rows, int64_t count, const std::vector<float>& bias) {
  if (bias.empty()) return;
  for (int64_t i = 0; i < count * static_cast<int64_t>(bias.size()); i++) rows[i] += bias[static_cast<size_t>(i) % bias.size()];
}

/// RMSNorm of every head; heads [count][weight.size()].
void normaliseHeads(float* heads, int64_t count, const std::vector<float>& weight, double epsilon) {
  if (weight.empty()) return;
  const auto n = static_cast<int64_t>(weight.size());
  for (float* head = heads; head < heads + count * n; head += n) {
    double squares = 0;
    for (int64_t c = 0; c < n; c++) squares += static_cast<double>(head[c]) * static_cast<double>(head[c]);
    const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + epsilon));
    for (int64_t c = 0; c < n; c++) head[c] *= scale * weight[static_cast<size_t>(c)];
  }
}

/// The bias of fewer heads: merged as their weights are.
void mergeBiases(std::vector<float>& bias, const HeadMergeOptions& options, int64_t kvHeads, int64_t headDim) {
  if (bias.empty()) return;
  const int64_t group = kvHeads / options.kvHeads, taken = options.how == HeadMerge::first ? 1 : group;
  std::vector<float> merged(static_cast<size_t>(options.kvHeads * headDim), 0.0f);
  for (int64_t g = 0; g < options.kvHeads; g++)
    for (int64_t i = 0; i < taken; i++)
      for (int64_t c = 0; c < headDim; c++)
        merged[static_cast<size_t>(g * headDim + c)] += bias[static_cast<size_t>((g * group + i) * headDim + c)] / static_cast<float>(taken);
  bias = std::move(merged);
}

Projection truncated(const Projection& p, int64_t rank) {
  Projection out;
  out.channels = p.channels;
  out.rank = std::min(rank, p.rank);
  const auto inputs = static_cast<int64_t>(p.down.size()) / p.rank;
  out.down.assign(p.down.begin(), p.down.begin() + out.rank * inputs);
  out.bias.assign(p.bias.begin(), p.bias.begin() + out.rank);
  out.up.resize(static_cast<size_t>(p.channels * out.rank));
  for (int64_t c = 0; c < p.channels; c++)
    std::copy_n(p.up.begin() + c * p.rank, out.rank, out.up.begin() + c * out.rank);
  out.mean = p.mean;
  return out;
}

/// RMS of the queries (rows of all query heads) that meet each key channel. `period` channels of a head have levels of
/// their own: half of them where the rotary embedding mixes channel c with c + period.
std::vector<double> queryLevels(const std::vector<float>& q, const LayerWeights& w, int64_t period) {
  const int64_t width = w.heads * w.headDim, group = w.heads / w.kvHeads;
  const auto place = [&](int64_t head, int64_t c) { return static_cast<size_t>(head * period + c % period); };
  std::vector<double> energy(static_cast<size_t>(w.kvHeads * period), 0.0), level;
  for (size_t i = 0; i < q.size(); i++) {
    const int64_t column = static_cast<int64_t>(i) % width;
    const auto x = static_cast<double>(q[i]);
    energy[place(column / w.headDim / group, column % w.headDim)] += x * x;
  }
  const double samples = static_cast<double>(q.size()) / static_cast<double>(w.kvHeads * period);
  for (int64_t c = 0; c < w.kvHeads * w.headDim; c++)
    level.push_back(std::sqrt(energy[place(c / w.headDim, c % w.headDim)] / samples) + 1e-30);
  return level;
}

/// Bits per run of 32 coordinates by reverse water-filling (attention-spec B.9), never more than `budget` bytes a token.
/// Bands of several runs share groups larger than a run, so a run costs a whole group at the most.
std::vector<Band> waterFilling(const std::vector<double>& energy, double budget, int64_t groupSize) {
  constexpr int64_t run = 32;
  constexpr int choices[] = {0, 2, 3, 4, 8};
  const int64_t runs = static_cast<int64_t>(energy.size()) / run;
  std::vector<double> mu(static_cast<size_t>(runs), 0.0);
  for (int64_t i = 0; i < runs * run; i++) mu[static_cast<size_t>(i / run)] += std::max(energy[static_cast<size_t>(i)], 1e-300) / run;
  const int64_t groups = (run + groupSize - 1) / groupSize;
  const auto costOf = [&](int bits) { return bits ? run * bits / 8.0 + static_cast<double>(groups * (bits == 8 ? 2 : 4)) : 0.0; };
  const auto bitsAt = [&](double lambda) {
    std::vector<int> bits;
    for (double m : mu) {
      const double ideal = std::max(0.0, 0.5 * std::log2(m / lambda));
      int best = 0;
      for (int c : choices)
        if (std::fabs(c - ideal) < std::fabs(best - ideal)) best = c;
      bits.push_back(best);
    }
    return bits;
  };
  const auto cost = [&](const std::vector<int>& bits) {
    double sum = 0;
    for (int b : bits) sum += costOf(b);
    return sum;
  };
  double low = -1100, high = 1100;  // log2 of lambda
  for (int i = 0; i < 100; i++) {
    const double middle = (low + high) / 2;
    (cost(bitsAt(std::exp2(middle))) <= budget ? high : low) = middle;
  }
  std::vector<int> bits = bitsAt(std::exp2(high));
  for (bool spent = true; spent;) {  // the remainder: raise the run that gains most and still fits
    spent = false;
    double bestGain = 0;
    size_t bestRun = 0;
    int bestBits = 0;
    const double left = budget - cost(bits);
    for (size_t i = 0; i < bits.size(); i++)
      for (int c : choices)
        if (c > bits[i] && costOf(c) - costOf(bits[i]) <= left && (i == 0 || c <= bits[i - 1])) {
          const double gain = mu[i] * (std::exp2(-2.0 * bits[i]) - std::exp2(-2.0 * c)) / (costOf(c) - costOf(bits[i]));
          if (gain > bestGain) bestGain = gain, bestRun = i, bestBits = c;
          break;
        }
    if (bestGain > 0) bits[bestRun] = bestBits, spent = true;
  }
  std::vector<Band> bands;
  for (int b : bits) {
    if (b == 0) break;
    if (bands.empty() || bitsOf(bands.back().dtype) != b) bands.push_back({0, dtypeOfBits(b), b == 8});
    bands.back().channels += run;
  }
  if (bands.empty()) refuse("expected an adaptive budget of at least " + std::to_string(costOf(2)) + " bytes a token but received " + std::to_string(budget));
  return bands;
}

}  // namespace

AttentionLayer::AttentionLayer(Arena& arena, const ReferenceModel& model, const Technique& technique, int64_t positions,
                               int64_t calibrationTokens, uint64_t inputSeed, const CancelFlag* cancel)
    : arena_(&arena), technique_(technique), weights_(model.weights()), positions_(positions), cancel_(cancel) {
  d_ = weights_.d;
  if (weights_.window > 0) {
    technique_.window = weights_.window;
    technique_.sinks = 0;
  }
  if (weights_.latent.rank > 0) {
    const char* what = technique.kvHeads != weights_.kvHeads              ? "the heads of the model, which share one latent already, but received fewer KV heads"
                       : technique.cacheKind != CacheKind::direct         ? "cacheKind direct for a model that caches a latent of its own but received another"
                       : technique.hadamard                               ? "no hadamard transform for a model that caches a latent of its own but received one"
                       : technique.naiveKernel                            ? "kernel flash for a model that caches a latent of its own but received naive"
                                                                          : nullptr;
    if (what) refuse(std::string("expected ") + what);
  }
  if (!weights_.keyNorm.empty() && technique.cacheKind != CacheKind::direct)
    refuse("expected a direct cache for keys that are normalised after their projection");
  const int64_t before = arena.currentBytes();
  if (technique.kvHeads < weights_.kvHeads) {
    const int64_t headDim = weights_.headDim;
    HeadWeights heads{weights_.heads, weights_.kvHeads, headDim, d_, weights_.wq.doubles(), weights_.wk.doubles(), weights_.wv.doubles(), {}};
    const std::vector<double> wo = weights_.wo.doubles();
    heads.output.resize(weights_.wo.size());
    const auto output = [&](HeadWeights& h, int64_t head, int64_t i, int64_t c) -> double& {
      return h.output[static_cast<size_t>((head * d_ + i) * headDim + c)];
    };
    for (int64_t i = 0; i < d_; i++)
      for (int64_t c = 0; c < weights_.heads * headDim; c++)
        output(heads, c / headDim, i, c % headDim) = wo[static_cast<size_t>(i * weights_.heads * headDim + c)];
    HeadMergeOptions options;
    options.how = technique.conversion == Conversion::mean ? HeadMerge::mean : technique.conversion == Conversion::first ? HeadMerge::first : HeadMerge::aligned;
    options.kvHeads = technique.kvHeads;
    options.rotaryDim = weights_.rope.rotaryDim;
    if (options.how == HeadMerge::aligned && !weights_.bk.empty()) refuse("expected projections without biases for aligned heads");
    std::vector<double> inputs;
    if (options.how == HeadMerge::aligned)
      for (const auto& stream : model.calibrationStreams(std::min<int64_t>(2 * Calibration::streamTokens, calibrationTokens), inputSeed))
        inputs.insert(inputs.end(), stream->begin(), stream->end());
    HeadWeights merged = mergeHeads(heads, options, inputs.empty() ? nullptr : inputs.data(), static_cast<int64_t>(inputs.size()) / d_);
    mergeBiases(weights_.bk, options, weights_.kvHeads, headDim);
    mergeBiases(weights_.bv, options, weights_.kvHeads, headDim);
    weights_.kvHeads = technique.kvHeads;
    weights_.wq = narrowed(merged.query);
    weights_.wk = narrowed(merged.key);
    weights_.wv = narrowed(merged.value);
    std::vector<float> mergedOutput(wo.size());
    for (int64_t i = 0; i < d_; i++)
      for (int64_t c = 0; c < weights_.heads * headDim; c++)
        mergedOutput[static_cast<size_t>(i * weights_.heads * headDim + c)] = static_cast<float>(output(merged, c / headDim, i, c % headDim));
    weights_.wo = std::move(mergedOutput);
  }
  queryWidth_ = weights_.heads * weights_.headDim;
  keyWidth_ = weights_.kvHeads * weights_.headDim;
  if (weights_.rope.rotaryDim > 0) {
    const RopeFrequencies frequencies = ropeFrequencies(weights_.rope, positions);
    positions = std::max(positions, Calibration::streamTokens);  // calibration streams are rotated too
    const int64_t pairs = weights_.rope.rotaryDim / 2;
    std::vector<float> cosine(static_cast<size_t>(positions * pairs)), sine(cosine.size());
    ropeTable(frequencies, 0, positions, cosine.data(), sine.data());
    rope_ = RopeTable(arena, positions, pairs, cosine.data(), sine.data(), weights_.rope.interleaved);
  }
  cacheSpec_.sinks = technique_.sinks;
  cacheSpec_.residual = technique_.residual;
  cacheSpec_.window = technique_.window;
  if (weights_.latent.rank > 0) {
    buildOwn(arena);
  } else {
    q_ = PackedWeights(arena, queryWidth_, d_, weights_.wq);
    k_ = PackedWeights(arena, keyWidth_, d_, weights_.wk);
    v_ = PackedWeights(arena, keyWidth_, d_, weights_.wv);
    o_ = PackedWeights(arena, d_, queryWidth_, weights_.wo);
    cacheSpec_.kvHeads = weights_.kvHeads;
    cacheSpec_.keyDim = cacheSpec_.valueDim = weights_.headDim;
    if (technique.cacheKind == CacheKind::direct)
      buildDirect(arena, model, calibrationTokens, inputSeed);
    else
      buildLatent(arena, model, calibrationTokens, inputSeed, cancel);
  }
  weightBytes_ = arena.currentBytes() - before;
  // From here on their packed twins serve: a model's weights are not held twice for every level.
  for (Numbers* w : {&weights_.wq, &weights_.wk, &weights_.wv, &weights_.wo, &weights_.latent.queryDown, &weights_.latent.down, &weights_.latent.up}) *w = {};
}

namespace {

/// Stores of a cache that keeps what a token has as it is: `heads` keys and values of the given widths.
void setDirectStores(CacheSpec& cache, const Technique& t, int64_t heads, int64_t keyDim, int64_t valueDim) {
  const auto store = [&](Dtype dtype, Technique::Grouping grouping, int64_t groupSize, Layout layout, int64_t channels) {
    StoreSpec spec;
    spec.heads = heads;
    spec.channels = channels;
    spec.bands = {{channels, dtype, t.symmetric}};
    spec.layout = layout;
    spec.grouping = isInteger(dtype) ? groupingOf(grouping) : Grouping::token;
    spec.groupSize = groupSize;
    return spec;
  };
  cache.kvHeads = heads;
  cache.keyDim = keyDim;
  cache.valueDim = valueDim;
  cache.keys = store(t.keyDtype, t.keyGrouping, t.keyGroupSize, Layout::channelRows, keyDim);
  cache.values = store(t.valueDtype, t.valueGrouping, t.valueGroupSize, Layout::tokenRows, valueDim);
}

}  // namespace

void AttentionLayer::buildOwn(Arena& arena) {
  own_ = std::make_unique<LatentAttention>(arena, weights_);
  const int64_t mixedWidth = weights_.heads * own_->valueDim();
  o_ = PackedWeights(arena, d_, mixedWidth, weights_.wo);
  // One KV head: the rotated key is its key, the latent its value.
  setDirectStores(cacheSpec_, technique_, 1, own_->ropeDim(), own_->rank());
  maps_.own = true;
  maps_.keyRank = own_->ropeDim();
  maps_.valueRank = own_->rank();
}

void AttentionLayer::buildDirect(Arena&, const ReferenceModel& model, int64_t calibrationTokens, uint64_t inputSeed) {
  const Technique& t = technique_;
  setDirectStores(cacheSpec_, t, weights_.kvHeads, weights_.headDim, weights_.headDim);
  const bool keyTensor = cacheSpec_.keys.grouping == Grouping::tensor, valueTensor = cacheSpec_.values->grouping == Grouping::tensor;
  if (keyTensor || valueTensor) {  // one scale for all: from the calibration stream
    float topKey = 0, topValue = 0;
    for (const auto& stream : model.calibrationStreams(calibrationTokens, inputSeed)) {
      const Rows rows = rowsFor(stream->data(), Calibration::streamTokens, 0, Calibration::streamTokens);
      for (int64_t i = 0; i < rows.keys.size(); i++) topKey = std::max(topKey, std::fabs(rows.keys[i]));
      for (int64_t i = 0; i < rows.values.size(); i++) topValue = std::max(topValue, std::fabs(rows.values[i]));
    }
    if (keyTensor) cacheSpec_.keys.tensorScale = topKey / static_cast<float>((1 << (bitsOf(t.keyDtype) - 1)) - 1);
    if (valueTensor) cacheSpec_.values->tensorScale = topValue / static_cast<float>((1 << (bitsOf(t.valueDtype) - 1)) - 1);
  }
}

void AttentionLayer::setLatent(Arena& arena, const LatentBasis& basis) {
  const int64_t outStride = padded(weights_.headDim);
  const bool input = technique_.cacheKind == CacheKind::input, joint = basis.stores.size() == 1;
  const Projection& values = joint ? basis.keys : basis.values;
  const int64_t valueOffset = joint ? keyWidth_ : 0;
  maps_ = {};
  maps_.joint = joint;
  maps_.absorbed = technique_.cacheKind == CacheKind::latentSeparate && (!technique_.keysBeforeRope || !rope_);
  maps_.keyRank = basis.keys.rank;
  maps_.valueRank = values.rank;
  maps_.keyStride = padded(maps_.keyRank) + padFloats;  // off a power of two: twelve rows at once miss the same set
  upKeys_ = Buffer<float>(arena, keyWidth_ * maps_.keyStride);
  for (int64_t c = 0; c < keyWidth_; c++)
    for (int64_t i = 0; i < maps_.keyRank; i++)
      upKeys_[c * maps_.keyStride + i] = static_cast<float>(basis.keys.up[static_cast<size_t>(c * maps_.keyRank + i)]);
  upValues_ = Buffer<float>(arena, weights_.kvHeads * maps_.valueRank * outStride);
  std::vector<float> upFlat(static_cast<size_t>(keyWidth_ * maps_.valueRank));
  for (int64_t c = 0; c < keyWidth_; c++)
    for (int64_t i = 0; i < maps_.valueRank; i++) {
      const auto x = static_cast<float>(values.up[static_cast<size_t>((valueOffset + c) * maps_.valueRank + i)]);
      upFlat[static_cast<size_t>(c * maps_.valueRank + i)] = x;
      upValues_[(c / weights_.headDim * maps_.valueRank + i) * outStride + c % weights_.headDim] = x;
    }
  maps_.upKeys = upKeys_.data();
  maps_.upValues = upValues_.data();
  if (!input) {
    const auto copy = [&](const std::vector<double>& from, int64_t offset, int64_t n) {
      Buffer<float> out(arena, n);
      for (int64_t i = 0; i < n; i++) out[i] = static_cast<float>(from[static_cast<size_t>(offset + i)]);
      return out;
    };
    meanKeys_ = copy(basis.keys.mean, 0, keyWidth_);
    meanValues_ = copy(values.mean, valueOffset, keyWidth_);
    // A latent of the projection leaves the biases to be added; one of rotated keys holds them.
    const bool ofProjection = technique_.keysBeforeRope || !rope_;
    for (int64_t c = 0; c < keyWidth_; c++) {
      if (ofProjection && !weights_.bk.empty()) meanKeys_[c] += weights_.bk[static_cast<size_t>(c)];
      if (!weights_.bv.empty()) meanValues_[c] += weights_.bv[static_cast<size_t>(c)];
    }
    maps_.meanKeys = meanKeys_.data();
    maps_.meanValues = meanValues_.data();
    biasKeys_ = copy(basis.keys.bias, 0, maps_.keyRank);
    const std::vector<float> downKeys = narrowed(basis.keys.down);
    const auto inputs = static_cast<int64_t>(downKeys.size()) / maps_.keyRank;  // d, or key channels (post-RoPE)
    downKeys_ = PackedWeights(arena, maps_.keyRank, inputs, downKeys.data(), inputs);
    if (!joint) {
      biasValues_ = copy(values.bias, 0, maps_.valueRank);
      downValues_ = PackedWeights(arena, maps_.valueRank, d_, narrowed(values.down).data(), d_);
    }
    upKeysPacked_ = PackedWeights(arena, keyWidth_, maps_.keyRank, upKeys_.data(), maps_.keyStride);
    upValuesPacked_ = PackedWeights(arena, keyWidth_, maps_.valueRank, upFlat.data(), maps_.valueRank);
  } else if (!weights_.bk.empty()) {
    meanKeys_ = Buffer<float>(arena, keyWidth_);
    meanValues_ = Buffer<float>(arena, keyWidth_);
    std::copy_n(weights_.bk.data(), keyWidth_, meanKeys_.data());
    std::copy_n(weights_.bv.data(), keyWidth_, meanValues_.data());
    maps_.meanKeys = meanKeys_.data();
    maps_.meanValues = meanValues_.data();
  }
  cacheSpec_.keys = basis.stores[0];
  cacheSpec_.values.reset();
  if (!joint) cacheSpec_.values = basis.stores[1];
}

void AttentionLayer::buildLatent(Arena& arena, const ReferenceModel& model, int64_t calibrationTokens,
                                 uint64_t inputSeed, const CancelFlag* cancel) {
  const Technique& t = technique_;
  latent_ = true;
  const auto calibration = model.calibration(calibrationTokens, t.sinks, inputSeed);
  if (cancel) cancel->check();
  // What a basis depends on besides the model.
  const auto named = [&](const char* what) {
    std::string name = what;
    for (const auto x : {calibrationTokens, static_cast<int64_t>(inputSeed), t.sinks, weights_.kvHeads, static_cast<int64_t>(t.conversion),
                         static_cast<int64_t>(t.centred), static_cast<int64_t>(t.weightBasis)})
      name += "/" + std::to_string(x);
    return name;
  };

  if (t.cacheKind == CacheKind::input) {
    // The loudest channels stay in 16 bit, wherever that is wider; they come first. How many follows from the layer's size,
    // as everything does that sizes a cache: a plan must know it without the data.
    const int64_t outliers = bitsOf(t.keyDtype) < 16 ? loudChannels(d_) : 0;
    const auto power = [&](int64_t i) { return calibration->moment[static_cast<size_t>(i * d_ + i)]; };
    channelOrder_.resize(static_cast<size_t>(d_));
    std::iota(channelOrder_.begin(), channelOrder_.end(), 0);
    std::stable_sort(channelOrder_.begin(), channelOrder_.end(), [&](int64_t a, int64_t b) { return power(a) > power(b); });
    std::sort(channelOrder_.begin(), channelOrder_.begin() + outliers);
    std::sort(channelOrder_.begin() + outliers, channelOrder_.end());
    const std::vector<double> wk = weights_.wk.doubles(), wv = weights_.wv.doubles();
    Projection p;
    p.channels = 2 * keyWidth_;
    p.rank = d_;
    p.up.resize(static_cast<size_t>(p.channels * d_));
    for (int64_t c = 0; c < keyWidth_; c++)
      for (int64_t i = 0; i < d_; i++) {
        const auto from = static_cast<size_t>(c * d_ + channelOrder_[static_cast<size_t>(i)]);
        p.up[static_cast<size_t>(c * d_ + i)] = wk[from];
        p.up[static_cast<size_t>((keyWidth_ + c) * d_ + i)] = wv[from];
      }
    std::vector<Band> bands;
    if (outliers > 0) bands.push_back({outliers, Dtype::f16});
    bands.push_back({d_ - outliers, t.keyDtype, t.symmetric});
    setLatent(arena, {std::move(p), {}, {latentStore(std::move(bands), Layout::channelRows, t.keyGroupSize)}});
    return;
  }

  const std::vector<double> wk = weights_.wk.doubles(), wv = weights_.wv.doubles(), wo = weights_.wo.doubles();
  const std::vector<double> weightKey(static_cast<size_t>(keyWidth_), 1.0);
  std::vector<double> weightValue(static_cast<size_t>(keyWidth_), 0.0);
  // Value channels count by the norm of the output columns they feed.
  for (int64_t i = 0; i < d_; i++)
    for (int64_t c = 0; c < queryWidth_; c++) {
      const int64_t h = c / weights_.headDim, g = h / (weights_.heads / weights_.kvHeads);
      const double w = wo[static_cast<size_t>(i * queryWidth_ + c)];
      weightValue[static_cast<size_t>(g * weights_.headDim + c % weights_.headDim)] += w * w;
    }
  double meanWeight = 0;
  for (double& w : weightValue) w = std::sqrt(w) + 1e-30, meanWeight += w / static_cast<double>(keyWidth_);
  for (double& w : weightValue) w = t.weightBasis ? 1 : w / meanWeight;  // a basis of the weights alone is their plain SVD

  if (t.cacheKind == CacheKind::latentJoint) {
    if (rope_ && !t.keysBeforeRope) refuse("expected keyRope pre for a joint latent but received post");
    const int64_t most = std::min(d_, 2 * keyWidth_);
    int64_t rank = t.rank > 0 ? t.rank : most;
    if (!t.bands.empty()) {
      rank = 0;
      for (const auto& b : t.bands) rank += b.channels;
    }
    if (rank > most) refuse("expected a joint latent rank of at most " + std::to_string(most) + " but received " + std::to_string(rank));
    const auto full = model.basis(named("joint"), [&] {
      // Keys and values on equal footing: key rows scaled so that both carry the same energy. Means count, centred or not:
      // centred keys then weigh less than their variance asks for, which attention-spec G wants. Seed 1, output error
      // without the means -> with them: rank 256 .611 -> .634, 512 .460 -> .469, 1024 .265 -> .257, 1536 .126 -> .112.
      double keyEnergy = 0, valueEnergy = 0;
      {
        const int64_t n = Calibration::streamTokens;
        std::vector<float> k(static_cast<size_t>(n * keyWidth_)), v(k.size());
        k_.multiply(n, calibration->streams.front()->data(), d_, k.data(), keyWidth_);
        v_.multiply(n, calibration->streams.front()->data(), d_, v.data(), keyWidth_);
        for (int64_t i = t.sinks * keyWidth_; i < n * keyWidth_; i++) {
          const auto key = static_cast<double>(k[static_cast<size_t>(i)]), value = static_cast<double>(v[static_cast<size_t>(i)]);
          keyEnergy += key * key;
          valueEnergy += value * value;
        }
      }
      std::vector<double> w(wk), weight(weightKey);
      if (!t.weightBasis) std::fill(weight.begin(), weight.end(), std::sqrt(valueEnergy / std::max(keyEnergy, 1e-300)));
      w.insert(w.end(), wv.begin(), wv.end());
      weight.insert(weight.end(), weightValue.begin(), weightValue.end());
      return principalProjection(w, 2 * keyWidth_, d_, *calibration, weight, t.centred, t.weightBasis, most);
    });
    std::vector<Band> bands;
    if (t.adaptiveBudgetBytes > 0) {
      bands = waterFilling(full->energy, t.adaptiveBudgetBytes, std::max<int64_t>(1, t.keyGroupSize));
    } else if (t.adaptiveEnergy > 0) {
      bands = {{rankForEnergy(full->energy, t.adaptiveEnergy), t.keyDtype, t.symmetric}};
    } else if (!t.bands.empty()) {
      for (const auto& b : t.bands) bands.push_back({b.channels, dtypeOfBits(b.bits), b.bits == 8});
    } else {
      bands = {{rank, t.keyDtype, t.symmetric}};
    }
    int64_t kept = 0;
    for (Band& b : bands) kept += b.channels;
    LatentBasis chosen;
    chosen.keys = truncated(*full, kept);
    chosen.stores = {latentStore(std::move(bands), Layout::channelRows, t.keyGroupSize)};
    setLatent(arena, chosen);
    return;
  }

  const int64_t most = std::min(d_, keyWidth_);
  const bool rotated = rope_ && !t.keysBeforeRope;
  const auto keys = model.basis(named(rotated ? "rotated keys" : "keys"), [&] {
    if (!rotated) {
      std::vector<double> weight(weightKey);
      if (!t.weightBasis) {
        const int64_t n = Calibration::streamTokens;
        std::vector<float> q(static_cast<size_t>(n * queryWidth_));
        q_.multiply(n, calibration->streams.front()->data(), d_, q.data(), queryWidth_);
        q.erase(q.begin(), q.begin() + t.sinks * queryWidth_);
        weight = queryLevels(q, weights_, weights_.rope.rotaryDim == weights_.headDim ? weights_.headDim / 2 : weights_.headDim);
      }
      return principalProjection(wk, keyWidth_, d_, *calibration, weight, t.centred, t.weightBasis, most);
    }
    std::vector<double> samples;
    for (const auto& stream : calibration->streams) {
      const int64_t n = Calibration::streamTokens;
      Buffer<float> k = projectKeys(stream->data(), n);
      rotateRows(k.data(), n, weights_.kvHeads, 0, n);
      samples.insert(samples.end(), k.data() + t.sinks * keyWidth_, k.data() + k.size());
    }
    return principalOfSamples(samples, static_cast<int64_t>(samples.size()) / keyWidth_, keyWidth_, t.centred, most);
  });
  const auto values = model.basis(named("values"), [&] {
    return principalProjection(wv, keyWidth_, d_, *calibration, weightValue, t.centred, t.weightBasis, most);
  });
  const auto withRanks = [&](int64_t rankKey, int64_t rankValue) {
    LatentBasis basis;
    basis.keys = truncated(*keys, rankKey);
    basis.values = truncated(*values, rankValue);
    basis.stores = separateStores(t, basis.keys.rank, basis.values.rank);
    return basis;
  };
  if (t.adaptiveEnergy > 0) {
    setLatent(arena, withRanks(rankForEnergy(keys->energy, t.adaptiveEnergy), rankForEnergy(values->energy, t.adaptiveEnergy)));
    return;
  }
  if (!(t.adaptiveBudgetBytes > 0)) {
    const int64_t rankKey = t.rankKey > 0 ? t.rankKey : t.rank, rankValue = t.rankValue > 0 ? t.rankValue : t.rank;
    if (rankKey < 1 || rankKey > most || rankValue < 1 || rankValue > most)
      refuse("expected latent ranks of 1 to " + std::to_string(most) + " but received " + std::to_string(rankKey) + " and " + std::to_string(rankValue));
    setLatent(arena, withRanks(rankKey, rankValue));
    return;
  }

  // Adaptive: splits of the byte budget between keys and values are tried on the calibration stream, the most even one
  // included, and the one with the least output error is kept. All of them cost the same bytes, the most that the budget
  // allows, so that the size of the cache follows from the level and not from data.
  const auto splits = splitsOf(t, most);
  if (splits.empty()) refuse("expected an adaptive budget of more bytes a token but received " + std::to_string(t.adaptiveBudgetBytes));
  constexpr size_t mostCandidates = 9;
  std::vector<std::pair<int64_t, int64_t>> candidates;
  for (size_t i = 0; i < std::min(mostCandidates, splits.size()); i++)
    candidates.push_back(splits[i * (splits.size() - 1) / std::max<size_t>(1, std::min(mostCandidates, splits.size()) - 1)]);
  candidates.push_back(*std::min_element(splits.begin(), splits.end(), [](const auto& a, const auto& b) {
    return std::abs(a.first - a.second) < std::abs(b.first - b.second);
  }));

  const std::vector<float>& stream = *calibration->streams.front();
  const int64_t tokens = std::min<int64_t>(512, Calibration::streamTokens), run = Workload::runTokens;
  std::vector<int64_t> positions;
  for (int64_t end = 64; end <= tokens; end += 64)
    for (int64_t p = end - run; p < end; p++) positions.push_back(p);
  const std::vector<double> target = referenceOutput(weights_, stream.data(), tokens, positions, positions_, false);
  double best = INFINITY;
  std::pair<int64_t, int64_t> winner;
  for (const auto& candidate : candidates) {
    setLatent(arena, withRanks(candidate.first, candidate.second));
    const auto cache = newCache(arena);
    std::vector<float> y(static_cast<size_t>(run * d_));
    double error = 0;
    for (size_t i = 0; i < positions.size(); i += static_cast<size_t>(run)) {
      const int64_t start = positions[i];
      fill(*cache, stream.data() + cache->length() * d_, start - cache->length(), true);
      step({cache.get()}, stream.data() + start * d_, run, y.data());
      for (int64_t k = 0; k < run * d_; k++) {
        const double e = static_cast<double>(y[static_cast<size_t>(k)]) - target[static_cast<size_t>(static_cast<int64_t>(i) * d_ + k)];
        error += e * e;
      }
    }
    if (error < best) best = error, winner = candidate;
  }
  setLatent(arena, withRanks(winner.first, winner.second));
}

// Keys computed from the layer input, or cached before the rotary embedding, are rotated when they are read.
bool AttentionLayer::rotatesOnRead() const {
  return rope_ && (technique_.keysBeforeRope || technique_.cacheKind == CacheKind::input);
}

AttentionShape AttentionLayer::shape() const {
  AttentionShape s;
  s.heads = weights_.heads;
  s.kvHeads = weights_.kvHeads;
  s.keyDim = s.valueDim = weights_.headDim;
  s.scale = weights_.scale > 0 ? static_cast<float>(weights_.scale) : 1 / std::sqrt(static_cast<float>(weights_.headDim));
  s.softcap = static_cast<float>(weights_.softcap);
  if (technique_.window > 0) s.left = technique_.window - 1;
  s.sinks = technique_.sinks;
  return s;
}

AttentionShape AttentionLayer::ownShape() const {
  AttentionShape s = shape();
  s.kvHeads = 1;
  s.keyDim = own_->rank() + own_->ropeDim();
  s.valueDim = own_->rank();
  return s;
}

void AttentionLayer::rotateRows(float* rows, int64_t count, int64_t heads, int64_t firstPosition, int64_t perSequence) const {
  if (!rope_) return;
  // In latent attention the channels at the end of a query rotate.
  const int64_t skipped = own_ ? weights_.headDim - own_->ropeDim() : 0;
  parallelFor(count, [&](int64_t t) {
    for (int64_t h = 0; h < heads; h++) rope_.rotate(rows + (t * heads + h) * weights_.headDim + skipped, firstPosition + t % perSequence);
  });
}

void AttentionLayer::rotateOwnKeys(float* keys, int64_t count, int64_t firstPosition, int64_t perSequence) const {
  parallelFor(count, [&](int64_t t) { rope_.rotate(keys + t * own_->ropeDim(), firstPosition + t % perSequence); });
}

void AttentionLayer::hadamardRows(float* rows, int64_t count, int64_t heads) const {
  const int64_t n = weights_.headDim;
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  parallelFor(count, [&](int64_t t) {
    for (int64_t h = 0; h < heads; h++) {
      float* x = rows + (t * heads + h) * n;
      for (int64_t width = 1; width < n; width *= 2)
        for (int64_t i = 0; i < n; i += 2 * width)
          for (int64_t j = i; j < i + width; j++) {
            const float a = x[j], b = x[j + width];
            x[j] = a + b;
            x[j + width] = a - b;
          }
      for (int64_t i = 0; i < n; i++) x[i] *= scale;
    }
  });
}

Buffer<float> AttentionLayer::projectKeys(const float* x, int64_t rows) const {
  Buffer<float> out(*arena_, rows * keyWidth_);
  k_.multiply(rows, x, d_, out.data(), keyWidth_);
  addBias(out.data(), rows, weights_.bk);
  normaliseHeads(out.data(), rows * weights_.kvHeads, weights_.keyNorm, weights_.normEpsilon);
  return out;
}

Buffer<float> AttentionLayer::projectValues(const float* x, int64_t rows) const {
  Buffer<float> out(*arena_, rows * keyWidth_);
  v_.multiply(rows, x, d_, out.data(), keyWidth_);
  addBias(out.data(), rows, weights_.bv);
  return out;
}

Buffer<float> AttentionLayer::projectQueries(const float* x, int64_t rows) const {
  Buffer<float> out(*arena_, rows * queryWidth_);
  q_.multiply(rows, x, d_, out.data(), queryWidth_);
  addBias(out.data(), rows, weights_.bq);
  normaliseHeads(out.data(), rows * weights_.heads, weights_.queryNorm, weights_.normEpsilon);
  return out;
}

void AttentionLayer::projectOutput(const float* mixed, int64_t rows, float* y) const {
  o_.multiply(rows, mixed, o_.columns(), y, d_);
  addBias(y, rows, weights_.bo);
}

AttentionLayer::Rows AttentionLayer::rowsFor(const float* x, int64_t tokens, int64_t firstPosition, int64_t perSequence) const {
  Rows rows;
  const auto project = [&](const PackedWeights& w, const float* from, int64_t count, int64_t ldx) {
    Buffer<float> out(*arena_, count * w.rows());
    w.multiply(count, from, ldx, out.data(), w.rows());
    return out;
  };
  const auto addOffset = [](Buffer<float>& to, const Buffer<float>& offset) {
    for (int64_t i = 0; i < to.size(); i++) to[i] += offset[i % offset.size()];
  };
  if (own_) {
    rows.keys = Buffer<float>(*arena_, tokens * own_->ropeDim());
    rows.values = Buffer<float>(*arena_, tokens * own_->rank());
    own_->cached(x, tokens, rows.values.data(), rows.keys.data());
    if (!technique_.keysBeforeRope) rotateOwnKeys(rows.keys.data(), tokens, firstPosition, perSequence);
    return rows;
  }
  if (!latent_) {
    rows.keys = projectKeys(x, tokens);
    rows.values = projectValues(x, tokens);
    if (!technique_.keysBeforeRope) rotateRows(rows.keys.data(), tokens, weights_.kvHeads, firstPosition, perSequence);
    if (technique_.hadamard) {
      hadamardRows(rows.keys.data(), tokens, weights_.kvHeads);
      hadamardRows(rows.values.data(), tokens, weights_.kvHeads);
    }
    return rows;
  }
  if (technique_.cacheKind == CacheKind::input) {
    rows.latentKeys = Buffer<float>(*arena_, tokens * d_);
    parallelFor(tokens, [&](int64_t t) {
      for (int64_t i = 0; i < d_; i++) rows.latentKeys[t * d_ + i] = x[t * d_ + channelOrder_[static_cast<size_t>(i)]];
    });
  } else {
    if (downKeys_.columns() == d_ && (technique_.keysBeforeRope || !rope_)) {
      rows.latentKeys = project(downKeys_, x, tokens, d_);
    } else {
      Buffer<float> keys = projectKeys(x, tokens);
      rotateRows(keys.data(), tokens, weights_.kvHeads, firstPosition, perSequence);
      rows.latentKeys = project(downKeys_, keys.data(), tokens, keyWidth_);
    }
    addOffset(rows.latentKeys, biasKeys_);
    if (!maps_.joint) {
      rows.latentValues = project(downValues_, x, tokens, d_);
      addOffset(rows.latentValues, biasValues_);
    }
  }
  const int64_t sinks = std::min(tokens, technique_.sinks - firstPosition);
  if (sinks > 0) {
    rows.sinkKeys = projectKeys(x, sinks);
    rows.sinkValues = projectValues(x, sinks);
    rotateRows(rows.sinkKeys.data(), sinks, weights_.kvHeads, firstPosition, sinks);
  }
  return rows;
}

void AttentionLayer::appendRows(SequenceCache& cache, const Rows& rows, int64_t offset, int64_t tokens) const {
  CacheRows r{};
  if (!latent_) {
    r.keyStride = own_ ? own_->ropeDim() : keyWidth_;
    r.valueStride = own_ ? own_->rank() : keyWidth_;
    r.bodyKeys = r.exactKeys = rows.keys.data() + offset * r.keyStride;
    r.bodyValues = r.exactValues = rows.values.data() + offset * r.valueStride;
  } else {
    r.keyStride = maps_.keyRank;
    r.valueStride = maps_.valueRank;
    r.bodyKeys = rows.latentKeys.data() + offset * r.keyStride;
    r.bodyValues = rows.latentValues.data() ? rows.latentValues.data() + offset * r.valueStride : nullptr;
    if (rows.sinkKeys.data()) {
      r.exactKeys = rows.sinkKeys.data() + offset * keyWidth_;
      r.exactValues = rows.sinkValues.data() + offset * keyWidth_;
    }
  }
  cache.append(tokens, r);
}

void AttentionLayer::fill(SequenceCache& cache, const float* x, int64_t tokens, bool settle) const {
  for (int64_t done = 0; done < tokens;) {
    const int64_t n = std::min(fillChunk, tokens - done);
    if (cancel_) cancel_->check();
    appendRows(cache, rowsFor(x + done * d_, n, cache.length(), n), 0, n);
    if (settle) cache.settle();
    done += n;
  }
}

void AttentionLayer::attendAt(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition,
                              int64_t tokens, float* y) const {
  const auto batch = static_cast<int64_t>(caches.size()), rows = batch * tokens;
  if (own_) return attendOwn(caches, x, firstPosition, tokens, y);
  Buffer<float> q = projectQueries(x, rows), mixed(*arena_, rows * queryWidth_);
  std::vector<SequenceQueries> queries;
  for (int64_t b = 0; b < batch; b++) {
    SequenceCache* cache = caches[static_cast<size_t>(b)];
    rotateRows(q.data() + b * tokens * queryWidth_, tokens, weights_.heads, firstPosition, tokens);
    queries.push_back({cache, q.data() + b * tokens * queryWidth_, tokens, firstPosition, queryWidth_, weights_.headDim,
                       mixed.data() + b * tokens * queryWidth_, queryWidth_, weights_.headDim, {}});
  }
  if (technique_.hadamard) hadamardRows(q.data(), rows, weights_.heads);
  attend(shape(), queries, latent_ ? &maps_ : nullptr, rotatesOnRead() ? &rope_ : nullptr,
         technique_.naiveKernel ? Kernel::naive : Kernel::flash, cancel_);
  if (technique_.hadamard) hadamardRows(mixed.data(), rows, weights_.heads);
  projectOutput(mixed.data(), rows, y);
}

void AttentionLayer::attendOwn(const std::vector<SequenceCache*>& caches, const float* x, int64_t firstPosition, int64_t tokens,
                               float* y) const {
  const auto rows = static_cast<int64_t>(caches.size()) * tokens;
  const AttentionShape shape = ownShape();
  const int64_t queryStride = shape.heads * shape.keyDim, outStride = shape.heads * shape.valueDim;
  Buffer<float> plain = own_->queries(x, rows), mixed(*arena_, rows * outStride);
  rotateRows(plain.data(), rows, shape.heads, firstPosition, tokens);
  const Buffer<float> q = own_->absorbed(plain.data(), rows);
  std::vector<SequenceQueries> queries;
  for (size_t b = 0; b < caches.size(); b++) {
    const int64_t first = static_cast<int64_t>(b) * tokens;
    queries.push_back({caches[b], q.data() + first * queryStride, tokens, firstPosition, queryStride, shape.keyDim,
                       mixed.data() + first * outStride, outStride, shape.valueDim, {}});
  }
  attend(shape, queries, &maps_, rotatesOnRead() ? &rope_ : nullptr, Kernel::flash, cancel_);
  projectOutput(own_->valuesOfMixtures(mixed.data(), rows).data(), rows, y);
}

void AttentionLayer::step(const std::vector<SequenceCache*>& caches, const float* x, int64_t tokens, float* y) const {
  const auto batch = static_cast<int64_t>(caches.size());
  const int64_t position = caches[0]->length();
  for (const SequenceCache* cache : caches)
    if (cache->length() != position) refuse("expected caches of equal length for one step");
  if (position >= technique_.sinks) {  // one projection serves the whole batch
    const Rows all = rowsFor(x, batch * tokens, position, tokens);
    for (int64_t b = 0; b < batch; b++) appendRows(*caches[static_cast<size_t>(b)], all, b * tokens, tokens);
  } else {
    for (int64_t b = 0; b < batch; b++)
      appendRows(*caches[static_cast<size_t>(b)], rowsFor(x + b * tokens * d_, tokens, position, tokens), 0, tokens);
  }
  attendAt(caches, x, position, tokens, y);
}

void AttentionLayer::prefill(SequenceCache& cache, const float* x, int64_t tokens, float* y) const {
  const Rows rows = rowsFor(x, tokens, 0, tokens);
  // Full-precision keys and values in the tiles that the kernel reads; workspace, not cache.
  Buffer<float> rebuiltKeys, rebuiltValues;
  const float *keys = rows.keys.data(), *values = rows.values.data();
  const auto project = [&](const PackedWeights& w, const float* from, int64_t count, int64_t ldx) {
    Buffer<float> out(*arena_, count * w.rows());
    w.multiply(count, from, ldx, out.data(), w.rows());
    return out;
  };
  const int64_t queryHeads = weights_.heads, kvHeads = own_ ? queryHeads : weights_.kvHeads, keyDim = weights_.headDim;
  const int64_t valueDim = own_ ? own_->valueDim() : keyDim;
  if (own_) {  // for many queries keys and values of every head are cheaper than a way through the latent
    rebuiltKeys = Buffer<float>(*arena_, tokens * kvHeads * keyDim);
    rebuiltValues = Buffer<float>(*arena_, tokens * kvHeads * valueDim);
    Buffer<float> rotated(*arena_, rows.keys.size());
    std::copy_n(rows.keys.data(), rows.keys.size(), rotated.data());
    if (technique_.keysBeforeRope) rotateOwnKeys(rotated.data(), tokens, 0, tokens);
    own_->expand(rows.values.data(), rotated.data(), tokens, rebuiltKeys.data(), rebuiltValues.data());
    keys = rebuiltKeys.data();
    values = rebuiltValues.data();
  }
  if (latent_) {
    const bool input = technique_.cacheKind == CacheKind::input;
    rebuiltKeys = input ? projectKeys(x, tokens) : project(upKeysPacked_, rows.latentKeys.data(), tokens, maps_.keyRank);
    rebuiltValues = input ? projectValues(x, tokens)
                          : project(upValuesPacked_, maps_.joint ? rows.latentKeys.data() : rows.latentValues.data(), tokens, maps_.valueRank);
    if (!input) {
      for (int64_t i = 0; i < rebuiltKeys.size(); i++) rebuiltKeys[i] += meanKeys_[i % keyWidth_];
      for (int64_t i = 0; i < rebuiltValues.size(); i++) rebuiltValues[i] += meanValues_[i % keyWidth_];
    }
    if (rotatesOnRead()) rotateRows(rebuiltKeys.data(), tokens, weights_.kvHeads, 0, tokens);
    if (rows.sinkKeys.data()) {
      std::copy_n(rows.sinkKeys.data(), rows.sinkKeys.size(), rebuiltKeys.data());
      std::copy_n(rows.sinkValues.data(), rows.sinkValues.size(), rebuiltValues.data());
    }
    keys = rebuiltKeys.data();
    values = rebuiltValues.data();
  }
  CacheSpec exact;
  exact.kvHeads = exact.keys.heads = kvHeads;
  exact.keyDim = exact.keys.channels = keyDim;
  exact.keys.bands = {{keyDim, Dtype::f32}};
  exact.values = exact.keys;
  exact.valueDim = exact.values->channels = valueDim;
  exact.values->bands = {{valueDim, Dtype::f32}};
  exact.values->layout = Layout::tokenRows;
  SequenceCache full(*arena_, exact);
  full.append(tokens, {keys, values, nullptr, nullptr, kvHeads * keyDim, kvHeads * valueDim});

  Buffer<float> q = own_ ? own_->queries(x, tokens) : projectQueries(x, tokens), mixed(*arena_, tokens * queryHeads * valueDim);
  rotateRows(q.data(), tokens, queryHeads, 0, tokens);
  if (technique_.hadamard) hadamardRows(q.data(), tokens, queryHeads);
  AttentionShape s = shape();
  s.kvHeads = kvHeads;
  s.valueDim = valueDim;
  attend(s, {{&full, q.data(), tokens, 0, queryHeads * keyDim, keyDim, mixed.data(), queryHeads * valueDim, valueDim, {}}},
         nullptr, !latent_ && !own_ && rotatesOnRead() ? &rope_ : nullptr,
         technique_.naiveKernel ? Kernel::naive : Kernel::flash, cancel_);
  if (technique_.hadamard) hadamardRows(mixed.data(), tokens, weights_.heads);
  projectOutput(mixed.data(), tokens, y);
  for (int64_t done = 0; done < tokens; done += fillChunk) {
    appendRows(cache, rows, done, std::min(fillChunk, tokens - done));
    cache.settle();
  }
}

LayerNumbers AttentionLayer::numbers() const {
  const LayerWeights& w = weights_;
  if (own_) refuse("layers with multi-head latent attention run on the CPU only");
  if (w.rope.interleaved) refuse("layers whose rotary embedding turns neighbouring channels run on the CPU only");
  LayerNumbers n;
  n.shape = shape();
  n.cache = cacheSpec_;
  const auto matrix = [](const PackedWeights& from) { return LayerMatrix{from.unpacked(), from.rows(), from.columns()}; };
  n.query = matrix(q_);
  n.key = matrix(k_);
  n.value = matrix(v_);
  n.output = matrix(o_);
  n.queryBias = w.bq, n.keyBias = w.bk, n.valueBias = w.bv, n.outputBias = w.bo;
  n.queryNorm = w.queryNorm, n.keyNorm = w.keyNorm;
  n.normEpsilon = w.normEpsilon;
  n.isLatent = latent_;
  n.cachesInput = technique_.cacheKind == CacheKind::input;
  n.rotatesOnRead = rotatesOnRead();
  n.inputOrder = channelOrder_;
  const auto list = [](const Buffer<float>& from) { return std::vector<float>(from.data(), from.data() + from.size()); };
  if (latent_ && !n.cachesInput) {
    n.latentsOfRotatedKeys = rope_ && !technique_.keysBeforeRope;
    n.downKeys = matrix(downKeys_);
    n.upKeys = matrix(upKeysPacked_);
    n.upValues = matrix(upValuesPacked_);
    n.biasKeys = list(biasKeys_);
    n.meanKeys = list(meanKeys_);
    n.meanValues = list(meanValues_);
    if (!maps_.joint) {
      n.downValues = matrix(downValues_);
      n.biasValues = list(biasValues_);
    }
  }
  if (rope_) {
    n.rotaryPairs = rope_.pairs();
    n.positions = rope_.positions();
    n.cosine = list(rope_.cosine());
    n.sine = list(rope_.sine());
  }
  return n;
}

Work AttentionLayer::prefillWork(int64_t batch, int64_t tokens, int64_t numberBytes, int64_t weightBytes) const {
  const auto b = static_cast<double>(batch), s = static_cast<double>(tokens), d = static_cast<double>(d_);
  const auto qw = static_cast<double>(queryWidth_), kw = static_cast<double>(keyWidth_);
  const auto rk = static_cast<double>(maps_.keyRank), rv = static_cast<double>(maps_.valueRank);
  const double seen = technique_.window > 0 && technique_.window < tokens
                          ? static_cast<double>(technique_.window) * (s - static_cast<double>(technique_.window) / 2)
                          : s * s / 2;
  if (own_) {
    const auto heads = static_cast<double>(weights_.heads), dims = static_cast<double>(weights_.headDim + own_->valueDim());
    Work w;
    w.flops = b * (s * 2 * (own_->projectionWeights() + own_->expandedWeights() + d * static_cast<double>(o_.columns())) + 2 * heads * dims * seen);
    w.bytes = static_cast<double>(weightBytes) + b * s * (2 * d + qw) * static_cast<double>(numberBytes);
    w.tokens = batch * tokens;
    return w;
  }
  double perToken = 2 * d * qw * 2;  // q and o
  if (!latent_ || technique_.cacheKind == CacheKind::input)
    perToken += 2 * d * kw * 2;
  else if (maps_.joint)
    perToken += 2 * d * rk + 2 * 2 * kw * rk;
  else
    perToken += (maps_.absorbed && rope_ ? 2 * d * kw + 2 * kw * rk : 2 * d * rk) + 2 * d * rv + 2 * kw * (rk + rv);
  Work w;
  w.flops = b * (s * perToken + 4 * qw * seen);
  w.bytes = static_cast<double>(weightBytes) + b * s * (2 * d + qw) * static_cast<double>(numberBytes);
  w.tokens = batch * tokens;
  return w;
}

Work AttentionLayer::stepWork(int64_t batch, int64_t tokens, int64_t cached, int64_t cacheBytes, int64_t numberBytes) const {
  const double rows = static_cast<double>(batch * tokens), keys = static_cast<double>(batch * cached);
  const auto d = static_cast<double>(d_), qw = static_cast<double>(queryWidth_), kw = static_cast<double>(keyWidth_);
  const auto rk = static_cast<double>(maps_.keyRank), rv = static_cast<double>(maps_.valueRank);
  const auto heads = static_cast<double>(weights_.heads), dim = static_cast<double>(weights_.headDim);
  const double pairs = keys * static_cast<double>(tokens) * heads;  // (query head, key) pairs
  Work w;
  w.tokens = batch * tokens;
  if (own_) {
    const double weights = own_->projectionWeights() + own_->absorbedWeights() + d * static_cast<double>(o_.columns());
    w.flops = rows * 2 * weights + 2 * pairs * (2 * rv + rk);
    w.bytes = weights * static_cast<double>(numberBytes) + static_cast<double>(cacheBytes);
    return w;
  }
  w.flops = rows * 2 * d * qw * 2;
  if (!latent_)
    w.flops += rows * 4 * d * kw + 4 * pairs * dim;
  else if (maps_.absorbed)
    w.flops += rows * 2 * d * (rk + rv) + 2 * pairs * (rk + rv);
  else
    w.flops += (technique_.cacheKind == CacheKind::input ? 0 : rows * 2 * d * (rk + (maps_.joint ? 0 : rv))) + keys * 2 * kw * rk + 2 * pairs * (dim + rv);
  const double projections = (2 * d * qw + (latent_ ? 0 : 2 * d * kw)) * static_cast<double>(numberBytes);
  w.bytes = projections + static_cast<double>(cacheBytes);
  return w;
}

}  // namespace fastmqa
