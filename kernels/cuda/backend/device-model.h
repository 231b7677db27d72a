// A whole model on a device: its weights, which all levels share, and runs over them. What is done in which order is the
// decoder's business (model/decoder.cpp); here are the single steps.
#pragma once
#include <array>
#include <memory>
#include <vector>

#include "device-layer.h"

namespace fastmqa::gpu {

class DeviceModel {
 public:
  DeviceModel(int device, Dtype dtype) : lane_(std::make_shared<Lane>(device, dtype)) {}
  int device() const { return lane_->device; }
  Dtype dtype() const { return lane_->dtype; }
  int32_t addMatrix(const AcceleratorMatrix& from, const float* bias);
  int32_t addVector(const float* from, int64_t count);
  int64_t bytes() const { return lane_->pool.currentBytes(); }
  struct Matrix {
    Weights weights;
    int64_t rows;  ///< those that are no padding
  };
  /// @throws Failure failed, for a number that was not handed out
  const Matrix& matrix(int32_t number) const;
  const DeviceBlock& vector(int32_t number) const;

 private:
  std::shared_ptr<Lane> lane_;  // its stream only brings weights up
  std::vector<Matrix> matrices_;
  std::vector<std::shared_ptr<const DeviceBlock>> vectors_;
};

class DeviceRun {
 public:
  using Place = AcceleratorPlace;
  explicit DeviceRun(std::shared_ptr<const DeviceModel> model);
  int device() const { return lane_->device; }
  std::unique_ptr<LayerWeights> newWeights(const AcceleratorLayer& from);
  std::unique_ptr<DeviceLayer> newLayer(const AcceleratorLayer& from, const LayerWeights& weights);

  void embed(int32_t embedding, int32_t positions, const int32_t* tokens, int64_t rows, int64_t perSequence, int64_t firstPosition, float scale);
  void normalise(const AcceleratorNorm& norm, Place from, Place to);
  void attend(DeviceLayer& layer, bool prefills, Place from, Place to);
  void feedForward(const AcceleratorMlp& mlp, Place from, Place to);
  void add(Place from);
  void read(Place from, float* to);
  void logits(int32_t head, float softcap, Place from, float* to);
  AcceleratorMemory memory(bool resetsPeak);
  void sample(const std::function<void()>& step, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to);

 private:
  /// Adds what waits for it to the stream.
  void sumUp();
  bool isAwaited(Place place) const;
  DeviceBlock& at(Place place) { return places_[static_cast<size_t>(place)]; }
  Dtype typeOf(Place place) const { return place == Place::stream ? Dtype::f32 : lane_->dtype; }
  void download(const DeviceBlock& from, Dtype type, int64_t stride, int64_t width, float* to);

  std::shared_ptr<const DeviceModel> model_;
  std::shared_ptr<Lane> lane_;
  int64_t rows_ = 0, width_ = 0, stride_ = 0;
  std::array<DeviceBlock, 4> places_;
  std::vector<Place> added_;     ///< to the stream, by the next norm of it
  std::vector<int32_t> tokens_;  ///< those that are on the device
  DeviceBlock tokenList_, logits_;
  std::unique_ptr<Timer> timer_;  ///< until anything else is asked, which would use the memory that the recorded step works in
  bool isTimed_ = false;
};

}  // namespace fastmqa::gpu
