#include "synthetic.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <stdexcept>

#include "math/gemm.h"
#include "math/threads.h"

namespace fastmqa {
namespace {

using Complex = std::complex<double>;

constexpr double pi = 3.14159265358979323846;
constexpr uint64_t golden = 0x9E3779B97F4A7C15u;
constexpr int64_t fillRows = 16;      // rows per work item when normals are drawn
constexpr int64_t recursionColumns = 64;  // columns per work item of the recursion along time

uint64_t mix(uint64_t z) {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9u;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

uint64_t fnv1a(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string numbered(const char* name, int64_t index) { return std::string(name) + "." + std::to_string(index); }

std::vector<double> normalsOf(const RandomStream& stream, int64_t count) {
  std::vector<double> out(static_cast<size_t>(count));
  stream.normals(0, count, out.data());
  return out;
}

/// Indices that sort the values (numpy's stable argsort).
template <class T>
std::vector<int64_t> sortedOrder(const std::vector<T>& values) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[a] < values[b]; });
  return order;
}

std::vector<int64_t> orderOfUniforms(const RandomStream& stream, int64_t count) {
  std::vector<double> u(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; i++) u[i] = stream.uniform(i);
  return sortedOrder(u);
}

Complex turn(double angle) { return {std::cos(angle), std::sin(angle)}; }

/// The Q factor, with positive diagonal of R, of the n x n matrix whose columns are the columns of m: Gram-Schmidt, twice.
void orthonormaliseColumns(int64_t n, std::vector<double>& m) {
  std::vector<double> columns(m.size());
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) columns[j * n + i] = m[i * n + j];
  for (int64_t j = 0; j < n; j++) {
    double* const v = columns.data() + j * n;
    for (int pass = 0; pass < 2; pass++)
      for (int64_t q = 0; q < j; q++) {
        const double* const u = columns.data() + q * n;
        const double along = std::inner_product(u, u + n, v, 0.0);
        for (int64_t i = 0; i < n; i++) v[i] -= along * u[i];
      }
    const double norm = std::sqrt(std::inner_product(v, v + n, v, 0.0));
    for (int64_t i = 0; i < n; i++) v[i] /= norm;
  }
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++) m[i * n + j] = columns[j * n + i];
}

/// What all heads of a model share: scales per content coordinate and the shared parts of keys and values.
struct Common {
  int64_t content;                                  // d - 1
  std::vector<double> lx, keyScale, queryScale, valueScale;  // [content]
  std::vector<double> sharedKey, sharedValue;       // [D, content]
  std::vector<int64_t> perm;                        // [d]
};

/// The parts of a KV head that its query heads refer to.
struct KeyHead {
  std::vector<double> alignment;   // A_g [D, content]
  std::vector<double> covariance;  // E[k k^T] without offsets [D, D]
  std::vector<Complex> gauge;      // [J] unit phases
  std::vector<double> valueGauge;  // T_g [D, D]
  std::vector<int64_t> outliers;   // pair numbers
  std::vector<double> amplitude, phase;  // of the outliers
  double amplitudeSum;
  std::vector<Complex> local;      // offsets of the pairs firstLocal.. ; empty unless the head is local
};

/// Scales all rows so that the mean over rows of the row variance sum_i (m lx)^2 is one.
void normaliseRows(int64_t rows, int64_t columns, std::vector<double>& m, const std::vector<double>& lx) {
  double total = 0;
  for (int64_t r = 0; r < rows; r++) {
    double sum = 0;
    for (int64_t i = 0; i < columns; i++) {
      const double x = m[r * columns + i] * lx[i];
      sum += x * x;
    }
    total += sum;
  }
  const double scale = std::sqrt(total / static_cast<double>(rows));
  for (double& x : m) x /= scale;
}

/// m diag(lx^2) m^T.
std::vector<double> channelCovariance(int64_t rows, int64_t columns, const std::vector<double>& m,
                                      const std::vector<double>& lx) {
  std::vector<double> weighted(m.size()), covariance(static_cast<size_t>(rows * rows));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < columns; i++) weighted[r * columns + i] = m[r * columns + i] * (lx[i] * lx[i]);
  gemm(rows, rows, columns, weighted.data(), columns, false, m.data(), columns, true, covariance.data(), rows, false);
  return covariance;
}

/// Writes a key or query projection: offsets / c0 on the constant channel, gauge phases on the pairs, channels permuted.
void writeRotated(const GeneratorParameters& p, const Common& common, const std::vector<double>& content,
                  const std::vector<Complex>& offsets, const std::vector<Complex>& gauge, double* out) {
  const int64_t pairs = p.D / 2, n = common.content;
  for (int64_t j = 0; j < pairs; j++) {
    const double c = gauge[j].real(), s = gauge[j].imag();
    const double *re = content.data() + j * n, *im = content.data() + (j + pairs) * n;
    double *outRe = out + j * p.d, *outIm = out + (j + pairs) * p.d;
    const Complex constant = offsets[j] / p.c0 * gauge[j];
    outRe[0] = constant.real();
    outIm[0] = constant.imag();
    for (int64_t i = 1; i < p.d; i++) {
      const int64_t from = common.perm[i] - 1;
      outRe[i] = re[from] * c - im[from] * s;
      outIm[i] = re[from] * s + im[from] * c;
    }
  }
}

Common makeCommon(const GeneratorParameters& p, uint64_t seed) {
  Common common;
  const int64_t n = common.content = p.d - 1;
  std::vector<double> jittered = normalsOf(RandomStream(seed, "lambda.jitter"), n);
  for (int64_t i = 0; i < n; i++) jittered[i] = static_cast<double>(i) * std::exp(p.shuffle * jittered[i]);
  const std::vector<int64_t> rank = sortedOrder(sortedOrder(jittered));
  double total = 0;
  for (int64_t i = 0; i < n; i++) {
    const double base = 1 + static_cast<double>(i) / p.i0;
    common.keyScale.push_back(std::pow(base, -p.p_k));
    common.queryScale.push_back(std::pow(base, -p.p_q));
    common.valueScale.push_back(std::pow(base, -p.p_v));
    common.lx.push_back(std::pow(1 + static_cast<double>(rank[i]) / p.i0, -2 * p.a_x));
    total += common.lx.back();
  }
  for (double& x : common.lx) x = std::sqrt(x / total * static_cast<double>(n));
  common.sharedKey = normalsOf(RandomStream(seed, "Ak.shared"), p.D * n);
  common.sharedValue = normalsOf(RandomStream(seed, "Av.shared"), p.D * n);
  common.perm = orderOfUniforms(RandomStream(seed, "perm"), n);
  for (int64_t& i : common.perm) i++;
  common.perm.insert(common.perm.begin(), 0);
  return common;
}

HeadType drawnType(const GeneratorParameters& p, const RandomStream& types, int64_t head) {
  const double u = types.uniform(4 * static_cast<uint64_t>(head));
  return u < p.p_ret ? HeadType::retrieval : u < p.p_ret + p.p_loc ? HeadType::local : HeadType::diffuse;
}

/// Draws KV head g, writes its Wk and Wv.
KeyHead makeKeyHead(const Common& common, SyntheticModel& model, bool local, int64_t g) {
  const GeneratorParameters& p = model.parameters;
  const uint64_t seed = model.seed;
  const int64_t n = common.content, pairs = p.D / 2;
  KeyHead head;

  head.alignment = normalsOf(RandomStream(seed, numbered("Ak", g)), p.D * n);
  const double shared = std::sqrt(p.eta_k), own = std::sqrt(1 - p.eta_k);
  for (size_t i = 0; i < head.alignment.size(); i++) head.alignment[i] = shared * common.sharedKey[i] + own * head.alignment[i];
  std::vector<double> content(head.alignment.size());
  for (int64_t r = 0; r < p.D; r++)
    for (int64_t i = 0; i < n; i++) content[r * n + i] = head.alignment[r * n + i] * common.keyScale[i];
  normaliseRows(p.D, n, content, common.lx);
  head.covariance = channelCovariance(p.D, n, content, common.lx);

  // Outliers sit in the slowest quarter of the pairs.
  const int64_t slow = pairs / 4;
  const int64_t wanted = std::max<int64_t>(1, std::min(p.n_out, slow));
  head.outliers = orderOfUniforms(RandomStream(seed, numbered("outpair", g)), slow);
  head.outliers.resize(static_cast<size_t>(std::min(wanted, slow)));
  for (int64_t& j : head.outliers) j += pairs - slow;
  head.amplitude = normalsOf(RandomStream(seed, numbered("out", g)), wanted);
  head.amplitudeSum = 0;
  const RandomStream phases(seed, numbered("outph", g));
  std::vector<Complex> offsets(static_cast<size_t>(pairs));
  for (int64_t k = 0; k < wanted; k++) {
    head.amplitude[k] = p.a_out * std::exp(p.s_out * head.amplitude[k]);
    head.amplitudeSum += head.amplitude[k];
    head.phase.push_back(2 * pi * phases.uniform(k));
  }
  for (size_t k = 0; k < head.outliers.size(); k++) offsets[head.outliers[k]] = head.amplitude[k] * turn(head.phase[k]);

  if (local) {  // faster pairs: an offset that only nearby positions leave in phase
    const RandomStream turns(seed, numbered("locph", g));
    const double size = std::sqrt(p.L_loc * std::sqrt(static_cast<double>(p.D)) / static_cast<double>(slow));
    for (int64_t k = 0; k < slow; k++) head.local.push_back(size * turn(2 * pi * turns.uniform(k)));
    for (int64_t k = 0; k < slow; k++) offsets[pairs / 8 + k] += head.local[k];
  }

  const RandomStream gauge(seed, "gauge.phase");
  for (int64_t j = 0; j < pairs; j++) head.gauge.push_back(turn(2 * pi * gauge.uniform(g * pairs + j)));
  writeRotated(p, common, content, offsets, head.gauge, model.Wk.data() + g * p.D * p.d);

  head.valueGauge = normalsOf(RandomStream(seed, numbered("gauge.v", g)), p.D * p.D);
  orthonormaliseColumns(p.D, head.valueGauge);
  RandomStream(seed, numbered("Av", g)).normals(0, p.D * n, content.data());
  const double sharedValue = std::sqrt(p.eta_v), ownValue = std::sqrt(1 - p.eta_v);
  for (int64_t r = 0; r < p.D; r++)
    for (int64_t i = 0; i < n; i++)
      content[r * n + i] =
          (sharedValue * common.sharedValue[r * n + i] + ownValue * content[r * n + i]) * common.valueScale[i];
  normaliseRows(p.D, n, content, common.lx);
  std::vector<double> turned(content.size());
  gemm(p.D, n, p.D, head.valueGauge.data(), p.D, false, content.data(), n, false, turned.data(), n, false);
  double* const wv = model.Wv.data() + g * p.D * p.d;
  for (int64_t r = 0; r < p.D; r++) {
    wv[r * p.d] = 0;
    for (int64_t i = 1; i < p.d; i++) wv[r * p.d + i] = turned[r * n + common.perm[i] - 1];
  }
  return head;
}

/// Draws query head h of a KV head, writes its Wq and Wo.
void makeQueryHead(const Common& common, SyntheticModel& model, const KeyHead& key, double gainUniform, int64_t h) {
  const GeneratorParameters& p = model.parameters;
  const uint64_t seed = model.seed;
  const int64_t n = common.content, pairs = p.D / 2;
  const bool retrieval = model.types[h].type == HeadType::retrieval;

  const double kappa = retrieval ? p.kap_ret : p.kap_dif, noise = std::sqrt(1 - kappa * kappa);
  std::vector<double> content = normalsOf(RandomStream(seed, numbered("Aq", h)), p.D * n);
  for (int64_t r = 0; r < p.D; r++)
    for (int64_t i = 0; i < n; i++)
      content[r * n + i] = (kappa * key.alignment[r * n + i] + noise * content[r * n + i]) * common.queryScale[i];
  normaliseRows(p.D, n, content, common.lx);
  // The logit of independent tokens has variance trace(C_q C_k) / D; set its root to the gain.
  const std::vector<double> covariance = channelCovariance(p.D, n, content, common.lx);
  const double variance =
      std::inner_product(covariance.begin(), covariance.end(), key.covariance.begin(), 0.0) / static_cast<double>(p.D);
  const double* const range = retrieval ? p.g_ret : p.g_dif;
  const double gain = (range[0] + (range[1] - range[0]) * gainUniform) / std::sqrt(variance);
  for (double& x : content) x *= gain;

  std::vector<Complex> offsets(static_cast<size_t>(pairs));
  const double root = std::sqrt(static_cast<double>(p.D));
  if (model.types[h].sink) {  // anti-parallel to the key outliers: a deficit that only token 0 escapes
    double strength;
    RandomStream(seed, numbered("sinkL", h)).normals(0, 1, &strength);
    const double size = (p.L_sink + p.s_sink * strength) * root / key.amplitudeSum;
    for (size_t k = 0; k < key.outliers.size(); k++) offsets[key.outliers[k]] = -turn(key.phase[k]) * size;
  } else {
    const RandomStream phases(seed, numbered("outph2", h));
    const double size = 0.5 * root / key.amplitudeSum;
    for (size_t k = 0; k < key.outliers.size(); k++) offsets[key.outliers[k]] = turn(2 * pi * phases.uniform(k)) * size;
  }
  if (model.types[h].type == HeadType::local)
    for (size_t k = 0; k < key.local.size(); k++) offsets[pairs / 8 + static_cast<int64_t>(k)] += key.local[k];
  writeRotated(p, common, content, offsets, key.gauge, model.Wq.data() + h * p.D * p.d);

  std::vector<double> output = normalsOf(RandomStream(seed, numbered("Wo", h)), p.d * p.D);
  const double scale = std::sqrt(static_cast<double>(p.H * p.D));
  for (double& x : output) x /= scale;
  gemm(p.d, p.D, p.D, output.data(), p.D, false, key.valueGauge.data(), p.D, true, model.Wo.data() + h * p.d * p.D, p.D,
       false);
}

std::vector<double> makeVocabulary(const GeneratorParameters& p, uint64_t seed) {
  const int64_t n = p.d - 1;
  std::vector<double> out(static_cast<size_t>(p.vocab * n));
  const RandomStream normal(seed, "vocab"), tail(seed, "vocab.heavy");
  parallelFor(p.vocab, [&](int64_t r) {
    std::vector<double> tails(static_cast<size_t>(n));
    tail.normals(r * n, n, tails.data());
    double* const row = out.data() + r * n;
    normal.normals(r * n, n, row);
    for (int64_t i = 0; i < n; i++) row[i] *= std::exp(p.heavy * tails[i]);
  });
  std::vector<double> square(static_cast<size_t>(n), 0.0);
  for (int64_t r = 0; r < p.vocab; r++)
    for (int64_t i = 0; i < n; i++) square[i] += out[r * n + i] * out[r * n + i];
  for (double& x : square) x = std::sqrt(x / static_cast<double>(p.vocab));
  for (int64_t r = 0; r < p.vocab; r++)
    for (int64_t i = 0; i < n; i++) out[r * n + i] /= square[i];
  return out;
}

void require(bool condition, const char* expected, int64_t received) {
  if (!condition) throw std::invalid_argument(std::string("expected ") + expected + " but received " + std::to_string(received));
}

}  // namespace

RandomStream::RandomStream(uint64_t seed, const std::string& name) : key_(mix(mix(seed) ^ fnv1a(name))) {}

uint64_t RandomStream::bits(uint64_t i) const { return mix(key_ + (i + 1) * golden); }

double RandomStream::uniform(uint64_t i) const { return (static_cast<double>(bits(i) >> 11) + 0.5) * 0x1p-53; }

void RandomStream::normals(uint64_t first, int64_t count, double* out) const {
  const uint64_t end = first + static_cast<uint64_t>(std::max<int64_t>(count, 0));
  for (uint64_t pair = first / 2; 2 * pair < end; pair++) {
    const double radius = std::sqrt(-2 * std::log(uniform(2 * pair)));
    const double angle = 2 * pi * uniform(2 * pair + 1);
    if (2 * pair >= first) *out++ = radius * std::cos(angle);
    if (2 * pair + 1 >= first && 2 * pair + 1 < end) *out++ = radius * std::sin(angle);
  }
}

SyntheticModel generateModel(const GeneratorParameters& parameters, uint64_t seed) {
  SyntheticModel model;
  GeneratorParameters& p = model.parameters = parameters;
  if (p.G == 0) p.G = p.H;
  require(p.d >= 2, "at least 2 for the hidden size", p.d);
  require(p.D >= 2 && p.D % 2 == 0, "a positive even number for the head dimension", p.D);
  require(p.H >= 1, "at least 1 for the heads", p.H);
  require(p.G >= 1 && p.H % p.G == 0, "a divisor of the heads for the KV heads", p.G);
  require(p.vocab >= 1, "at least 1 for the vocabulary", p.vocab);
  model.seed = seed;
  model.Wq.resize(static_cast<size_t>(p.H * p.D * p.d));
  model.Wk.resize(static_cast<size_t>(p.G * p.D * p.d));
  model.Wv.resize(static_cast<size_t>(p.G * p.D * p.d));
  model.Wo.resize(static_cast<size_t>(p.H * p.D * p.d));

  const Common common = makeCommon(p, seed);
  const RandomStream types(seed, "head.type");
  const int64_t group = p.H / p.G;
  const auto isLocal = [&](int64_t g) { return drawnType(p, types, g * group) == HeadType::local; };
  for (int64_t h = 0; h < p.H; h++) {
    HeadType type = drawnType(p, types, h);
    if (type == HeadType::local && !isLocal(h / group)) type = HeadType::diffuse;
    model.types.push_back({type, types.uniform(4 * h + 1) < p.p_sink});
  }

  const auto queryHead = [&](const KeyHead& key, int64_t h) { makeQueryHead(common, model, key, types.uniform(4 * h + 2), h); };
  if (p.G >= 2 * threadCount()) {  // whole groups at a time: what a KV head leaves for its query heads is freed at once
    parallelFor(p.G, [&](int64_t g) {
      const KeyHead key = makeKeyHead(common, model, isLocal(g), g);
      for (int64_t h = g * group; h < (g + 1) * group; h++) queryHead(key, h);
    });
  } else {
    std::vector<KeyHead> keys(static_cast<size_t>(p.G));
    parallelFor(p.G, [&](int64_t g) { keys[g] = makeKeyHead(common, model, isLocal(g), g); });
    parallelFor(p.H, [&](int64_t h) { queryHead(keys[h / group], h); });
  }
  model.lx = common.lx;
  model.perm = common.perm;
  model.vocabulary = makeVocabulary(p, seed);
  return model;
}

std::vector<double> generateInputs(const SyntheticModel& model, int64_t S, uint64_t xseed, int64_t* tokens) {
  const GeneratorParameters& p = model.parameters;
  const int64_t d = p.d, n = d - 1;
  std::vector<double> x(static_cast<size_t>(std::max<int64_t>(S, 0) * d));
  if (S <= 0) return x;

  std::vector<double> zipf;
  double total = 0;
  for (int64_t v = 0; v < p.vocab; v++) zipf.push_back(total += 1 / (static_cast<double>(v) + 2.7));
  for (double& c : zipf) c /= total;
  std::vector<int64_t> drawn(static_cast<size_t>(S));
  const RandomStream tokenStream(xseed, "tok");
  for (int64_t t = 0; t < S; t++) {
    const int64_t token = std::lower_bound(zipf.begin(), zipf.end(), tokenStream.uniform(t)) - zipf.begin();
    drawn[t] = std::min(token, p.vocab - 1);
  }
  if (tokens) std::copy(drawn.begin(), drawn.end(), tokens);

  // The context, in place in channels 1..d-1: white first, then the recursion along time.
  const RandomStream context(xseed, "ctx"), noise(xseed, "noise");
  parallelFor((S + fillRows - 1) / fillRows, [&](int64_t block) {
    for (int64_t t = block * fillRows; t < std::min(S, (block + 1) * fillRows); t++)
      context.normals(t * n, n, x.data() + t * d + 1);
  });
  const double innovation = std::sqrt(1 - p.rho * p.rho);
  parallelFor((n + recursionColumns - 1) / recursionColumns, [&](int64_t block) {
    const int64_t begin = 1 + block * recursionColumns, end = std::min(d, begin + recursionColumns);
    for (int64_t t = 1; t < S; t++) {
      const double* const before = x.data() + (t - 1) * d;
      double* const row = x.data() + t * d;
      for (int64_t i = begin; i < end; i++) row[i] = p.rho * before[i] + innovation * row[i];
    }
  });

  const double tokenPart = std::sqrt(p.tau), contextPart = std::sqrt((1 - p.tau) * 0.6), noisePart = std::sqrt((1 - p.tau) * 0.4);
  parallelFor((S + fillRows - 1) / fillRows, [&](int64_t block) {
    std::vector<double> y(static_cast<size_t>(n));
    for (int64_t t = block * fillRows; t < std::min(S, (block + 1) * fillRows); t++) {
      double* const row = x.data() + t * d;
      const double* const embedding = model.vocabulary.data() + drawn[t] * n;
      noise.normals(t * n, n, y.data());
      double square = 0;
      for (int64_t i = 0; i < n; i++) {
        y[i] = (tokenPart * embedding[i] + contextPart * row[i + 1] + noisePart * y[i]) * model.lx[i];
        square += y[i] * y[i];
      }
      const double rms = std::sqrt(square / static_cast<double>(n));
      row[0] = t == 0 ? 0 : p.c0;  // the sink token has neither the constant nor much content
      const double content = t == 0 ? p.x0 : 1;
      for (int64_t i = 1; i < d; i++) row[i] = y[model.perm[i] - 1] / rms * content;
    }
  });
  return x;
}

}  // namespace fastmqa
