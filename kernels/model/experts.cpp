#include "experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace fastmqa {
namespace {

/// Indices of the largest `count` of values, the first of equals first.
std::vector<int64_t> largest(const std::vector<double>& values, int64_t count) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  return order;
}

}  // namespace

Route routeOf(const ExpertShape& s, const float* logits, const std::vector<float>& bias) {
  const auto n = static_cast<size_t>(s.experts);
  std::vector<double> scores(logits, logits + n);
  if (s.sigmoid) {
    for (double& x : scores) x = 1 / (1 + std::exp(-x));
  } else {
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& x : scores) sum += x = std::exp(x - top);
    for (double& x : scores) x /= sum;
  }
  std::vector<double> choice(scores);
  for (size_t e = 0; e < bias.size(); e++) choice[e] += static_cast<double>(bias[e]);
  if (s.groups > 1) {
    const int64_t size = s.experts / s.groups;
    std::vector<double> worth;
    for (int64_t g = 0; g < s.groups; g++) {
      std::vector<double> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      std::sort(group.rbegin(), group.rend());
      worth.push_back(group[0] + (s.sigmoid ? group[1] : 0));
    }
    std::vector<bool> open(static_cast<size_t>(s.groups), false);
    for (const int64_t g : largest(worth, s.chosenGroups)) open[static_cast<size_t>(g)] = true;
    for (size_t e = 0; e < n; e++)
      if (!open[e / static_cast<size_t>(size)]) choice[e] = -INFINITY;
  }
  Route route;
  route.experts = largest(choice, s.chosen);
  double sum = 0;
  for (const int64_t e : route.experts) sum += scores[static_cast<size_t>(e)];
  for (const int64_t e : route.experts) route.weights.push_back(scores[static_cast<size_t>(e)] / (s.normalises ? sum : 1) * s.scaling);
  return route;
}

void GatedMlp::run(Arena& arena, const float* x, int64_t rows, Activation activation, float* y) const {
  const int64_t width = up.rows(), d = up.columns();
  Buffer<float> wide(arena, rows * width), gates(arena, rows * width);
  multiply({{up, wide.data(), width}, {gate, gates.data(), width}}, rows, x, d);
  activate(activation, rows * width, gates.data(), wide.data());
  down.multiply(rows, wide.data(), width, y, down.rows());
}

void Experts::run(Arena& arena, const float* x, int64_t rows, Activation activation, float* y) const {
  const int64_t d = router.columns(), n = shape.experts;
  Buffer<float> logits(arena, rows * n);
  router.multiply(rows, x, d, logits.data(), n);
  if (shape.sharedMlpDim > 0)
    shared.run(arena, x, rows, activation, y);
  else
    std::fill_n(y, rows * d, 0.0f);
  struct Guest {
    int64_t row;
    float weight;
  };
  std::vector<std::vector<Guest>> guests(static_cast<size_t>(n));
  for (int64_t r = 0; r < rows; r++) {
    const Route route = routeOf(shape, logits.data() + r * n, routerBias);
    for (size_t i = 0; i < route.experts.size(); i++)
      guests[static_cast<size_t>(route.experts[i])].push_back({r, static_cast<float>(route.weights[i])});
  }
  for (size_t e = 0; e < guests.size(); e++) {  // in order, so that sums are the same whatever rows are there
    const auto count = static_cast<int64_t>(guests[e].size());
    if (count == 0) continue;
    Buffer<float> in(arena, count * d), out(arena, count * d);
    for (int64_t i = 0; i < count; i++) std::copy_n(x + guests[e][static_cast<size_t>(i)].row * d, d, in.data() + i * d);
    experts[e].run(arena, in.data(), count, activation, out.data());
    for (int64_t i = 0; i < count; i++) {
      const Guest& guest = guests[e][static_cast<size_t>(i)];
      for (int64_t c = 0; c < d; c++) y[guest.row * d + c] += guest.weight * out[static_cast<size_t>(i * d + c)];
    }
  }
}

}  // namespace fastmqa
