// The CUDA backend as the engine sees it: a library beside this one, loaded when it is first asked for.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fastmqa/accelerator.h"
#include "running-layer.h"

namespace fastmqa {

/// The CUDA backend's table. @throws Failure refused, with the cause and the remedy, where it cannot be had
const Accelerator& cudaLibrary();

struct CudaReport {
  std::string reason;  ///< why no device can be used; empty if there are any
  std::vector<AcceleratorDevice> devices;
};
/// Never throws: a machine without a device is no fault.
CudaReport cudaDevices();
AcceleratorCeilings cudaCeilings(int device);
/// Of every device this moment, what NVML knows; may be asked while samples are taken. None where there is no device.
std::vector<AcceleratorDevice> cudaVitals();

/// @throws Failure unless the call is done
void check(const Accelerator& accelerator, AcceleratorStatus status);

AcceleratorCancel cancelOf(const CancelFlag* cancel);

/// Numbers of weights and activations on a device: those of the cache where they are whole floats, else f16.
Dtype numberType(const Technique& technique);

/// @param bands  what the store points to
AcceleratorStore storeOf(const StoreSpec& spec, std::vector<AcceleratorBand>& bands);

/// A layer as an accelerator takes it, with all that it points to.
class LayerDescription {
 public:
  /// @param positions  most tokens of a sequence. @throws Failure refused for what runs on the CPU only
  LayerDescription(const AttentionLayer& layer, const Technique& technique, Dtype numbers, int64_t batch, int64_t positions);
  LayerDescription(const LayerDescription&) = delete;
  LayerDescription& operator=(const LayerDescription&) = delete;
  const AcceleratorLayer& view() const { return view_; }
  /// Forgets the weights, once they are on the device.
  void dropWeights();
  const AcceleratorLayer& ofBatch(int64_t batch) {
    view_.batch = batch;
    return view_;
  }

 private:
  LayerNumbers numbers_;
  std::vector<AcceleratorBand> keyBands_, valueBands_;
  AcceleratorLayer view_{};
};

/// A layer on a device of an accelerator. Calibrated and converted on the CPU, then handed over.
std::unique_ptr<RunningLayer> runOnAccelerator(const Accelerator& accelerator, int device, const std::shared_ptr<const ReferenceModel>& model,
                                               const PointSpec& spec, int64_t positions, const CancelFlag* cancel);

/// Caches without anyone who reads them, on a device of an accelerator: of one kind of layer, sequence after sequence.
class HeldCaches {
 public:
  virtual ~HeldCaches() = default;
  /// One more sequence, in every layer. @throws Failure outOfMemory where the device refuses, or they would take more than `limitBytes`
  virtual void hold(int64_t limitBytes) = 0;
  /// Of all that is held, by the backend's allocator.
  virtual int64_t bytes() const = 0;
};

/// @param layers  that cache alike @param tokens  of a sequence @param reservedBytes  taken beside the caches
std::unique_ptr<HeldCaches> holdOnAccelerator(const Accelerator& accelerator, int device, const ReferenceModel& model, const PointSpec& spec, int64_t layers,
                                              int64_t tokens, int64_t reservedBytes, const CancelFlag* cancel);

}  // namespace fastmqa
