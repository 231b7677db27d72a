#include "tensors.h"

#include <algorithm>
#include <string>
#include <vector>

#include "../launch/attention.h"
#include "../launch/cache.h"
#include "cpu/codec.h"
#include "page-store.h"
#include "lane.h"

namespace fastmqa::gpu {
namespace {

/// Keys or values in the cache: appended as they came, so that codes are made of the same numbers as on the CPU.
class Cached {
 public:
  Cached(Lane& lane, const AcceleratorStore& spec, int64_t batch, int64_t tokens, const float* numbers)
      : lane_(lane), batch_(batch), tokens_(tokens), width_(spec.heads * spec.channels),
        store_(lane.pool, lane.stream, spec, batch, (tokens + pageTokens - 1) / pageTokens + 1) {
    store_.reserve(tokens);
    store_.publish();
    const auto given = lane.listOf(numbers, batch * tokens * width_);
    const DeviceBlock misfits(lane.pool, sizeof(int32_t));
    runtime::clear(misfits.data(), misfits.bytes(), lane.stream);
    AppendProblem p;
    p.sideCount = 1;
    AppendSide& side = p.sides[0] = store_.side(0);
    side.from = given->view<const uint8_t>();
    side.fromType = Dtype::f32;
    side.fromBatch = tokens * width_, side.fromToken = width_, side.fromHead = spec.channels;
    p.batch = static_cast<int>(batch), p.kvHeads = static_cast<int>(spec.heads), p.tokens = static_cast<int>(tokens);
    p.misfits = misfits.view<int32_t>();
    runtime::check(append(p, lane.stream), "starting to append tokens");
    int32_t bad = 0;
    runtime::download(&bad, misfits.data(), sizeof(bad), lane.stream);
    if (bad > 0) throw Failure(FailureKind::failed, std::to_string(bad) + " groups have a scale that does not fit f16, which the CUDA kernels store");
  }
  ExpandBand band() const { return store_.band(0); }
  /// What the cache holds, [batch][tokens][heads * channels].
  DeviceBlock rows(Dtype type) const {
    DeviceBlock out(lane_.pool, batch_ * tokens_ * width_ * (type == Dtype::f32 ? 4 : 2));
    ExpandProblem p;
    p.bands[0] = band();
    p.channels = static_cast<int>(store_.channels());
    p.batch = static_cast<int>(batch_), p.heads = static_cast<int>(store_.heads()), p.tokens = static_cast<int>(tokens_);
    p.out = out.view<uint8_t>();
    p.outType = type;
    p.outHead = store_.channels(), p.outToken = width_, p.outBatch = tokens_ * width_;
    runtime::check(expand(p, lane_.stream), "starting to read the cache back");
    return out;
  }

 private:
  Lane& lane_;
  int64_t batch_, tokens_, width_;
  PageStore store_;
};

}  // namespace

void attendTensors(int device, const AcceleratorTensors& r) {
  const Dtype type = static_cast<Dtype>(r.dtype);
  for (const int64_t channels : {r.keyDim, r.valueDim})  // numbers are read in pairs
    if (channels % 2) refuse("expected heads of an even number of channels on a GPU but received " + std::to_string(channels));
  Lane lane(device, type);
  const Cached keys(lane, r.keys, r.batch, r.tokens, r.k), values(lane, r.values, r.batch, r.tokens, r.v);
  for (const auto& [side, to] : {std::pair<const Cached*, float*>{&keys, r.presentK}, {&values, r.presentV}}) {
    const DeviceBlock rows = side->rows(Dtype::f32);
    runtime::download(to, rows.data(), rows.bytes(), lane.stream);
  }

  const int64_t queryNumbers = r.batch * r.queryTokens * r.heads * r.keyDim, outNumbers = r.batch * r.queryTokens * r.heads * r.valueDim;
  std::vector<uint8_t> queries(static_cast<size_t>(lane.bytes(queryNumbers)));
  for (int64_t i = 0; i < queryNumbers; i++) putFloat(type, queries.data(), i, r.q[i]);
  const auto q = lane.listOf(queries.data(), static_cast<int64_t>(queries.size()));
  const DeviceBlock out(lane.pool, lane.bytes(outNumbers));
  AttentionProblem p;
  p.batch = static_cast<int>(r.batch), p.heads = static_cast<int>(r.heads), p.kvHeads = static_cast<int>(r.keys.heads);
  p.keyDim = static_cast<int>(r.keyDim), p.valueDim = static_cast<int>(r.valueDim);
  p.queryTokens = static_cast<int>(r.queryTokens);
  p.queryType = p.outType = type;
  p.queries = q->view<const uint8_t>();
  p.queryHead = r.keyDim, p.queryToken = r.heads * r.keyDim, p.queryBatch = r.queryTokens * p.queryToken;
  p.out = out.view<uint8_t>();
  p.outHead = r.valueDim, p.outToken = r.heads * r.valueDim, p.outBatch = r.queryTokens * p.outToken;
  p.position = static_cast<int>(r.position);
  p.length = static_cast<int>(r.tokens);
  if (r.left >= 0) p.left = static_cast<int>(std::min<int64_t>(r.left, unlimitedTokens));
  p.right = static_cast<int>(r.right >= 0 ? std::min<int64_t>(r.right, unlimitedTokens) : unlimitedTokens);
  p.sinks = static_cast<int>(r.sinks);
  p.scale = r.scale, p.softcap = r.softcap;
  // Formats that no kernel attends over are read back as rows first.
  const auto isSmall = [](const Cached& side) { return codeBits(side.band().type) > 0 && codeBits(side.band().type) < 4; };
  const bool expands = isSmall(keys) || isSmall(values);
  DeviceBlock keyRows, valueRows;
  const auto place = [&](const Cached& side, DeviceBlock& read, TokenRows& rows, CodeScales& scales, Dtype& stored, int64_t channels) {
    if (!expands) {
      const ExpandBand band = side.band();
      rows = band.rows, scales = band.scales, stored = band.type;
      return;
    }
    read = side.rows(type);
    rows.data = read.view<const uint8_t>();
    rows.headBytes = lane.bytes(channels), rows.tokenBytes = r.keys.heads * rows.headBytes, rows.batchBytes = r.tokens * rows.tokenBytes;
    stored = type;
  };
  place(keys, keyRows, p.keys, p.keyScales, p.cacheType, r.keyDim);
  place(values, valueRows, p.values, p.valueScales, p.valueType, r.valueDim);
  const AttentionPlan plan = planAttention(p, lane.limits);
  const DeviceBlock workspace(lane.pool, workspaceFloats(p, plan.splits) * static_cast<int64_t>(sizeof(float)));
  runtime::check(attend(&p, &plan, 1, workspace.view<float>(), lane.stream), "starting attention");
  std::vector<uint8_t> numbers(static_cast<size_t>(out.bytes()));
  runtime::download(numbers.data(), out.data(), out.bytes(), lane.stream);
  for (int64_t i = 0; i < outNumbers; i++) r.out[i] = numberOf(type, numbers.data(), i);
}

}  // namespace fastmqa::gpu
