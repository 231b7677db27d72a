// Rotary position embedding: frequencies under every scaling that Hugging Face configurations name, and angle tables.
// Formulas: attention-spec B.2.
#pragma once
#include <cstdint>
#include <vector>

namespace fastmqa {

enum class RopeScaling { none, linear, dynamicNtk, yarn, longrope, llama3 };

/// The `rope_scaling` (or `rope_parameters`) entry of a model configuration. Fields that a scaling does not name are ignored.
struct RopeParameters {
  double base = 10000.0;   ///< rope_theta
  int64_t rotaryDim = 0;   ///< channels of a head that rotate, even; see rotaryDimension
  bool interleaved = false;  ///< pairs (2c, 2c + 1) instead of (c, c + rotaryDim / 2)
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;
  double originalMaxPositions = 0;  ///< positions trained on, before scaling (dynamicNtk, yarn, longrope, llama3)
  double betaFast = 32.0, betaSlow = 1.0;  ///< yarn
  bool truncate = true;                    ///< yarn: whole numbers for the ramp's ends
  double mscale = 0, mscaleAllDim = 0;     ///< yarn of DeepSeek: both given, their ratio replaces the default; 0 = absent
  double lowFrequencyFactor = 1.0, highFrequencyFactor = 4.0;  ///< llama3
  std::vector<double> shortFactors, longFactors;               ///< longrope: [rotaryDim / 2]
  double attentionFactor = 0;  ///< as configured; 0 = the scaling's default
};

struct RopeFrequencies {
  std::vector<double> theta;      ///< [rotaryDim / 2] radians per position
  double attentionFactor = 1.0;   ///< multiplies cos and sin, so logits get its square
};

/// Rotating channels under partial rotary embedding: the even part of int(fraction * headDim).
int64_t rotaryDimension(double fraction, int64_t headDim);

/// Frequencies in fp64.
/// @param seqLen positions in use; matters to dynamicNtk (where it makes cached rotated keys stale when it grows)
///               and longrope (which of the two lists)
/// @throws std::invalid_argument on parameters that give no frequencies
RopeFrequencies ropeFrequencies(const RopeParameters& parameters, int64_t seqLen);

/// cos and sin [positions, rotaryDim / 2] of (firstPosition + i) * theta_j, times the attention factor.
/// Angles in fp64 with integer positions: an fp32 angle is off by up to 0.004 radians at 128k tokens.
void ropeTable(const RopeFrequencies& frequencies, int64_t firstPosition, int64_t positions, float* cosine, float* sine);

/// Rotates z [rotaryDim] at one position in place, in fp64. Pairs are (c, c + rotaryDim / 2), or (2c, 2c + 1) if interleaved.
void ropeRotate(const RopeFrequencies& frequencies, int64_t position, bool interleaved, double* z);

}  // namespace fastmqa
