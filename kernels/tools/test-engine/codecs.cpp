// Number formats and stores against the definitions.
#include <algorithm>
#include <cstring>

#include "checks.h"
#include "cpu/codec.h"
#include "cpu/panel-store.h"
#include "definition.h"
#include "simd/simd.h"

using namespace fastmqa;
using check::everyDtype;
using check::nameOf;
using definition::FloatFormat;

namespace {

uint32_t encoded(Dtype dtype, float x) {
  uint8_t bytes[4] = {};
  putFloat(dtype, bytes, 0, x);
  return dtype == Dtype::f16 || dtype == Dtype::bf16 ? bytes[0] | bytes[1] << 8 : bytes[0];
}

/// A code in the first, a middle and the last place of eight, and of a row long enough for the widest step.
bool decodesTo(Dtype dtype, uint32_t code, double value) {
  const int bytes = bitsOf(dtype) / 8;
  uint8_t packed[2 * 24];
  float out[24];
  for (int i = 0; i < 24 * bytes; i++) packed[i] = static_cast<uint8_t>(code >> (8 * (i % bytes)));
  simd().decode(static_cast<int>(dtype), packed, 24, out);
  return std::all_of(out, out + 24, [&](float x) { return static_cast<double>(x) == value && std::signbit(x) == std::signbit(value); });
}

void floatCodes(const std::string& variant) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::e5m2}) {
    const FloatFormat& format = definition::formatOf(dtype);
    int decoding = 0, roundTrip = 0, rounding = 0, tested = 0;
    for (uint32_t code = 0; code < format.codes(); code++) {
      if (!format.finite(code)) continue;
      const double value = format.value(code);
      decoding += !decodesTo(dtype, code, value);
      roundTrip += encoded(dtype, static_cast<float>(value)) != code;
      // Half way to the next value, and the numbers next to it.
      const uint32_t next = code + 1;
      if (!format.finite(next) || next == format.codes() / 2) continue;
      const auto middle = static_cast<float>((value + format.value(next)) / 2);
      for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 2 * middle)})
        rounding += encoded(dtype, x) != format.nearest(static_cast<double>(x)), tested++;
    }
    check::equal(variant + " decode of every " + nameOf(dtype) + " code", decoding, 0);
    check::equal(variant + " round trip of every " + nameOf(dtype) + " code", roundTrip, 0);
    check::equal(variant + " rounding of " + nameOf(dtype) + ", " + std::to_string(tested) + " numbers", rounding, 0);
    check::isTrue(variant + " saturation of " + nameOf(dtype), encoded(dtype, 3.4e38f) == format.nearest(3.4e38) && encoded(dtype, -3.4e38f) == format.nearest(-3.4e38));
  }
  int tables = 0;
  for (uint32_t code = 0; code < 65536; code++)
    tables += definition::formatOf(Dtype::f16).finite(code) && static_cast<double>(floatFromHalf(static_cast<uint16_t>(code))) != definition::formatOf(Dtype::f16).value(code);
  for (uint32_t code = 0; code < 256; code++) {
    const auto byte = static_cast<uint8_t>(code);
    tables += definition::formatOf(Dtype::e4m3).finite(code) ? static_cast<double>(floatFromE4m3(byte)) != definition::formatOf(Dtype::e4m3).value(code) : !std::isnan(floatFromE4m3(byte));
    tables += definition::formatOf(Dtype::e5m2).finite(code) ? static_cast<double>(floatFromE5m2(byte)) != definition::formatOf(Dtype::e5m2).value(code) : std::isfinite(floatFromE5m2(byte));
  }
  check::equal(variant + " single conversions mean the same", tables, 0);
}

/// Rows of 24 codes whose bytes run through all patterns, read by position from the bit string, and written back.
void packing(const std::string& variant) {
  for (const Dtype dtype : {Dtype::int8, Dtype::int4, Dtype::int3, Dtype::int2}) {
    const int bits = bitsOf(dtype), bytes = 24 * bits / 8;
    int wrong = 0;
    check::Random random(5);
    for (int pattern = 0; pattern < 256 * 3; pattern++) {
      uint8_t packed[24], again[24];
      float out[24];
      for (int i = 0; i < bytes; i++) packed[i] = static_cast<uint8_t>(pattern < 256 ? pattern : static_cast<int>(random.bits() & 255)), again[i] = static_cast<uint8_t>(~packed[i]);
      simd().decode(static_cast<int>(dtype), packed, 24, out);
      for (int i = 0; i < 24; i++) {
        uint32_t code = 0;
        for (int b = 0; b < bits; b++) code |= static_cast<uint32_t>(packed[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b;
        wrong += out[i] != static_cast<float>(code);
        putCode(dtype, again, i, code);
      }
      wrong += std::memcmp(packed, again, static_cast<size_t>(bytes)) != 0;
    }
    check::equal(variant + " packing of " + nameOf(dtype) + ", every byte", wrong, 0);
  }
}

std::vector<float> stored(const StoreSpec& spec, const std::vector<float>& x, int64_t tokens, int64_t step = 0) {
  Arena arena;
  PanelStore store(arena, spec);
  const int64_t width = spec.heads * spec.channels;
  for (int64_t t = 0; t < tokens;) {
    const int64_t n = std::min(step > 0 ? step : tokens, tokens - t);
    store.reserve(t + n);
    store.write(t, n, x.data() + t * width, width);
    t += n;
  }
  std::vector<float> out(x.size());
  for (int64_t h = 0; h < spec.heads; h++) store.readRows(h, 0, tokens, out.data() + h * spec.channels, width);
  return out;
}

StoreSpec storeOf(Dtype dtype, int64_t channels, Layout layout, Grouping grouping, int64_t groupSize, bool symmetric) {
  StoreSpec spec;
  spec.channels = channels;
  spec.bands = {{channels, dtype, symmetric}};
  spec.layout = layout;
  spec.grouping = grouping;
  spec.groupSize = groupSize;
  return spec;
}

void groups(const std::string& variant) {
  check::Random random(6);
  constexpr int64_t tokens = 64, channels = 64;
  const auto magnitudes = {1.0, 1e-6, 1e6, 1e-20, 1e20};
  for (const Dtype dtype : {Dtype::int8, Dtype::int4, Dtype::int3, Dtype::int2})
    for (const bool symmetric : {false, true})
      for (const Grouping grouping : {Grouping::token, Grouping::channel}) {
        const StoreSpec spec = storeOf(dtype, channels, grouping == Grouping::token ? Layout::tokenRows : Layout::channelRows, grouping, 32, symmetric);
        const std::string name = variant + " " + nameOf(dtype) + (symmetric ? " symmetric" : " asymmetric") + (grouping == Grouping::token ? " per token" : " per channel");
        const std::vector<float> x = random.normals(tokens * channels);
        const double usual = check::relativeL2(stored(spec, x, tokens), x);
        for (const double magnitude : magnitudes) {
          std::vector<float> far(x);
          for (float& v : far) v *= static_cast<float>(magnitude);
          const std::vector<float> back = stored(spec, far, tokens);
          check::near(name + " error at magnitude " + std::to_string(std::log10(magnitude)), check::relativeL2(back, far), usual, 0.02);
          // The largest of each group is represented to less than half a step; a step is range / top.
          double worst = 0;
          for (int64_t i = 0; i < tokens * channels; i += 32) {
            double low = INFINITY, high = -INFINITY, most = 0;
            size_t place = 0;
            for (int64_t j = 0; j < 32; j++) {
              const auto at = static_cast<size_t>(grouping == Grouping::token ? i + j : (i / 32 % 2 * 32 + j) * channels + i / 64);
              const auto v = static_cast<double>(far[at]);
              low = std::min(low, v), high = std::max(high, v);
              if (std::fabs(v) > most) most = std::fabs(v), place = at;
            }
            const double step = symmetric ? most / ((1 << (bitsOf(dtype) - 1)) - 1) : (high - low) / ((1 << bitsOf(dtype)) - 1);
            worst = std::max(worst, std::fabs(static_cast<double>(back[place]) - static_cast<double>(far[place])) / step);
          }
          check::atMost(name + " largest element in steps, magnitude " + std::to_string(std::log10(magnitude)), worst, 0.2);
        }
        int inexact = 0, unequal = 0;
        for (const float constant : {0.0f, 1.5f, -3.25f, 1e-7f, 123456.0f, -7e8f, 0.3f}) {
          const std::vector<float> flat(static_cast<size_t>(tokens * channels), constant), back = stored(spec, flat, tokens);
          for (const float v : back) {
            // 0.3 is no f16 number: its minimum or scale is off by half a unit at most.
            const bool exactly = constant != 0.3f && !symmetric;
            inexact += !(std::fabs(v - constant) <= (exactly ? 0 : std::fabs(constant) * 0x1p-10f));
            unequal += v != back[0];
          }
        }
        check::equal(name + " constant groups", inexact + unequal, 0);
        // Extremes side by side never make NaN.
        std::vector<float> wild(static_cast<size_t>(tokens * channels));
        for (float& v : wild) v = static_cast<float>(random.normal() * std::pow(10.0, static_cast<double>(random.between(-38, 30))));
        check::isTrue(name + " finite stays finite", check::allFinite(stored(spec, wild, tokens)));
      }
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::e5m2}) {
    std::vector<float> wild(static_cast<size_t>(tokens * channels));
    for (float& v : wild) v = static_cast<float>(std::clamp(random.normal() * std::pow(10.0, static_cast<double>(random.between(-45, 38))), -3.4e38, 3.4e38));
    check::isTrue(variant + " " + nameOf(dtype) + " finite stays finite", check::allFinite(stored(storeOf(dtype, channels, Layout::tokenRows, Grouping::token, 32, false), wild, tokens)));
  }
}

/// The table of attention-spec B.5 to 3 %, or half its last digit where that is more.
void closedForms(const std::string& variant) {
  struct Row {
    Dtype dtype;
    double asymmetric[4], symmetric[4], digit;
  };
  const Row rows[] = {{Dtype::int8, {.0038, .0046, .0053, .0059}, {.0047, .0054, .0059, .0065}, 1e-4},
                      {Dtype::int4, {.065, .078, .090, .100}, {.085, .097, .108, .117}, 1e-3},
                      {Dtype::int3, {.139, .168, .192, .214}, {.199, .227, .251, .274}, 1e-3},
                      {Dtype::int2, {.327, .393, .450, .500}, {.585, .658, .717, .767}, 1e-3}};
  check::Random random(7);
  constexpr int64_t tokens = 512, channels = 256;
  const std::vector<float> x = random.normals(tokens * channels);
  for (const Row& row : rows)
    for (int i = 0; i < 4; i++)
      for (const bool symmetric : {false, true})
        for (const Layout layout : {Layout::channelRows, Layout::tokenRows})
          for (const Grouping grouping : {Grouping::token, Grouping::channel}) {
            const int64_t n = int64_t{16} << i;
            if (grouping == Grouping::channel && n > 64) continue;
            const double expected = (symmetric ? row.symmetric : row.asymmetric)[i];
            const std::string name = variant + " closed form " + nameOf(row.dtype) + (symmetric ? " symmetric " : " asymmetric ") + std::to_string(n) +
                                     (grouping == Grouping::token ? " per token" : " per channel") + (layout == Layout::tokenRows ? " in rows of tokens" : " in rows of channels");
            check::near(name, check::relativeL2(stored(storeOf(row.dtype, channels, layout, grouping, n, symmetric), x, tokens), x), expected, std::max(0.03, 0.5 * row.digit / expected));
          }
  const std::pair<Dtype, double> floats[] = {{Dtype::f16, 2.1e-4}, {Dtype::bf16, 1.66e-3}, {Dtype::e4m3, .0265}, {Dtype::e5m2, .0528}};
  for (const auto& [dtype, expected] : floats) {
    std::vector<float> scaled(x);
    for (float& v : scaled) v *= 16;
    check::near(variant + " closed form " + nameOf(dtype), check::relativeL2(stored(storeOf(dtype, channels, Layout::channelRows, Grouping::token, 32, false), scaled, tokens), scaled), expected, 0.03);
  }
}

}  // namespace

void testCodecs() {
  const char* const usual = simd().name;
  const char* names[4];
  const int variants = availableSimd(names, 4);
  for (int i = variants - 1; i >= 0; i--) {
    forceSimd(names[i]);
    floatCodes(names[i]);
    packing(names[i]);
    groups(names[i]);
    closedForms(names[i]);
  }
  forceSimd(usual);
}

/// Every layout, grouping, page size, and bands of several formats, at ragged channel counts.
void testStores() {
  check::Random random(8);
  const int rounds = check::rounds(120, 600, 6000);
  int agree = 0, rows = 0, steps = 0;
  std::string worstName;
  double worst = 0;
  const char* const usual = simd().name;
  const char* names[4];
  const int variants = availableSimd(names, 4);
  for (int round = 0; round < rounds; round++) {
    forceSimd(names[round % variants]);
    StoreSpec spec;
    spec.heads = random.between(1, 3);
    spec.layout = random.oneIn(2) ? Layout::channelRows : Layout::tokenRows;
    spec.grouping = random.oneOf<Grouping>({Grouping::token, Grouping::channel, Grouping::channel, Grouping::tensor});
    spec.pageTokens = random.oneIn(3) ? random.oneOf<int64_t>({8, 16, 24, 32, 48, 56}) : 64;
    const int bands = static_cast<int>(random.oneIn(2) ? 1 : random.between(2, 4));
    for (int b = 0; b < bands; b++) {
      const int64_t channels = random.oneOf<int64_t>({1, 2, 3, 5, 8, 16, 31, 32, 33, 63, 65, 100});
      spec.bands.push_back({channels, random.oneOf(everyDtype), random.oneIn(2)});
      spec.channels += channels;
    }
    std::string name = "store";
    for (const Band& b : spec.bands) name += " " + std::to_string(b.channels) + nameOf(b.dtype) + (b.symmetric ? "s" : "a");
    spec.groupSize = random.oneOf<int64_t>({8, 16, 32, 64, 128});
    if (spec.grouping == Grouping::channel)
      while (spec.pageTokens % spec.groupSize) spec.groupSize = spec.groupSize > 8 ? spec.groupSize / 2 : 8;
    if (spec.grouping == Grouping::tensor) spec.tensorScale = 0.03125f;
    name += (spec.layout == Layout::channelRows ? " channelRows" : " tokenRows") + std::string(spec.grouping == Grouping::token ? " token" : spec.grouping == Grouping::channel ? " channel" : " tensor") +
            std::to_string(spec.groupSize) + " page" + std::to_string(spec.pageTokens);
    const int64_t group = spec.groupsTokens() ? spec.groupSize : 1;
    const int64_t tokens = (random.between(1, 150) + group - 1) / group * group, width = spec.heads * spec.channels;
    std::vector<float> x = random.normals(tokens * width);
    if (random.oneIn(3))  // some groups need wide scales
      for (float& v : x)
        if (random.oneIn(40)) v *= random.oneIn(2) ? 1e7f : 1e-8f;
    std::vector<double> expected(x.begin(), x.end());
    definition::roundStored(spec, expected, tokens, 0);
    const std::vector<float> got = stored(spec, x, tokens);
    // A quotient half way between two codes may go to either, which one number in a hundred thousand does;
    // so may a scale half way between two f16 numbers, and takes its group along.
    // The slack is a few f32 roundings of the largest number that may share a group.
    std::vector<double> inRow(static_cast<size_t>(tokens * spec.heads), 0.0), inColumn(static_cast<size_t>(width), 0.0);
    const auto rowOf = [&](size_t i) { return i / static_cast<size_t>(spec.channels); };
    const auto columnOf = [&](size_t i) { return i % static_cast<size_t>(width); };
    for (size_t i = 0; i < x.size(); i++)
      for (double* most : {&inRow[rowOf(i)], &inColumn[columnOf(i)]}) *most = std::max(*most, std::fabs(static_cast<double>(x[i])));
    double different = 0;
    for (size_t i = 0; i < got.size(); i++) {
      const double slack = 3e-7 * (spec.groupsTokens() ? inColumn[columnOf(i)] : inRow[rowOf(i)]);
      different += !(std::fabs(static_cast<double>(got[i]) - expected[i]) <= slack);
    }
    different = std::max(0.0, different - 2 - static_cast<double>(spec.groupSize)) / static_cast<double>(got.size());
    if (!(different <= worst)) worst = different, worstName = name;
    agree += !(different <= 1e-3);
    // What was stored must not depend on how many tokens came at once.
    steps += stored(spec, x, tokens, group * random.between(1, 40)) != got;
    // readRows and whole pages are the same numbers.
    Arena arena;
    PanelStore store(arena, spec);
    store.reserve(tokens);
    store.write(0, tokens, x.data(), width);
    std::vector<float> scratch(static_cast<size_t>(store.tileFloats()));
    for (int64_t h = 0; h < spec.heads; h++)
      for (int64_t t = 0; t < tokens; t++) {
        const float* tile = store.read(t / spec.pageTokens, h, scratch.data());
        const int64_t slot = t % spec.pageTokens;
        for (int64_t c = 0; c < spec.channels; c++)
          rows += tile[spec.layout == Layout::channelRows ? c * store.tileStride() + slot : slot * store.rowStride() + c] != got[static_cast<size_t>(t * width + h * spec.channels + c)];
        if (t % spec.pageTokens && t + 1 < tokens && spec.pageTokens > 8) t += 6;
      }
  }
  check::report(agree == 0, "stores hold what the definition says, " + std::to_string(rounds) + " shapes" + (agree ? ": " + worstName : ""), worst, "at most ", 1e-3);
  check::equal("stores do not depend on how many tokens came at once, " + std::to_string(rounds) + " shapes", steps, 0);
  check::equal("stores give the same numbers by rows and by pages, " + std::to_string(rounds) + " shapes", rows, 0);
  forceSimd(usual);
  Arena arena;
  StoreSpec bad = storeOf(Dtype::int4, 16, Layout::channelRows, Grouping::channel, 128, false);
  check::throws<Failure>("groups of tokens beyond a page are refused", [&] { PanelStore store(arena, bad); });
  bad = storeOf(Dtype::int4, 16, Layout::channelRows, Grouping::token, 0, false);
  check::throws<Failure>("groups of nothing are refused", [&] { PanelStore store(arena, bad); });
  bad = storeOf(Dtype::f16, 16, Layout::channelRows, Grouping::token, 32, false);
  bad.bands[0].channels = 15;
  check::throws<Failure>("bands that do not add up are refused", [&] { PanelStore store(arena, bad); });
  bad = storeOf(Dtype::f16, 16, Layout::channelRows, Grouping::token, 32, false);
  bad.pageTokens = 128;
  check::throws<Failure>("pages larger than a tile are refused", [&] { PanelStore store(arena, bad); });
}
