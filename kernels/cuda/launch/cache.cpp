#include "cache.h"

#include "../kernels/row-product.h"
#include "fastmqa/status.h"

namespace fastmqa::gpu {
namespace {

void complete(AppendSide& side) {
  side.scales.groups = side.scales.sharing == Sharing::token ? (side.channels + side.scales.group - 1) / side.scales.group : 1;
  if (side.scales.sharing == Sharing::token && side.scales.group % 2)
    refuse("expected an even group size but received " + std::to_string(side.scales.group));
  const int bits = codeBits(side.cacheType);  // groups must not share a byte
  if (bits > 0 && bits < 4 && side.scales.sharing == Sharing::token && side.scales.groups > 1 && side.scales.group % 8)
    refuse("expected groups of a multiple of 8 channels for codes of " + std::to_string(bits) + " bits but received " + std::to_string(side.scales.group));
}

template <Dtype type>
auto rowProductOf(int rows) {
  return rows == 1 ? rowProductKernel<1, type> : rows <= 4 ? rowProductKernel<4, type> : rowProductKernel<RowProductShape::mostRows, type>;
}

}  // namespace

int append(AppendProblem p, Stream stream) {
  for (int i = 0; i < p.sideCount; i++) {
    complete(p.sides[i]);
    if (p.sides[i].scales.sharing == Sharing::channel) refuse("expected a format that needs no other token for append but received groups of tokens");
  }
  const int units = p.tokens * p.kvHeads;
  return launchAfter(appendKernel, GridSize{(units + appendWarps - 1) / appendWarps, p.sideCount, p.batch}, appendWarps * warpSize_, 0, stream, p);
}

int settle(AppendProblem p, Stream stream) {
  complete(p.sides[0]);
  const int group = p.sides[0].scales.group;
  if (p.sides[0].scales.sharing != Sharing::channel || pageTokens % group || p.tokens % group || p.length % group)
    refuse("expected whole groups of " + std::to_string(group) + " tokens for settle but received " + std::to_string(p.tokens));
  const auto kernel = codeBits(p.sides[0].cacheType) >= 4 ? settleKernel<2> : settleKernel<8>;
  return launchAfter(kernel, GridSize{p.tokens / group, p.kvHeads, p.batch}, settleThreads, 0, stream, p);
}

int expand(const ExpandProblem& p, Stream stream) {
  int64_t runs = 0;
  for (int i = 0; i < p.bandCount; i++) runs += (p.bands[i].channels + expandRun - 1) / expandRun;
  const ExpandBand& last = p.bands[p.bandCount - 1];
  if (last.firstChannel + last.channels < p.channels) runs++;
  if (p.tokens == 0) return 0;
  const int64_t blocks = (runs * p.tokens + expandThreads - 1) / expandThreads;
  return launchAfter(expandKernel, GridSize{static_cast<int>(blocks), p.heads, p.batch}, expandThreads, 0, stream, p);
}

int move(const MoveProblem& p, Stream stream) {
  const int64_t units = p.rows * p.heads * ((p.width + 1) / 2);
  return launchAfter(moveKernel, GridSize{static_cast<int>((units + moveThreads - 1) / moveThreads), 1, 1}, moveThreads, 0, stream, p);
}

int rotate(const RotateProblem& p, Stream stream) {
  const int64_t units = p.count * p.heads * p.pairs;
  if (units == 0) return 0;
  return launchAfter(rotateKernel, GridSize{static_cast<int>((units + rotateThreads - 1) / rotateThreads), 1, 1}, rotateThreads, 0, stream, p);
}

int multiplyMatrices(const ProductProblem& p, const Device& device, Stream stream) {
  const auto tiles = [](int n, int tile) { return (n + tile - 1) / tile; };
  if (p.heads > 65535) refuse("expected at most 65535 heads for a product but received " + std::to_string(p.heads));
  const bool isAligned = p.k % 8 == 0 && p.xStride % 8 == 0 && p.xHead % 8 == 0 && p.wHead % 8 == 0;
  if (p.m <= RowProductShape::mostRows && isAligned) {
    const int shared = RowProductShape::sharedBytes(p.m, p.k);
    const auto kernel = p.type == Dtype::f32 ? rowProductOf<Dtype::f32>(p.m) : p.type == Dtype::f16 ? rowProductOf<Dtype::f16>(p.m) : rowProductOf<Dtype::bf16>(p.m);
    if (shared <= device.sharedBytesPerBlock && shared <= RowProductShape::mostShared)
      return launchAfter(kernel, GridSize{tiles(p.n, RowProductShape::warps), 1, p.heads}, RowProductShape::threads, shared, stream, p);
  }
  const GridSize grid{tiles(p.n, ProductShape::columns), tiles(p.m, ProductShape::rows), p.heads};
  const bool fits = isAligned && p.yHead % 2 == 0 && device.sharedBytesPerBlock >= ProductShape::sharedBytes;
  if (fits && p.type == Dtype::f16) return launch(productKernel<F16>, grid, ProductShape::threads, ProductShape::sharedBytes, stream, p);
  if (fits && p.type == Dtype::bf16 && device.capability >= 80)
    return launch(productKernel<Bf16>, grid, ProductShape::threads, ProductShape::sharedBytes, stream, p);
  return launch(plainProductKernel, GridSize{tiles(p.n, 32), tiles(p.m, 32), p.heads}, plainProductThreads, 2 * 32 * 33 * 4 + 32, stream, p);
}

}  // namespace fastmqa::gpu
