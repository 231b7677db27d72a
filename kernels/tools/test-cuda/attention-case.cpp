#include "attention-case.h"

#include <algorithm>
#include <cmath>

#include "../test-engine/checks.h"
#include "cpu/codec.h"
#include "math/threads.h"

namespace fastmqa::gpu {
namespace {

bool isCode(Dtype t) { return t == Dtype::int8 || t == Dtype::int4; }

float rounded(Dtype type, float x) {
  switch (type) {
    case Dtype::f16: return floatFromHalf(halfFromFloat(x));
    case Dtype::bf16: {
      const uint32_t bits = static_cast<uint32_t>(bfloatFromFloat(x)) << 16;
      float y;
      std::memcpy(&y, &bits, 4);
      return y;
    }
    default: return x;
  }
}

/// Keys or values of a cache: bytes as the device has them, and the numbers they stand for.
struct Side {
  std::vector<uint8_t> bytes, scaleBytes;
  std::vector<int32_t> pages;
  std::vector<float> numbers;  // [batch][kvHeads][tokens][channels]
  TokenRows rows;
  CodeScales scales;
  int tokens = 0, channels = 0, kvHeads = 0;
  /// Where a token's numbers begin.
  size_t first(int b, int g, int t) const {
    return ((static_cast<size_t>(b) * static_cast<size_t>(kvHeads) + static_cast<size_t>(g)) * static_cast<size_t>(tokens) + static_cast<size_t>(t)) * static_cast<size_t>(channels);
  }
};

Side makeSide(const CaseSpec& spec, check::Random& random, int channels, Sharing sharing, int group, float slope = 0) {
  Side s;
  const Dtype type = spec.cacheType;
  s.channels = channels;
  s.kvHeads = spec.kvHeads;
  s.tokens = *std::max_element(spec.lengths.begin(), spec.lengths.end());
  const int64_t rowBytes = packedBytes(type, channels);
  const int pagesPer = (s.tokens + pageTokens - 1) / pageTokens, pageCount = spec.batch * pagesPer;
  const bool coded = isCode(type) && sharing != Sharing::tensor;
  const int groups = sharing == Sharing::token ? (channels + group - 1) / group : pageTokens / group;
  const int64_t planeBytes = coded ? 2 * (sharing == Sharing::token ? pageTokens * groups : groups * channels) : 0;
  if (spec.paged) {
    for (int i = 0; i < pageCount; i++) s.pages.push_back(i);
    for (size_t i = s.pages.size(); i > 1; i--) std::swap(s.pages[i - 1], s.pages[static_cast<size_t>(random.between(0, static_cast<int64_t>(i) - 1))]);
    s.rows.pagesPerSequence = pagesPer;
    s.rows.tokenBytes = rowBytes;
    s.rows.headBytes = pageTokens * rowBytes;
    s.rows.batchBytes = spec.kvHeads * s.rows.headBytes;
    s.bytes.assign(static_cast<size_t>(pageCount * s.rows.batchBytes), 0xff);  // NaN where nothing is cached
  } else {
    s.rows.tokenBytes = spec.kvHeads * rowBytes;  // [batch][tokens][kvHeads][channels]
    s.rows.headBytes = rowBytes;
    s.rows.batchBytes = s.tokens * s.rows.tokenBytes;
    s.bytes.assign(static_cast<size_t>(spec.batch * s.rows.batchBytes), 0xff);
  }
  s.scales.sharing = sharing;
  s.scales.group = group;
  s.scales.tensorScale = bitsOf(type) <= 8 ? 0.0625f : 1.0f;
  if (coded) {
    s.scales.shiftBytes = spec.symmetric ? 0 : planeBytes;
    s.scales.headBytes = planeBytes * (spec.symmetric ? 1 : 2);
    s.scales.pageBytes = s.scales.headBytes * spec.kvHeads;
    s.scaleBytes.resize(static_cast<size_t>(pageCount * s.scales.pageBytes));
    const int range = type == Dtype::int8 ? 255 : 15;
    for (int64_t head = 0; head < static_cast<int64_t>(pageCount) * spec.kvHeads; head++)
      for (int64_t i = 0; i < planeBytes / 2; i++) {
        const float scale = static_cast<float>((0.5 + random.uniform()) * 4 / range) * spec.magnitude;
        putFloat(Dtype::f16, s.scaleBytes.data() + head * s.scales.headBytes, i, scale);
        if (!spec.symmetric)
          putFloat(Dtype::f16, s.scaleBytes.data() + head * s.scales.headBytes + planeBytes, i, -scale * static_cast<float>(range) * static_cast<float>(0.4 + 0.2 * random.uniform()));
      }
  }
  s.numbers.resize(static_cast<size_t>(spec.batch) * static_cast<size_t>(spec.kvHeads * s.tokens * channels));
  const auto scaleAt = [&](int64_t page, int g, int slot, int c, bool shift) {
    const int64_t index = sharing == Sharing::token ? slot * groups + c / group : slot / group * channels + c;
    uint16_t bits;
    std::memcpy(&bits, s.scaleBytes.data() + page * s.scales.pageBytes + g * s.scales.headBytes + (shift ? planeBytes : 0) + 2 * index, 2);
    return floatFromHalf(bits);
  };
  size_t next = 0;
  for (int b = 0; b < spec.batch; b++)
    for (int g = 0; g < spec.kvHeads; g++)
      for (int t = 0; t < s.tokens; t++) {
        const int64_t page = spec.paged ? s.pages[static_cast<size_t>(b * pagesPer + t / pageTokens)] : 0;
        uint8_t* row = s.bytes.data() + (spec.paged ? page * s.rows.batchBytes + g * s.rows.headBytes + t % pageTokens * rowBytes
                                                    : b * s.rows.batchBytes + g * s.rows.headBytes + t * s.rows.tokenBytes);
        const int length = spec.lengths.size() > 1 ? spec.lengths[static_cast<size_t>(b)] : spec.lengths[0];
        const bool exists = t < length;
        for (int c = 0; c < channels; c++) {
          float& x = s.numbers[next++];
          if (isCode(type)) {
            const auto code = static_cast<uint32_t>(random.between(spec.symmetric || sharing == Sharing::tensor ? 1 : 0, type == Dtype::int8 ? 255 : 15));
            const float zero = type == Dtype::int8 ? 128 : 8, value = static_cast<float>(code);
            if (exists) putCode(type, row, c, code);
            if (!coded)
              x = (value - zero) * s.scales.tensorScale;
            else if (spec.symmetric)
              x = (value - zero) * scaleAt(page, g, t % pageTokens, c, false);
            else
              x = value * scaleAt(page, g, t % pageTokens, c, false) + scaleAt(page, g, t % pageTokens, c, true);
          } else if (type == Dtype::e4m3 || type == Dtype::e5m2) {
            const auto code = static_cast<float>(random.normal() * 16);
            const uint8_t byte = type == Dtype::e4m3 ? e4m3FromFloat(code) : e5m2FromFloat(code);
            if (exists) row[c] = byte;
            x = (type == Dtype::e4m3 ? floatFromE4m3(byte) : floatFromE5m2(byte)) * s.scales.tensorScale;
          } else {
            const auto drawn = static_cast<float>(random.normal()) * spec.magnitude;
            x = rounded(type, c > 0 || slope == 0 ? drawn : slope * static_cast<float>(slope > 0 ? t - length + 1 : t));
            if (exists) putFloat(type, row, c, x);
          }
        }
      }
  return s;
}

}  // namespace

CaseResult runCase(const CaseSpec& spec, const Device& device) {
  uint64_t seed = 1469598103934665603ull;
  for (char c : spec.name) seed = (seed ^ static_cast<uint64_t>(c)) * 1099511628211ull;
  check::Random random(seed);
  Side keys = makeSide(spec, random, spec.keyDim, spec.keySharing, spec.keyGroup, spec.slope);
  Side values = makeSide(spec, random, spec.valueDim, spec.valueSharing, spec.valueGroup);
  const bool latent = spec.path == Path::latent || spec.path == Path::hopperLatent;  // values are the first channels of the keys
  const auto rows = static_cast<size_t>(spec.batch * spec.queryTokens * spec.heads);
  std::vector<float> q(rows * static_cast<size_t>(spec.keyDim));
  std::vector<uint8_t> queryBytes(static_cast<size_t>(packedBytes(spec.queryType, static_cast<int64_t>(q.size()))));
  for (size_t i = 0; i < q.size(); i++) {
    const bool isSteady = spec.slope != 0 && i % static_cast<size_t>(spec.keyDim) == 0;
    q[i] = rounded(spec.queryType, isSteady ? std::sqrt(static_cast<float>(spec.keyDim)) : static_cast<float>(random.normal()) * spec.magnitude);
    putFloat(spec.queryType, queryBytes.data(), static_cast<int64_t>(i), q[i]);
  }

  DeviceArray<uint8_t> queryArray(queryBytes), keyArray(keys.bytes), valueArray(values.bytes), keyScales(keys.scaleBytes), valueScales(values.scaleBytes);
  DeviceArray<int32_t> keyPages(keys.pages), valuePages(values.pages);
  DeviceArray<uint8_t> out(static_cast<size_t>(packedBytes(spec.outType, static_cast<int64_t>(rows) * spec.valueDim)), 0xff);
  DeviceArray<float> logs(rows, NAN);

  AttentionProblem p;
  p.batch = spec.batch, p.heads = spec.heads, p.kvHeads = spec.kvHeads, p.keyDim = spec.keyDim, p.valueDim = spec.valueDim;
  p.queryTokens = spec.queryTokens, p.queryType = spec.queryType, p.cacheType = p.valueType = spec.cacheType, p.outType = spec.outType;
  p.queries = queryArray.constant();
  p.queryHead = spec.keyDim, p.queryToken = spec.heads * p.queryHead, p.queryBatch = spec.queryTokens * p.queryToken;
  p.keys = keys.rows, p.values = values.rows, p.keyScales = keys.scales, p.valueScales = values.scales;
  p.keys.data = keyArray.constant(), p.values.data = valueArray.constant();
  if (latent) p.values = p.keys;
  if (spec.paged) p.keys.pages = keyPages.constant(), p.values.pages = latent ? keyPages.constant() : valuePages.constant();
  p.keyScales.data = keyScales.constant(), p.valueScales.data = valueScales.constant();
  std::vector<int32_t> lengths(spec.lengths.begin(), spec.lengths.end()), positions;
  for (int& n : lengths) positions.push_back(std::max(0, n - spec.queryTokens));
  p.length = *std::max_element(lengths.begin(), lengths.end());
  p.position = positions[0];
  p.left = spec.left, p.right = spec.right, p.sinks = spec.sinks, p.softcap = spec.softcap;
  p.scale = 1 / std::sqrt(static_cast<float>(spec.keyDim));
  p.out = out.view();
  p.outHead = spec.valueDim, p.outToken = spec.heads * p.outHead, p.outBatch = spec.queryTokens * p.outToken;
  p.logSums = logs.view();
  DeviceArray<int32_t> lengthArray(lengths), positionArray(positions);
  if (lengths.size() > 1) p.lengths = lengthArray.constant(), p.positions = positionArray.constant();

  // Parts: the same rows, moved on by whole pages.
  std::vector<int> cuts = spec.cuts;
  cuts.push_back(p.length);
  std::vector<AttentionProblem> parts;
  int from = 0;
  std::vector<std::unique_ptr<DeviceArray<int32_t>>> tables;
  for (int to : cuts) {
    AttentionProblem part = p;
    part.firstKey = from;
    part.length = to - from;
    if (from > 0 && spec.paged) {
      for (auto* side : {&keys, &values}) {
        std::vector<int32_t> table(side->pages);
        std::rotate(table.begin(), table.begin() + from / pageTokens, table.end());
        tables.push_back(std::make_unique<DeviceArray<int32_t>>(table));
        (side == &keys ? part.keys : part.values).pages = tables.back()->constant();
      }
    }
    parts.push_back(part);
    from = to;
  }
  std::vector<AttentionPlan> plans;
  int slots = 0;
  for (const AttentionProblem& part : parts) {
    plans.push_back(planAttention(part, device, &spec.path));
    if (spec.splits > 0) {
      plans.back().grid.x = plans.back().grid.x / plans.back().splits * spec.splits;
      plans.back().splits = spec.splits;
    }
    slots += plans.back().splits;
  }
  DeviceArray<float> workspace(static_cast<size_t>(workspaceFloats(p, slots)), NAN);
  require(attend(parts.data(), plans.data(), static_cast<int>(parts.size()), workspace.view(), nullptr), "attend");
  finish();
  const std::vector<uint8_t>& outBytes = out.back();
  const std::vector<float>& logSums = logs.back();

  // The definition, and the same mathematics in the precision of the inputs for what error to expect of it.
  const Dtype precision = bitsOf(spec.cacheType) == 16 ? spec.cacheType : bitsOf(spec.cacheType) < 16 ? Dtype::f16 : Dtype::f32;
  const bool matrix = spec.path != Path::general;
  const Side& valueSide = latent ? keys : values;
  const auto roundedAll = [&](const std::vector<float>& exact) {
    std::vector<float> out(exact.size());
    for (size_t i = 0; i < exact.size(); i++) out[i] = rounded(precision, exact[i]);
    return out;
  };
  const std::vector<float> roundedKeys = roundedAll(keys.numbers), roundedValues = latent ? std::vector<float>() : roundedAll(values.numbers);
  struct Compared {
    bool finite = true;
    double error = 0, logError = 0, sameError = 0;
  };
  std::vector<Compared> compared(rows);
  const int group = spec.heads / spec.kvHeads;
  parallelFor(static_cast<int64_t>(rows), [&](int64_t index) {
    const auto row = static_cast<size_t>(index);
    Compared& mine = compared[row];
    const int h = static_cast<int>(index % spec.heads), token = static_cast<int>(index / spec.heads % spec.queryTokens), b = static_cast<int>(index / spec.heads / spec.queryTokens);
    const auto pick = [&](const std::vector<int32_t>& list) { return list.size() > 1 ? list[static_cast<size_t>(b)] : list[0]; };
    const int length = pick(lengths), g = h / group, at = pick(positions) + token;
    const float* query = q.data() + row * static_cast<size_t>(spec.keyDim);
    std::vector<double> logits(static_cast<size_t>(length), -INFINITY);
    std::vector<float> same(static_cast<size_t>(length), -INFINITY);
    double top = -INFINITY;
    for (int t = 0; t < length; t++) {
      if (!(t <= at + spec.right && (t >= at - spec.left || t < spec.sinks))) continue;
      const float *key = keys.numbers.data() + keys.first(b, g, t), *key32 = roundedKeys.data() + keys.first(b, g, t);
      double dot = 0;
      float dot32 = 0;
      for (int c = 0; c < spec.keyDim; c++) {
        dot += static_cast<double>(query[c]) * static_cast<double>(key[c]);
        dot32 += query[c] * key32[c];
      }
      double x = dot * static_cast<double>(p.scale);
      float y = rounded(precision, dot32 * p.scale);
      if (spec.softcap > 0) x = static_cast<double>(spec.softcap) * std::tanh(x / static_cast<double>(spec.softcap)), y = rounded(precision, spec.softcap * std::tanh(y / spec.softcap));
      logits[static_cast<size_t>(t)] = x;
      same[static_cast<size_t>(t)] = y;
      top = std::max(top, x);
    }
    double sum = 0;
    float sum32 = 0;
    for (int t = 0; t < length; t++) {
      logits[static_cast<size_t>(t)] = top == -INFINITY ? 0 : std::exp(logits[static_cast<size_t>(t)] - top);
      sum += logits[static_cast<size_t>(t)];
      same[static_cast<size_t>(t)] = top == -INFINITY ? 0 : std::exp(same[static_cast<size_t>(t)] - static_cast<float>(top));
      sum32 += same[static_cast<size_t>(t)];
    }
    const double log = sum > 0 ? top + std::log(sum) : -INFINITY, gotLog = static_cast<double>(logSums[row]);
    if (!(gotLog == log)) mine.logError = std::isnan(gotLog - log) ? INFINITY : std::fabs(gotLog - log);
    std::vector<double> exact(static_cast<size_t>(spec.valueDim));
    std::vector<float> expected(exact.size());
    for (int t = 0; t < length; t++) {
      const double weight = logits[static_cast<size_t>(t)];
      if (weight == 0) continue;
      const float weight32 = rounded(precision, same[static_cast<size_t>(t)] / sum32);
      const float *value = valueSide.numbers.data() + valueSide.first(b, g, t), *value32 = (latent ? roundedKeys : roundedValues).data() + valueSide.first(b, g, t);
      for (int c = 0; c < spec.valueDim; c++) {
        exact[static_cast<size_t>(c)] += weight * static_cast<double>(value[c]);
        expected[static_cast<size_t>(c)] += weight32 * value32[c];
      }
    }
    for (int c = 0; c < spec.valueDim; c++) {
      double y = exact[static_cast<size_t>(c)];
      if (sum > 0) y /= sum;
      const float y32 = rounded(spec.outType, rounded(precision, expected[static_cast<size_t>(c)]));
      float x;
      const size_t place = row * static_cast<size_t>(spec.valueDim) + static_cast<size_t>(c);
      if (spec.outType == Dtype::f32) {
        std::memcpy(&x, outBytes.data() + 4 * place, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, outBytes.data() + 2 * place, 2);
        const uint32_t wide = static_cast<uint32_t>(bits) << 16;
        if (spec.outType == Dtype::f16)
          x = floatFromHalf(bits);
        else
          std::memcpy(&x, &wide, 4);
      }
      if (!std::isfinite(x)) mine.finite = false;
      mine.error = std::max(mine.error, std::fabs(static_cast<double>(x) - y));
      mine.sameError = std::max(mine.sameError, std::fabs(static_cast<double>(y32) - y));
    }
  });
  CaseResult result;
  result.finite = true;
  double sameError = 0;
  for (const Compared& row : compared) {
    result.finite = result.finite && row.finite;
    result.error = std::max(result.error, row.error), result.logError = std::max(result.logError, row.logError);
    sameError = std::max(sameError, row.sameError);
  }
  result.allowed = 2 * sameError + (matrix ? 3e-5 : 2e-6) * static_cast<double>(std::max(1.0f, spec.magnitude));
  return result;
}

}  // namespace fastmqa::gpu
