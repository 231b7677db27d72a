#include "attention.h"

#include <algorithm>
#include <string>

#include "../kernels/combine.h"
#include "../kernels/general.h"
#include "fastmqa/status.h"
#include "prefill-hopper.h"

namespace fastmqa::gpu {
namespace {

bool is16Bit(Dtype t) { return t == Dtype::f16 || t == Dtype::bf16; }

/// Rows that asynchronous copies of 16 bytes can read.
bool isAligned(const TokenRows& rows) {
  return rows.batchBytes % 16 == 0 && rows.headBytes % 16 == 0 && rows.tokenBytes % 16 == 0;
}

/// Scales that a tile of 16 tokens can copy in 16-byte pieces, at most D / 32 of them a token.
bool areTileScales(const CodeScales& s, int channels, bool channelsAllowed) {
  if (s.pageBytes % 16 || s.headBytes % 16 || s.shiftBytes % 16) return false;
  if (s.sharing == Sharing::token) return s.group >= 32 && (s.group & (s.group - 1)) == 0 && channels % s.group == 0;
  return s.sharing == Sharing::channel && channelsAllowed && s.group % 16 == 0 && pageTokens % s.group == 0;
}

AttentionKernel decodeKernelFor(const AttentionProblem& p, const Device& device) {
  const int rows = p.groupSize() * p.queryTokens;
  if (p.keyDim != p.valueDim || p.cacheType != p.valueType || !isAligned(p.keys) || !isAligned(p.values)) return {};
  if (p.scale <= 0 || p.queryBatch % 2 || p.queryToken % 2 || p.queryHead % 2) return {};
  if (is16Bit(p.cacheType)) return plainDecodeKernel(p.cacheType, p.keyDim, rows, device);
  if (p.keys.pagesPerSequence == 0 || p.values.pagesPerSequence == 0) return {};
  const int64_t rowBytes = packedBytes(p.cacheType, p.keyDim);
  if (p.keys.tokenBytes != rowBytes || p.values.tokenBytes != rowBytes) return {};
  const bool isInt = p.cacheType == Dtype::int8 || p.cacheType == Dtype::int4;
  if (isInt ? !areTileScales(p.keyScales, p.keyDim, true) || !areTileScales(p.valueScales, p.valueDim, false)
            : p.keyScales.sharing != Sharing::tensor || p.valueScales.sharing != Sharing::tensor)
    return {};
  return codedDecodeKernel(p, rows, device);
}

bool isPrefill(const AttentionProblem& p) {
  return p.scale > 0 && p.keyDim == p.valueDim && p.cacheType == p.valueType && p.queryType == p.cacheType && is16Bit(p.cacheType) &&
         isAligned(p.keys) && isAligned(p.values) && p.queryBatch % 8 == 0 && p.queryToken % 8 == 0 && p.queryHead % 8 == 0;
}

AttentionKernel prefillKernelOf(const AttentionProblem& p, const Device& device) {
  return isPrefill(p) && (p.cacheType == Dtype::f16 || device.capability >= 80) ? prefillKernelFor(p.cacheType, p.keyDim, device) : AttentionKernel{};
}

/// Packed where few query tokens would leave tiles of rows empty.
AttentionKernel hopperPrefillOf([[maybe_unused]] AttentionProblem p, [[maybe_unused]] const Device& device, [[maybe_unused]] bool packed) {
#ifdef FASTMQA_HOPPER
  p.packed = packed;
  if (isPrefill(p) && p.softcap == 0) return hopperPrefillKernel(p, device);
#endif
  return {};
}

AttentionKernel latentKernelOf(const AttentionProblem& p, const Device& device) {
  const bool fits = p.kvHeads == 1 && p.keys.data.data() == p.values.data.data() && p.queryType == p.cacheType && is16Bit(p.cacheType) &&
                    isAligned(p.keys) && p.queryBatch % 8 == 0 && p.queryToken % 8 == 0 && p.queryHead % 8 == 0 && device.capability >= 80;
  return fits ? latentKernelFor(p.cacheType, p.keyDim, p.valueDim) : AttentionKernel{};
}

/// Numbers that the kernels would otherwise divide for, tile by tile.
void completeScales(CodeScales& s, int channels) {
  s.groups = s.sharing == Sharing::token ? (channels + s.group - 1) / s.group : 1;
  for (s.groupShift = 0; 1 << s.groupShift < s.group;) s.groupShift++;
}

/// Keys that the queries of a launch can see at most.
int visibleTokens(const AttentionProblem& p) {
  const int64_t window = static_cast<int64_t>(p.left) + p.right + p.queryTokens + p.sinks + 2 * pageTokens;
  return static_cast<int>(std::min<int64_t>(p.length, window));
}

/// The fewest shares of the keys that fill the device to 95 % of the best: blocks run in waves, and a wave that is
/// not full wastes the rest of the device.
int splitsFor(int64_t blocks, int tokens, int leastTokens, int resident) {
  const int most = std::max(1, std::min(256, tokens / leastTokens));
  const auto efficiency = [&](int splits) {
    const double waves = static_cast<double>(blocks * splits) / resident;
    return waves / static_cast<double>((blocks * splits + resident - 1) / resident);
  };
  double best = 0;
  for (int s = 1; s <= most; s++) best = std::max(best, efficiency(s));
  for (int s = 1; s < most; s++)
    if (efficiency(s) >= 0.95 * best) return s;
  return most;
}

void check(bool good, const char* expected, int64_t received) {
  if (!good) refuse(std::string("expected ") + expected + " but received " + std::to_string(received));
}

}  // namespace

AttentionPlan planAttention(const AttentionProblem& p, const Device& device, const Path* wanted) {
  check(p.kvHeads > 0 && p.heads > 0 && p.heads % p.kvHeads == 0, "heads to be a multiple of the KV heads", p.heads);
  check(p.batch > 0 && p.batch < 65536, "a batch of 1 to 65535", p.batch);
  check(p.queryTokens > 0, "at least one query token", p.queryTokens);
  check(p.keyDim > 0 && p.keyDim <= 1024, "1 to 1024 channels of keys", p.keyDim);
  check(p.valueDim > 0 && p.valueDim <= GeneralShape::mostValueDim, "1 to 512 channels of values", p.valueDim);
  check(p.cacheType != Dtype::int3 && p.cacheType != Dtype::int2 && p.valueType != Dtype::int3 && p.valueType != Dtype::int2,
        "a cache of at least 4 bits on a GPU", bitsOf(p.cacheType));
  const auto may = [&](Path path) { return !wanted || *wanted == path; };
  const int group = p.groupSize(), rows = group * p.queryTokens;
  AttentionPlan plan;
  plan.overlaps = device.capability >= 90;
  int64_t blocks = 0;
  int leastTokens = 256;  // of a split: fewer would not pay for starting it
  const auto fits = [&](const AttentionKernel& kernel) { return kernel.run && kernel.sharedBytes <= device.sharedBytesPerBlock; };
  const auto blocksOf = [&](int64_t allRows, int perBlock, int64_t heads) { return (allRows + perBlock - 1) / perBlock * heads * p.batch; };

  const AttentionKernel prefill = may(Path::prefill) ? prefillKernelOf(p, device) : AttentionKernel{};
  const bool packs = group > 1 && 64 % group == 0 && p.queryTokens < 128;
  const AttentionKernel hopper = may(Path::hopperPrefill) ? hopperPrefillOf(p, device, packs) : AttentionKernel{};
  // For few rows bandwidth decides, and decode's blocks have more loads under way, but for short rows of shared heads.
  const bool suitsHopper = hopper.start && (rows > 16 || (p.keyDim == 64 && packs && p.kvHeads * p.batch >= device.multiprocessors));
  const AttentionKernel decode = may(Path::decode) ? decodeKernelFor(p, device) : AttentionKernel{};
  const AttentionKernel latent = may(Path::latent) && rows >= 8 ? latentKernelOf(p, device) : AttentionKernel{};
  if (fits(latent)) {
    plan.path = Path::latent;
    plan.kernel = latent;
    const int rowBlocks = (rows + latent.rows - 1) / latent.rows;
    blocks = static_cast<int64_t>(rowBlocks) * p.batch;
    plan.grid = {1, rowBlocks, p.batch};
  } else if (fits(decode) && !suitsHopper && (rows <= decode.rows || !(fits(prefill) || hopper.start))) {
    plan.path = Path::decode;
    plan.kernel = decode;
    const int perBlock = decode.rows, rowBlocks = (rows + perBlock - 1) / perBlock;
    blocks = blocksOf(rows, perBlock, p.kvHeads);
    plan.grid = {1, p.kvHeads * rowBlocks, p.batch};
    leastTokens = 64;
  } else if (hopper.start) {
    plan.path = Path::hopperPrefill;
    plan.kernel = hopper;
    plan.packed = packs;
    const int resident = 2 * hopper.sharedBytes <= device.sharedBytesPerBlock && hopper.rows == 64 ? 2 : 1;
    plan.grid = {device.multiprocessors * resident, 1, 1};
    plan.splits = splitsFor(blocksOf(packs ? rows : p.queryTokens, hopper.rows, packs ? p.kvHeads : p.heads), visibleTokens(p), 128, device.multiprocessors);
    return plan;
  } else if (fits(prefill)) {
    plan.path = Path::prefill;
    plan.kernel = prefill;
    const int perBlock = prefill.rows;
    plan.packed = group > 1 && p.queryTokens < perBlock;
    const int allRows = plan.packed ? rows : p.queryTokens, heads = plan.packed ? p.kvHeads : p.heads;
    blocks = blocksOf(allRows, perBlock, heads);
    plan.grid = {(allRows + perBlock - 1) / perBlock, heads, p.batch};
    leastTokens = 512;
  } else {
    check(may(Path::general), "a problem that the wanted kernel takes", p.keyDim);
    plan.path = Path::general;
    plan.kernel = {generalKernel, GeneralShape::threads, GeneralShape::sharedBytes(p.keyDim, p.valueDim)};
    check(fits(plan.kernel), "head sizes that fit shared memory", p.keyDim);
    const int rowBlocks = (rows + GeneralShape::rows - 1) / GeneralShape::rows;
    blocks = blocksOf(rows, GeneralShape::rows, p.kvHeads);
    plan.grid = {1, p.kvHeads * rowBlocks, p.batch};
  }
  check(plan.grid.y < 65536, "fewer than 65536 blocks of rows", plan.grid.y);
  const int resident = device.multiprocessors * residentBlocks(plan.kernel.run, plan.kernel.threads, plan.kernel.sharedBytes);
  plan.splits = splitsFor(blocks, visibleTokens(p), leastTokens, resident);
  plan.grid.x *= plan.splits;
  return plan;
}

int64_t workspaceFloats(const AttentionProblem& p, int slots) {
  return slots < 2 ? 0 : static_cast<int64_t>(slots) * p.batch * p.queryTokens * p.heads * (p.valueDim + 1);
}

int attend(const AttentionProblem* parts, const AttentionPlan* plans, int count, Global<float> workspace, Stream stream) {
  int slots = 0;
  for (int i = 0; i < count; i++) slots += plans[i].splits;
  const int64_t rows = static_cast<int64_t>(parts[0].batch) * parts[0].queryTokens * parts[0].heads;
  AttentionProblem part;
  int slot = 0;
  for (int i = 0; i < count; i++) {
    part = parts[i];
    part.splits = plans[i].splits;
    part.packed = plans[i].packed;
    part.slots = slots;
    part.alignedOut = part.outBatch % 8 == 0 && part.outToken % 8 == 0 && part.outHead % 8 == 0 && reinterpret_cast<uintptr_t>(part.out.data()) % 16 == 0;
    completeScales(part.keyScales, part.keyDim);
    completeScales(part.valueScales, part.valueDim);
    part.firstSlot = slot;
    slot += part.splits;
    const int64_t sums = slots * rows * part.valueDim;
    part.partialSums = Global<float>(workspace.data(), sums);
    part.partialLogs = Global<float>(workspace.data() + sums, slots * rows);
    const int status = plans[i].kernel.start ? plans[i].kernel.start(part, plans[i].grid, stream)
                                             : launch(plans[i].kernel.run, plans[i].grid, plans[i].kernel.threads, plans[i].kernel.sharedBytes, stream, part);
    if (status != 0) return status;
  }
  if (slots == 1) return 0;
  const auto start = plans[0].overlaps ? launchAfter<AttentionProblem> : launch<AttentionProblem>;
  return start(combineKernel, GridSize{static_cast<int>(rows), 1, 1}, combineThreads, 16 + 4 * slots, stream, part);
}

}  // namespace fastmqa::gpu
