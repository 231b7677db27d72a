#include "eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "gemm.h"
#include "lanes.h"
#include "threads.h"

namespace fastmqa {
namespace {

constexpr double epsilon = std::numeric_limits<double>::epsilon();
constexpr int64_t panelRows = 32;      // Householder vectors per trailing update
constexpr int64_t backRows = 64;       // Householder vectors per compact WY block
constexpr int64_t updateRows = 256;    // rows per trailing product: it covers little of the unused triangle
constexpr int64_t sliceWidth = 32;     // eigenvector columns rotated together: n of them fit in L2 up to n = 4096
constexpr int64_t batchSweeps = 64;    // QL sweeps recorded before they are applied
constexpr int64_t smallMatrix = 192;   // below it waking the other threads costs more than they do
constexpr int64_t iterationsPerValue = 60;  // QL needs fewer than 2 on average

void forEach(bool threaded, int64_t count, const std::function<void(int64_t)>& body) {
  if (threaded)
    parallelFor(count, body);
  else
    for (int64_t i = 0; i < count; i++) body(i);
}

/// Largest magnitude in the n x n matrix; throws unless all of it is finite.
double largestMagnitude(int64_t n, const double* a, bool lowerOnly, const char* what) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < (lowerOnly ? i + 1 : n); j++) {
      const double x = std::abs(a[i * n + j]);
      if (!(x <= std::numeric_limits<double>::max()))
        throw std::invalid_argument(std::string("expected finite values for ") + what + " but received " +
                                    std::to_string(a[i * n + j]));
      largest = std::max(largest, x);
    }
  return largest;
}

/// A power of two near 1/x, so that scaling by it does not round.
double inversePowerOfTwo(double x) {
  int exponent;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, std::min(-exponent, 1000));
}

FASTMQA_CLONES double dot(int64_t n, const double* x, const double* y) {
  Lanes s0 = {}, s1 = {};
  int64_t i = 0;
  for (; i + 2 * laneCount <= n; i += 2 * laneCount) {
    s0 += lanesAt(x + i) * lanesAt(y + i);
    s1 += lanesAt(x + i + laneCount) * lanesAt(y + i + laneCount);
  }
  s0 += s1;
  double sum = sumOf(s0);
  for (; i < n; i++) sum += x[i] * y[i];
  return sum;
}

FASTMQA_CLONES void addScaled(int64_t n, double s, const double* __restrict x, double* __restrict y) {
  int64_t i = 0;
  for (; i + laneCount <= n; i += laneCount) lanesAt(y + i) += s * lanesAt(x + i);
  for (; i < n; i++) y[i] += s * x[i];
}

/// sums[r] = dot(rows[r], x) for `count` rows of length n, stride ld.
void rowDots(int64_t count, int64_t n, const double* rows, int64_t ld, const double* x, double* sums) {
  for (int64_t r = 0; r < count; r++) sums[r] = dot(n, rows + r * ld, x);
}

/// y += A v over the rows [begin, end) of a symmetric matrix of which the lower triangle is stored: every row gives
/// its own element and, by symmetry, a contribution to all earlier ones, so the matrix is read once.
FASTMQA_CLONES void symmetricTimesVector(int64_t begin, int64_t end, const double* a, int64_t ld, const double* __restrict v,
                                         double* __restrict y) {
  int64_t r = begin;
  for (; r + 4 <= end; r += 4) {
    const double *a0 = a + r * ld, *a1 = a0 + ld, *a2 = a1 + ld, *a3 = a2 + ld;
    const double v0 = v[r], v1 = v[r + 1], v2 = v[r + 2], v3 = v[r + 3];
    Lanes s0 = {}, s1 = {}, s2 = {}, s3 = {};
    int64_t i = 0;
    for (; i + laneCount <= r; i += laneCount) {
      const Lanes x = lanesAt(v + i);
      const Lanes b0 = lanesAt(a0 + i), b1 = lanesAt(a1 + i), b2 = lanesAt(a2 + i), b3 = lanesAt(a3 + i);
      s0 += b0 * x;
      s1 += b1 * x;
      s2 += b2 * x;
      s3 += b3 * x;
      lanesAt(y + i) += (v0 * b0 + v1 * b1) + (v2 * b2 + v3 * b3);
    }
    double t[4] = {sumOf(s0), sumOf(s1), sumOf(s2), sumOf(s3)};
    const double* rows[4] = {a0, a1, a2, a3};
    for (int k = 0; k < 4; k++) {
      for (int64_t c = i; c < r + k; c++) {
        t[k] += rows[k][c] * v[c];
        y[c] += v[r + k] * rows[k][c];
      }
      y[r + k] += t[k] + rows[k][r + k] * v[r + k];
    }
  }
  for (; r < end; r++) {
    const double* row = a + r * ld;
    double t = 0;
    for (int64_t c = 0; c < r; c++) {
      t += row[c] * v[c];
      y[c] += v[r] * row[c];
    }
    y[r] += t + row[r] * v[r];
  }
}

/// Householder reduction from the last row up, so that every vector is a contiguous part of a row.
/// Afterwards T = tridiag(diagonal, offDiagonal) with a = Q T Q^T, Q = H(n-1) ... H(1), H(i) = I - tau[i] v v^T and
/// v = a[i, 0:i] (v[i-1] = 1; zeros to the right of it). offDiagonal[i] couples i and i+1.
void tridiagonalise(int64_t n, double* a, double* diagonal, double* offDiagonal, double* tau) {
  const bool threaded = n > smallMatrix;
  // Rows 0..panelRows-1: v; panelRows..: w; `negated`: -w then -v, so that A += left^T negated is the update.
  std::vector<double> left(2 * panelRows * n), negated(2 * panelRows * n);
  std::vector<double> dots(2 * panelRows);
  const int64_t mostChunks = threaded ? 16 : 1;
  std::vector<double> partial(mostChunks * n);
  double* const v = left.data();
  double* const w = left.data() + panelRows * n;

  int64_t size = n;  // the leading size x size block is not reduced yet
  while (size > 0) {
    const int64_t rows = std::min(panelRows, size);
    for (int64_t p = 0; p < rows; p++) {
      const int64_t i = size - 1 - p;
      double* const row = a + i * n;
      for (int64_t q = 0; q < p; q++) {
        addScaled(i + 1, -v[q * n + i], w + q * n, row);
        addScaled(i + 1, -w[q * n + i], v + q * n, row);
      }
      diagonal[i] = row[i];
      std::fill(row + i, row + n, 0.0);
      double* const vp = v + p * n;
      double* const wp = w + p * n;
      std::fill_n(vp, n, 0.0);
      std::fill_n(wp, n, 0.0);
      tau[i] = 0;
      if (i == 0) continue;

      double below = 0;  // norm of what is to be annihilated, scaled against underflow
      for (int64_t c = 0; c + 1 < i; c++) below = std::max(below, std::abs(row[c]));
      const double pivot = row[i - 1];
      if (below == 0) {
        offDiagonal[i - 1] = pivot;
        row[i - 1] = 1;
        continue;
      }
      const double scale = inversePowerOfTwo(std::max(below, std::abs(pivot)));
      for (int64_t c = 0; c < i; c++) row[c] *= scale;
      const double norm = std::sqrt(dot(i, row, row));
      const double beta = row[i - 1] >= 0 ? -norm : norm;
      tau[i] = (beta - row[i - 1]) / beta;
      const double inverse = 1 / (row[i - 1] - beta);
      for (int64_t c = 0; c + 1 < i; c++) row[c] *= inverse;
      row[i - 1] = 1;
      offDiagonal[i - 1] = beta / scale;
      std::copy_n(row, i, vp);

      const int64_t chunks = std::clamp<int64_t>(i / 64, 1, mostChunks);
      const auto edge = [&](int64_t k) {  // equal areas of the triangle, in groups of the four rows taken together
        const double part = std::sqrt(static_cast<double>(k) / static_cast<double>(chunks));
        return k == chunks ? i : static_cast<int64_t>(static_cast<double>(i) * part) / 4 * 4;
      };
      forEach(threaded && i > smallMatrix, chunks, [&](int64_t chunk) {
        double* const y = partial.data() + chunk * n;
        std::fill_n(y, edge(chunk + 1), 0.0);
        symmetricTimesVector(edge(chunk), edge(chunk + 1), a, n, vp, y);
      });
      for (int64_t k = 0; k < chunks; k++) addScaled(edge(k + 1), 1.0, partial.data() + k * n, wp);
      rowDots(p, i, w, n, vp, dots.data());
      rowDots(p, i, v, n, vp, dots.data() + panelRows);
      for (int64_t q = 0; q < p; q++) {
        addScaled(i, -dots[q], v + q * n, wp);
        addScaled(i, -dots[panelRows + q], w + q * n, wp);
      }
      for (int64_t c = 0; c < i; c++) wp[c] *= tau[i];
      addScaled(i, -0.5 * tau[i] * dot(i, wp, vp), vp, wp);
    }
    size -= rows;
    if (size == 0) break;
    // Only the last panel can have fewer than panelRows rows, and nothing is left to update after it.
    for (int64_t q = 0; q < panelRows; q++)
      for (int64_t c = 0; c < size; c++) {
        negated[q * n + c] = -w[q * n + c];
        negated[(panelRows + q) * n + c] = -v[q * n + c];
      }
    for (int64_t r = 0; r < size; r += updateRows) {
      const int64_t count = std::min(updateRows, size - r);
      gemm(count, r + count, 2 * panelRows, left.data() + r, n, true, negated.data(), n, false, a + r * n, n, true);
    }
  }
}

/// One implicit QL sweep: rotation i in [low, high) acts on eigenvector rows i and i+1.
struct Sweep {
  int64_t low, high;
  size_t first;  // of its rotations in `cosines`, `sines`; rotation i at first + i - low
};

/// The transposed eigenvector matrix in slices of sliceWidth columns: slice s, row r at data[(s * (n + pads) + r) * sliceWidth].
/// Two rows before and one after the matrix take the padding of paired sweeps; they stay zero.
struct RotatedRows {
  explicit RotatedRows(int64_t size) : n(size), slices((size + sliceWidth - 1) / sliceWidth), data(slices * stride(), 0.0) {
    for (int64_t i = 0; i < n; i++) row(i / sliceWidth, i)[i % sliceWidth] = 1;
  }
  int64_t stride() const { return (n + 3) * sliceWidth; }
  double* row(int64_t slice, int64_t r) { return data.data() + slice * stride() + (r + 2) * sliceWidth; }
  int64_t n, slices;
  std::vector<double> data;
};

/// Four rotations of a pair of sweeps on four adjacent rows: the first sweep's at k and k-1, then the second sweep's,
/// one row behind, at k+1 and k. `rotations` holds (cos, sin) in this order.
FASTMQA_CLONES void rotateRows(int64_t steps, double* last, const double* rotations) {
  double* r0 = last;
  for (int64_t t = 0; t < steps; t++, r0 -= 2 * sliceWidth, rotations += 8) {
    const double c0 = rotations[0], s0 = rotations[1], c1 = rotations[2], s1 = rotations[3];
    const double c2 = rotations[4], s2 = rotations[5], c3 = rotations[6], s3 = rotations[7];
    for (int64_t c = 0; c < sliceWidth; c += laneCount) {
      double* const p = r0 + c;
      const Lanes x0 = lanesAt(p), x1 = lanesAt(p + sliceWidth), x2 = lanesAt(p + 2 * sliceWidth),
                  x3 = lanesAt(p + 3 * sliceWidth);
      const Lanes a2 = s0 * x1 + c0 * x2, a1 = c0 * x1 - s0 * x2;
      const Lanes b1 = s1 * x0 + c1 * a1, b0 = c1 * x0 - s1 * a1;
      const Lanes d3 = s2 * a2 + c2 * x3, d2 = c2 * a2 - s2 * x3;
      lanesAt(p) = b0;
      lanesAt(p + sliceWidth) = c3 * b1 - s3 * d2;
      lanesAt(p + 2 * sliceWidth) = s3 * b1 + c3 * d2;
      lanesAt(p + 3 * sliceWidth) = d3;
    }
  }
}

/// Recorded sweeps, applied to all eigenvector rows at once.
class RotationBatch {
 public:
  void begin(int64_t high) {
    buffer_.clear();
    high_ = high;
  }
  void rotation(double cosine, double sine) { buffer_.push_back(cosine), buffer_.push_back(sine); }  // from high-1 down
  void end() {
    const int64_t count = static_cast<int64_t>(buffer_.size()) / 2;
    if (count == 0) return;
    sweeps_.push_back({high_ - count, high_, values_.size()});
    values_.insert(values_.end(), buffer_.begin(), buffer_.end());
  }
  bool full() const { return static_cast<int64_t>(sweeps_.size()) >= batchSweeps; }

  void apply(RotatedRows& rows, bool threaded) {
    std::vector<Pair> pairs;
    std::vector<double> table;
    for (size_t i = 0; i < sweeps_.size();) {
      const Sweep& a = sweeps_[i];
      const Sweep none = {a.low, a.low, a.first};
      const Sweep& b = i + 1 < sweeps_.size() ? sweeps_[i + 1] : none;
      const int64_t low = std::min(a.low, b.low), high = std::max(a.high, b.high);
      // Padding with identities pays only if the ranges are nearly the same.
      const bool together = b.high > b.low && 4 * (high - low) <= 3 * (a.high - a.low + b.high - b.low);
      pairs.push_back(together ? addPair(a, b, low, high, table) : addPair(a, none, a.low, a.high, table));
      i += together ? 2 : 1;
    }
    forEach(threaded, rows.slices, [&](int64_t slice) {
      for (const Pair& p : pairs) rotateRows(p.steps, rows.row(slice, p.high - 2), table.data() + p.first);
    });
    sweeps_.clear();
    values_.clear();
  }

 private:
  struct Pair {
    int64_t high, steps;
    size_t first;
  };

  void push(const Sweep& sweep, int64_t i, std::vector<double>& table) const {
    const bool inside = i >= sweep.low && i < sweep.high;
    const size_t at = sweep.first + 2 * static_cast<size_t>(sweep.high - 1 - i);
    table.push_back(inside ? values_[at] : 1);
    table.push_back(inside ? values_[at + 1] : 0);
  }

  Pair addPair(const Sweep& a, const Sweep& b, int64_t low, int64_t high, std::vector<double>& table) const {
    Pair pair{high, 0, table.size()};
    int64_t k = high + 1;
    do {
      k -= 2;
      push(a, k, table);
      push(a, k - 1, table);
      push(b, k + 1, table);
      push(b, k, table);
      pair.steps++;
    } while (k > low);
    return pair;
  }

  int64_t high_ = 0;
  std::vector<double> buffer_, values_;
  std::vector<Sweep> sweeps_;
};

/// Implicit QL with Wilkinson's shift on a tridiagonal matrix; offDiagonal has n elements, the last one is scratch.
void implicitQL(int64_t n, double* diagonal, double* offDiagonal, RotatedRows& rows, bool threaded) {
  double norm = 0;
  offDiagonal[n - 1] = 0;
  for (int64_t i = 0; i < n; i++) norm = std::max(norm, std::abs(diagonal[i]) + std::abs(offDiagonal[i]));
  const double negligible = 0.25 * epsilon * norm;
  RotationBatch batch;
  int64_t iterations = 0;
  for (int64_t low = 0; low < n; low++) {
    for (;;) {
      int64_t high = low;
      for (; high + 1 < n; high++) {
        const double neighbours = std::abs(diagonal[high]) + std::abs(diagonal[high + 1]);
        if (std::abs(offDiagonal[high]) <= std::max(negligible, epsilon * neighbours)) break;
      }
      if (high == low) break;
      if (++iterations > iterationsPerValue * n) throw std::runtime_error("symmetricEigen did not converge");

      double g = (diagonal[low + 1] - diagonal[low]) / (2 * offDiagonal[low]);
      double r = std::hypot(g, 1.0);
      g = diagonal[high] - diagonal[low] + offDiagonal[low] / (g + std::copysign(r, g));
      double s = 1, c = 1, p = 0;
      batch.begin(high);
      int64_t i = high - 1;
      for (; i >= low; i--) {
        const double f = s * offDiagonal[i];
        const double b = c * offDiagonal[i];
        const double square = f * f + g * g;
        r = square > 1e-280 ? std::sqrt(square) : std::hypot(f, g);
        offDiagonal[i + 1] = r;
        if (r == 0) {  // the matrix has split at i+1
          diagonal[i + 1] -= p;
          offDiagonal[high] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = diagonal[i + 1] - p;
        r = (diagonal[i] - g) * s + 2 * c * b;
        p = s * r;
        diagonal[i + 1] = g + p;
        g = c * r - b;
        batch.rotation(c, s);
      }
      batch.end();
      if (i < low) {
        diagonal[low] -= p;
        offDiagonal[low] = g;
        offDiagonal[high] = 0;
      }
      if (batch.full()) batch.apply(rows, threaded);
    }
  }
  batch.apply(rows, threaded);
}

/// x [n, n] <- x H(1) H(2) ... H(n-1), with the vectors and tau as tridiagonalise left them.
void backTransform(int64_t n, double* a, const double* tau, double* x) {
  std::vector<double> gram(backRows * backRows), t(backRows * backRows), left(n * backRows), right(n * backRows);
  for (int64_t first = 1; first < n; first += backRows) {
    const int64_t rows = std::min(backRows, n - first);
    const int64_t size = first + rows;  // columns that the block touches
    double* const v = a + first * n;
    gemm(rows, rows, size, v, n, false, v, n, true, gram.data(), rows, false);
    // H(first) ... H(first+rows-1) = I - V^T T V, T upper triangular; negated here.
    std::fill(t.begin(), t.end(), 0.0);
    for (int64_t k = 0; k < rows; k++) {
      const double scale = tau[first + k];
      for (int64_t r = 0; r < k; r++) {
        double sum = 0;
        for (int64_t q = r; q < k; q++) sum += t[r * rows + q] * gram[q * rows + k];
        t[r * rows + k] = -scale * sum;
      }
      t[k * rows + k] = -scale;
    }
    gemm(n, rows, size, x, n, false, v, n, true, left.data(), rows, false);
    gemm(n, rows, rows, left.data(), rows, false, t.data(), rows, false, right.data(), rows, false);
    gemm(n, size, rows, right.data(), rows, false, v, n, false, x, n, true);
  }
}

}  // namespace

void symmetricEigen(int64_t n, double* a, double* values, double* vectors) {
  if (n <= 0) return;
  const double largest = largestMagnitude(n, a, true, "the symmetric matrix");
  if (largest == 0) {
    std::fill_n(values, n, 0.0);
    std::fill_n(vectors, n * n, 0.0);
    for (int64_t i = 0; i < n; i++) vectors[i * n + i] = 1;
    return;
  }
  const double scale = inversePowerOfTwo(largest);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) a[i * n + j] *= scale;

  std::vector<double> diagonal(n), offDiagonal(n), tau(n);
  tridiagonalise(n, a, diagonal.data(), offDiagonal.data(), tau.data());

  const bool threaded = n > smallMatrix;
  {
    RotatedRows rows(n);
    implicitQL(n, diagonal.data(), offDiagonal.data(), rows, threaded);
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return diagonal[i] > diagonal[j]; });
    forEach(threaded, n, [&](int64_t i) {
      values[i] = diagonal[order[i]] / scale;
      for (int64_t s = 0; s < rows.slices; s++)
        std::copy_n(rows.row(s, order[i]), std::min(sliceWidth, n - s * sliceWidth), vectors + i * n + s * sliceWidth);
    });
  }
  backTransform(n, a, tau.data(), vectors);
}

void hermitianEigen(int64_t n, std::complex<double>* a, double* values, std::complex<double>* vectors) {
  using Complex = std::complex<double>;
  if (n <= 0) return;
  double total = 0;
  for (int64_t i = 0; i < n * n; i++) total = std::max({total, std::abs(a[i].real()), std::abs(a[i].imag())});
  for (int64_t i = 0; i < n * n; i++)
    if (!std::isfinite(a[i].real()) || !std::isfinite(a[i].imag()))
      throw std::invalid_argument("expected finite values for the Hermitian matrix but received " +
                                  std::to_string(std::abs(a[i])));
  const double scale = total == 0 ? 1 : inversePowerOfTwo(total);
  for (int64_t i = 0; i < n * n; i++) a[i] *= scale;
  std::vector<Complex> v(n * n);  // row i: eigenvector i
  for (int64_t i = 0; i < n; i++) v[i * n + i] = 1;

  constexpr int mostSweeps = 60;  // convergence is quadratic: about 8 are used
  const double negligible = epsilon * 1e-2 * static_cast<double>(n);
  for (int sweep = 0; sweep < mostSweeps; sweep++) {
    double off = 0;
    for (int64_t p = 0; p < n; p++)
      for (int64_t q = p + 1; q < n; q++) off = std::max(off, std::abs(a[p * n + q]));
    if (off <= negligible * 1e-1) break;
    for (int64_t p = 0; p < n; p++)
      for (int64_t q = p + 1; q < n; q++) {
        const double magnitude = std::abs(a[p * n + q]);
        if (magnitude < std::numeric_limits<double>::min()) continue;
        const Complex phase = a[p * n + q] / magnitude;
        const double app = a[p * n + p].real(), aqq = a[q * n + q].real();
        const double theta = (aqq - app) / (2 * magnitude);
        const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1 / std::hypot(t, 1.0), s = t * c;
        // With the column phase removed this is the real rotation: e_p' = c e_p - s conj(phase) e_q, e_q' = s phase e_p + c e_q.
        const Complex down = s * phase, up = s * std::conj(phase);
        for (int64_t k = 0; k < n; k++) {  // columns
          const Complex x = a[k * n + p], y = a[k * n + q];
          a[k * n + p] = c * x - up * y;
          a[k * n + q] = down * x + c * y;
        }
        for (int64_t k = 0; k < n; k++) {  // rows, conjugated
          const Complex x = a[p * n + k], y = a[q * n + k];
          a[p * n + k] = c * x - down * y;
          a[q * n + k] = up * x + c * y;
        }
        a[p * n + q] = a[q * n + p] = 0;
        a[p * n + p] = app - t * magnitude;
        a[q * n + q] = aqq + t * magnitude;
        for (int64_t k = 0; k < n; k++) {
          const Complex x = v[p * n + k], y = v[q * n + k];
          v[p * n + k] = c * x - up * y;
          v[q * n + k] = down * x + c * y;
        }
      }
  }
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t j) { return a[i * n + i].real() > a[j * n + j].real(); });
  for (int64_t i = 0; i < n; i++) {
    values[i] = a[order[i] * n + order[i]].real() / scale;
    std::copy_n(v.data() + order[i] * n, n, vectors + i * n);
  }
}

namespace {

/// Fills rows [filled, n) of `basis` [n, n] so that all n rows are orthonormal.
void completeBasis(int64_t n, int64_t filled, double* basis) {
  std::vector<double> residual(n, 1.0);  // squared norm of each unit vector outside the span
  for (int64_t r = 0; r < filled; r++)
    for (int64_t k = 0; k < n; k++) residual[k] -= basis[r * n + k] * basis[r * n + k];
  for (int64_t r = filled; r < n; r++) {
    const int64_t best = std::max_element(residual.begin(), residual.end()) - residual.begin();
    double* const row = basis + r * n;
    std::fill_n(row, n, 0.0);
    row[best] = 1;
    for (int pass = 0; pass < 2; pass++)  // twice is enough
      for (int64_t q = 0; q < r; q++) addScaled(n, -dot(n, basis + q * n, row), basis + q * n, row);
    const double norm = std::sqrt(dot(n, row, row));
    for (int64_t k = 0; k < n; k++) {
      row[k] /= norm;
      residual[k] -= row[k] * row[k];
    }
  }
}

}  // namespace

// [[0, m], [m^T, 0]] has eigenpairs (s, (u, v)/sqrt 2) and (-s, (u, -v)/sqrt 2), so U V^T = 2 sum over positive s of u v^T.
// Unlike the eigenvectors of m^T m this does not square the condition number, and it needs only the span of all
// positive pairs, so clusters of singular values do no harm.
void polarFactor(int64_t n, double* m) {
  if (n <= 0) return;
  if (largestMagnitude(n, m, false, "the matrix") == 0) {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++) m[i * n + j] = i == j;
    return;
  }
  const int64_t size = 2 * n;
  std::vector<double> embedded(size * size, 0.0), vectors(size * size), values(size);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) embedded[(n + j) * size + i] = m[i * n + j];
  symmetricEigen(size, embedded.data(), values.data(), vectors.data());

  const double zero = 4 * epsilon * static_cast<double>(size) * values[0];
  int64_t rank = 0;
  while (rank < n && values[rank] > zero) rank++;
  std::vector<double> u(n * n), v(n * n);
  for (int64_t r = 0; r < rank; r++)
    for (int64_t k = 0; k < n; k++) {
      u[r * n + k] = std::sqrt(2.0) * vectors[r * size + k];
      v[r * n + k] = std::sqrt(2.0) * vectors[r * size + n + k];
    }
  completeBasis(n, rank, u.data());
  completeBasis(n, rank, v.data());
  gemm(n, n, n, u.data(), n, true, v.data(), n, false, m, n, false);

  // Tiny singular values leave u and v slightly short of orthonormal; Newton-Schulz, Q (3 - Q^T Q) / 2, squares the defect.
  for (int step = 0; step < 2; step++) {
    gemm(n, n, n, m, n, true, m, n, false, u.data(), n, false);
    for (int64_t i = 0; i < n * n; i++) u[i] *= -0.5;
    for (int64_t i = 0; i < n; i++) u[i * n + i] += 1.5;
    std::copy_n(m, n * n, v.data());
    gemm(n, n, n, v.data(), n, false, u.data(), n, false, m, n, false);
  }
}

}  // namespace fastmqa
