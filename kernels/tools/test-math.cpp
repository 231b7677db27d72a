// Checks of the rooms math, reference and layer/heads against the vectors of the specification and against definitions.
// One line a check: "ok name" or "FAIL name got ... expected ..."; the exit code is 1 if any failed.
// With --brief the model of full size is left out: what it runs, smaller ones run too.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/codec.h"
#include "fastmqa/sizes.h"
#include "layer/heads.h"
#include "math/eigen.h"
#include "math/gemm.h"
#include "math/rope.h"
#include "math/threads.h"
#include "reference/synthetic.h"
#include "simd/simd.h"

using namespace fastmqa;
using Complex = std::complex<double>;
using Matrix = std::vector<double>;

namespace {

int failures = 0;

void report(bool good, const std::string& name, double got, const std::string& expected) {
  if (good)
    std::printf("ok %s\n", name.c_str());
  else
    std::printf("FAIL %s got %.15g expected %s\n", name.c_str(), got, expected.c_str());
  failures += !good;
}

std::string text(const char* format, double a, double b) {
  char buffer[96];
  std::snprintf(buffer, sizeof buffer, format, a, b);
  return buffer;
}

// The comparisons are written so that NaN fails.
void checkNear(const std::string& name, double got, double expected, double tolerance) {
  report(std::abs(got - expected) <= tolerance, name, got, text("%.15g +- %.1e", expected, tolerance));
}
void checkRelative(const std::string& name, double got, double expected, double relative = 1e-9) {
  checkNear(name, got, expected, relative * std::max(std::abs(expected), 1e-3));
}
void checkAtMost(const std::string& name, double got, double most) {
  report(got <= most, name, got, text("at most %.3g", most, 0));
}
void checkAtLeast(const std::string& name, double got, double least) {
  report(got >= least, name, got, text("at least %.3g", least, 0));
}
void checkTrue(const std::string& name, bool good) { report(good, name, good, "1"); }

template <class Body>
void checkThrows(const std::string& name, Body body) {
  bool thrown = false;
  try {
    body();
  } catch (const std::invalid_argument&) {
    thrown = true;
  }
  checkTrue(name, thrown);
}

double norm(const Matrix& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

double relativeL2(const Matrix& a, const Matrix& reference) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); i++) sum += (a[i] - reference[i]) * (a[i] - reference[i]);
  return std::sqrt(sum) / norm(reference);
}

double largestDifference(const Matrix& a, const Matrix& b) {
  double largest = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < std::min(a.size(), b.size()); i++) {
    const double difference = std::abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

Matrix normals(const std::string& name, int64_t count) {
  Matrix out(static_cast<size_t>(count));
  RandomStream(42, name).normals(0, count, out.data());
  return out;
}

Matrix product(int64_t n, const Matrix& a, bool transA, const Matrix& b, bool transB) {
  Matrix c(a.size());
  gemm(n, n, n, a.data(), n, transA, b.data(), n, transB, c.data(), n, false);
  return c;
}

double defectOfOrthogonality(int64_t n, const Matrix& q) {
  Matrix identity(q.size(), 0.0);
  for (int64_t i = 0; i < n; i++) identity[i * n + i] = 1;
  return largestDifference(product(n, q, false, q, true), identity);
}

/// A random orthogonal matrix.
Matrix randomOrthogonal(const std::string& name, int64_t n) {
  Matrix q = normals(name, n * n);
  polarFactor(n, q.data());
  return q;
}

/// diag(values) in the basis of the rows of q.
Matrix withSpectrum(int64_t n, const Matrix& q, const Matrix& values) {
  Matrix scaled(q);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) scaled[i * n + j] *= values[i];
  Matrix a = product(n, q, true, scaled, false);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < i; j++) a[j * n + i] = a[i * n + j];
  return a;
}

/// The layer from its definition in fp64: causal softmax attention with rotate-half RoPE on the first `rotaryDim`
/// channels, and the output projection. @returns y [tokens, hiddenDim]; firstMass: mean attention on token 0 over t >= 1.
Matrix layerOutput(const HeadWeights& w, const Matrix& x, int64_t rotaryDim, double* firstMass = nullptr) {
  const int64_t d = w.hiddenDim, D = w.headDim, T = static_cast<int64_t>(x.size()) / d, group = w.heads / w.kvHeads;
  RopeParameters ropeParameters;
  ropeParameters.rotaryDim = rotaryDim;
  const RopeFrequencies rope = ropeFrequencies(ropeParameters, T);
  const auto project = [&](const Matrix& weights, int64_t heads) {
    Matrix out(static_cast<size_t>(T * heads * D));
    gemm(T, heads * D, d, x.data(), d, false, weights.data(), d, true, out.data(), heads * D, false);
    return out;
  };
  const auto rotateAll = [&](Matrix& z, int64_t heads) {
    parallelFor(T, [&](int64_t t) {
      for (int64_t h = 0; h < heads; h++) ropeRotate(rope, t, false, z.data() + (t * heads + h) * D);
    });
  };
  Matrix q = project(w.query, w.heads), k = project(w.key, w.kvHeads);
  const Matrix v = project(w.value, w.kvHeads);
  rotateAll(q, w.heads);
  rotateAll(k, w.kvHeads);
  Matrix mixed(static_cast<size_t>(w.heads * T * D), 0.0), mass(static_cast<size_t>(w.heads), 0.0);
  parallelFor(w.heads, [&](int64_t h) {
    const int64_t g = h / group, width = w.kvHeads * D;
    Matrix scores(static_cast<size_t>(T * T));
    gemm(T, T, D, q.data() + h * D, w.heads * D, false, k.data() + g * D, width, true, scores.data(), T, false);
    for (int64_t t = 0; t < T; t++) {
      double* const row = scores.data() + t * T;
      const double top = *std::max_element(row, row + t + 1);
      double sum = 0;
      for (int64_t s = 0; s <= t; s++) sum += row[s] = std::exp((row[s] - top) / std::sqrt(static_cast<double>(D)));
      for (int64_t s = 0; s < T; s++) row[s] = s <= t ? row[s] / sum : 0;
      if (t > 0) mass[h] += row[0] / static_cast<double>(T - 1);
    }
    gemm(T, D, T, scores.data(), T, false, v.data() + g * D, width, false, mixed.data() + h * T * D, D, false);
  });
  Matrix y(static_cast<size_t>(T * d), 0.0);
  for (int64_t h = 0; h < w.heads; h++)
    gemm(T, d, D, mixed.data() + h * T * D, D, false, w.output.data() + h * d * D, D, true, y.data(), d, true);
  if (firstMass) *firstMass = std::accumulate(mass.begin(), mass.end(), 0.0) / static_cast<double>(w.heads);
  return y;
}

HeadWeights weightsOf(const SyntheticModel& m) {
  const GeneratorParameters& p = m.parameters;
  return {p.H, p.G, p.D, p.d, m.Wq, m.Wk, m.Wv, m.Wo};
}

int64_t countTypes(const SyntheticModel& m, HeadType type) {
  return std::count_if(m.types.begin(), m.types.end(), [&](const SyntheticHead& h) { return h.type == type; });
}
int64_t countSinks(const SyntheticModel& m) {
  return std::count_if(m.types.begin(), m.types.end(), [](const SyntheticHead& h) { return h.sink; });
}

GeneratorParameters tinyParameters() {
  GeneratorParameters p;
  p.d = 64;
  p.H = 4;
  p.D = 16;
  return p;
}

void testRandomNumbers() {
  const RandomStream s(1, "vocab");
  checkTrue("random.key", s.key() == 0x536711f91e45963fu);
  const uint64_t bits[] = {0x8a61b2aa84915114u, 0x7fb7c68bdd687c06u, 0x84cf4e41d3988a49u, 0xb3e99471c046a638u};
  const double uniforms[] = {.5405532518676115, .49889794268293203, .51878823382466721, .70278289582372588};
  const double gaussians[] = {-1.1091732310619817, .0076805155308357692, -.33492106120193932, -1.0956034390020017};
  double drawn[4];
  s.normals(0, 4, drawn);
  for (int i = 0; i < 4; i++) {
    checkTrue("random.bits." + std::to_string(i), s.bits(i) == bits[i]);
    checkRelative("random.uniform." + std::to_string(i), s.uniform(i), uniforms[i], 1e-15);
    checkRelative("random.normal." + std::to_string(i), drawn[i], gaussians[i], 1e-13);
  }
  double part[2];
  s.normals(1, 2, part);
  checkTrue("random.normals-from-odd-index", part[0] == drawn[1] && part[1] == drawn[2]);
}

void checkValues(const std::string& name, const double* got, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); i++) checkRelative(name + "." + std::to_string(i), got[i], expected[i]);
}

void testTinyModel() {
  const SyntheticModel m = generateModel(tinyParameters(), 7);
  std::vector<int64_t> tokens(32);
  const Matrix x = generateInputs(m, 32, 100, tokens.data());
  checkTrue("tiny.types", m.types[0].type == HeadType::diffuse && m.types[1].type == HeadType::retrieval &&
                              m.types[2].type == HeadType::diffuse && m.types[3].type == HeadType::retrieval);
  checkTrue("tiny.sinks", countSinks(m) == 4);
  const std::vector<int64_t> perm = {0, 8, 1, 20, 55, 45, 27, 49}, tok = {83, 2, 41, 157, 55, 12, 398, 4, 54, 0};
  checkTrue("tiny.perm", std::equal(perm.begin(), perm.end(), m.perm.begin()));
  checkTrue("tiny.tokens", std::equal(tok.begin(), tok.end(), tokens.begin()));
  checkValues("tiny.Wq", m.Wq.data(), {0, .01184152942, .11139489365});
  checkValues("tiny.Wk", m.Wk.data(), {0, .137899549573, .099692427873});
  checkValues("tiny.Wv", m.Wv.data(), {0, .00369966194086, -.0650282251127});
  checkValues("tiny.Wo", m.Wo.data(), {-.163976445821, -.171041646892, -.0636176964978});
  checkValues("tiny.x0", x.data(), {0, -.181507488972, .02406863091});
  checkValues("tiny.x1", x.data() + 64, {8, -.513927671276, .377817045333});
  checkRelative("tiny.x.norm", norm(x), 62.82579088);
  const Matrix y = layerOutput(weightsOf(m), x, 16);
  checkValues("tiny.y31", y.data() + 31 * 64, {-.12228763856, -.124156996072, -.284247207128, -.428459466425});
  checkRelative("tiny.y.norm", norm(y), 21.2321766141);
}

void testLargeModel() {
  const SyntheticModel m = generateModel(GeneratorParameters(), 1);
  checkRelative("large.Wk.norm", norm(m.Wk), 33.13418999);
  checkRelative("large.Wq.norm", norm(m.Wq), 41.04749892);
  checkRelative("large.Wv.norm", norm(m.Wv), 42.39372154);
  checkRelative("large.Wo.norm", norm(m.Wo), 45.24878079);
  checkTrue("large.types", countTypes(m, HeadType::retrieval) == 8 && countTypes(m, HeadType::local) == 7 &&
                               countTypes(m, HeadType::diffuse) == 17);
  checkTrue("large.sinks", countSinks(m) == 27);
  // Single values from the numpy source of appendix 1.
  checkRelative("large.Wq.31.63.2047", m.Wq[(31 * 64 + 63) * 2048 + 2047], 0.02044616617486343, 1e-11);
  checkRelative("large.Wk.5.60.0", m.Wk[(5 * 64 + 60) * 2048], -0.956036527230376, 1e-11);
  checkRelative("large.Wk.17.3.1000", m.Wk[(17 * 64 + 3) * 2048 + 1000], -0.0010290364780982516, 1e-11);
  checkRelative("large.Wv.9.11.77", m.Wv[(9 * 64 + 11) * 2048 + 77], -0.015282199135727191, 1e-11);
  checkRelative("large.Wo.20.2000.33", m.Wo[(20 * 2048 + 2000) * 64 + 33], -0.020965871001508558, 1e-11);

  std::vector<int64_t> tokens(1024);
  const Matrix x = generateInputs(m, 1024, 100, tokens.data());
  const std::vector<int64_t> last = {153, 11, 47, 228, 144, 7, 210, 1, 0};
  checkTrue("large.tokens", std::equal(last.begin(), last.end(), tokens.end() - 9));
  checkRelative("large.x.norm", norm(x), 1469.6531971863283, 1e-12);
  checkRelative("large.x.1023.1", x[1023 * 2048 + 1], 0.2145411183890964, 1e-11);
  checkRelative("large.x.1023.2047", x[1023 * 2048 + 2047], -0.07877904082214099, 1e-11);
  double second = 0, fourth = 0;
  for (int64_t t = 1; t < 1024; t++)
    for (int64_t i = 1; i < 2048; i++) {
      const double square = x[t * 2048 + i] * x[t * 2048 + i];
      second += square / (1023.0 * 2047.0);
      fourth += square * square / (1023.0 * 2047.0);
    }
  checkNear("large.kurtosis", fourth / (second * second), 4.994, 0.001);  // content channels, without the sink token

  const HeadWeights weights = weightsOf(m);
  double firstMass;
  const Matrix y = layerOutput(weights, x, 64, &firstMass);
  checkNear("large.first-token-mass", firstMass, 0.445, 0.01);
  checkNear("large.y.rms", norm(y) / std::sqrt(1024.0 * 2048.0), 0.4960, 5e-5);
  double top = 0;
  for (double v : y) top = std::max(top, std::abs(v));
  checkNear("large.y.largest", top, 2.616, 5e-4);

  // Anchors of section G.4 for merging without training, widened as the specification says.
  Matrix calibration = generateInputs(m, 1024, 200);
  const Matrix more = generateInputs(m, 1024, 201);
  calibration.insert(calibration.end(), more.begin(), more.end());
  const struct {
    const char* name;
    HeadMerge how;
    int64_t kvHeads;
    double low, high;
  } anchors[] = {{"large.mqa-mean", HeadMerge::mean, 1, 0.9992, 1.0001},
                 {"large.mqa-aligned", HeadMerge::aligned, 1, 0.9697, 0.9735},
                 {"large.gqa8-first", HeadMerge::first, 8, 0.9901, 1.0882},
                 {"large.gqa16-aligned", HeadMerge::aligned, 16, 0.7187, 0.7245}};
  for (const auto& a : anchors) {
    HeadMergeOptions options;
    options.how = a.how;
    options.kvHeads = a.kvHeads;
    const double error = relativeL2(layerOutput(mergeHeads(weights, options, calibration.data(), 2048), x, 64), y);
    std::printf("# %s relative L2 %.4f\n", a.name, error);
    checkNear(a.name, error, (a.low + a.high) / 2, 0.1 * (a.low + a.high) / 2);
  }
}

void testSharedHeads() {
  GeneratorParameters p;
  p.d = 256;
  p.H = 16;
  p.D = 32;
  const SyntheticModel full = generateModel(p, 3);
  p.G = 16;
  const SyntheticModel same = generateModel(p, 3);
  checkTrue("shared.all-heads-is-appendix", full.Wq == same.Wq && full.Wk == same.Wk && full.Wv == same.Wv && full.Wo == same.Wo);
  const Matrix input = generateInputs(full, 512, 9);
  double fullMass;
  layerOutput(weightsOf(full), input, 32, &fullMass);
  for (const int64_t kvHeads : {1, 4}) {
    p.G = kvHeads;
    const std::string name = "shared." + std::to_string(kvHeads);
    const SyntheticModel m = generateModel(p, 3);
    checkTrue(name + ".values", std::equal(m.Wv.begin(), m.Wv.end(), full.Wv.begin()));
    checkTrue(name + ".inputs", generateInputs(m, 512, 9) == input);
    for (int64_t g = 0; g < kvHeads; g++) {
      const bool carriesOffset = countTypes(m, HeadType::local) > 0 && m.types[g * 16 / kvHeads].type == HeadType::local;
      for (int64_t h = g * 16 / kvHeads; h < (g + 1) * 16 / kvHeads; h++)
        if (m.types[h].type == HeadType::local && !carriesOffset) checkTrue(name + ".local-without-offset", false);
    }
    double mass;
    const Matrix y = layerOutput(weightsOf(m), input, 32, &mass);
    checkNear(name + ".first-token-mass", mass, fullMass, 0.25);
    checkAtLeast(name + ".first-token-mass-present", mass, 0.15);
    checkAtLeast(name + ".output", norm(y), 1);
  }
  p.G = 3;
  checkThrows("shared.refuses-3-of-16", [&] { generateModel(p, 3); });
}

/// max |A v - value v| over all pairs, relative to the largest eigenvalue, and the defect of orthogonality.
void checkEigenpairs(const std::string& name, int64_t n, const Matrix& a, const Matrix& expected) {
  Matrix work(a), values(static_cast<size_t>(n)), vectors(a.size());
  symmetricEigen(n, work.data(), values.data(), vectors.data());
  Matrix residual = product(n, vectors, false, a, true);
  double largest = 1e-300;
  for (double v : values) largest = std::max(largest, std::abs(v));
  double worst = 0;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) {
      const double r = std::abs(residual[i * n + j] - values[i] * vectors[i * n + j]) / largest;
      if (!(r <= worst)) worst = r;
    }
  checkAtMost(name + ".residual", worst, 1e-14 + 2e-16 * static_cast<double>(n));
  checkAtMost(name + ".orthogonality", defectOfOrthogonality(n, vectors), 1e-14 + 1e-16 * static_cast<double>(n));
  checkTrue(name + ".descending", std::is_sorted(values.rbegin(), values.rend()));
  if (!expected.empty()) checkAtMost(name + ".values", largestDifference(values, expected) / largest, 1e-13);
}

void testSymmetricEigen() {
  for (const int64_t n : {1, 2, 3, 17, 64, 257, 600}) {
    const std::string size = "." + std::to_string(n);
    Matrix random = normals("eigen" + size, n * n);
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < i; j++) random[j * n + i] = random[i * n + j];
    checkEigenpairs("eigen.random" + size, n, random, {});

    const Matrix basis = randomOrthogonal("basis" + size, n);
    Matrix clustered, deficient, graded;
    for (int64_t i = 0; i < n; i++) {
      clustered.push_back(i < n / 2 ? 2.0 : i < n - 1 ? 1.0 : -1.0);
      deficient.push_back(i < std::max<int64_t>(1, n / 8) ? 1.0 + static_cast<double>(n - i) : 0.0);
      graded.push_back(std::pow(10.0, -12.0 * static_cast<double>(i) / static_cast<double>(n)));
    }
    checkEigenpairs("eigen.clustered" + size, n, withSpectrum(n, basis, clustered), clustered);
    checkEigenpairs("eigen.rank-deficient" + size, n, withSpectrum(n, basis, deficient), deficient);
    checkEigenpairs("eigen.graded" + size, n, withSpectrum(n, basis, graded), graded);
    checkEigenpairs("eigen.zero" + size, n, Matrix(static_cast<size_t>(n * n), 0.0), Matrix(static_cast<size_t>(n), 0.0));
    Matrix diagonal(static_cast<size_t>(n * n), 0.0), ascending, laplace(diagonal), known;
    for (int64_t i = 0; i < n; i++) {
      diagonal[i * n + i] = 1e200 * static_cast<double>(i);
      ascending.insert(ascending.begin(), 1e200 * static_cast<double>(i));
      laplace[i * n + i] = 2e-200;
      if (i > 0) laplace[i * n + i - 1] = laplace[(i - 1) * n + i] = -1e-200;
      known.push_back(1e-200 * (2 + 2 * std::cos(3.14159265358979323846 * static_cast<double>(i + 1) / static_cast<double>(n + 1))));
    }
    checkEigenpairs("eigen.huge-diagonal" + size, n, diagonal, ascending);
    checkEigenpairs("eigen.tiny-laplacian" + size, n, laplace, known);
  }
  const int64_t n = 300;
  const Matrix a = normals("eigen.threads", n * n);
  Matrix values[2] = {Matrix(n), Matrix(n)}, vectors[2] = {Matrix(n * n), Matrix(n * n)};
  for (int k = 0; k < 2; k++) {
    setThreadCount(k == 0 ? 1 : 0);
    Matrix work(a);
    symmetricEigen(n, work.data(), values[k].data(), vectors[k].data());
  }
  setThreadCount(0);
  checkTrue("eigen.same-for-any-thread-count", values[0] == values[1] && vectors[0] == vectors[1]);
  Matrix bad = {1, 0, std::nan(""), 1};
  checkThrows("eigen.refuses-nan", [&] { symmetricEigen(2, bad.data(), values[0].data(), vectors[0].data()); });
}

void testHermitianEigen() {
  for (const int64_t n : {1, 2, 5, 32, 100})
    for (const bool deficient : {false, true}) {
      const std::string name = std::string(deficient ? "hermitian.rank-deficient." : "hermitian.random.") + std::to_string(n);
      const int64_t rank = deficient ? std::max<int64_t>(1, n / 4) : n;
      const Matrix re = normals(name + "re", n * rank), im = normals(name + "im", n * rank);
      std::vector<Complex> a(static_cast<size_t>(n * n)), vectors(a.size());
      for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
          for (int64_t k = 0; k < rank; k++)
            a[i * n + j] += Complex(re[i * rank + k], im[i * rank + k]) * Complex(re[j * rank + k], -im[j * rank + k]);
      const std::vector<Complex> original(a);
      Matrix values(static_cast<size_t>(n));
      hermitianEigen(n, a.data(), values.data(), vectors.data());
      double residual = 0, defect = 0;
      for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
          Complex applied = 0, inner = 0;
          for (int64_t k = 0; k < n; k++) {
            applied += original[j * n + k] * vectors[i * n + k];
            inner += std::conj(vectors[i * n + k]) * vectors[j * n + k];
          }
          residual = std::max(residual, std::abs(applied - values[i] * vectors[i * n + j]) / values[0]);
          defect = std::max(defect, std::abs(inner - (i == j ? 1.0 : 0.0)));
        }
      checkAtMost(name + ".residual", residual, 1e-13);
      checkAtMost(name + ".orthogonality", defect, 1e-13);
      checkTrue(name + ".descending", std::is_sorted(values.rbegin(), values.rend()));
    }
}

void testPolarFactor() {
  for (const int64_t n : {1, 2, 3, 16, 64, 150})
    for (const double condition : {1.0, 1e2, 1e5, 1e14, 0.0}) {
      const std::string name = "polar." + std::to_string(n) + text(".condition-%.0e", condition, 0);
      const Matrix q = randomOrthogonal(name, n);
      Matrix spectrum;
      for (int64_t i = 0; i < n; i++) {
        const double part = static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, n - 1));
        spectrum.push_back(condition > 0 ? std::pow(condition, -part) : i < (n + 1) / 2);  // 0: half of the rank
      }
      const Matrix m = product(n, q, false, withSpectrum(n, randomOrthogonal(name + "basis", n), spectrum), false);
      Matrix found(m);
      polarFactor(n, found.data());
      checkAtMost(name + ".orthogonality", defectOfOrthogonality(n, found), 1e-13);
      if (condition >= 1 && condition <= 1e5) checkAtMost(name + ".factor", largestDifference(found, q), 1e-10);
      // Q^T M must be symmetric and positive, whatever the rank: its trace is the sum of the singular values.
      const Matrix h = product(n, found, true, m, false);
      double asymmetry = 0, trace = 0;
      for (int64_t i = 0; i < n; i++) {
        trace += h[i * n + i];
        for (int64_t j = 0; j < n; j++) asymmetry = std::max(asymmetry, std::abs(h[i * n + j] - h[j * n + i]));
      }
      checkAtMost(name + ".symmetric", asymmetry, 1e-12);
      checkRelative(name + ".trace", trace, std::accumulate(spectrum.begin(), spectrum.end(), 0.0), 1e-12);
    }
  Matrix zero(9, 0.0);
  polarFactor(3, zero.data());
  checkAtMost("polar.zero", defectOfOrthogonality(3, zero), 0);
}

double dot(const Matrix& a, const Matrix& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

void testRope() {
  const int64_t dim = 128, pairs = dim / 2;
  RopeParameters p;
  p.rotaryDim = dim;
  p.base = 500000;
  const RopeFrequencies plain = ropeFrequencies(p, 0);
  checkRelative("rope.theta0", plain.theta[0], 1, 1e-15);
  checkRelative("rope.theta1", plain.theta[1], std::pow(500000.0, -2.0 / 128), 1e-14);

  // Scores depend on the distance only, and both pair orders agree after the row permutation.
  const Matrix q = normals("rope.q", dim), k = normals("rope.k", dim);
  const auto score = [&](int64_t t, int64_t s, bool interleaved) {
    Matrix a(q), b(k);
    if (interleaved)
      for (int64_t j = 0; j < pairs; j++) {
        a[2 * j] = q[j], a[2 * j + 1] = q[j + pairs];
        b[2 * j] = k[j], b[2 * j + 1] = k[j + pairs];
      }
    ropeRotate(plain, t, interleaved, a.data());
    ropeRotate(plain, s, interleaved, b.data());
    return dot(a, b);
  };
  checkNear("rope.distance-only", score(1000, 900, false), score(100, 0, false), 1e-10);
  checkNear("rope.distance-only-far", score(131072, 131000, false), score(72, 0, false), 1e-8);
  checkNear("rope.conventions-agree", score(77, 12, true), score(77, 12, false), 1e-11);
  checkNear("rope.position-0", score(0, 0, false), dot(q, k), 1e-12);

  p.scaling = RopeScaling::llama3;
  p.factor = 8;
  p.originalMaxPositions = 8192;
  const RopeFrequencies llama = ropeFrequencies(p, 0);
  checkRelative("rope.llama3.first", llama.theta[0], plain.theta[0], 1e-15);
  checkNear("rope.llama3.last", llama.theta[pairs - 1] / plain.theta[pairs - 1], 1.0 / 8, 1e-15);
  checkTrue("rope.llama3.between", std::is_sorted(llama.theta.rbegin(), llama.theta.rend()));
  checkNear("rope.llama3.attention-factor", llama.attentionFactor, 1, 0);

  RopeParameters yarn;  // DeepSeek-V2
  yarn.rotaryDim = 64;
  yarn.scaling = RopeScaling::yarn;
  yarn.factor = 40;
  yarn.originalMaxPositions = 4096;
  const RopeFrequencies stretched = ropeFrequencies(yarn, 0);
  checkNear("rope.yarn.first", stretched.theta[0], 1, 1e-15);
  checkRelative("rope.yarn.last", stretched.theta[31] * 1e3, std::pow(10000.0, -62.0 / 64) / 40 * 1e3, 1e-13);
  // low = floor(64 ln(4096 / 64 pi) / 2 ln 10000) = 10, high = ceil(64 ln(4096 / 2 pi) / 2 ln 10000) = 23
  checkRelative("rope.yarn.ramp-start", stretched.theta[10], std::pow(10000.0, -20.0 / 64), 1e-13);
  checkRelative("rope.yarn.ramp-inside", stretched.theta[11], std::pow(10000.0, -22.0 / 64) * (1.0 / 13 / 40 + 12.0 / 13), 1e-13);
  checkRelative("rope.yarn.ramp-end", stretched.theta[23] * 1e3, std::pow(10000.0, -46.0 / 64) / 40 * 1e3, 1e-13);
  checkRelative("rope.yarn.attention-factor", stretched.attentionFactor, 0.1 * std::log(40.0) + 1, 1e-15);
  yarn.mscale = yarn.mscaleAllDim = 0.707;
  checkRelative("rope.yarn.deepseek-attention-factor", ropeFrequencies(yarn, 0).attentionFactor, 1, 1e-15);

  RopeParameters linear;
  linear.rotaryDim = 64;
  linear.scaling = RopeScaling::linear;
  linear.factor = 8;
  checkRelative("rope.linear", ropeFrequencies(linear, 0).theta[3], std::pow(10000.0, -6.0 / 64) / 8, 1e-14);

  RopeParameters dynamic;
  dynamic.rotaryDim = 64;
  dynamic.scaling = RopeScaling::dynamicNtk;
  dynamic.factor = 2;
  dynamic.originalMaxPositions = 2048;
  checkRelative("rope.dynamic.short", ropeFrequencies(dynamic, 100).theta[5], std::pow(10000.0, -10.0 / 64), 1e-14);
  checkRelative("rope.dynamic.long", ropeFrequencies(dynamic, 8192).theta[5],
                std::pow(10000.0 * std::pow(7.0, 64.0 / 62), -10.0 / 64), 1e-13);

  RopeParameters longrope;
  longrope.rotaryDim = 4;
  longrope.scaling = RopeScaling::longrope;
  longrope.factor = 32;
  longrope.originalMaxPositions = 4096;
  longrope.shortFactors = {1, 1.5};
  longrope.longFactors = {2, 60};
  checkRelative("rope.longrope.short", ropeFrequencies(longrope, 4096).theta[1], 0.01 / 1.5, 1e-14);
  checkRelative("rope.longrope.long", ropeFrequencies(longrope, 4097).theta[1], 0.01 / 60, 1e-14);
  checkRelative("rope.longrope.attention-factor", ropeFrequencies(longrope, 1).attentionFactor,
                std::sqrt(1 + std::log(32.0) / std::log(4096.0)), 1e-15);
  longrope.longFactors.pop_back();
  checkThrows("rope.longrope.refuses-short-list", [&] { ropeFrequencies(longrope, 5000); });

  checkTrue("rope.partial", rotaryDimension(0.25, 64) == 16 && rotaryDimension(0.4, 80) == 32 && rotaryDimension(1, 128) == 128);
  std::vector<float> cosine(3 * 32), sine(3 * 32);
  ropeTable(stretched, 131070, 3, cosine.data(), sine.data());
  checkNear("rope.table.cos", cosine[2 * 32 + 4], std::cos(131072 * stretched.theta[4]) * stretched.attentionFactor, 1e-7);
  checkNear("rope.table.sin", sine[1 * 32 + 31], std::sin(131071 * stretched.theta[31]) * stretched.attentionFactor, 1e-7);
}

/// The same layer with one KV head per query head, each in a random gauge of its own.
HeadWeights inRandomGauges(const HeadWeights& w, int64_t rotaryDim) {
  const int64_t D = w.headDim, d = w.hiddenDim, pairs = rotaryDim / 2, rest = D - rotaryDim, group = w.heads / w.kvHeads;
  HeadWeights out = w;
  out.kvHeads = w.heads;
  out.key.clear();
  out.value.clear();
  const RandomStream phases(5, "phases");
  for (int64_t h = 0; h < w.heads; h++) {
    const std::string name = "gauge." + std::to_string(h);
    const auto turned = [&](const double* in) {
      Matrix z(in, in + D * d);
      for (int64_t j = 0; j < pairs; j++) {
        const double angle = 6.283185307179586 * phases.uniform(h * pairs + j), c = std::cos(angle), s = std::sin(angle);
        for (int64_t i = 0; i < d; i++) {
          z[j * d + i] = in[j * d + i] * c - in[(j + pairs) * d + i] * s;
          z[(j + pairs) * d + i] = in[j * d + i] * s + in[(j + pairs) * d + i] * c;
        }
      }
      if (rest > 0) {
        const Matrix map = randomOrthogonal(name + "rest", rest);
        gemm(rest, d, rest, map.data(), rest, false, in + rotaryDim * d, d, false, z.data() + rotaryDim * d, d, false);
      }
      return z;
    };
    const Matrix query = turned(w.query.data() + h * D * d), key = turned(w.key.data() + h / group * D * d);
    std::copy(query.begin(), query.end(), out.query.begin() + h * D * d);
    out.key.insert(out.key.end(), key.begin(), key.end());
    const Matrix map = randomOrthogonal(name, D);
    Matrix value(static_cast<size_t>(D * d));
    gemm(D, d, D, map.data(), D, false, w.value.data() + h / group * D * d, d, false, value.data(), d, false);
    out.value.insert(out.value.end(), value.begin(), value.end());
    gemm(d, D, D, w.output.data() + h * d * D, D, false, map.data(), D, true, out.output.data() + h * d * D, D, false);
  }
  return out;
}

void testHeadMerging() {
  GeneratorParameters p;
  p.d = 256;
  p.H = 8;
  p.D = 32;
  for (const int64_t kvHeads : {1, 2})
    for (const int64_t rotaryDim : {32, 8}) {
      const std::string name = "merge.to-" + std::to_string(kvHeads) + ".rotary-" + std::to_string(rotaryDim);
      p.G = kvHeads;
      const SyntheticModel m = generateModel(p, 11);
      const Matrix x = generateInputs(m, 128, 100), calibration = generateInputs(m, 300, 200);
      const HeadWeights shared = weightsOf(m), full = inRandomGauges(shared, rotaryDim);
      const Matrix y = layerOutput(shared, x, rotaryDim);
      checkAtMost(name + ".gauge-invariance", relativeL2(layerOutput(full, x, rotaryDim), y), 1e-10);
      HeadMergeOptions options;
      options.kvHeads = kvHeads;
      options.rotaryDim = rotaryDim;
      const HeadWeights merged = mergeHeads(full, options, calibration.data(), 300);
      checkAtMost(name + ".aligned", relativeL2(layerOutput(merged, x, rotaryDim), y), 1e-6);
      options.how = HeadMerge::mean;
      checkAtLeast(name + ".mean", relativeL2(layerOutput(mergeHeads(full, options, nullptr, 0), x, rotaryDim), y), 0.5);
      options.how = HeadMerge::first;
      checkAtLeast(name + ".first", relativeL2(layerOutput(mergeHeads(full, options, nullptr, 0), x, rotaryDim), y), 0.5);
      if (kvHeads == 2) {  // from grouped to one: the same steps with several query heads a KV head
        options.how = HeadMerge::aligned;
        options.kvHeads = 4;
        const HeadWeights four = mergeHeads(full, options, calibration.data(), 300);
        options.kvHeads = 2;
        const HeadWeights two = mergeHeads(four, options, calibration.data(), 300);
        checkAtMost(name + ".in-two-steps", relativeL2(layerOutput(two, x, rotaryDim), y), 1e-6);
      }
    }
  p.G = 8;
  const SyntheticModel m = generateModel(p, 11);
  const HeadWeights w = weightsOf(m);
  const Matrix x = generateInputs(m, 256, 100), calibration = generateInputs(m, 1024, 200), y = layerOutput(w, x, 32);
  HeadMergeOptions options;
  options.kvHeads = 8;
  checkTrue("merge.to-all-heads", mergeHeads(w, options, nullptr, 0).key == w.key);
  options.kvHeads = 4;
  const double aligned = relativeL2(layerOutput(mergeHeads(w, options, calibration.data(), 1024), x, 32), y);
  options.how = HeadMerge::mean;
  const double mean = relativeL2(layerOutput(mergeHeads(w, options, nullptr, 0), x, 32), y);
  checkAtMost("merge.aligned-better-than-mean", aligned, mean);
  options.kvHeads = 3;
  checkThrows("merge.refuses-3-of-8", [&] { mergeHeads(w, options, nullptr, 0); });
  options = HeadMergeOptions();
  checkThrows("merge.aligned-needs-calibration", [&] { mergeHeads(w, options, nullptr, 0); });
}

bool isRefused(const std::function<void()>& check) {
  try {
    check();
  } catch (const Failure& failure) {
    return failure.kind == FailureKind::refused;
  }
  return false;
}

/// Products with packed weights: near those in f64 of the same numbers, and bit for bit the same for a row whatever rows, and
/// what other matrices, are multiplied with it.
void testPackedWeights() {
  const char* names[8];
  const int variants = availableSimd(names, 8);
  Arena arena;
  constexpr int64_t most = 14;  // more rows than are multiplied in registers
  for (const Dtype type : {Dtype::f32, Dtype::f16, Dtype::bf16})
    for (const int64_t n : {1, 24, 64, 200})
      for (const int64_t k : {1, 100, 300}) {
        const std::string name = "packed.type-" + std::to_string(static_cast<int>(type)) + "." + std::to_string(n) + "x" + std::to_string(k);
        const Matrix random = normals(name, n * k), inputs = normals(name + ".x", most * k);
        std::vector<float> wide(random.begin(), random.end()), x(inputs.begin(), inputs.end());
        std::vector<uint16_t> halves(wide.size());
        for (size_t i = 0; i < wide.size() && type != Dtype::f32; i++) putFloat(type, reinterpret_cast<uint8_t*>(halves.data()), static_cast<int64_t>(i), wide[i]);
        const Numbers numbers = type == Dtype::f32 ? Numbers(wide) : Numbers(type, halves);
        const PackedWeights w(arena, n, k, numbers);
        checkTrue(name + ".unpacked", w.unpacked() == numbers.floats());
        const Matrix weights = numbers.doubles();
        Matrix exact(static_cast<size_t>(most * n), 0.0);
        for (int64_t r = 0; r < most; r++)
          for (int64_t c = 0; c < n; c++)
            for (int64_t p = 0; p < k; p++) exact[r * n + c] += static_cast<double>(x[r * k + p]) * weights[c * k + p];
        for (int v = 0; v < variants; v++) {
          forceSimd(names[v]);
          std::vector<float> y(static_cast<size_t>(most * n));
          w.multiply(most, x.data(), k, y.data(), n);
          checkAtMost(name + "." + names[v], relativeL2(Matrix(y.begin(), y.end()), exact), 1e-6);
          bool same = true;
          for (int64_t m = 1; m < most; m++) {
            std::vector<float> one(static_cast<size_t>(m * n)), other(one);
            multiply({{w, one.data(), n}, {w, other.data(), n}}, m, x.data(), k);
            same = same && one == other && std::equal(one.begin(), one.end(), y.begin());
          }
          checkTrue(name + "." + names[v] + ".same-for-any-rows", same);
        }
        forceSimd(names[0]);
      }
}

void testSilu() {
  const char* names[8];
  const int variants = availableSimd(names, 8);
  std::vector<float> x;
  for (int i = 0; i < 157; i++) x.push_back(static_cast<float>(i - 78) * (i % 3 ? 0.11f : 1.2f));
  for (int v = 0; v < variants; v++) {
    forceSimd(names[v]);
    std::vector<float> y(x);
    simd().silu(y.data(), static_cast<int64_t>(y.size()));
    double worst = 0;
    bool whereverItStands = true;
    for (size_t i = 0; i < x.size(); i++) {
      const double exact = static_cast<double>(x[i]) / (1 + std::exp(-static_cast<double>(x[i])));
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - exact) / (std::abs(exact) + 1e-30));
      float alone = x[i];
      simd().silu(&alone, 1);
      whereverItStands = whereverItStands && alone == y[i];
    }
    checkAtMost(std::string("silu.") + names[v], worst, 6e-6);  // without fused multiply-adds exponents are rounded: |x| 2^-24
    checkTrue(std::string("silu.place.") + names[v], whereverItStands);
    float limits[] = {INFINITY, NAN, 0};
    simd().silu(limits, 3);
    checkTrue(std::string("silu.limits.") + names[v], limits[0] == INFINITY && std::isnan(limits[1]) && limits[2] == 0);
  }
  forceSimd(names[0]);
}

void testSizes() {
  checkTrue("sizes.product", elements({3, 5, 7}) == 105 && elements({}) == 1);
  checkTrue("sizes.empty", elements({3, 0, 7}) == 0);
  checkTrue("sizes.largest", elements({mostElements}) == mostElements);
  constexpr int64_t most = INT64_MAX, half = int64_t{1} << 32;
  checkTrue("sizes.refuses-wrap-to-0", isRefused([] { elements({half, half}); }));
  checkTrue("sizes.refuses-wrap-behind-0", isRefused([] { elements({0, half, half}); }));
  checkTrue("sizes.refuses-wrap-to-positive", isRefused([] { elements({half, half / 2, 3}); }));
  checkTrue("sizes.refuses-beyond", isRefused([] { elements({mostElements + 1}); }));
  checkTrue("sizes.refuses-largest-number", isRefused([] { elements({most, most}); }));
  checkTrue("sizes.refuses-negative", isRefused([] { elements({-1, -1}); }) && isRefused([] { elements({0, -1}); }));
  checkTrue("sizes.point", !isRefused([] { checkSizes(PointSpec()); }));
  const auto refuses = [](const char* name, void (*change)(PointSpec&)) {
    PointSpec spec;
    change(spec);
    checkTrue(std::string("sizes.point-refuses-") + name, isRefused([&] { checkSizes(spec); }));
  };
  refuses("no-heads", [](PointSpec& p) { p.model.kvHeads = 0; });
  refuses("no-technique-heads", [](PointSpec& p) { p.technique.kvHeads = 0; });
  refuses("negative-batch", [](PointSpec& p) { p.batch = -1; });
  refuses("wrapping-batch", [](PointSpec& p) { p.batch = half, p.seqLen = half; });
  refuses("wide-heads", [](PointSpec& p) { p.model.heads = most / 2, p.model.headDim = 4; });
  refuses("long-window", [](PointSpec& p) { p.technique.window = most; });
  refuses("long-calibration", [](PointSpec& p) { p.calibrationTokens = most / 4; });
  refuses("wide-band", [](PointSpec& p) { p.technique.bands = {{most, 8}}; });
}

}  // namespace

int main(int argc, char** argv) {
  testSizes();
  testPackedWeights();
  testSilu();
  testRandomNumbers();
  testTinyModel();
  testSharedHeads();
  testSymmetricEigen();
  testHermitianEigen();
  testPolarFactor();
  testRope();
  testHeadMerging();
  if (argc < 2 || std::strcmp(argv[1], "--brief") != 0) testLargeModel();
  std::printf("# %d failed\n", failures);
  return failures > 0;
}
