// Conformance of the engine: number formats, stores, attention, caches and layers against independent fp64 code that is
// written from the definitions (test-engine/definition.h). test-cache checks the same rooms against each other.
// One line a check: "ok name" or "FAIL name got ... expected ..."; the exit code is 1 if any failed.
// Usage: test-engine [--short | --long] [part ...]; parts: codecs stores attention latents caches layers
#include <chrono>
#include <cstring>

#include "fastmqa/status.h"
#include "simd/simd.h"
#include "test-engine/checks.h"

int main(int argc, char** argv) {
  const struct {
    const char* name;
    void (*run)();
  } parts[] = {{"codecs", testCodecs},           {"stores", testStores}, {"attention", testAttention},
               {"latents", testLatentAttention}, {"caches", testCaches}, {"layers", testLayers}};
  try {
    std::printf("# %s\n", fastmqa::simd().name);
  } catch (const fastmqa::Failure& e) {  // FASTMQA_ISA names what does not run here
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  bool named = false;
  for (int i = 1; i < argc; i++) {
    if (!std::strcmp(argv[i], "--short"))
      check::length = check::Length::quick;
    else if (!std::strcmp(argv[i], "--long"))
      check::length = check::Length::thorough;
    else
      named = true;
  }
  for (const auto& part : parts) {
    bool wanted = !named;
    for (int i = 1; i < argc; i++) wanted |= !std::strcmp(argv[i], part.name);
    if (!wanted) continue;
    const auto start = std::chrono::steady_clock::now();
    const int before = check::checks;
    part.run();
    std::printf("# %s: %d checks, %.1f s\n", part.name, check::checks - before,
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("# %d checks, %d failed\n", check::checks, check::failures);
  return check::failures > 0;
}
