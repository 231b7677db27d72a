#include "rope.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace fastmqa {
namespace {

constexpr double pi = 3.14159265358979323846;
constexpr int64_t tableRows = 64;  // positions per work item

void require(bool condition, const char* expected, double received) {
  if (!condition) throw std::invalid_argument(std::string("expected ") + expected + " but received " + std::to_string(received));
}

double yarnMscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1; }

/// Interpolates between kept (fast) and slowed (slow) frequencies over the channels whose wavelengths fit
/// betaFast .. betaSlow times into the original context.
void scaleYarn(const RopeParameters& p, RopeFrequencies& out) {
  const double dim = static_cast<double>(p.rotaryDim);
  const auto channelTurning = [&](double turns) {
    return dim * std::log(p.originalMaxPositions / (turns * 2 * pi)) / (2 * std::log(p.base));
  };
  double low = channelTurning(p.betaFast), high = channelTurning(p.betaSlow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t j = 0; j < out.theta.size(); j++) {
    const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    out.theta[j] *= ramp / p.factor + (1 - ramp);
  }
  out.attentionFactor = p.mscale != 0 && p.mscaleAllDim != 0
                            ? yarnMscale(p.factor, p.mscale) / yarnMscale(p.factor, p.mscaleAllDim)
                            : yarnMscale(p.factor, 1);
}

void scaleLongrope(const RopeParameters& p, int64_t seqLen, RopeFrequencies& out) {
  const bool isLong = static_cast<double>(seqLen) > p.originalMaxPositions;
  const std::vector<double>& factors = isLong ? p.longFactors : p.shortFactors;
  require(factors.size() == out.theta.size(), isLong ? "rotaryDim / 2 long factors" : "rotaryDim / 2 short factors",
          static_cast<double>(factors.size()));
  for (size_t j = 0; j < factors.size(); j++) {
    require(factors[j] > 0, "positive longrope factors", factors[j]);
    out.theta[j] /= factors[j];
  }
  if (p.factor > 1) out.attentionFactor = std::sqrt(1 + std::log(p.factor) / std::log(p.originalMaxPositions));
}

void scaleLlama3(const RopeParameters& p, RopeFrequencies& out) {
  const double low = p.lowFrequencyFactor, high = p.highFrequencyFactor;
  require(high > low, "a high frequency factor above the low one", high);
  for (double& theta : out.theta) {
    const double wavelength = 2 * pi / theta;
    const double smooth = (p.originalMaxPositions / wavelength - low) / (high - low);
    const double kept = std::clamp(smooth, 0.0, 1.0);  // outside the band: all or nothing
    theta = (1 - kept) * theta / p.factor + kept * theta;
  }
}

}  // namespace

int64_t rotaryDimension(double fraction, int64_t headDim) {
  return static_cast<int64_t>(fraction * static_cast<double>(headDim)) / 2 * 2;
}

RopeFrequencies ropeFrequencies(const RopeParameters& p, int64_t seqLen) {
  require(p.rotaryDim > 0 && p.rotaryDim % 2 == 0, "a positive even number for the rotary dimension",
          static_cast<double>(p.rotaryDim));
  require(p.base > 1 && std::isfinite(p.base), "a RoPE base above 1", p.base);
  require(p.factor > 0 && std::isfinite(p.factor), "a positive RoPE factor", p.factor);
  const bool needsOriginal = p.scaling != RopeScaling::none && p.scaling != RopeScaling::linear;
  require(!needsOriginal || p.originalMaxPositions > 1, "the original number of positions", p.originalMaxPositions);

  const double dim = static_cast<double>(p.rotaryDim);
  double base = p.base;
  if (p.scaling == RopeScaling::dynamicNtk) {
    require(p.rotaryDim > 2, "a rotary dimension above 2 for dynamic scaling", dim);
    const double length = std::max(static_cast<double>(seqLen), p.originalMaxPositions);
    base *= std::pow(p.factor * length / p.originalMaxPositions - (p.factor - 1), dim / (dim - 2));
  }
  RopeFrequencies out;
  for (int64_t c = 0; c < p.rotaryDim; c += 2) out.theta.push_back(std::pow(base, -static_cast<double>(c) / dim));

  switch (p.scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamicNtk:
      break;
    case RopeScaling::linear:
      for (double& theta : out.theta) theta /= p.factor;
      break;
    case RopeScaling::yarn:
      scaleYarn(p, out);
      break;
    case RopeScaling::longrope:
      scaleLongrope(p, seqLen, out);
      break;
    case RopeScaling::llama3:
      scaleLlama3(p, out);
      break;
  }
  if (p.attentionFactor > 0) out.attentionFactor = p.attentionFactor;
  return out;
}

void ropeTable(const RopeFrequencies& frequencies, int64_t firstPosition, int64_t positions, float* cosine, float* sine) {
  const auto pairs = static_cast<int64_t>(frequencies.theta.size());
  parallelFor((positions + tableRows - 1) / tableRows, [&](int64_t block) {
    for (int64_t i = block * tableRows; i < std::min(positions, (block + 1) * tableRows); i++)
      for (int64_t j = 0; j < pairs; j++) {
        const double angle = static_cast<double>(firstPosition + i) * frequencies.theta[j];
        cosine[i * pairs + j] = static_cast<float>(std::cos(angle) * frequencies.attentionFactor);
        sine[i * pairs + j] = static_cast<float>(std::sin(angle) * frequencies.attentionFactor);
      }
  });
}

void ropeRotate(const RopeFrequencies& frequencies, int64_t position, bool interleaved, double* z) {
  const auto pairs = static_cast<int64_t>(frequencies.theta.size());
  for (int64_t j = 0; j < pairs; j++) {
    const double angle = static_cast<double>(position) * frequencies.theta[j];
    const double c = std::cos(angle) * frequencies.attentionFactor, s = std::sin(angle) * frequencies.attentionFactor;
    double& a = z[interleaved ? 2 * j : j];
    double& b = z[interleaved ? 2 * j + 1 : j + pairs];
    const double x = a, y = b;
    a = x * c - y * s;
    b = x * s + y * c;
  }
}

}  // namespace fastmqa
