// Bases of latent caches, estimated on the calibration stream (attention-spec B.3, B.6, B.9).
#pragma once
#include <cstdint>
#include <vector>

#include "model.h"

namespace fastmqa {

/// y' = up (down x + bias) + mean: rows of y are channels, `rank` latent coordinates, most energetic first.
struct Projection {
  int64_t channels = 0, rank = 0;
  std::vector<double> down;    ///< [rank][inputs]
  std::vector<double> bias;    ///< [rank]
  std::vector<double> up;      ///< [channels][rank]
  std::vector<double> mean;    ///< [channels]; zeros when not centred
  std::vector<double> energy;  ///< [all eigenvalues], descending
};

/// Principal components of y = W x under E[x x^T] (W [channels][d]); rows weighted by `weight` before and unweighted
/// after. `rank` coordinates, at most min(channels, d); those beyond the rank of the stream are zero.
/// It equals activation-aware ("whitened") SVD. With `white`, E[x x^T] = I: plain SVD of W.
Projection principalProjection(const std::vector<double>& w, int64_t channels, int64_t d, const Calibration& calibration,
                               const std::vector<double>& weight, bool centred, bool white, int64_t rank);

/// The same for samples y [rows][channels] themselves: `down` then acts on y, not on x.
Projection principalOfSamples(const std::vector<double>& samples, int64_t rows, int64_t channels, bool centred, int64_t rank);

/// c [n][n] += a^T a, symmetric, of which only the lower triangle needs to be there before; a [rows][n].
void addGram(int64_t rows, int64_t n, const double* a, double* c);

/// Smallest rank whose eigenvalues hold `share` of the energy, at least 1.
int64_t rankForEnergy(const std::vector<double>& energy, double share);

}  // namespace fastmqa
