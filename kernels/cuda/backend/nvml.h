// What only the driver's management library knows: clocks, temperature, power, why a device slows itself down, and who else
// is on it. The library comes with the driver and is found at run time; without it everything is "not known".
#pragma once
#include "fastmqa/accelerator.h"

namespace fastmqa::gpu::nvml {

/// Reasons for low clocks that spoil a measurement: hardware slow-down, heat, power brake. Not the power limit: under load
/// it is a card's steady state.
constexpr int64_t spoiling = 0x8 | 0x20 | 0x40 | 0x80;

/// Fills in what it knows of the device at a PCI address; leaves the rest at -1.
void read(const char* busAddress, AcceleratorDevice& to);
/// Its memory, used by whomever; -1 where nobody says.
void readMemory(const char* busAddress, AcceleratorDevice& to);

}  // namespace fastmqa::gpu::nvml
