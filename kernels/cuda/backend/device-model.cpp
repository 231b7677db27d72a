#include "device-model.h"

#include <algorithm>
#include <string>

namespace fastmqa::gpu {

int32_t DeviceModel::addMatrix(const AcceleratorMatrix& from, const float* bias) {
  matrices_.push_back({lane_->weightsOf(from, bias), from.rows});
  return static_cast<int32_t>(matrices_.size()) - 1;
}

int32_t DeviceModel::addVector(const float* from, int64_t count) {
  vectors_.push_back(lane_->listOf(from, count));
  return static_cast<int32_t>(vectors_.size()) - 1;
}

const DeviceModel::Matrix& DeviceModel::matrix(int32_t number) const {
  if (number < 0 || number >= static_cast<int32_t>(matrices_.size())) throw Failure(FailureKind::failed, "no matrix " + std::to_string(number) + " in the model");
  return matrices_[static_cast<size_t>(number)];
}

const DeviceBlock& DeviceModel::vector(int32_t number) const {
  if (number < 0 || number >= static_cast<int32_t>(vectors_.size())) throw Failure(FailureKind::failed, "no vector " + std::to_string(number) + " in the model");
  return *vectors_[static_cast<size_t>(number)];
}

DeviceRun::DeviceRun(std::shared_ptr<const DeviceModel> model) : model_(std::move(model)), lane_(std::make_shared<Lane>(model_->device(), model_->dtype())) {}

std::unique_ptr<LayerWeights> DeviceRun::newWeights(const AcceleratorLayer& from) {
  timer_.reset();
  return std::make_unique<LayerWeights>(lane_, from);
}

std::unique_ptr<DeviceLayer> DeviceRun::newLayer(const AcceleratorLayer& from, const LayerWeights& weights) {
  timer_.reset();
  return std::make_unique<DeviceLayer>(from, weights);
}

void DeviceRun::embed(int32_t embedding, int32_t positions, const int32_t* tokens, int64_t rows, int64_t perSequence, int64_t firstPosition, float scale) {
  if (!isTimed_) timer_.reset();
  const Weights& table = model_->matrix(embedding).weights;
  rows_ = rows;
  stride_ = table.k;
  added_.clear();
  // Tokens that are there already are not copied: a recorded step reads them where they are.
  if (static_cast<int64_t>(tokens_.size()) != rows || !std::equal(tokens_.begin(), tokens_.end(), tokens)) {
    tokens_.assign(tokens, tokens + rows);
    tokenList_ = DeviceBlock();
    tokenList_ = DeviceBlock(lane_->pool, rows * static_cast<int64_t>(sizeof(int32_t)));
    runtime::upload(tokenList_.data(), tokens_.data(), tokenList_.bytes(), lane_->stream);
    runtime::finish(lane_->stream);
  }
  const int64_t numbers = rows_ * stride_;
  for (const Place place : {Place::stream, Place::normed, Place::attended, Place::fed}) {
    const int64_t bytes = numbers * (typeOf(place) == Dtype::f32 ? 4 : 2);
    if (at(place).bytes() == bytes) continue;
    at(place) = DeviceBlock();
    at(place) = DeviceBlock(lane_->pool, bytes);
  }
  EmbedProblem p;
  p.tokens = tokenList_.view<const int32_t>();
  p.table = table.data->view<const uint8_t>();
  if (positions >= 0) p.positions = model_->matrix(positions).weights.data->view<const uint8_t>();
  p.type = lane_->dtype;
  p.out = at(Place::stream).view<float>();
  p.rows = static_cast<int>(rows), p.stride = static_cast<int>(stride_);
  p.perSequence = static_cast<int>(perSequence), p.firstPosition = static_cast<int>(firstPosition);
  p.scale = scale;
  runtime::check(gpu::embed(p, lane_->stream), "starting the embedding");
}

void DeviceRun::normalise(const AcceleratorNorm& norm, Place from, Place to) {
  const DeviceBlock& weight = model_->vector(norm.weight);
  width_ = weight.bytes() / static_cast<int64_t>(sizeof(float));
  NormProblem p;
  p.x = at(from).view<const uint8_t>();
  p.y = at(to).view<uint8_t>();
  p.fromType = typeOf(from), p.toType = typeOf(to);
  if (from == Place::stream) {
    for (size_t i = 0; i < added_.size(); i++) p.added[i] = at(added_[i]).view<const uint8_t>();
    p.sum = at(from).view<uint8_t>();
    added_.clear();
  }
  p.weight = weight.view<const float>();
  if (norm.bias >= 0) p.bias = model_->vector(norm.bias).view<const float>();
  p.width = static_cast<int>(width_), p.stride = static_cast<int>(stride_);
  p.centred = norm.isCentred != 0;
  p.epsilon = norm.epsilon;
  runtime::check(gpu::normalise(p, rows_, lane_->stream), "starting a norm");
}

void DeviceRun::attend(DeviceLayer& layer, bool prefills, Place from, Place to) {
  if (isAwaited(to)) sumUp();
  at(to) = layer.attend(at(from), rows_ / layer.batch(), prefills);
}

void DeviceRun::feedForward(const AcceleratorMlp& mlp, Place from, Place to) {
  const Weights &up = model_->matrix(mlp.up).weights, &down = model_->matrix(mlp.down).weights;
  const DeviceBlock inner = lane_->product(at(from), rows_, up);
  const auto activation = static_cast<ActivationKind>(mlp.activation);
  if (!mlp.isGated) {
    ElementProblem p;
    p.kind = ElementProblem::activate;
    p.activation = activation;
    p.y = inner.view<uint8_t>();
    p.yType = lane_->dtype;
    p.count = rows_ * down.k;
    runtime::check(eachElement(p, lane_->stream), "starting an activation");
  }
  if (isAwaited(to)) sumUp();
  at(to) = mlp.isGated ? lane_->gatedProduct(inner, rows_, down, activation) : lane_->product(inner, rows_, down);
}

// Not at once: a norm of the stream follows, which adds on its way. The sum after the last layer of a prompt whose logits
// nobody asks for is never made.
void DeviceRun::add(Place from) {
  if (added_.size() == 2) sumUp();
  added_.push_back(from);
}

bool DeviceRun::isAwaited(Place place) const { return std::find(added_.begin(), added_.end(), place) != added_.end(); }

void DeviceRun::sumUp() {
  for (const Place from : added_) {
    ElementProblem p;
    p.kind = ElementProblem::add;
    p.x = at(from).view<const uint8_t>();
    p.y = at(Place::stream).view<uint8_t>();
    p.xType = typeOf(from), p.yType = Dtype::f32;
    p.count = rows_ * stride_;
    runtime::check(eachElement(p, lane_->stream), "starting a sum");
  }
  added_.clear();
}

void DeviceRun::download(const DeviceBlock& from, Dtype type, int64_t stride, int64_t width, float* to) {
  std::vector<uint8_t> numbers(static_cast<size_t>(from.bytes()));
  runtime::download(numbers.data(), from.data(), from.bytes(), lane_->stream);
  for (int64_t r = 0; r < rows_; r++)
    for (int64_t c = 0; c < width; c++) to[r * width + c] = numberOf(type, numbers.data(), r * stride + c);
}

void DeviceRun::read(Place from, float* to) {
  sumUp();
  download(at(from), typeOf(from), stride_, width_, to);
}

void DeviceRun::logits(int32_t head, float softcap, Place from, float* to) {
  const DeviceModel::Matrix& matrix = model_->matrix(head);
  logits_ = DeviceBlock();
  logits_ = lane_->product(at(from), rows_, matrix.weights, Dtype::f32);
  if (softcap > 0) {
    ElementProblem p;
    p.kind = ElementProblem::softcap;
    p.y = logits_.view<uint8_t>();
    p.yType = Dtype::f32;
    p.count = rows_ * matrix.weights.n;
    p.cap = softcap;
    runtime::check(eachElement(p, lane_->stream), "starting the soft-cap");
  }
  if (to) download(logits_, Dtype::f32, matrix.weights.n, matrix.rows, to);
}

AcceleratorMemory DeviceRun::memory(bool resetsPeak) {
  runtime::finish(lane_->stream);
  DevicePool& pool = lane_->pool;
  if (resetsPeak) pool.resetPeak();
  AcceleratorMemory m{};
  m.currentBytes = pool.currentBytes();
  m.peakBytes = pool.peakBytes();
  m.devicePeakBytes = pool.devicePeakBytes();
  return m;
}

void DeviceRun::sample(const std::function<void()>& step, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to) {
  isTimed_ = true;
  try {
    if (!timer_) timer_ = std::make_unique<Timer>(*lane_, step);
    timer_->sample(seconds, cancel, to);
  } catch (...) {
    isTimed_ = false;
    throw;
  }
  isTimed_ = false;
}

}  // namespace fastmqa::gpu
