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

/// A layer on a device of an accelerator. Calibrated and converted on the CPU, then handed over.
std::unique_ptr<RunningLayer> runOnAccelerator(const Accelerator& accelerator, int device, const std::shared_ptr<const ReferenceModel>& model,
                                               const PointSpec& spec, int64_t positions, const CancelFlag* cancel);

}  // namespace fastmqa
