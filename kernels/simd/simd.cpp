#include "simd.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "fastmqa/status.h"

namespace fastmqa {

extern const Simd* const simd_portable;
#if defined(FASTMQA_X86)
extern const Simd* const simd_avx2;
extern const Simd* const simd_avx512;
#elif defined(__aarch64__)
extern const Simd* const simd_neon;
#endif

namespace {

int runnable(const Simd** out) {
  int n = 0;
#if defined(FASTMQA_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    out[n++] = simd_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) out[n++] = simd_avx2;
#endif
#if defined(__aarch64__)
  out[n++] = simd_neon;  // part of the architecture
#endif
  out[n++] = simd_portable;
  return n;
}

const Simd* named(const char* name) {
  const Simd* list[4];
  const int n = runnable(list);
  for (int i = 0; i < n; i++)
    if (!std::strcmp(list[i]->name, name)) return list[i];
  return nullptr;
}

const Simd* initial() {
  const Simd* list[4];
  const int n = runnable(list);
  const char* wanted = std::getenv("FASTMQA_ISA");
  if (!wanted) return list[0];
  if (const Simd* forced = named(wanted)) return forced;
  std::string names = list[0]->name;
  for (int i = 1; i < n; i++) names += std::string(i + 1 < n ? ", " : " or ") + list[i]->name;
  refuse("expected " + names + " for FASTMQA_ISA on this machine but received " + wanted);
}

std::atomic<const Simd*>& current() {
  static std::atomic<const Simd*> value{initial()};
  return value;
}

}  // namespace

const Simd& simd() { return *current().load(std::memory_order_relaxed); }

int availableSimd(const char** names, int capacity) {
  const Simd* list[4];
  const int n = runnable(list);
  for (int i = 0; i < n && i < capacity; i++) names[i] = list[i]->name;
  return n;
}

bool forceSimd(const char* name) {
  const Simd* found = named(name);
  if (found) current() = found;
  return found != nullptr;
}

}  // namespace fastmqa
