#include "cache-case.h"

#include <algorithm>
#include <cmath>

#include "../test-engine/checks.h"
#include "cpu/codec.h"
#include "cuda/kernels/activation.h"
#include "cuda/kernels/product.h"
#include "cuda/launch/cache.h"

namespace fastmqa::gpu {
namespace {

float numberAt(Dtype type, const uint8_t* data, int64_t i) {
  uint16_t bits;
  float x;
  if (type == Dtype::f32) {
    std::memcpy(&x, data + 4 * i, 4);
    return x;
  }
  std::memcpy(&bits, data + 2 * i, 2);
  if (type == Dtype::f16) return floatFromHalf(bits);
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  std::memcpy(&x, &wide, 4);
  return x;
}

}  // namespace

std::vector<AppendCase> appendCases() {
  std::vector<AppendCase> all;
  AppendCase c;
  for (Dtype type : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::e5m2, Dtype::int8, Dtype::int4}) {
    c.cacheType = type;
    c.channels = isInteger(type) ? 64 : 50;
    c.name = "append " + check::nameOf(type);
    all.push_back(c);
  }
  for (Dtype type : {Dtype::int8, Dtype::int4})
    for (bool symmetric : {false, true}) {
      c = AppendCase();
      c.cacheType = type;
      c.symmetric = symmetric;
      const std::string tail = check::nameOf(type) + (symmetric ? " symmetric" : "");
      c.sharing = Sharing::token;
      c.name = "append per token " + tail;
      all.push_back(c);
      c.channels = 80, c.fromType = Dtype::bf16;
      c.name += ", a ragged last group";
      all.push_back(c);
      c.channels = 51, c.fromType = Dtype::f32;
      c.name = "append per token " + tail + ", odd channels";
      all.push_back(c);
      c.sharing = Sharing::channel, c.length = 32, c.tokens = 64, c.channels = 33;
      c.name = "settle per channel " + tail;
      all.push_back(c);
      c.channels = 64, c.group = 64, c.length = 64;
      c.name += ", groups of a page";
      all.push_back(c);
    }
  c = AppendCase();
  c.pairs = 32, c.cacheType = Dtype::f32, c.length = 1000;
  c.name = "append rotated";
  all.push_back(c);
  c.interleaved = true, c.pairs = 20;
  c.name = "append rotated, interleaved, in part";
  all.push_back(c);
  c.interleaved = false, c.cacheType = Dtype::f16;
  c.name = "append rotated to f16";
  all.push_back(c);
  c = AppendCase();
  c.cacheType = Dtype::int8, c.sharing = Sharing::token, c.symmetric = true, c.magnitude = 1e-6f, c.group = 64;
  c.misfits = c.batch * c.tokens * c.kvHeads;
  c.name = "append counts scales that do not fit f16";
  all.push_back(c);
  return all;
}

AppendResult runAppend(const AppendCase& c) {
  uint64_t seed = 99;
  for (char letter : c.name) seed = seed * 31 + static_cast<uint64_t>(letter);
  check::Random random(seed);
  const int end = c.length + c.tokens, pagesPer = (end + pageTokens - 1) / pageTokens, pages = pagesPer * c.batch;
  const int64_t rowBytes = packedBytes(c.cacheType, c.channels), headBytes = pageTokens * rowBytes, pageBytes = c.kvHeads * headBytes;
  const int groups = c.sharing == Sharing::token ? (c.channels + c.group - 1) / c.group : pageTokens / c.group;
  const int64_t plane = c.sharing == Sharing::tensor ? 0 : 2 * (c.sharing == Sharing::token ? pageTokens * groups : groups * c.channels);
  const int64_t scaleHead = plane * (c.symmetric ? 1 : 2), scalePage = scaleHead * c.kvHeads;

  std::vector<float> from(static_cast<size_t>(c.batch * c.tokens * c.kvHeads * c.channels));
  std::vector<uint8_t> fromBytes(static_cast<size_t>(packedBytes(c.fromType, static_cast<int64_t>(from.size()))));
  for (size_t i = 0; i < from.size(); i++) {
    putFloat(c.fromType, fromBytes.data(), static_cast<int64_t>(i), static_cast<float>(random.normal()) * c.magnitude);
    from[i] = numberAt(c.fromType, fromBytes.data(), static_cast<int64_t>(i));
  }
  std::vector<float> cosine(static_cast<size_t>(end * std::max(1, c.pairs))), sine(cosine.size());
  for (size_t i = 0; i < cosine.size(); i++) {
    const double angle = random.uniform() * 6.28;
    cosine[i] = static_cast<float>(std::cos(angle)), sine[i] = static_cast<float>(std::sin(angle));
  }
  constexpr uint8_t poison = 0xee;
  std::vector<int32_t> table;
  for (int i = 0; i < pages; i++) table.push_back(pages - 1 - i);
  DeviceArray<uint8_t> input(fromBytes), codes(static_cast<size_t>(pages * pageBytes), poison), scales(static_cast<size_t>(pages * scalePage), poison);
  DeviceArray<float> cosines(cosine), sines(sine);
  DeviceArray<int32_t> tableArray(table), misfits(1, 0);

  AppendProblem p;
  AppendSide& s = p.sides[0];
  s.from = input.constant();
  s.fromHead = c.channels, s.fromToken = c.kvHeads * s.fromHead, s.fromBatch = c.tokens * s.fromToken;
  s.fromType = c.fromType, s.cacheType = c.cacheType, s.channels = c.channels;
  s.rows.pages = tableArray.constant(), s.rows.pagesPerSequence = pagesPer;
  s.rows.batchBytes = pageBytes, s.rows.headBytes = headBytes, s.rows.tokenBytes = rowBytes;
  s.data = codes.view(), s.scaleData = scales.view();
  s.scales.sharing = c.sharing, s.scales.group = c.group, s.scales.tensorScale = 0.05f;
  s.scales.pageBytes = scalePage, s.scales.headBytes = scaleHead, s.scales.shiftBytes = c.symmetric ? 0 : plane;
  s.symmetric = c.symmetric, s.rotated = c.pairs > 0;
  p.sideCount = 1;
  p.batch = c.batch, p.kvHeads = c.kvHeads, p.tokens = c.tokens, p.length = c.length;
  p.cosine = cosines.constant(), p.sine = sines.constant(), p.pairs = c.pairs, p.interleaved = c.interleaved;
  p.misfits = misfits.view();
  require(c.sharing == Sharing::channel ? settle(p, nullptr) : append(p, nullptr), "append");
  finish();

  std::vector<uint8_t> gotCodes = codes.back(), gotScales = scales.back();
  AppendResult result;
  result.misfits = misfits.back()[0];
  const auto input32 = [&](int b, int t, int g, int channel) {
    const auto at = [&](int i) { return from[static_cast<size_t>(((b * c.tokens + t) * c.kvHeads + g) * c.channels + i)]; };
    if (channel >= 2 * c.pairs) return at(channel);
    const int pair = c.interleaved ? channel / 2 : channel % c.pairs, position = c.length + t;
    const float co = cosine[static_cast<size_t>(position * c.pairs + pair)], si = sine[static_cast<size_t>(position * c.pairs + pair)];
    const int first = c.interleaved ? 2 * pair : pair, second = c.interleaved ? 2 * pair + 1 : pair + c.pairs;
    return channel == first ? at(first) * co - at(second) * si : at(second) * co + at(first) * si;
  };
  const auto codeBase = [&](int b, int t, int g) {
    const int place = c.length + t;
    return table[static_cast<size_t>(b * pagesPer + place / pageTokens)] * pageBytes + g * headBytes + place % pageTokens * rowBytes;
  };
  const auto check16 = [&](int64_t at, float expected) {
    uint16_t bits;
    std::memcpy(&bits, gotScales.data() + at, 2);
    if (!(floatFromHalf(bits) == expected)) result.numbersWrong++;
    gotScales[static_cast<size_t>(at)] = gotScales[static_cast<size_t>(at + 1)] = poison;
  };
  const int bits = bitsOf(c.cacheType);
  // A group: some tokens by some channels that share a scale.
  const int stepTokens = c.sharing == Sharing::channel ? c.group : 1, stepChannels = c.sharing == Sharing::token ? c.group : c.sharing == Sharing::channel ? 1 : c.channels;
  for (int b = 0; b < c.batch; b++)
    for (int g = 0; g < c.kvHeads; g++)
      for (int t = 0; t < c.tokens; t += stepTokens)
        for (int first = 0; first < c.channels; first += stepChannels) {
          const int last = std::min(c.channels, first + stepChannels);
          GroupScale scale{0.05f, -static_cast<float>(1 << (bits - 1)) * 0.05f, true};
          if (c.sharing != Sharing::tensor) {
            float lowest = INFINITY, highest = -INFINITY;
            for (int i = 0; i < stepTokens; i++)
              for (int channel = first; channel < last; channel++)
                lowest = std::min(lowest, input32(b, t + i, g, channel)), highest = std::max(highest, input32(b, t + i, g, channel));
            scale = groupScale(bits, c.symmetric, lowest, highest, true);
            const int place = c.length + t, slot = place % pageTokens;
            const int64_t index = c.sharing == Sharing::token ? slot * groups + first / c.group : slot / c.group * c.channels + first;
            const int64_t at = table[static_cast<size_t>(b * pagesPer + place / pageTokens)] * scalePage + g * scaleHead + 2 * index;
            check16(at, floatFromHalf(halfFromFloat(scale.scale)));
            if (!c.symmetric) check16(at + plane, scale.shift);
          }
          for (int i = 0; i < stepTokens; i++)
            for (int channel = first; channel < last; channel++) {
              const float x = input32(b, t + i, g, channel);
              const int64_t base = codeBase(b, t + i, g);
              uint8_t* row = gotCodes.data() + base;
              if (isInteger(c.cacheType)) {
                const uint32_t expected = quantise(x, scale, bits, c.symmetric || c.sharing == Sharing::tensor);
                const uint32_t got = bits == 8 ? row[channel] : row[channel / 2] >> (channel % 2 * 4) & 15;
                if (got != expected) result.numbersWrong++;
              } else if (bits == 8) {
                if (row[channel] != (c.cacheType == Dtype::e4m3 ? e4m3FromFloat(x / 0.05f) : e5m2FromFloat(x / 0.05f))) result.numbersWrong++;
              } else {
                uint8_t expected[4];
                putFloat(c.cacheType, expected, 0, x);
                const float got = numberAt(c.cacheType, row, channel), wanted = numberAt(c.cacheType, expected, 0);
                const float tolerance = c.pairs ? (bits == 32 ? 4e-7f : 2e-3f) : 0;  // a fused multiply-add may round differently
                if (!(std::fabs(got - wanted) <= tolerance * std::max(1.0f, std::fabs(wanted)))) result.numbersWrong++;
              }
            }
        }
  // What was not a new token's must be untouched.
  for (int b = 0; b < c.batch; b++)
    for (int g = 0; g < c.kvHeads; g++)
      for (int t = 0; t < c.tokens; t++) std::fill_n(gotCodes.begin() + codeBase(b, t, g), rowBytes, poison);
  result.outside += static_cast<int>(std::count_if(gotCodes.begin(), gotCodes.end(), [](uint8_t x) { return x != poison; }));
  result.outside += static_cast<int>(std::count_if(gotScales.begin(), gotScales.end(), [](uint8_t x) { return x != poison; }));
  return result;
}

int runExpand(const ExpandCase& c) {
  check::Random random(static_cast<uint64_t>(c.pairs * 100 + static_cast<int>(c.cacheType) * 10 + static_cast<int>(c.sharing)));
  const int stored = c.firstToken + c.tokens, pagesPer = (stored + pageTokens - 1) / pageTokens, pages = pagesPer * c.batch, bits = bitsOf(c.cacheType);
  const int64_t rowBytes = packedBytes(c.cacheType, c.channels), headBytes = pageTokens * rowBytes, pageBytes = c.heads * headBytes;
  const bool coded = isInteger(c.cacheType), grouped = coded && c.sharing != Sharing::tensor;
  const int groups = c.sharing == Sharing::token ? c.channels / c.group : pageTokens / c.group;
  const int64_t plane = grouped ? 2 * (c.sharing == Sharing::token ? pageTokens * groups : groups * c.channels) : 0, scaleHead = plane * (c.symmetric ? 1 : 2);
  std::vector<int32_t> table;
  for (int i = 0; i < pages; i++) table.push_back(pages - 1 - i);
  std::vector<uint8_t> bytes(static_cast<size_t>(pages * pageBytes)), scaleBytes(static_cast<size_t>(pages * c.heads * scaleHead));
  for (int64_t i = 0; i < static_cast<int64_t>(scaleBytes.size()) / 2; i++) putFloat(Dtype::f16, scaleBytes.data(), i, static_cast<float>(0.1 + random.uniform()));
  std::vector<float> numbers(static_cast<size_t>(c.batch * stored * c.heads * c.channels)), cosine(static_cast<size_t>(stored * std::max(1, c.pairs))), sine(cosine.size());
  const auto number = [&](int b, int t, int h, int channel) -> float& { return numbers[static_cast<size_t>(((b * stored + t) * c.heads + h) * c.channels + channel)]; };
  for (int b = 0; b < c.batch; b++)
    for (int t = 0; t < stored; t++)
      for (int h = 0; h < c.heads; h++) {
        const int64_t page = table[static_cast<size_t>(b * pagesPer + t / pageTokens)];
        uint8_t* row = bytes.data() + page * pageBytes + h * headBytes + t % pageTokens * rowBytes;
        for (int channel = 0; channel < c.channels; channel++) {
          float& x = number(b, t, h, channel);
          if (!coded) {
            putFloat(c.cacheType, row, channel, static_cast<float>(random.normal()));
            x = numberAt(c.cacheType, row, channel);
            continue;
          }
          const auto code = static_cast<uint32_t>(random.between(0, (1 << bits) - 1));
          putCode(c.cacheType, row, channel, code);
          float scale = 0.25f, shift = -static_cast<float>(1 << (bits - 1)) * scale;
          if (grouped) {
            const int64_t index = c.sharing == Sharing::token ? t % pageTokens * groups + channel / c.group : t % pageTokens / c.group * c.channels + channel;
            const uint8_t* planes = scaleBytes.data() + (page * c.heads + h) * scaleHead;
            scale = numberAt(Dtype::f16, planes, index);
            shift = c.symmetric ? -static_cast<float>(1 << (bits - 1)) * scale : numberAt(Dtype::f16, planes + plane, index);
          }
          x = static_cast<float>(code) * scale + shift;
        }
      }
  for (size_t i = 0; i < cosine.size(); i++) {
    const double angle = random.uniform() * 6.28;
    cosine[i] = static_cast<float>(std::cos(angle)), sine[i] = static_cast<float>(std::sin(angle));
  }
  const int channelsOut = c.channels + 5;  // zeros follow
  DeviceArray<uint8_t> codes(bytes), scales(scaleBytes), out(static_cast<size_t>(4 * c.batch * c.tokens * c.heads * channelsOut), 0xff);
  DeviceArray<int32_t> tableArray(table);
  DeviceArray<float> cosines(cosine), sines(sine);
  ExpandProblem p;
  ExpandBand& band = p.bands[0];
  band.rows.data = codes.constant(), band.rows.pages = tableArray.constant(), band.rows.pagesPerSequence = pagesPer;
  band.rows.batchBytes = pageBytes, band.rows.headBytes = headBytes, band.rows.tokenBytes = rowBytes;
  band.type = c.cacheType, band.channels = c.channels;
  band.scales.data = scales.constant(), band.scales.sharing = grouped ? c.sharing : Sharing::tensor, band.scales.group = c.group, band.scales.tensorScale = 0.25f;
  band.scales.headBytes = scaleHead, band.scales.pageBytes = scaleHead * c.heads, band.scales.shiftBytes = c.symmetric ? 0 : plane;
  p.channels = channelsOut, p.batch = c.batch, p.heads = c.heads, p.tokens = c.tokens, p.firstToken = c.firstToken, p.pairs = c.pairs;
  p.out = out.view(), p.outType = Dtype::f32;
  p.outHead = channelsOut, p.outToken = c.heads * p.outHead, p.outBatch = c.tokens * p.outToken;
  p.cosine = cosines.constant(), p.sine = sines.constant();
  require(expand(p, nullptr), "expand");
  finish();
  const std::vector<uint8_t>& got = out.back();
  int wrong = 0;
  for (int b = 0; b < c.batch; b++)
    for (int t = 0; t < c.tokens; t++)
      for (int h = 0; h < c.heads; h++)
        for (int channel = 0; channel < channelsOut; channel++) {
          const int at = c.firstToken + t, pair = channel % std::max(1, c.pairs);
          float expected = channel < c.channels ? number(b, at, h, channel) : 0;
          if (channel < 2 * c.pairs) {
            const size_t angle = static_cast<size_t>(at * c.pairs + pair);
            const float other = number(b, at, h, channel < c.pairs ? channel + c.pairs : channel - c.pairs);
            expected = expected * cosine[angle] + (channel < c.pairs ? -other : other) * sine[angle];
          }
          const float x = numberAt(Dtype::f32, got.data(), b * p.outBatch + t * p.outToken + h * p.outHead + channel);
          if (!(std::fabs(x - expected) <= 2e-6f * std::max(1.0f, std::fabs(expected)) * (bits <= 8 ? 64.0f : 1.0f))) wrong++;
        }
  return wrong;
}

CaseResult runProduct(int m, int n, int k, Dtype type, Dtype outType, const Device& device) {
  check::Random random(static_cast<uint64_t>(m * 1000003 + n * 1009 + k));
  const auto make = [&](int64_t count) {
    std::vector<uint8_t> bytes(static_cast<size_t>(packedBytes(type, count)));
    for (int64_t i = 0; i < count; i++) putFloat(type, bytes.data(), i, static_cast<float>(random.normal()));
    return bytes;
  };
  const std::vector<uint8_t> x = make(m * k), w = make(n * k);
  DeviceArray<uint8_t> xs(x), ws(w), ys(static_cast<size_t>(packedBytes(outType, m * n)), 0xff);
  require(multiplyMatrices({m, n, k, type, outType, xs.constant(), ws.constant(), ys.view()}, device, nullptr), "product");
  finish();
  const std::vector<uint8_t>& y = ys.back();
  CaseResult result;
  result.finite = true;
  double sameError = 0;
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double sum = 0;
      float sum32 = 0;
      for (int l = 0; l < k; l++) {
        const float a = numberAt(type, x.data(), i * k + l), b = numberAt(type, w.data(), j * k + l);
        sum += static_cast<double>(a) * static_cast<double>(b);
        sum32 += a * b;
      }
      uint8_t same[4];
      putFloat(outType, same, 0, sum32);
      sameError = std::max(sameError, std::fabs(static_cast<double>(numberAt(outType, same, 0)) - sum));
      const float got = numberAt(outType, y.data(), i * n + j);
      if (!std::isfinite(got)) result.finite = false;
      result.error = std::max(result.error, std::fabs(static_cast<double>(got) - sum));
    }
  result.allowed = 2 * sameError + 1e-6;

  // The same matrix as three of other heights gives the same bits.
  DeviceArray<uint8_t> parts(static_cast<size_t>(packedBytes(outType, m * n)), 0xff);
  std::vector<ProductProblem> problems;
  for (int i = 0, first = 0; i < mostProducts && first < n; i++) {
    const int rows = i + 1 < mostProducts ? std::min((n + 3) / 4, n - first) : n - first;
    const int64_t skipped = packedBytes(type, first * k), before = packedBytes(outType, first);
    ProductProblem p{m, rows, k, type, outType, xs.constant(), Global<const uint8_t>(ws.constant().data() + skipped, packedBytes(type, rows * k)),
                     Global<uint8_t>(parts.view().data() + before, packedBytes(outType, m * n) - before)};
    p.yStride = n;
    problems.push_back(p);
    first += rows;
  }
  require(multiplyMatrices(problems.data(), static_cast<int>(problems.size()), device, nullptr), "products");
  finish();
  if (m <= 8 && parts.back() != y) result.finite = false;

  // Rows of half the length that are gated on the way.
  if (const int half = k / 16 * 8; half > 0 && half * 2 == k && gatesInProduct(m, half, device)) {
    DeviceArray<uint8_t> gated(static_cast<size_t>(packedBytes(outType, m * n)), 0xff);
    require(multiplyGated({m, n, half, type, outType, xs.constant(), ws.constant(), gated.view()}, ActivationKind::silu, device, nullptr), "gated product");
    finish();
    double size = 0, error = 0;
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int l = 0; l < half; l++) {
          const double gate = numberAt(type, x.data(), i * k + l), up = numberAt(type, x.data(), i * k + half + l);
          sum += gate / (1 + std::exp(-gate)) * up * static_cast<double>(numberAt(type, w.data(), j * half + l));
        }
        const double got = numberAt(outType, gated.back().data(), i * n + j);
        size = std::max(size, std::fabs(sum)), error = std::max(error, std::fabs(got - sum));
      }
    const double resolution = outType == Dtype::f32 ? 4e-6 : outType == Dtype::f16 ? 0x1p-10 : 0x1p-7;
    if (!(error <= resolution * size)) result.finite = false;
  }
  return result;
}

}  // namespace fastmqa::gpu
