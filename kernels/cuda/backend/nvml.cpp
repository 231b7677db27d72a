#include "nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <type_traits>

namespace fastmqa::gpu::nvml {
namespace {

using Handle = void*;
struct Process {
  unsigned pid;
  unsigned long long memory;
  unsigned instance, computeInstance;
};

struct Memory {
  unsigned long long total, free, used;
};

/// The few functions, as nvml.h of CUDA 12 and later declares them; 0 is success everywhere.
struct Library {
  int (*init)() = nullptr;
  int (*handle)(const char*, Handle*) = nullptr;
  int (*clock)(Handle, int, unsigned*) = nullptr;
  int (*mostClock)(Handle, int, unsigned*) = nullptr;
  int (*temperature)(Handle, int, unsigned*) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;
  int (*powerLimit)(Handle, unsigned*) = nullptr;
  int (*reasons)(Handle, unsigned long long*) = nullptr;
  int (*processes)(Handle, unsigned*, Process*) = nullptr;
  int (*memory)(Handle, Memory*) = nullptr;
  bool isUsable = false;

  Library() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    };
    find(init, "nvmlInit_v2");
    find(handle, "nvmlDeviceGetHandleByPciBusId_v2");
    find(clock, "nvmlDeviceGetClockInfo");
    find(mostClock, "nvmlDeviceGetMaxClockInfo");
    find(temperature, "nvmlDeviceGetTemperature");
    find(power, "nvmlDeviceGetPowerUsage");
    find(powerLimit, "nvmlDeviceGetEnforcedPowerLimit");
    find(reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    find(processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    find(memory, "nvmlDeviceGetMemoryInfo");
    isUsable = init && handle && init() == 0;
  }
};

constexpr int graphicsClock = 0, memoryClock = 2, coreTemperature = 0;

int foreign(const Library& library, Handle device) {
  unsigned count = 64;
  Process found[64];
  if (!library.processes || library.processes(device, &count, found) != 0) return -1;
  int others = 0;
  bool sawMe = false;
  for (unsigned i = 0; i < count; i++) {
    if (found[i].pid == static_cast<unsigned>(getpid()))
      sawMe = true;
    else
      others++;
  }
  // In a container the driver knows this process by another number.
  return sawMe || others == 0 ? others : others - 1;
}

const Library& found() {
  static const Library library;
  return library;
}

}  // namespace

void readMemory(const char* busAddress, AcceleratorDevice& to) {
  to.memoryBytes = to.freeBytes = -1;
  const Library& library = found();
  Handle device = nullptr;
  Memory memory{};
  if (!library.isUsable || !library.memory || library.handle(busAddress, &device) != 0 || library.memory(device, &memory) != 0) return;
  to.memoryBytes = static_cast<int64_t>(memory.total);
  to.freeBytes = static_cast<int64_t>(memory.free);
}

void read(const char* busAddress, AcceleratorDevice& to) {
  to.clockMHz = to.mostClockMHz = to.memoryClockMHz = to.temperatureCelsius = to.powerWatts = to.powerLimitWatts = -1;
  to.throttleReasons = -1;
  to.foreignProcesses = -1;
  const Library& library = found();
  Handle device = nullptr;
  if (!library.isUsable || library.handle(busAddress, &device) != 0) return;
  const auto ask = [&](auto function, double unit) {
    unsigned value = 0;
    const bool told = function && function(device, &value) == 0;
    return told ? value / unit : -1.0;
  };
  const auto askFor = [&](auto function, int what) {
    unsigned value = 0;
    const bool told = function && function(device, what, &value) == 0;
    return told ? static_cast<double>(value) : -1.0;
  };
  to.clockMHz = askFor(library.clock, graphicsClock);
  to.mostClockMHz = askFor(library.mostClock, graphicsClock);
  to.memoryClockMHz = askFor(library.clock, memoryClock);
  to.temperatureCelsius = askFor(library.temperature, coreTemperature);
  to.powerWatts = ask(library.power, 1000);
  to.powerLimitWatts = ask(library.powerLimit, 1000);
  unsigned long long reasons = 0;
  if (library.reasons && library.reasons(device, &reasons) == 0) to.throttleReasons = static_cast<int64_t>(reasons);
  to.foreignProcesses = foreign(library, device);
}

}  // namespace fastmqa::gpu::nvml
