// What a level makes of a layer's weights: fewer heads, bases of latents, how its cache is stored.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "budget.h"
#include "calibrate.h"
#include "heads.h"
#include "layer.h"
#include "math/rope.h"
#include "reference/layer.h"
#include "simd/simd.h"

namespace fastmqa {

/// Bases of a latent cache at its ranks, and how the coordinates are stored.
struct LatentBasis {
  Projection keys, values;  ///< joint: keys holds both, key channels first
  std::vector<StoreSpec> stores;
};

namespace {

std::vector<float> narrowed(const std::vector<double>& x) { return std::vector<float>(x.begin(), x.end()); }

Grouping groupingOf(Technique::Grouping g) {
  return g == Technique::Grouping::token ? Grouping::token : g == Technique::Grouping::channel ? Grouping::channel : Grouping::tensor;
}

/// Channels of a layer's input that are kept in 16 bit. Trained models have a handful that are far louder than the rest.
int64_t loudChannels(int64_t hiddenDim) { return std::min(hiddenDim / 2, std::max<int64_t>(4, hiddenDim / 256)); }

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
      Buffer<float> k;
      project(stream->data(), n, nullptr, &k, nullptr);
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

}  // namespace fastmqa
