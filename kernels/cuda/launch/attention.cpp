#include "attention.h"

#include <algorithm>
#include <string>

#include "../kernels/combine.h"
#include "../kernels/general.h"
#include "fastmqa/status.h"
#include "hopper.h"

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

bool isDecode(const AttentionProblem& p) {
  return p.keyDim == p.valueDim && p.cacheType == p.valueType && isAligned(p.keys) && isAligned(p.values) && p.scale > 0 && p.queryBatch % 2 == 0 &&
         p.queryToken % 2 == 0 && p.queryHead % 2 == 0;
}

/// Of a coded cache: pages whose rows lie one after another, and scales as the kernels copy them.
bool isCodedDecode(const AttentionProblem& p) {
  if (!isDecode(p) || is16Bit(p.cacheType) || p.keys.pagesPerSequence == 0 || p.values.pagesPerSequence == 0) return false;
  const int64_t rowBytes = packedBytes(p.cacheType, p.keyDim);
  if (p.keys.tokenBytes != rowBytes || p.values.tokenBytes != rowBytes) return false;
  const bool isInt = p.cacheType == Dtype::int8 || p.cacheType == Dtype::int4;
  return isInt ? areTileScales(p.keyScales, p.keyDim, true) && areTileScales(p.valueScales, p.valueDim, false)
               : p.keyScales.sharing == Sharing::tensor && p.valueScales.sharing == Sharing::tensor;
}

/// `rows`: of a block, at most.
AttentionKernel decodeKernelFor(const AttentionProblem& p, const Device& device, int rows) {
  if (is16Bit(p.cacheType)) return isDecode(p) ? plainDecodeKernel(p.cacheType, p.keyDim, rows, device) : AttentionKernel{};
  return isCodedDecode(p) ? codedDecodeKernel(p, rows, device) : AttentionKernel{};
}

AttentionKernel hopperDecodeOf([[maybe_unused]] const AttentionProblem& p, [[maybe_unused]] const Device& device, [[maybe_unused]] int rows) {
#ifdef FASTMQA_HOPPER
  if (isCodedDecode(p)) return hopperDecodeKernel(p, rows, device);
#endif
  return {};
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

bool isLatent(const AttentionProblem& p) {
  return p.kvHeads == 1 && p.keys.data.data() == p.values.data.data() && p.queryType == p.cacheType && is16Bit(p.cacheType) && isAligned(p.keys) &&
         p.queryBatch % 8 == 0 && p.queryToken % 8 == 0 && p.queryHead % 8 == 0 && p.heads * p.queryTokens >= 8;
}

AttentionKernel latentKernelOf(const AttentionProblem& p, const Device& device) {
  return isLatent(p) && device.capability >= 80 ? latentKernelFor(p.cacheType, p.keyDim, p.valueDim) : AttentionKernel{};
}

AttentionKernel hopperLatentOf([[maybe_unused]] const AttentionProblem& p, [[maybe_unused]] const Device& device) {
#ifdef FASTMQA_HOPPER
  if (isLatent(p) && p.softcap == 0 && p.scale > 0) return hopperLatentKernel(p, device);
#endif
  return {};
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
  int64_t blocks = 0;
  int leastTokens = 256;  // of a split: fewer would not pay for starting it
  const auto fits = [&](const AttentionKernel& kernel) { return kernel.run && kernel.sharedBytes <= device.sharedBytesPerBlock; };
  const auto blocksOf = [&](int64_t allRows, int perBlock, int64_t heads) { return (allRows + perBlock - 1) / perBlock * heads * p.batch; };

  if (p.made) {
    plan.path = Path::reconstruct;
    plan.kernel = reconstructKernel(p, device);
    check(plan.kernel.start != nullptr, "latents that a kernel makes keys and values of", p.keyDim);
    plan.blockRows = plan.kernel.rows;
    const int rowBlocks = (rows + plan.kernel.rows - 1) / plan.kernel.rows, resident = std::max(1, device.sharedBytesPerBlock / plan.kernel.sharedBytes);
    plan.splits = splitsFor(blocksOf(rows, plan.kernel.rows, p.kvHeads), visibleTokens(p), 64, device.multiprocessors * std::min(2, resident));
    plan.grid = {plan.splits, p.kvHeads * rowBlocks, p.batch};
    return plan;
  }
  const AttentionKernel prefill = may(Path::prefill) ? prefillKernelOf(p, device) : AttentionKernel{};
  const bool packs = group > 1 && 64 % group == 0 && p.queryTokens < 128;
  const AttentionKernel hopper = may(Path::hopperPrefill) ? hopperPrefillOf(p, device, packs) : AttentionKernel{};
  // For few rows bandwidth decides, and decode's blocks have more loads under way, but for short rows of shared heads.
  const bool suitsHopper = hopper.start && (rows > 16 || (p.keyDim == 64 && packs && p.kvHeads * p.batch >= device.multiprocessors));
  // A block of few rows is done sooner: rows are spread over multiprocessors that are idle anyway.
  int rowsEach = rows;
  for (int n = 16; n >= 4 && rows <= 64; n /= 2)
    if (blocksOf(rows, n, p.kvHeads) * std::max(1, visibleTokens(p) / 64) <= device.multiprocessors) rowsEach = std::min(rows, n);
  const bool hasIdle = rowsEach < rows;
  const AttentionKernel decode = may(Path::decode) ? decodeKernelFor(p, device, rowsEach) : AttentionKernel{};
  const bool wantsHopperDecode = wanted ? *wanted == Path::hopperDecode : rows > 8 && !hasIdle;
  const AttentionKernel hopperDecode = wantsHopperDecode ? hopperDecodeOf(p, device, rows) : AttentionKernel{};
  const AttentionKernel hopperLatent = may(Path::hopperLatent) ? hopperLatentOf(p, device) : AttentionKernel{};
  const AttentionKernel latent = may(Path::latent) ? latentKernelOf(p, device) : AttentionKernel{};
  if (hopperLatent.start) {
    plan.path = Path::hopperLatent;
    plan.kernel = hopperLatent;
    plan.grid = {1, (rows + hopperLatent.rows - 1) / hopperLatent.rows, p.batch};
    plan.splits = splitsFor(static_cast<int64_t>(plan.grid.y) * p.batch, visibleTokens(p), 256, device.multiprocessors);
    plan.grid.x = plan.splits;
    return plan;
  } else if (hopperDecode.start) {
    plan.path = Path::hopperDecode;
    plan.kernel = hopperDecode;
    plan.blockRows = hopperDecode.rows;
    plan.grid = {1, p.kvHeads * ((rows + hopperDecode.rows - 1) / hopperDecode.rows), p.batch};
    check(plan.grid.y < 65536, "fewer than 65536 blocks of rows", plan.grid.y);
    plan.splits = splitsFor(static_cast<int64_t>(plan.grid.y) * p.batch, visibleTokens(p), 256, device.multiprocessors);
    plan.grid.x = plan.splits;
    return plan;
  } else if (fits(latent)) {
    plan.path = Path::latent;
    plan.kernel = latent;
    const int rowBlocks = (rows + latent.rows - 1) / latent.rows;
    blocks = static_cast<int64_t>(rowBlocks) * p.batch;
    plan.grid = {1, rowBlocks, p.batch};
  } else if (fits(decode) && (hasIdle || (!suitsHopper && (rows <= decode.rows || !(fits(prefill) || hopper.start))))) {
    plan.path = Path::decode;
    plan.kernel = decode;
    plan.blockRows = hasIdle ? std::min(rowsEach, decode.rows) : decode.rows;
    const int rowBlocks = (rows + plan.blockRows - 1) / plan.blockRows;
    blocks = blocksOf(rows, plan.blockRows, p.kvHeads);
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
  // Where a block a multiprocessor has little to do, more blocks only make the merge longer.
  const bool isShort = plan.path == Path::decode && blocks * visibleTokens(p) <= int64_t{256} * device.multiprocessors;
  const int resident = device.multiprocessors * (isShort ? 1 : residentBlocks(plan.kernel.run, plan.kernel.threads, plan.kernel.sharedBytes));
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
    part.blockRows = plans[i].blockRows;
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
    const AttentionKernel& kernel = plans[i].kernel;
    const auto begin = plans[i].path == Path::decode ? launchAfter<AttentionProblem> : launch<AttentionProblem>;
    const int status = kernel.start ? kernel.start(part, plans[i].grid, stream) : begin(kernel.run, plans[i].grid, kernel.threads, kernel.sharedBytes, stream, part);
    if (status != 0) return status;
  }
  if (slots == 1) return 0;
  return launchAfter(combineKernel, GridSize{static_cast<int>(rows), 1, 1}, combineThreads, 16 + 4 * slots, stream, part);
}

}  // namespace fastmqa::gpu
