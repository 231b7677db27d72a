// A synthetic attention layer with the statistics of trained ones (attention-spec D.3): low-rank keys, outlier key
// channels, attention sinks, retrieval, local and diffuse heads, arbitrary head gauges. Deterministic: all randomness
// is counter-based (D.2), so any part can be drawn on any thread. Follows the reference source of the specification's
// appendix 1 in structure and agrees with it to rounding (1e-12).
//
// Natively shared heads (G < H) extend the appendix; with G = H the model is exactly the appendix's. The G KV heads are
// the appendix's first G heads as far as keys and values go (streams 'Ak.g', 'Av.g', 'out.g', 'outpair.g', 'outph.g',
// 'locph.g', 'gauge.v.g', row g of 'gauge.phase'). Query head h serves KV head g = floor(h / (H / G)):
// - its content is kappa A_g + sqrt(1 - kappa^2) 'Aq.h', with its own type, gain and kappa (row h of 'head.type'),
//   scaled for its logit std against the keys of g, and turned by the gauge phases of g;
// - its sink strength 'sinkL.h' (or 'outph2.h' without a sink) acts on the outlier pairs and phases of g;
// - KV head g carries the local key offset if query head g H / G drew the type local; a query head of the group that
//   drew local then has the matching offset. In any other group it has nothing to match and counts as diffuse;
// - W_o,h = 'Wo.h' T_g^T, T_g being the value gauge of g.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fastmqa {

/// Counter-based random numbers (attention-spec D.2): element i of a stream costs the same wherever it is.
class RandomStream {
 public:
  RandomStream(uint64_t seed, const std::string& name);
  uint64_t key() const { return key_; }
  uint64_t bits(uint64_t i) const;
  /// Uniform on (0, 1).
  double uniform(uint64_t i) const;
  /// Standard normals of the indices [first, first + count), by Box-Muller on the pairs (2p, 2p + 1).
  void normals(uint64_t first, int64_t count, double* out) const;

 private:
  uint64_t key_;
};

/// The knobs of the generator with the defaults of the specification ("DEF").
struct GeneratorParameters {
  int64_t d = 2048;  ///< hidden size, with the constant channel
  int64_t H = 32;    ///< query heads
  int64_t G = 0;     ///< KV heads, a divisor of H; 0 means H
  int64_t D = 64;    ///< head dimension, even
  double theta = 10000.0;  ///< RoPE base (not used by the weights; kept for their readers)
  double a_x = 0.25;       ///< activation std exponent
  double p_k = 0.50, p_v = 0.12, p_q = 0.50;  ///< weight column-scale exponents
  double i0 = 24.0;
  double c0 = 8.0;       ///< value of the constant channel
  double x0 = 0.4;       ///< content factor of token 0
  double shuffle = 0.5;  ///< log-normal jitter of the activation ordering
  double eta_k = 0.30, eta_v = 0.20;  ///< energy fraction shared by all heads, in an aligned gauge
  int64_t n_out = 3;                  ///< outlier pairs per head
  double a_out = 6.0, s_out = 0.35;   ///< their amplitude in RMS of an ordinary key channel, and its log-sigma
  double p_sink = 0.80, L_sink = 9.0, s_sink = 1.0;  ///< share of sink heads; logit deficit: mean, sigma
  double p_ret = 0.25, p_loc = 0.25;                 ///< shares of retrieval and local heads
  double L_loc = 3.0;                                ///< logit of a local head at distance 0
  double g_ret[2] = {1.6, 2.6}, g_dif[2] = {0.7, 1.5};  ///< logit std: range
  double kap_ret = 0.9, kap_dif = 0.4;                  ///< query-key alignment
  int64_t vocab = 512;
  double tau = 0.40;    ///< energy of the token embedding in the content
  double rho = 0.95;    ///< AR(1) coefficient of the context
  double heavy = 0.5;   ///< log-sigma of the embeddings' heavy tails
};

enum class HeadType { retrieval, local, diffuse };

struct SyntheticHead {
  HeadType type;
  bool sink;
};

/// Weights act as q_h = Wq[h] x, k_g = Wk[g] x, v_g = Wv[g] x, y = sum_h Wo[h] o_h; RoPE is rotate-half.
struct SyntheticModel {
  GeneratorParameters parameters;  ///< with G filled in
  uint64_t seed = 0;
  std::vector<double> Wq;  ///< [H, D, d]
  std::vector<double> Wk;  ///< [G, D, d]
  std::vector<double> Wv;  ///< [G, D, d]
  std::vector<double> Wo;  ///< [H, d, D]
  std::vector<double> lx;         ///< [d - 1] std of the content coordinates, before the permutation
  std::vector<int64_t> perm;      ///< [d] channel i of x is generator coordinate perm[i]; channel 0 is the constant
  std::vector<SyntheticHead> types;  ///< [H]
  std::vector<double> vocabulary;    ///< [vocab, d - 1] embeddings, unit mean square per coordinate
};

/// @throws std::invalid_argument on a shape that has no model
SyntheticModel generateModel(const GeneratorParameters& parameters, uint64_t seed);

/// Layer inputs [S, d] of one sequence, token 0 being the sink; uses only `parameters`, `lx`, `perm` and `vocabulary`.
/// @param xseed  of the tokens, the context and the noise; the vocabulary belongs to the model
/// @param tokens [S] token numbers, or null
std::vector<double> generateInputs(const SyntheticModel& model, int64_t S, uint64_t xseed, int64_t* tokens = nullptr);

}  // namespace fastmqa
