#include "cache.h"

#include <algorithm>

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

/// Whether the rows fit the memory of a block that multiplies them with a few rows of the matrix.
bool fitsRowProduct(int64_t m, int64_t k, const Device& device) {
  if (m > RowProductShape::mostRows || k % 8) return false;
  const int shared = RowProductShape::sharedBytes(static_cast<int>(m), static_cast<int>(k));
  return shared <= device.sharedBytesPerBlock && shared <= RowProductShape::mostShared;
}

int startRowProducts(RowProducts all, const Device& device, Stream stream) {
  const ProductProblem& p = all.first;
  all.tiles = RowProductShape::tiles(p.n);
  for (const RowProducts::Other& other : all.others) all.tiles += RowProductShape::tiles(other.n);
  const int shared = RowProductShape::sharedBytes(p.m, p.k), together = std::clamp(device.sharedBytesPerBlock / (shared + 1024), 1, RowProductShape::blocks);
  const int each = (all.tiles + device.multiprocessors * together - 1) / (device.multiprocessors * together);
  const auto kernel = p.type == Dtype::f32 ? rowProductOf<Dtype::f32>(p.m) : p.type == Dtype::f16 ? rowProductOf<Dtype::f16>(p.m) : rowProductOf<Dtype::bf16>(p.m);
  return launchAfter(kernel, GridSize{(all.tiles + each - 1) / each, 1, p.heads}, RowProductShape::threads, shared, stream, all);
}

/// Rows that are read 16 bytes at a time.
bool isAligned(const ProductProblem& p) { return p.k % 8 == 0 && p.xStride % 8 == 0 && p.xHead % 8 == 0 && p.wHead % 8 == 0; }

int multiplyManyRows(const ProductProblem& p, const Device& device, Stream stream) {
  const auto tiles = [](int n, int tile) { return (n + tile - 1) / tile; };
  const GridSize grid{tiles(p.n, ProductShape::columns), tiles(p.m, ProductShape::rows), p.heads};
  const bool fits = isAligned(p) && p.yHead % 2 == 0 && device.sharedBytesPerBlock >= ProductShape::sharedBytes;
  if (fits && p.type == Dtype::f16) return launch(productKernel<F16>, grid, ProductShape::threads, ProductShape::sharedBytes, stream, p);
  if (fits && p.type == Dtype::bf16 && device.capability >= 80)
    return launch(productKernel<Bf16>, grid, ProductShape::threads, ProductShape::sharedBytes, stream, p);
  return launch(plainProductKernel, GridSize{tiles(p.n, 32), tiles(p.m, 32), p.heads}, plainProductThreads, 2 * 32 * 33 * 4 + 32, stream, p);
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

int multiplyMatrices(const ProductProblem* problems, int count, const Device& device, Stream stream) {
  for (int i = 0; i < count;) {
    const ProductProblem& p = problems[i];
    if (p.heads > 65535) refuse("expected at most 65535 heads for a product but received " + std::to_string(p.heads));
    int status = 0;
    if (isAligned(p) && fitsRowProduct(p.m, p.k, device)) {
      RowProducts all{p};
      int n = 1;
      for (; n < mostProducts && i + n < count; n++) {
        const ProductProblem& other = problems[i + n];
        all.others[n - 1] = {other.w, other.y, other.bias, other.n};
      }
      status = startRowProducts(all, device, stream);
      i += n;
    } else {
      status = multiplyManyRows(problems[i++], device, stream);
    }
    if (status != 0) return status;
  }
  return 0;
}

int multiplyMatrices(const ProductProblem& p, const Device& device, Stream stream) { return multiplyMatrices(&p, 1, device, stream); }

bool gatesInProduct(int64_t m, int64_t k, const Device& device) { return m * k <= RowProducts::mostGated && fitsRowProduct(m, k, device); }

int multiplyGated(const ProductProblem& p, ActivationKind activation, const Device& device, Stream stream) {
  RowProducts all{p};
  all.gated = true, all.activation = activation;
  all.first.xStride = 2 * p.k;
  return startRowProducts(all, device, stream);
}

}  // namespace fastmqa::gpu
