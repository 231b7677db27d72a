// Conformance of the CUDA kernels against fp64. Built by a C++ compiler it runs the kernels' own source on the CPU with
// checks of bounds, of shared memory and of barriers (cuda/primitives/host.h); built by nvcc it runs them on the GPU.
// One line a check: "ok name" or "FAIL name got ... expected ..."; the exit code is 1 if any failed.
// Usage: test-cuda [part ...]; parts: decode coded prefill general latent parts append expand product plans
// hopper hopper-decode (on a GPU of capability 9.0), faults (on the CPU), small (of every kernel a little; only when named)
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>

#include "fastmqa/status.h"
#include "test-cuda/attention-case.h"
#include "test-cuda/cache-case.h"
#include "test-engine/checks.h"

using namespace fastmqa;
using namespace fastmqa::gpu;

namespace {

Device device;

void runs(const CaseSpec& spec) {
  try {
    const CaseResult r = runCase(spec, device);
    const double got = !r.finite ? NAN : r.error;
    check::report(r.good(), spec.name, r.error <= r.allowed && r.finite ? r.logError : got, "at most ", r.allowed);
  } catch (const std::exception& error) {
    check::report(false, spec.name + ": " + error.what(), NAN, "", 0);
  }
}

CaseSpec named(CaseSpec s, const std::string& kind) {
  s.name = kind + " " + check::nameOf(s.cacheType) + " D" + std::to_string(s.keyDim) + " H" + std::to_string(s.heads) + "/" + std::to_string(s.kvHeads) +
           " B" + std::to_string(s.batch) + " q" + std::to_string(s.queryTokens) + " S" + std::to_string(s.lengths[0]);
  if (s.paged) s.name += " paged";
  if (s.keySharing != Sharing::tensor) s.name += s.keySharing == Sharing::token ? " token" : " channel";
  if (s.keySharing != Sharing::tensor) s.name += std::to_string(s.keyGroup);
  if (s.symmetric) s.name += " symmetric";
  if (s.left < unlimitedTokens) s.name += std::string(" left") + std::to_string(s.left);
  if (s.right) s.name += std::string(" right") + std::to_string(s.right);
  if (s.sinks) s.name += std::string(" sinks") + std::to_string(s.sinks);
  if (s.softcap > 0) s.name += " softcap";
  if (s.splits) s.name += std::string(" splits") + std::to_string(s.splits);
  if (s.lengths.size() > 1) s.name += " ragged";
  if (s.outType != Dtype::f32) s.name += " out " + check::nameOf(s.outType);
  if (s.magnitude != 1) s.name += " large";
  if (s.slope != 0) s.name += " slope" + std::to_string(s.slope);
  return s;
}

void testDecode() {
  for (Dtype type : {Dtype::f16, Dtype::bf16}) {
    if (type == Dtype::bf16 && device.capability < 80) continue;
    CaseSpec s;
    s.cacheType = s.queryType = type;
    s.paged = true;
    for (int dim : {32, 64, 96, 128, 192, 256}) {
      s.keyDim = s.valueDim = dim;
      s.heads = 4, s.kvHeads = 2, s.batch = 2, s.lengths = {200, 77}, s.outType = Dtype::f32, s.splits = 0;
      runs(named(s, "decode"));
      s.heads = 1, s.kvHeads = 1, s.batch = 1, s.lengths = {150}, s.splits = 2, s.outType = type;
      runs(named(s, "decode"));
    }
    s.splits = 0, s.outType = Dtype::f32;
    s.keyDim = s.valueDim = 64;
    s.heads = 20, s.kvHeads = 1, s.lengths = {130};
    runs(named(s, "decode"));  // two row tiles
    s.heads = 8, s.kvHeads = 1, s.queryTokens = 5;
    runs(named(s, "decode"));  // three blocks of rows
    s.heads = 4, s.queryTokens = 3, s.left = 50, s.lengths = {300};
    runs(named(s, "decode"));
    s.sinks = 4;
    runs(named(s, "decode"));
    s.sinks = 40, s.splits = 3;
    runs(named(s, "decode"));
    s = CaseSpec();
    s.cacheType = s.queryType = type;
    s.softcap = 5;
    s.lengths = {70};
    runs(named(s, "decode"));
    s.softcap = 0;
    s.magnitude = 6;
    runs(named(s, "decode"));
    s.magnitude = 1;
    for (int length : {1, 2, 15, 16, 17, 63, 64, 65}) {
      s.lengths = {length};
      s.paged = length % 2;
      runs(named(s, "decode"));
    }
    s.queryType = Dtype::f32;
    runs(named(s, "decode f32 queries"));
    s.queryTokens = 2, s.lengths = {40, 0, 2}, s.batch = 3;
    runs(named(s, "decode with an empty sequence"));
  }
}

void testCoded() {
  CaseSpec s;
  s.paged = true;
  s.heads = 4, s.kvHeads = 2, s.batch = 2, s.lengths = {150, 64};
  for (int dim : {32, 64, 128}) {
    s.keyDim = s.valueDim = dim;
    for (Dtype type : {Dtype::e4m3, Dtype::e5m2}) {
      s.cacheType = type;
      s.keySharing = s.valueSharing = Sharing::tensor;
      s.symmetric = false;
      runs(named(s, "coded"));
    }
    for (Dtype type : {Dtype::int8, Dtype::int4})
      for (Sharing sharing : {Sharing::token, Sharing::channel})
        for (bool symmetric : {false, true}) {
          s.cacheType = type;
          s.keySharing = sharing;
          s.valueSharing = Sharing::token;
          s.symmetric = symmetric;
          s.keyGroup = sharing == Sharing::channel ? (symmetric ? 64 : 32) : symmetric ? dim : 32;
          s.valueGroup = symmetric && dim > 32 ? 64 : 32;
          runs(named(s, "coded"));
        }
  }
  // Groups of 64 channels or more: scales are folded into scores and weights.
  for (int dim : {64, 128})
    for (Dtype type : {Dtype::int8, Dtype::int4})
      for (bool symmetric : {false, true}) {
        CaseSpec wide;
        wide.paged = true, wide.cacheType = type, wide.keyDim = wide.valueDim = dim, wide.symmetric = symmetric;
        wide.keySharing = wide.valueSharing = Sharing::token, wide.keyGroup = 64, wide.valueGroup = dim;
        wide.heads = 6, wide.kvHeads = 2, wide.batch = 2, wide.lengths = {150, 64};
        runs(named(wide, "coded, wide groups"));
        wide.keyGroup = dim, wide.valueGroup = 64, wide.batch = 1, wide.lengths = {333}, wide.queryTokens = 2, wide.left = 150, wide.sinks = 3;
        runs(named(wide, "coded, wide groups"));
        wide.splits = 2, wide.softcap = 4, wide.queryType = Dtype::bf16;
        runs(named(wide, "coded, wide groups"));
      }
  // More than eight rows of such a head: another kernel, of 16 and of 32 rows a block.
  for (int dim : {64, 128})
    for (Dtype type : {Dtype::int8, Dtype::int4})
      for (bool symmetric : {false, true}) {
        CaseSpec wide;
        wide.paged = true, wide.cacheType = type, wide.keyDim = wide.valueDim = dim, wide.symmetric = symmetric;
        wide.keySharing = wide.valueSharing = Sharing::token, wide.keyGroup = wide.valueGroup = 64;
        wide.heads = 24, wide.kvHeads = 2, wide.batch = 2, wide.lengths = {150, 64};
        runs(named(wide, "coded, wide groups, many rows"));
        wide.batch = 1, wide.lengths = {460}, wide.heads = 32, wide.kvHeads = 1, wide.queryTokens = 2, wide.left = 150, wide.sinks = 3, wide.magnitude = 2;
        runs(named(wide, "coded, wide groups, many rows"));
        wide.keyGroup = wide.valueGroup = dim;
        runs(named(wide, "coded, wide groups, many rows"));
        wide.splits = 2, wide.softcap = 4, wide.queryType = Dtype::bf16, wide.heads = 9, wide.queryTokens = 1, wide.magnitude = 1;
        runs(named(wide, "coded, wide groups, many rows"));
        wide.lengths = {40, 0, 2}, wide.batch = 3, wide.softcap = 0, wide.splits = 0, wide.heads = 30;
        runs(named(wide, "coded, wide groups, many rows, with an empty sequence"));
        wide.lengths = {1000}, wide.batch = 1, wide.splits = 1, wide.left = unlimitedTokens;
        runs(named(wide, "coded, wide groups, many rows"));
      }
  // Narrow groups and channels: a third kernel.
  for (int dim : {64, 128})
    for (Dtype type : {Dtype::e4m3, Dtype::e5m2, Dtype::int8, Dtype::int4}) {
      CaseSpec many;
      many.paged = true, many.cacheType = type, many.keyDim = many.valueDim = dim;
      if (isInteger(type)) many.keySharing = many.valueSharing = Sharing::token, many.keyGroup = dim, many.valueGroup = 32;
      many.heads = 24, many.kvHeads = 2, many.batch = 2, many.lengths = {150, 64};
      runs(named(many, "coded, many rows"));
      many.heads = 20, many.kvHeads = 1, many.queryTokens = 2, many.batch = 1, many.lengths = {330}, many.symmetric = type == Dtype::int8;
      runs(named(many, "coded, many rows"));
      many.magnitude = isInteger(type) ? 1 : 5, many.queryTokens = 1, many.splits = 2;
      runs(named(many, "coded, many rows"));
      if (isInteger(type)) many.keySharing = Sharing::channel, many.keyGroup = 64;
      many.magnitude = 1, many.splits = 0, many.queryTokens = 3, many.left = 70, many.sinks = 5, many.softcap = 3, many.outType = Dtype::bf16;
      runs(named(many, "coded, many rows"));
      many.lengths = {40, 0, 2}, many.batch = 3, many.softcap = 0;
      runs(named(many, "coded, many rows, with an empty sequence"));
    }
  s.symmetric = false;
  s.keyDim = s.valueDim = 64;
  s.keySharing = Sharing::channel, s.keyGroup = 32, s.valueGroup = 32;
  s.heads = 24, s.kvHeads = 1, s.batch = 1, s.lengths = {90}, s.queryType = Dtype::bf16;
  runs(named(s, "coded bf16 queries"));
  s.queryTokens = 2, s.heads = 4, s.left = 40, s.sinks = 4, s.splits = 2, s.lengths = {200};
  runs(named(s, "coded"));
  s.queryTokens = 3;
  runs(named(s, "coded, sixteen rows"));
  s.cacheType = Dtype::int4, s.left = unlimitedTokens, s.sinks = 0, s.softcap = 5, s.splits = 0, s.queryTokens = 1;
  for (int length : {1, 16, 63, 65}) {
    s.lengths = {length};
    runs(named(s, "coded"));
  }
}

void testPrefill() {
  for (Dtype type : {Dtype::f16, Dtype::bf16}) {
    if (type == Dtype::bf16 && device.capability < 80) continue;
    CaseSpec s;
    s.path = Path::prefill;
    s.cacheType = s.queryType = s.outType = type;
    s.heads = 2, s.kvHeads = 1;
    for (int dim : {32, 64, 96, 128, 192, 256}) {
      if (dim > 192 && device.sharedBytesPerBlock < 96 << 10) continue;
      s.keyDim = s.valueDim = dim;
      s.queryTokens = 150, s.lengths = {150};
      runs(named(s, "prefill"));
    }
    s.keyDim = s.valueDim = 64;
    s.outType = Dtype::f32;
    s.queryTokens = 40, s.lengths = {170};
    runs(named(s, "prefill onto a cache"));
    s.right = unlimitedTokens;
    runs(named(s, "prefill full"));
    s.right = 0, s.left = 30;
    runs(named(s, "prefill"));
    s.sinks = 3;
    runs(named(s, "prefill"));
    s.left = unlimitedTokens, s.sinks = 0, s.softcap = 5;
    runs(named(s, "prefill"));
    s.softcap = 0, s.splits = 2;
    runs(named(s, "prefill"));
    s.splits = 0, s.paged = true, s.batch = 2, s.lengths = {100, 170}, s.heads = 4, s.kvHeads = 2;
    runs(named(s, "prefill"));
    s.queryTokens = 5, s.heads = 32, s.kvHeads = 1, s.batch = 1, s.lengths = {140};
    runs(named(s, "verify, packed"));
    s.heads = 4, s.lengths = {400};  // shifts move with every tile, never, and with some
    for (float slope : {0.2f, -0.2f, 0.05f}) s.slope = slope, runs(named(s, "verify, packed"));
    s.slope = 0;
    s.paged = false, s.queryTokens = 40, s.lengths = {20}, s.heads = 1;
    runs(named(s, "prefill with more queries than keys"));
  }
}

#ifdef __CUDACC__
/// The Hopper tier beside fp64; it has no emulation.
void testHopper() {
  if (device.capability != 90) return;
  for (Dtype type : {Dtype::bf16, Dtype::f16}) {
    CaseSpec s;
    s.path = Path::hopperPrefill;
    s.cacheType = s.queryType = type;
    for (int dim : {64, 128}) {
      s = CaseSpec{};
      s.path = Path::hopperPrefill;
      s.cacheType = s.queryType = type;
      s.keyDim = s.valueDim = dim;
      s.right = unlimitedTokens;
      s.queryTokens = 64, s.lengths = {16};
      runs(named(s, "hopper, one step of values"));
      s.queryTokens = 64, s.lengths = {64};
      runs(named(s, "hopper, one tile"));
      s.queryTokens = 128, s.lengths = {128};
      runs(named(s, "hopper, one tile"));
      s.lengths = {512};
      runs(named(s, "hopper, full"));
      s.right = 0;
      runs(named(s, "hopper onto a cache"));
      s.queryTokens = 300, s.lengths = {300}, s.heads = 4, s.kvHeads = 2;
      runs(named(s, "hopper"));
      s.outType = type, s.paged = true;
      runs(named(s, "hopper"));
      s.batch = 3, s.lengths = {300, 0, 257}, s.queryTokens = 140;
      runs(named(s, "hopper"));
      s.outType = Dtype::f32, s.batch = 1, s.lengths = {500}, s.queryTokens = 200, s.left = 90;
      runs(named(s, "hopper"));
      s.sinks = 20;
      runs(named(s, "hopper"));
      s.sinks = 0, s.left = unlimitedTokens, s.cuts = {256};
      runs(named(s, "hopper, two parts"));
      s.cuts = {}, s.magnitude = 6;
      runs(named(s, "hopper"));
      s.magnitude = 1, s.outType = type, s.heads = 32, s.kvHeads = 4, s.batch = 5, s.queryTokens = 130, s.lengths = {130};
      runs(named(s, "hopper, several rounds"));
      s.batch = 2, s.heads = 32, s.kvHeads = 1, s.queryTokens = 1, s.lengths = {500, 3};
      runs(named(s, "hopper, packed"));
      s.queryTokens = 5, s.batch = 1, s.lengths = {300}, s.outType = Dtype::f32;
      runs(named(s, "hopper, packed"));
      s.splits = 3, s.left = 150, s.sinks = 5;
      runs(named(s, "hopper, packed"));
      s.splits = 0, s.queryTokens = 7, s.heads = 24, s.kvHeads = 3, s.paged = false;
      runs(named(s, "hopper, packed"));
      s.queryTokens = 5, s.heads = 32, s.kvHeads = 1, s.left = unlimitedTokens, s.sinks = 0, s.magnitude = 6, s.lengths = {900};
      runs(named(s, "hopper, packed"));
      s.queryTokens = 7, s.paged = true, s.splits = 1;
      runs(named(s, "hopper, packed, a block that is not full"));
      s.magnitude = 1;  // shifts move with every tile, with some, and never: tiles are taken last first
      for (float slope : {-0.1f, -0.04f, 0.1f}) s.slope = slope, runs(named(s, "hopper, packed"));
    }
    for (int rope : {64, 0}) {
      s = CaseSpec{};
      s.path = Path::hopperLatent;
      s.cacheType = s.queryType = type;
      s.keyDim = 512 + rope, s.valueDim = 512;
      s.kvHeads = 1, s.heads = 64, s.lengths = {64};
      runs(named(s, "hopper latent, one tile"));
      s.lengths = {640}, s.splits = 1;
      runs(named(s, "hopper latent"));
      s.heads = 16, s.lengths = {333}, s.batch = 2, s.paged = true, s.splits = 0;
      runs(named(s, "hopper latent"));
      s.heads = 128, s.lengths = {300, 1, 0, 577}, s.batch = 4, s.outType = type;
      runs(named(s, "hopper latent, two blocks"));
      s.splits = 1;
      runs(named(s, "hopper latent, two blocks"));
      s.splits = 3, s.heads = 50, s.queryTokens = 3, s.lengths = {700, 400}, s.batch = 2, s.left = 150, s.sinks = 5, s.outType = Dtype::f32;
      runs(named(s, "hopper latent"));
      s.queryTokens = 5, s.left = 200;
      runs(named(s, "hopper latent, two blocks"));
      s.left = unlimitedTokens, s.sinks = 0, s.splits = 0, s.magnitude = 6, s.queryTokens = 1, s.heads = 128, s.paged = false, s.lengths = {300}, s.batch = 1;
      runs(named(s, "hopper latent, two blocks"));
      s.magnitude = 1, s.batch = 70, s.lengths = {20};
      runs(named(s, "hopper latent, several rounds"));
    }
  }
}

/// Decode over coded caches on the Hopper tier: more than eight rows of a KV head.
void testHopperDecode() {
  if (device.capability != 90) return;
  for (int dim : {64, 128})
    for (Dtype type : {Dtype::e4m3, Dtype::int8, Dtype::int4})
      for (int group : {64, 128}) {
        if (group > dim || (!isInteger(type) && group > 64)) continue;
        CaseSpec s;
        s.path = Path::hopperDecode;
        s.paged = true, s.cacheType = type, s.keyDim = s.valueDim = dim;
        if (isInteger(type)) s.keySharing = s.valueSharing = Sharing::token, s.keyGroup = s.valueGroup = group, s.symmetric = true;
        s.heads = 16, s.kvHeads = 1, s.lengths = {64}, s.splits = 1;
        runs(named(s, "hopper decode, one tile"));
        s.heads = 32;
        runs(named(s, "hopper decode, one tile"));
        s.lengths = {640};
        runs(named(s, "hopper decode"));
        s.lengths = {7000};  // rings go round, and numbers of pages are read again
        runs(named(s, "hopper decode"));
        s.lengths = {2100};
        s.magnitude = 6;  // references move often
        runs(named(s, "hopper decode"));
        s.magnitude = 1, s.splits = 0, s.queryType = Dtype::bf16, s.outType = Dtype::bf16, s.batch = 3, s.lengths = {333, 0, 1};
        runs(named(s, "hopper decode, with an empty sequence"));
        s.queryType = Dtype::f16, s.outType = Dtype::f32, s.batch = 1, s.splits = 3, s.lengths = {1000}, s.heads = 9;
        runs(named(s, "hopper decode"));
        s.splits = 1, s.queryTokens = 5, s.heads = 8, s.lengths = {777};
        runs(named(s, "hopper decode, verify"));
        s.left = 300, s.sinks = 70;
        runs(named(s, "hopper decode, verify"));
        s.heads = 64, s.kvHeads = 2, s.splits = 2, s.batch = 2, s.lengths = {777, 500};
        runs(named(s, "hopper decode, verify"));
        s.heads = 40, s.queryTokens = 1, s.softcap = 5, s.outType = Dtype::f16, s.splits = 0;
        runs(named(s, "hopper decode"));
        s.softcap = 0, s.left = unlimitedTokens, s.sinks = 0, s.cuts = {192}, s.batch = 1, s.lengths = {900};
        runs(named(s, "hopper decode, two parts"));
        s.cuts = {}, s.keyGroup = dim, s.valueGroup = 64, s.heads = 24, s.kvHeads = 1, s.batch = 40, s.lengths = {150};
        runs(named(s, "hopper decode, groups of two widths"));
        s.keyGroup = 64, s.valueGroup = dim, s.batch = 200;
        runs(named(s, "hopper decode, groups of two widths, several rounds"));
      }
}
#endif

void testGeneral() {
  CaseSpec s;
  s.path = Path::general;
  s.cacheType = s.queryType = Dtype::f32;
  for (int dim : {1, 17, 80, 200}) {
    s.keyDim = dim;
    s.valueDim = dim == 80 ? 48 : dim;
    s.heads = 4, s.kvHeads = 2, s.queryTokens = 3, s.lengths = {70};
    runs(named(s, "general"));
  }
  s.keyDim = s.valueDim = 24;
  s.left = 20, s.sinks = 2, s.splits = 2;
  runs(named(s, "general"));
  s.left = unlimitedTokens, s.sinks = 0, s.splits = 0, s.softcap = 4, s.queryTokens = 30, s.heads = 2;
  runs(named(s, "general"));
  s.softcap = 0, s.paged = true, s.queryTokens = 2, s.batch = 2, s.lengths = {66, 5};
  for (Dtype type : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::e4m3, Dtype::e5m2, Dtype::int8, Dtype::int4}) {
    s.cacheType = type;
    runs(named(s, "general"));
    if (!isInteger(type)) continue;
    s.keySharing = Sharing::channel, s.valueSharing = Sharing::channel, s.keyGroup = s.valueGroup = 16;
    runs(named(s, "general"));
    s.keySharing = Sharing::token, s.valueSharing = Sharing::token, s.symmetric = true;
    runs(named(s, "general"));
    s.keySharing = s.valueSharing = Sharing::tensor, s.symmetric = false;
  }
  s = CaseSpec();
  s.path = Path::general;
  s.keyDim = 576, s.valueDim = 512, s.heads = 3, s.lengths = {20};
  if (device.sharedBytesPerBlock > 80 << 10) runs(named(s, "general latent"));
}

void testLatent() {
  if (device.capability < 80) return;
  CaseSpec s;
  s.path = Path::latent;
  s.kvHeads = 1;
  for (Dtype type : {Dtype::f16, Dtype::bf16}) {
    s.cacheType = s.queryType = type;
    s.keyDim = s.valueDim = 128, s.heads = 20, s.lengths = {100}, s.splits = 0, s.paged = true, s.queryTokens = 1, s.left = unlimitedTokens;
    runs(named(s, "latent"));
    s.heads = 70, s.splits = 2, s.queryTokens = 2, s.left = 40;
    runs(named(s, "latent"));
  }
  s.left = unlimitedTokens, s.queryTokens = 1;
  s.keyDim = 576, s.valueDim = 512, s.heads = 32, s.paged = false, s.lengths = {70}, s.batch = 2;
  runs(named(s, "latent"));
  s.keyDim = s.valueDim = 256, s.splits = 3, s.batch = 1;
  runs(named(s, "latent"));
}

void testParts() {
  CaseSpec s;
  s.paged = true;
  s.heads = 4, s.kvHeads = 2, s.lengths = {250};
  s.cuts = {64, 192};
  runs(named(s, "three parts"));
  s.left = 60, s.sinks = 10;
  runs(named(s, "three parts"));
  s.queryTokens = 3;
  runs(named(s, "three parts"));
  s.path = Path::general;
  s.keyDim = s.valueDim = 40;
  runs(named(s, "three parts, general"));
}

void testAppend() {
  for (const AppendCase& c : appendCases()) {
    try {
      const AppendResult r = runAppend(c);
      check::report(r.numbersWrong == 0 && r.outside == 0 && r.misfits == c.misfits, c.name, r.numbersWrong + r.outside, "", 0);
    } catch (const std::exception& error) {
      check::report(false, c.name + ": " + error.what(), NAN, "", 0);
    }
  }
}

void testExpand() {
  for (Dtype type : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::int8, Dtype::int4, Dtype::int3, Dtype::int2})
    for (Sharing sharing : {Sharing::tensor, Sharing::token, Sharing::channel})
      for (int pairs : {0, 5, 16}) {
        if (sharing != Sharing::tensor && !isInteger(type)) continue;
        ExpandCase c;
        c.cacheType = type, c.sharing = sharing, c.pairs = pairs, c.symmetric = pairs == 5;
        const std::string name = "expand " + check::nameOf(type) + (sharing == Sharing::token ? " token" : sharing == Sharing::channel ? " channel" : "") + " rotated " + std::to_string(2 * pairs);
        try {
          const int wrong = runExpand(c);
          check::report(wrong == 0, name, wrong, "", 0);
        } catch (const std::exception& error) {
          check::report(false, name + ": " + error.what(), NAN, "", 0);
        }
      }
}

void testProduct() {
  const struct {
    int m, n, k;
    Dtype type, outType;
  } cases[] = {{5, 7, 3, Dtype::f32, Dtype::f32},       {70, 40, 65, Dtype::f32, Dtype::f32},     {33, 17, 20, Dtype::bf16, Dtype::f32},
               {128, 128, 64, Dtype::f16, Dtype::f16},  {130, 60, 72, Dtype::f16, Dtype::f32},    {3, 129, 200, Dtype::bf16, Dtype::bf16},
               {1, 64, 264, Dtype::f16, Dtype::f16},    {140, 131, 8, Dtype::bf16, Dtype::f32},
               {8, 33, 256, Dtype::f32, Dtype::f32},    {4, 41, 520, Dtype::f16, Dtype::f16},
               {1, 9, 2056, Dtype::f16, Dtype::f16},    {2, 6, 1304, Dtype::f32, Dtype::f32}};
  for (const auto& c : cases) {
    const std::string name = "product " + check::nameOf(c.type) + " " + std::to_string(c.m) + "x" + std::to_string(c.n) + "x" + std::to_string(c.k) + " to " + check::nameOf(c.outType);
    try {
      const CaseResult r = runProduct(c.m, c.n, c.k, c.type, c.outType, device);
      check::report(r.good(), name, r.finite ? r.error : NAN, "at most ", r.allowed);
    } catch (const std::exception& error) {
      check::report(false, name + ": " + error.what(), NAN, "", 0);
    }
  }
}

/// A few small cases of every kernel, for tools under which a kernel is a hundred times slower.
void testSmall() {
  CaseSpec s;
  s.paged = true, s.heads = 4, s.kvHeads = 2, s.lengths = {150};
  runs(named(s, "small decode"));
  s.keyDim = s.valueDim = 32;
  runs(named(s, "small decode"));
  s.keyDim = s.valueDim = 64;
  s.queryTokens = 5, s.heads = 8, s.splits = 2, s.left = 70, s.sinks = 3;
  runs(named(s, "small decode"));
  for (Dtype type : {Dtype::e4m3, Dtype::int8, Dtype::int4}) {
    CaseSpec c;
    c.paged = true, c.cacheType = type, c.heads = 4, c.kvHeads = 2, c.lengths = {150};
    c.keySharing = isInteger(type) ? Sharing::channel : Sharing::tensor, c.valueSharing = isInteger(type) ? Sharing::token : Sharing::tensor;
    runs(named(c, "small coded"));
    c.heads = 24;
    runs(named(c, "small coded, many rows"));
    if (!isInteger(type)) continue;
    c.heads = 4, c.keySharing = Sharing::token, c.keyGroup = c.valueGroup = 64;
    runs(named(c, "small coded, folded"));
    c.heads = 24;
    runs(named(c, "small coded, folded, many rows"));
  }
  CaseSpec prefill;
  prefill.path = Path::prefill, prefill.heads = 2, prefill.kvHeads = 1, prefill.queryTokens = 140, prefill.lengths = {150};
  runs(named(prefill, "small prefill"));
  if (device.capability == 90) {
    for (int dim : {64, 128}) {
      prefill.path = Path::hopperPrefill, prefill.cacheType = prefill.queryType = Dtype::bf16, prefill.keyDim = prefill.valueDim = dim;
      runs(named(prefill, "small hopper"));
    }
  }
  if (device.capability == 90) {
    CaseSpec hopper;
    hopper.path = Path::hopperLatent, hopper.keyDim = 576, hopper.valueDim = 512, hopper.heads = 20, hopper.lengths = {200}, hopper.paged = true;
    runs(named(hopper, "small hopper latent"));
    hopper.heads = 128;
    runs(named(hopper, "small hopper latent, two blocks"));
    for (int dim : {64, 128})
      for (Dtype type : {Dtype::e4m3, Dtype::int8, Dtype::int4}) {
        CaseSpec decode;
        decode.path = Path::hopperDecode, decode.cacheType = type, decode.paged = true, decode.keyDim = decode.valueDim = dim;
        decode.heads = 20, decode.kvHeads = 1, decode.lengths = {700}, decode.splits = 1;  // each warpgroup has several pages
        if (isInteger(type)) decode.keySharing = decode.valueSharing = Sharing::token, decode.keyGroup = decode.valueGroup = 64, decode.symmetric = true;
        runs(named(decode, "small hopper decode"));
      }
  }
  CaseSpec general;
  general.path = Path::general, general.keyDim = general.valueDim = 40, general.queryTokens = 2, general.lengths = {40}, general.splits = 2;
  runs(named(general, "small general"));
  CaseSpec latent;
  latent.path = Path::latent, latent.keyDim = latent.valueDim = 128, latent.heads = 20, latent.lengths = {70};
  if (device.capability >= 80) runs(named(latent, "small latent"));
  testAppend();
  testExpand();
  testProduct();
}

#ifndef __CUDACC__
/// A planted mistake must show: as a fault of the machine or as a wrong result.
void finds(const std::string& name, const std::function<bool()>& isGood, host::Plant::Kind kind, int first, int last) {
  int met = 0, found = 0;
  std::string missed;
  for (int number = first; number <= last; number++) {
    host::plant({kind, number});
    bool wrong = false;
    try {
      wrong = !isGood();
    } catch (const Fault&) {
      wrong = true;
    }
    if (!host::planted()) break;
    met++, found += wrong;
    if (!wrong) missed += std::string(" ") + std::to_string(number);
  }
  host::plant({});
  check::report(met > 0 && found == met, name + ": " + std::to_string(found) + " of " + std::to_string(met) + " found" + (missed.empty() ? "" : ", not" + missed), found, "", met);
}

void testFaults() {
  CaseSpec decode;
  decode.heads = 2, decode.lengths = {64 * 5}, decode.splits = 1;
  CaseSpec coded = decode;
  coded.cacheType = Dtype::int8, coded.paged = true, coded.keySharing = Sharing::channel, coded.valueSharing = Sharing::token;
  CaseSpec folded = coded;
  folded.cacheType = Dtype::int4, folded.keySharing = Sharing::token, folded.keyGroup = folded.valueGroup = 64, folded.lengths = {64 * 13};
  CaseSpec many = coded;
  many.heads = 12;
  CaseSpec wide = folded;
  wide.heads = 12;
  CaseSpec prefill = decode;
  prefill.path = Path::prefill, prefill.queryTokens = 70, prefill.lengths = {190};
  CaseSpec nothing = prefill;
  nothing.lengths = {0};
  CaseSpec latent = decode;
  latent.path = Path::latent, latent.keyDim = latent.valueDim = 128, latent.heads = 20, latent.lengths = {150};
  CaseSpec general = decode;
  general.path = Path::general, general.lengths = {50}, general.keyDim = general.valueDim = 20;
  CaseSpec merged = decode;
  merged.splits = 3;
  AppendCase append;
  append.cacheType = Dtype::int8, append.sharing = Sharing::token;
  AppendCase settle = append;
  settle.sharing = Sharing::channel, settle.length = 32, settle.tokens = 32;
  ExpandCase expand;
  expand.pairs = 16;
  const auto attends = [](CaseSpec spec, const char* name) {
    spec.name = std::string("fault ") + name;
    return [spec] { return runCase(spec, device).good(); };
  };
  const auto appends = [](AppendCase c, const char* name) {
    c.name = std::string("fault ") + name;
    return [c] {
      const AppendResult r = runAppend(c);
      return r.numbersWrong == 0 && r.outside == 0;
    };
  };
  const auto multiplies = [](int m, int n, int k, Dtype type) { return [=] { return runProduct(m, n, k, type, Dtype::f32, device).good(); }; };
  using Plant = host::Plant;
  struct Range {
    Plant::Kind kind;
    const char* what;
    int first, last;  ///< which of them, in the order in which a thread meets them
  };
  const Range barrier{Plant::skipBlockBarrier, "a block barrier left out", 0, 5}, warpBarrier{Plant::skipWarpBarrier, "a warp barrier left out", 0, 2},
      wait{Plant::skipWait, "a wait for copies left out", 0, 1}, fragment{Plant::swapFragment, "a fragment's registers exchanged", 0, 3},
      store{Plant::shiftSharedStore, "a store to shared memory one off", 3, 7}, load{Plant::shiftGlobalLoad, "a load one off", 0, 2},
      predecessor{Plant::skipPredecessor, "the kernel before not waited for", 0, 0};
  const struct {
    const char* name;
    std::function<bool()> isGood;
    std::vector<Range> mistakes;
  } kernels[] = {
      {"decode", attends(decode, "decode"), {barrier, warpBarrier, wait, fragment, store, load, predecessor}},
      {"coded decode", attends(coded, "coded"), {barrier, warpBarrier, wait, fragment, store, load, predecessor}},
      {"coded decode, folded", attends(folded, "folded"), {barrier, warpBarrier, wait, {fragment.kind, fragment.what, 8, 11}, store, load, predecessor}},
      {"coded decode, folded, many rows", attends(wide, "wide"), {barrier, warpBarrier, wait, {fragment.kind, fragment.what, 8, 11}, store, load, predecessor}},
      {"coded decode, many rows", attends(many, "many"), {barrier, warpBarrier, wait, fragment, store, load, predecessor}},
      {"prefill", attends(prefill, "prefill"), {{barrier.kind, barrier.what, 0, 4}, warpBarrier, wait, fragment, store, load}},
      {"prefill without keys", attends(nothing, "nothing"), {{barrier.kind, barrier.what, 1, 1}}},
      {"latent", attends(latent, "latent"), {barrier, wait, fragment, store, load}},
      {"general", attends(general, "general"), {{barrier.kind, barrier.what, 1, 5}, warpBarrier, store, load}},
      {"merge", attends(merged, "merged"), {barrier, load, predecessor}},
      {"append", appends(append, "append"), {load, predecessor}},
      {"settle", appends(settle, "settle"), {load, predecessor}},
      {"expand", [expand] { return runExpand(expand) == 0; }, {load, predecessor}},
      {"product", multiplies(70, 70, 64, Dtype::f16), {barrier, wait, fragment}},
      {"plain product", multiplies(9, 40, 65, Dtype::f32), {{barrier.kind, barrier.what, 1, 5}, store, load}},
      {"row product", multiplies(4, 9, 512, Dtype::f16), {barrier, store, load, predecessor}},
  };
  for (const auto& k : kernels) {
    check::report(k.isGood(), std::string("no fault in ") + k.name, 0, "", 0);
    for (const Range& r : k.mistakes) finds(std::string(k.name) + ", " + r.what, k.isGood, r.kind, r.first, r.last);
  }
}
#endif

/// No block gets more query rows than its kernel has room for, on small devices and large ones.
void testPlans() {
  int plans = 0, tooMany = 0;
  for (const int multiprocessors : {2, 16, 132})
    for (const int dim : {32, 64, 128})
      for (const Dtype type : {Dtype::f16, Dtype::e4m3, Dtype::int8, Dtype::int4})
        for (const auto& [heads, kvHeads] : {std::pair{8, 8}, std::pair{8, 1}, std::pair{32, 8}, std::pair{32, 1}})
          for (const int tokens : {1, 2, 5, 9})
            for (const int batch : {1, 5, 40}) {
              AttentionProblem p;
              p.heads = heads, p.kvHeads = kvHeads, p.keyDim = p.valueDim = dim, p.queryTokens = tokens, p.batch = batch;
              p.queryType = Dtype::f16, p.cacheType = p.valueType = type;
              p.queryHead = dim, p.queryToken = heads * dim, p.queryBatch = tokens * heads * dim;
              p.length = 700, p.position = p.length - tokens;
              p.keys.pagesPerSequence = 11;
              p.keys.tokenBytes = packedBytes(type, dim), p.keys.headBytes = pageTokens * p.keys.tokenBytes, p.keys.batchBytes = kvHeads * p.keys.headBytes;
              p.values = p.keys;
              if (isInteger(type)) {
                p.keyScales.sharing = Sharing::token, p.keyScales.group = 32;
                p.keyScales.shiftBytes = pageTokens * (dim / 32) * 2, p.keyScales.headBytes = 2 * p.keyScales.shiftBytes, p.keyScales.pageBytes = kvHeads * p.keyScales.headBytes;
                p.valueScales = p.keyScales;
              }
              const AttentionPlan plan = planAttention(p, {80, multiprocessors, 163 << 10});
              plans++;
              if (plan.path == Path::decode && plan.blockRows > plan.kernel.rows) tooMany++;
            }
  check::equal("rows of a block, of " + std::to_string(plans) + " plans", tooMany, 0);
}

}  // namespace

int main(int argc, char** argv) {
  const struct {
    const char* name;
    void (*run)();
  } parts[] = {{"decode", testDecode},   {"coded", testCoded}, {"prefill", testPrefill},
               {"general", testGeneral}, {"latent", testLatent}, {"parts", testParts},
               {"append", testAppend},   {"expand", testExpand}, {"product", testProduct}, {"plans", testPlans}, {"small", testSmall},
#ifdef __CUDACC__
               {"hopper", testHopper},   {"hopper-decode", testHopperDecode},
#endif
#ifndef __CUDACC__
               {"faults", testFaults},
#endif
  };
  try {
    device = deviceUnderTest();
  } catch (const std::exception& error) {
    std::printf("FAIL device: %s\n", error.what());
    return 1;
  }
  for (const auto& part : parts) {
    bool wanted = argc < 2 && part.run != testSmall;
    for (int i = 1; i < argc; i++) wanted |= !std::strcmp(argv[i], part.name);
    if (!wanted) continue;
    const auto start = std::chrono::steady_clock::now();
    const int before = check::checks;
    part.run();
    std::printf("# %s: %d checks, %.1f s\n", part.name, check::checks - before, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::fflush(stdout);
  }
#ifndef __CUDACC__
  const host::Counts counts = host::counts();
  std::printf("# %lld blocks, %lld block barriers, %lld warp barriers, %lld matrix products\n", static_cast<long long>(counts.blocks),
              static_cast<long long>(counts.blockBarriers), static_cast<long long>(counts.warpBarriers), static_cast<long long>(counts.products));
#endif
  std::printf("# %d checks, %d failed\n", check::checks, check::failures);
  return check::failures > 0;
}
