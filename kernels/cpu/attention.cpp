#include "attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "../math/threads.h"
#include "../simd/simd.h"

namespace fastmqa {
namespace {

constexpr int64_t tileTokens = 64;
constexpr int64_t blockRows = 96;        // query rows that share a tile, about: eight register tiles of 12
constexpr int64_t diagonalRows = 12;
constexpr int64_t wantedItems = 32;      // enough work items for the cores of a desktop; fixed, so results are too
constexpr int64_t leastTilesPerSplit = 4;

/// Decode and verify: bound by memory, so an item takes many KV heads, which lie side by side in a page.
/// The choice, like the partition of the keys, is the same for one token and for several.
constexpr int64_t fewTokens = 12, fewGroup = 8, fewHeads = 32;
bool fewRows(int64_t tokens, int64_t group) { return tokens <= fewTokens && group <= fewGroup; }

/// A run of consecutive cached tokens inside one page.
struct Tile {
  const PanelStore* keys;
  const PanelStore* values;
  int64_t page, base;      // base: token of the page's first slot
  int64_t from, to;        // tokens that count
};

/// Scratch memory of one use: grows, never shrinks, 64-byte aligned, one per thread.
class Scratch {
 public:
  /// `most`: of its use, the largest asked for by any thread, floats.
  explicit Scratch(std::atomic<int64_t>& most) : most_(most) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats(int64_t n) {
    if (n > size_) {
      size_ = 0;
      data_.reset(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>((n * 4 + 63) / 64 * 64))));
      if (!data_) throw Failure(FailureKind::outOfMemory, "out of memory: attention workspace");
      size_ = n;
    }
    for (int64_t most = most_; n > most && !most_.compare_exchange_weak(most, n);) {}
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
  std::atomic<int64_t>& most_;
};

std::array<std::atomic<int64_t>, 8> mostFloats{};

struct Workspace {
  Scratch q{mostFloats[0]}, scores{mostFloats[1]}, keys{mostFloats[2]}, values{mostFloats[3]}, sums{mostFloats[4]},
      transposed{mostFloats[5]}, wide{mostFloats[6]}, rebuilt{mostFloats[7]};
};
Workspace& workspace() {
  thread_local Workspace w;
  return w;
}

void addTiles(std::vector<Tile>& out, const PanelStore* keys, const PanelStore* values, int64_t from, int64_t to) {
  const int64_t width = keys->spec().pageTokens;
  for (int64_t page = std::max(keys->firstPage(), from / width); page < keys->endPage(); page++) {
    const Tile tile{keys, values, page, page * width, std::max(from, page * width), std::min(to, (page + 1) * width)};
    if (tile.from < tile.to) out.push_back(tile);
  }
}

/// Exact parts: sinks, and the tail that is not quantised yet.
std::vector<Tile> exactTiles(const SequenceCache& cache) {
  std::vector<Tile> tiles;
  if (cache.sinkKeys()) addTiles(tiles, cache.sinkKeys(), cache.sinkValues(), 0, std::min(cache.spec().sinks, cache.length()));
  if (cache.tailKeys())
    addTiles(tiles, cache.tailKeys(), cache.tailValues(), std::max(cache.settled(), cache.spec().sinks), cache.length());
  return tiles;
}

std::vector<Tile> bodyTiles(const SequenceCache& cache) {
  std::vector<Tile> tiles;
  addTiles(tiles, &cache.bodyKeys(), cache.bodyValues(), cache.spec().sinks, cache.settled());
  return tiles;
}

/// What a block of rows may see of a tile.
struct Visibility {
  const AttentionShape& shape;
  const Tile& tile;

  int64_t low(int64_t position) const { return std::max(tile.from, position - shape.left); }
  int64_t high(int64_t position) const { return std::min(tile.to, position + shape.right + 1); }  // exclusive
  bool anySink() const { return tile.from < shape.sinks; }
  bool none(int64_t firstPosition, int64_t lastPosition) const {
    return tile.from > lastPosition + shape.right || (tile.to <= firstPosition - shape.left && !anySink());
  }
  /// All slots [0, columns) of the tile are visible to all rows.
  bool all(int64_t firstPosition, int64_t lastPosition, int64_t columns) const {
    return tile.from == tile.base && tile.to == tile.base + columns && tile.to - 1 <= firstPosition + shape.right &&
           tile.from >= lastPosition - shape.left;
  }
};

/// State of the online softmax of a block of rows; f32 arrays are padded as softmaxRows() wants it.
struct RowState {
  int64_t rows;
  std::vector<float> top;       // running maximum; of f64 scores: what those of the step at hand are relative to
  std::vector<double> wideTop;  // running maximum of f64 scores
  std::vector<double> total;
  std::vector<float> keep;     // factor for what was summed before
  std::vector<float> stepSum;  // of the step at hand
  RowState(int64_t n, bool wide)
      : rows(n), top(n + padFloats, -INFINITY), wideTop(wide ? n : 0, -INFINITY), total(n, 0.0), keep(n + padFloats, 1.0f), stepSum(n) {}
  double logSumExp(int64_t i) const {
    return total[i] > 0 ? (wideTop.empty() ? static_cast<double>(top[i]) : wideTop[i]) + std::log(total[i]) : -INFINITY;
  }
};

/// Turns scores [rows][stride] (or their f64 twin) into probabilities and updates the state, from `firstRow` on.
/// columns: a multiple of 16.
void softmaxStep(const AttentionShape& shape, const Visibility& seen, const MaskView& mask, const int64_t* positions,
                 const int64_t* queryIndex, const int64_t* headIndex, float* scores, double* wide, int64_t stride,
                 int64_t columns, bool allSeen, int64_t firstRow, RowState& state) {
  const Simd& v = simd();
  const bool explicitMask = mask.additive || mask.boolean, plain = allSeen && !explicitMask && !wide && !(shape.softcap > 0);
  std::vector<float> wideKeep(wide ? static_cast<size_t>(state.rows) : 0);
  for (int64_t i = firstRow; i < state.rows && !plain; i++) {
    float* row = scores + i * stride;
    double* wideRow = wide ? wide + i * stride : nullptr;
    if (shape.softcap > 0) {
      if (wideRow)
        for (int64_t c = 0; c < columns; c++) wideRow[c] = shape.softcap * std::tanh(wideRow[c] / shape.softcap);
      else
        v.softcapRow(row, columns, shape.softcap);
    }
    if (!allSeen || explicitMask) {
      const int64_t low = seen.low(positions[i]) - seen.tile.base, high = seen.high(positions[i]) - seen.tile.base;
      const int64_t sinkEnd = std::min(shape.sinks - seen.tile.base, high);
      const auto hide = [&](int64_t from, int64_t to) {
        from = std::max<int64_t>(from, 0), to = std::min(to, columns);
        if (from >= to) return;
        wideRow ? std::fill(wideRow + from, wideRow + to, -INFINITY) : std::fill(row + from, row + to, -INFINITY);
      };
      const int64_t first = seen.tile.from - seen.tile.base;
      hide(0, first);
      hide(std::max(first, sinkEnd), low);  // left of the window, sinks apart
      hide(high, columns);
      if (explicitMask) {
        const int64_t at = headIndex[i] * mask.headStride + queryIndex[i] * mask.queryStride;
        for (int64_t c = std::max<int64_t>(0, seen.tile.from - seen.tile.base); c < std::min(columns, high); c++) {
          const int64_t k = at + (seen.tile.base + c) * mask.keyStride;
          if (mask.boolean && !mask.boolean[k]) hide(c, c + 1);
          if (mask.additive) {
            if (wideRow)
              wideRow[c] += static_cast<double>(mask.additive[k]);
            else
              row[c] += mask.additive[k];
          }
        }
      }
    }
    if (wideRow) {
      double newTop = state.wideTop[i];
      for (int64_t c = 0; c < columns; c++) newTop = std::max(newTop, wideRow[c]);
      for (int64_t c = 0; c < columns; c++)
        row[c] = newTop == -INFINITY ? -INFINITY : static_cast<float>(wideRow[c] - newTop);
      state.top[i] = newTop == -INFINITY ? -INFINITY : 0.0f;
      wideKeep[i] = newTop == state.wideTop[i] ? 1.0f : static_cast<float>(std::exp(state.wideTop[i] - newTop));
      state.wideTop[i] = newTop;
    }
  }
  v.softmaxRows(state.rows - firstRow, scores + firstRow * stride, stride, columns, state.top.data() + firstRow,
                state.keep.data() + firstRow, state.stepSum.data() + firstRow);
  if (wide) std::copy(wideKeep.begin() + firstRow, wideKeep.end(), state.keep.begin() + firstRow);
  for (int64_t i = firstRow; i < state.rows; i++)
    state.total[i] = state.total[i] * static_cast<double>(state.keep[i]) + static_cast<double>(state.stepSum[i]);
}

/// Partial results of one sequence: slot s holds the normalised output and log-sum-exp of its part of the keys.
struct Partials {
  int64_t slots = 0, rows = 0, valueDim = 0;
  std::vector<float> out;    // [slots][rows][valueDim], row = token * heads + head
  std::vector<double> lse;   // [slots][rows]
  void resize(int64_t s, int64_t r, int64_t d) {
    slots = s, rows = r, valueDim = d;
    out.assign(static_cast<size_t>(s * r * d), 0.0f);
    lse.assign(static_cast<size_t>(s * r), -INFINITY);
  }
};

/// Merge of a row by log-sum-exp; associative, and a part without keys has weight zero.
void mergeRow(const Partials& p, int64_t r, const SequenceQueries& s, const AttentionShape& shape) {
  float* out = s.out + r / shape.heads * s.outTokenStride + r % shape.heads * s.outHeadStride;
  double top = -INFINITY, total = 0;
  for (int64_t k = 0; k < p.slots; k++) top = std::max(top, p.lse[k * p.rows + r]);
  std::fill_n(out, shape.valueDim, 0.0f);
  if (top == -INFINITY) return;
  for (int64_t k = 0; k < p.slots; k++) total += std::exp(p.lse[k * p.rows + r] - top);
  for (int64_t k = 0; k < p.slots; k++) {
    const float weight = static_cast<float>(std::exp(p.lse[k * p.rows + r] - top) / total);
    if (weight == 0) continue;
    const float* part = p.out.data() + (k * p.rows + r) * p.valueDim;
    for (int64_t c = 0; c < p.valueDim; c++) out[c] += weight * part[c];
  }
}

/// One unit of direct work: a block of query tokens of some KV heads against a range of tiles.
struct DirectItem {
  size_t sequence;
  int64_t firstHead, kvHeads, firstToken, tokens;
  size_t firstTile, lastTile;
  int64_t slot;  // -1: the only part, written straight to the output
};

/// `after`: what this thread will probably read next.
void runDirect(const AttentionShape& shape, const SequenceQueries& s, const std::vector<Tile>& tiles,
               const DirectItem& item, const RopeTable* rope, Partials* partials, Ahead after, const CancelFlag* cancel) {
  const Simd& v = simd();
  Workspace& w = workspace();
  const int64_t group = shape.heads / shape.kvHeads, perHead = item.tokens * group, rows = perHead * item.kvHeads;
  const int64_t d = shape.keyDim, outStride = padded(shape.valueDim);
  float* q = w.q.floats(rows * d);
  float* sums = w.sums.floats(rows * outStride);
  std::fill_n(sums, rows * outStride, 0.0f);
  float* scores = w.scores.floats(rows * tileTokens);
  double* wide = shape.wideScores ? reinterpret_cast<double*>(w.wide.floats(rows * tileTokens * 2)) : nullptr;
  RowState state(rows, wide);
  std::vector<int64_t> positions(rows), queryIndex(rows), headIndex(rows);
  for (int64_t i = 0; i < rows; i++) {  // rows ordered by KV head, then token, then head of the group
    queryIndex[i] = item.firstToken + i % perHead / group;
    headIndex[i] = (item.firstHead + i / perHead) * group + i % group;
    positions[i] = s.firstPosition + queryIndex[i];
    const float* from = s.q + queryIndex[i] * s.qTokenStride + headIndex[i] * s.qHeadStride;
    for (int64_t c = 0; c < d; c++) q[i * d + c] = wide ? from[c] : from[c] * shape.scale;
  }
  const int64_t firstPosition = positions.front(), lastPosition = positions.back();
  const bool few = fewRows(s.tokens, group);
  const bool inRegisters = few && !wide && !rope;  // tiles are used where they lie, not read out first
  for (size_t t = item.firstTile; t < item.lastTile; t++) {
    const Tile& tile = tiles[t];
    const Visibility seen{shape, tile};
    if (seen.none(firstPosition, lastPosition)) continue;
    if (cancel) cancel->check();
    const int64_t stride = tile.keys->tileStride();
    // Columns that some row of the block sees, in whole vectors.
    const int64_t columns = inRegisters ? stride : std::min(stride, padded(seen.high(lastPosition) - tile.base));
    const bool all = seen.all(firstPosition, lastPosition, columns);
    const Tile* next = t + 1 < item.lastTile ? &tiles[t + 1] : nullptr;
    // On the causal diagonal the first rows of the block see nothing of the tile.
    const int64_t skip = item.kvHeads > 1 ? 0 : std::max<int64_t>(0, tile.from - shape.right - firstPosition) * group;
    const int64_t seeing = perHead - skip;
    // The columns that rows [first, first + count) see: all at once, or on the diagonal a register tile of rows at a time.
    const auto visibleRows = [&](int64_t first, int64_t count, const auto& product) {
      if (all) return product(first, count, columns);
      for (int64_t row = first; row < first + count; row += diagonalRows) {
        const int64_t some = std::min(diagonalRows, first + count - row);
        product(row, some, std::clamp(padded(seen.high(positions[row + some - 1]) - tile.base), int64_t{padFloats}, columns));
      }
    };
    for (int64_t g = 0; g < item.kvHeads; g++) {
      const int64_t head = item.firstHead + g, first = g * perHead + skip;
      float* scratch = w.keys.floats(tile.keys->tileFloats());
      if (inRegisters) {
        if (g + 1 == item.kvHeads) tile.values->prefetch(tile.page, item.firstHead);
        tile.keys->multiply(tile.page, head, seeing, q + first * d, d, scores + first * tileTokens, tileTokens, nullptr, scratch);
        continue;
      }
      const float* keys = tile.keys->read(tile.page, head, scratch);
      if (rope) {
        if (keys != scratch) std::copy_n(keys, d * stride, scratch);
        rope->rotateTile(scratch, stride, tile.base, tile.keys->spec().pageTokens);
        keys = scratch;
      }
      if (wide) {  // scaled afterwards: a scaled query would be rounded
        double* logits = wide + first * tileTokens;
        v.gemmF32Wide(seeing, columns, d, q + first * d, d, keys, stride, logits, tileTokens);
        for (int64_t i = 0; i < seeing; i++)
          for (int64_t c = 0; c < columns; c++) logits[i * tileTokens + c] *= static_cast<double>(shape.scale);
      } else {
        const Ahead ahead = tile.values->ahead(tile.page, head);
        visibleRows(first, seeing, [&](int64_t row, int64_t count, int64_t visible) {
          v.gemmF32(count, visible, d, q + row * d, d, keys, stride, scores + row * tileTokens, tileTokens, nullptr, ahead);
        });
      }
    }
    softmaxStep(shape, seen, s.mask, positions.data(), queryIndex.data(), headIndex.data(), scores, wide, tileTokens,
                columns, all, skip, state);
    for (int64_t g = 0; g < item.kvHeads; g++) {
      const int64_t head = item.firstHead + g, first = g * perHead + skip;
      float* scratch = w.values.floats(tile.values->tileFloats());
      if (inRegisters) {
        if (next && g + 1 == item.kvHeads) next->keys->prefetch(next->page, item.firstHead);
        tile.values->multiply(tile.page, head, seeing, scores + first * tileTokens, tileTokens, sums + first * outStride,
                              outStride, state.keep.data() + first, scratch);
        continue;
      }
      const float* values = tile.values->read(tile.page, head, scratch);
      const Ahead ahead = next ? next->keys->ahead(next->page, head) : after;
      visibleRows(first, seeing, [&](int64_t row, int64_t count, int64_t visible) {
        v.gemmF32(count, outStride, std::min(visible, tile.values->spec().pageTokens), scores + row * tileTokens, tileTokens,
                  values, tile.values->rowStride(), sums + row * outStride, outStride, state.keep.data() + row, ahead);
      });
    }
  }
  for (int64_t i = 0; i < rows; i++) {
    const int64_t row = queryIndex[i] * shape.heads + headIndex[i];
    float* out = item.slot < 0 ? s.out + queryIndex[i] * s.outTokenStride + headIndex[i] * s.outHeadStride
                               : partials->out.data() + (item.slot * partials->rows + row) * shape.valueDim;
    const float inverse = state.total[i] > 0 ? static_cast<float>(1 / state.total[i]) : 0.0f;
    for (int64_t c = 0; c < shape.valueDim; c++) out[c] = sums[i * outStride + c] * inverse;
    if (item.slot >= 0) partials->lse[item.slot * partials->rows + row] = state.logSumExp(i);
  }
}

/// A range of latent tiles for all heads of one sequence: each tile is read, and its keys rebuilt, once.
void runLatent(const AttentionShape& shape, const SequenceQueries& s, const std::vector<Tile>& tiles, size_t firstTile,
               size_t lastTile, int64_t slot, const LatentMaps& maps, const RopeTable* rope, Partials& partials,
               const CancelFlag* cancel) {
  const Simd& v = simd();
  Workspace& w = workspace();
  const int64_t group = shape.heads / shape.kvHeads, perHead = s.tokens * group, rows = perHead * shape.kvHeads;
  const int64_t d = shape.keyDim, latentStride = padded(maps.valueRank), turnedRows = padded(rows);
  // A joint latent lies by channel, as the scores want it: its value sums are kept the same way, [valueRank][turnedRows], so
  // that the small probabilities are turned for every tile and not the latent.
  float* sums = w.sums.floats(maps.joint ? maps.valueRank * turnedRows : rows * latentStride);
  std::fill_n(sums, maps.joint ? maps.valueRank * turnedRows : rows * latentStride, 0.0f);
  float* scores = w.scores.floats(rows * tileTokens);
  RowState state(rows, false);
  std::vector<int64_t> positions(rows), queryIndex(rows), headIndex(rows);
  std::vector<float> offset(static_cast<size_t>(rows), 0.0f);
  const std::vector<float> ones(static_cast<size_t>(maps.own ? rows : maps.joint ? maps.valueRank : 0), 1.0f);
  const int64_t queryWidth = maps.absorbed ? maps.keyStride : d;
  float* q = w.q.floats(rows * (queryWidth + d));
  float* plain = q + rows * queryWidth;
  for (int64_t i = 0; i < rows; i++) {  // rows ordered by KV head, then token, then head of the group
    const int64_t g = i / perHead;
    queryIndex[i] = i % perHead / group;
    headIndex[i] = g * group + i % group;
    positions[i] = s.firstPosition + queryIndex[i];
    const float* from = s.q + queryIndex[i] * s.qTokenStride + headIndex[i] * s.qHeadStride;
    float* to = maps.absorbed ? plain + i * d : q + i * d;
    for (int64_t c = 0; c < d; c++) to[c] = from[c] * shape.scale;
    if (maps.absorbed && maps.meanKeys)
      for (int64_t c = 0; c < d; c++) offset[i] += to[c] * maps.meanKeys[g * d + c];
  }
  if (maps.absorbed)
    for (int64_t g = 0; g < shape.kvHeads; g++)
      v.gemmF32(perHead, maps.keyStride, d, plain + g * perHead * d, d, maps.upKeys + g * d * maps.keyStride,
                maps.keyStride, q + g * perHead * queryWidth, queryWidth, nullptr, {});
  const int64_t firstPosition = s.firstPosition, lastPosition = s.firstPosition + s.tokens - 1;
  for (size_t t = firstTile; t < lastTile; t++) {
    const Tile& tile = tiles[t];
    const Visibility seen{shape, tile};
    if (seen.none(firstPosition, lastPosition)) continue;
    if (cancel) cancel->check();
    const int64_t stride = tile.keys->tileStride(), columns = stride, tokens = tile.keys->spec().pageTokens;
    const bool all = seen.all(firstPosition, lastPosition, columns);
    const Tile* next = t + 1 < lastTile ? &tiles[t + 1] : nullptr;
    const Ahead nextKeys = next ? next->keys->ahead(next->page, 0) : Ahead{};
    // While scores are made: what is read after them, or what the next tile begins with.
    const Ahead ahead = maps.joint ? nextKeys : !maps.own ? tile.values->ahead(tile.page, 0) : next ? next->values->ahead(next->page, 0) : Ahead{};
    float* scratch = w.keys.floats(tile.keys->tileFloats());
    const float* latent = tile.keys->read(tile.page, 0, scratch);
    const float* values = maps.joint ? nullptr : tile.values->read(tile.page, 0, w.values.floats(tile.values->tileFloats()));
    if (maps.own) {
      if (rope) {
        if (latent != scratch) std::copy_n(latent, maps.keyRank * stride, scratch);
        rope->rotateTile(scratch, stride, tile.base, tile.keys->spec().pageTokens);
        latent = scratch;
      }
      float* turned = w.transposed.floats(latentStride * stride);
      v.transpose(tile.values->spec().pageTokens, latentStride, values, tile.values->rowStride(), turned, stride);
      v.gemmF32(rows, columns, maps.valueRank, q, d, turned, stride, scores, tileTokens, nullptr, ahead);
      v.gemmF32(rows, columns, maps.keyRank, q + maps.valueRank, d, latent, stride, scores, tileTokens, ones.data(), {});
    } else if (maps.absorbed) {
      v.gemmF32(rows, columns, maps.keyRank, q, queryWidth, latent, stride, scores, tileTokens, nullptr, ahead);
      for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < columns; c++) scores[i * tileTokens + c] += offset[i];
    } else {
      float* rebuilt = w.rebuilt.floats(shape.kvHeads * d * stride);
      v.gemmF32(shape.kvHeads * d, stride, maps.keyRank, maps.upKeys, maps.keyStride, latent, stride, rebuilt, stride,
                nullptr, ahead);
      for (int64_t g = 0; g < shape.kvHeads; g++) {
        float* keys = rebuilt + g * d * stride;
        if (maps.meanKeys)
          for (int64_t c = 0; c < d; c++) v.scaleByNumber(keys + c * stride, stride, 1, maps.meanKeys[g * d + c]);
        if (rope) rope->rotateTile(keys, stride, tile.base, tile.keys->spec().pageTokens);
        v.gemmF32(perHead, columns, d, q + g * perHead * d, d, keys, stride, scores + g * perHead * tileTokens,
                  tileTokens, nullptr, {});
      }
    }
    softmaxStep(shape, seen, s.mask, positions.data(), queryIndex.data(), headIndex.data(), scores, nullptr, tileTokens,
                columns, all, 0, state);
    if (maps.joint) {
      float* turned = w.transposed.floats(tileTokens * turnedRows);
      if (turnedRows > rows) std::fill_n(turned, tileTokens * turnedRows, 0.0f);
      v.transpose(rows, stride, scores, tileTokens, turned, turnedRows);
      if (std::any_of(state.keep.begin(), state.keep.begin() + rows, [](float keep) { return keep != 1.0f; }))
        for (int64_t c = 0; c < maps.valueRank; c++)
          for (int64_t i = 0; i < rows; i++) sums[c * turnedRows + i] *= state.keep[i];
      v.gemmF32(maps.valueRank, turnedRows, tokens, latent, stride, turned, turnedRows, sums, turnedRows, ones.data(), {});
    } else {
      v.gemmF32(rows, latentStride, tokens, scores, tileTokens, values, latentStride, sums, latentStride, state.keep.data(), nextKeys);
    }
  }
  if (maps.joint) {
    float* straight = w.transposed.floats(turnedRows * latentStride);
    v.transpose(maps.valueRank, turnedRows, sums, turnedRows, straight, latentStride);
    sums = straight;
  }
  if (maps.own) {
    for (int64_t i = 0; i < rows; i++) {
      if (!(state.total[i] > 0)) continue;
      const int64_t row = queryIndex[i] * shape.heads + headIndex[i];
      const float inverse = static_cast<float>(1 / state.total[i]);
      for (int64_t c = 0; c < maps.valueRank; c++)
        partials.out[static_cast<size_t>((slot * partials.rows + row) * shape.valueDim + c)] = sums[i * latentStride + c] * inverse;
      partials.lse[static_cast<size_t>(slot * partials.rows + row)] = state.logSumExp(i);
    }
    return;
  }
  // Latent sums to head outputs.
  const int64_t outStride = padded(shape.valueDim);
  float* out = w.rebuilt.floats(perHead * outStride);
  for (int64_t g = 0; g < shape.kvHeads; g++) {
    v.gemmF32(perHead, outStride, maps.valueRank, sums + g * perHead * latentStride, latentStride,
              maps.upValues + g * maps.valueRank * outStride, outStride, out, outStride, nullptr, {});
    for (int64_t i = 0; i < perHead; i++) {
      const int64_t r = g * perHead + i, row = queryIndex[r] * shape.heads + headIndex[r];
      if (!(state.total[r] > 0)) continue;
      float* to = partials.out.data() + (slot * partials.rows + row) * shape.valueDim;
      const float inverse = static_cast<float>(1 / state.total[r]);
      for (int64_t c = 0; c < shape.valueDim; c++)
        to[c] = out[i * outStride + c] * inverse + (maps.meanValues ? maps.meanValues[g * shape.valueDim + c] : 0.0f);
      partials.lse[slot * partials.rows + row] = state.logSumExp(r);
    }
  }
}

/// Straight from the definition: all logits of a row in memory, two passes over the cache, one head at a time.
void runNaive(const AttentionShape& shape, const SequenceQueries& s, const std::vector<Tile>& tiles, int64_t head,
              const RopeTable* rope, const CancelFlag* cancel) {
  const int64_t kvHead = head / (shape.heads / shape.kvHeads), d = shape.keyDim, n = s.cache->length();
  if (n == 0) {
    for (int64_t i = 0; i < s.tokens; i++) std::fill_n(s.out + i * s.outTokenStride + head * s.outHeadStride, shape.valueDim, 0.0f);
    return;
  }
  std::vector<double> logits(static_cast<size_t>(s.tokens * n), -INFINITY);
  Workspace& w = workspace();
  for (const Tile& tile : tiles) {
    const Visibility seen{shape, tile};
    if (cancel) cancel->check();
    const int64_t stride = tile.keys->tileStride();
    float* scratch = w.keys.floats(tile.keys->tileFloats());
    const float* keys = tile.keys->read(tile.page, kvHead, scratch);
    if (rope) {
      if (keys != scratch) std::copy_n(keys, d * stride, scratch);
      rope->rotateTile(scratch, stride, tile.base, tile.keys->spec().pageTokens);
      keys = scratch;
    }
    for (int64_t i = 0; i < s.tokens; i++) {
      const float* q = s.q + i * s.qTokenStride + head * s.qHeadStride;
      const int64_t position = s.firstPosition + i;
      for (int64_t k = tile.from; k < seen.high(position); k++) {
        if (k < seen.low(position) && k >= shape.sinks) continue;
        double logit = 0;
        for (int64_t c = 0; c < d; c++) logit += static_cast<double>(q[c]) * keys[c * stride + k - tile.base];
        logit *= static_cast<double>(shape.scale);
        if (shape.softcap > 0) logit = shape.softcap * std::tanh(logit / shape.softcap);
        const int64_t at = head * s.mask.headStride + i * s.mask.queryStride + k * s.mask.keyStride;
        if (s.mask.boolean && !s.mask.boolean[at]) continue;
        if (s.mask.additive) logit += static_cast<double>(s.mask.additive[at]);
        logits[i * n + k] = logit;
      }
    }
  }
  std::vector<double> total(static_cast<size_t>(s.tokens), 0.0);
  for (int64_t i = 0; i < s.tokens; i++) {
    double* row = logits.data() + i * n;
    const double top = *std::max_element(row, row + n);
    for (int64_t k = 0; k < n; k++) {
      row[k] = top == -INFINITY ? 0.0 : std::exp(row[k] - top);
      total[i] += row[k];
    }
  }
  std::vector<double> sum(static_cast<size_t>(s.tokens * shape.valueDim), 0.0);
  for (const Tile& tile : tiles) {
    const float* values = tile.values->read(tile.page, kvHead, w.values.floats(tile.values->tileFloats()));
    for (int64_t i = 0; i < s.tokens; i++)
      for (int64_t k = tile.from; k < tile.to; k++) {
        const double p = logits[i * n + k];
        if (p == 0) continue;
        const float* value = values + (k - tile.base) * tile.values->rowStride();
        for (int64_t c = 0; c < shape.valueDim; c++) sum[i * shape.valueDim + c] += p * static_cast<double>(value[c]);
      }
  }
  for (int64_t i = 0; i < s.tokens; i++) {
    float* out = s.out + i * s.outTokenStride + head * s.outHeadStride;
    for (int64_t c = 0; c < shape.valueDim; c++)
      out[c] = total[i] > 0 ? static_cast<float>(sum[i * shape.valueDim + c] / total[i]) : 0.0f;
  }
}

int64_t splitsFor(int64_t tiles, int64_t itemsWithoutSplit) {
  const int64_t most = std::max<int64_t>(1, tiles / leastTilesPerSplit);
  return std::min(most, (wantedItems + itemsWithoutSplit - 1) / std::max<int64_t>(1, itemsWithoutSplit));
}

}  // namespace

int64_t workspaceBytes() {
  int64_t floats = 0;
  for (const auto& most : mostFloats) floats += most;
  return floats * static_cast<int64_t>(sizeof(float)) * threadCount();
}

void resetWorkspaceBytes() {
  for (auto& most : mostFloats) most = 0;
}

void attend(const AttentionShape& shape, const std::vector<SequenceQueries>& sequences, const LatentMaps* latent,
            const RopeTable* rope, Kernel kernel, const CancelFlag* cancel) {
  const int64_t group = shape.heads / shape.kvHeads;
  const auto count = static_cast<int64_t>(sequences.size());
  if (kernel == Kernel::naive) {
    if (latent) refuse("expected kernel flash for a latent cache but received naive");
    parallelFor(count * shape.heads, [&](int64_t i) {
      const SequenceQueries& s = sequences[static_cast<size_t>(i / shape.heads)];
      std::vector<Tile> tiles = exactTiles(*s.cache);
      for (const Tile& tile : bodyTiles(*s.cache)) tiles.push_back(tile);
      runNaive(shape, s, tiles, i % shape.heads, rope, cancel);
    });
    return;
  }

  std::vector<std::vector<Tile>> direct(sequences.size()), latents(sequences.size());
  std::vector<Partials> partials(sequences.size());
  std::vector<DirectItem> directItems;
  struct LatentItem {
    size_t sequence, firstTile, lastTile;
    int64_t slot;
  };
  std::vector<LatentItem> latentItems;
  for (size_t i = 0; i < sequences.size(); i++) {
    const SequenceQueries& s = sequences[i];
    if (s.tokens == 0) continue;
    direct[i] = exactTiles(*s.cache);
    std::vector<Tile> body = bodyTiles(*s.cache);
    if (latent && latent->own) {
      latents[i] = std::move(direct[i]);
      direct[i].clear();
      latents[i].insert(latents[i].end(), body.begin(), body.end());
    } else if (latent)
      latents[i] = std::move(body);
    else
      direct[i].insert(direct[i].end(), body.begin(), body.end());

    const int64_t blockTokens = std::max<int64_t>(1, blockRows / group);
    const int64_t blocks = (s.tokens + blockTokens - 1) / blockTokens;
    int64_t headsPerItem = fewRows(s.tokens, group) ? std::min(shape.kvHeads, fewHeads / group) : 1;
    const int64_t tileCount = static_cast<int64_t>(direct[i].size()), headRuns = (shape.kvHeads + headsPerItem - 1) / headsPerItem;
    const int64_t directSplits = blocks > 1 ? 1 : splitsFor(tileCount, count * headRuns);
    // Too short to be split into enough parts: fewer heads an item.
    const int64_t wantedRuns = (wantedItems + count * directSplits - 1) / (count * directSplits);
    headsPerItem = std::min(headsPerItem, (shape.kvHeads + wantedRuns - 1) / wantedRuns);
    const int64_t latentSplits = latents[i].empty() ? 0 : splitsFor(static_cast<int64_t>(latents[i].size()), count);
    const int64_t directSlots = latent && direct[i].empty() ? 0 : directSplits;
    const int64_t slots = directSlots + latentSplits;
    const bool straight = slots == 1 && latentSplits == 0;
    if (!straight) partials[i].resize(slots, s.tokens * shape.heads, shape.valueDim);
    for (int64_t k = 0; k < directSlots; k++)
      for (int64_t g = 0; g < shape.kvHeads; g += headsPerItem)
        for (int64_t b = 0; b < blocks; b++)
          directItems.push_back({i, g, std::min(headsPerItem, shape.kvHeads - g), b * blockTokens,
                                 std::min(blockTokens, s.tokens - b * blockTokens), direct[i].size() * k / directSlots,
                                 direct[i].size() * (k + 1) / directSlots, straight ? -1 : k});
    for (int64_t k = 0; k < latentSplits; k++)
      latentItems.push_back({i, latents[i].size() * k / latentSplits, latents[i].size() * (k + 1) / latentSplits,
                             directSlots + k});
  }
  // Exact parts of a latent cache are stored after the rotary embedding; only a direct body may be stored before it.
  const RopeTable* directRope = latent ? nullptr : rope;
  const int64_t itemCount = static_cast<int64_t>(directItems.size()), threads = threadCount();
  parallelFor(itemCount, [&](int64_t k) {
    // Last block first: in causal prefill it is the longest.
    const auto itemAt = [&](int64_t i) -> const DirectItem& { return directItems[static_cast<size_t>(itemCount - 1 - i)]; };
    const DirectItem& item = itemAt(k);
    Ahead after;
    if (k + threads < itemCount) {
      const DirectItem& then = itemAt(k + threads);
      if (then.firstTile < then.lastTile) {
        const Tile& tile = direct[then.sequence][then.firstTile];
        after = tile.keys->ahead(tile.page, then.firstHead);
      }
    }
    runDirect(shape, sequences[item.sequence], direct[item.sequence], item, directRope, &partials[item.sequence], after, cancel);
  });
  parallelFor(static_cast<int64_t>(latentItems.size()), [&](int64_t k) {
    const LatentItem& item = latentItems[static_cast<size_t>(k)];
    runLatent(shape, sequences[item.sequence], latents[item.sequence], item.firstTile, item.lastTile, item.slot, *latent,
              rope, partials[item.sequence], cancel);
  });
  constexpr int64_t runRows = 16;
  std::vector<std::pair<size_t, int64_t>> runs;  // sequence, first row
  for (size_t i = 0; i < sequences.size(); i++)
    for (int64_t r = 0; partials[i].slots > 0 && r < partials[i].rows; r += runRows) runs.emplace_back(i, r);
  parallelFor(static_cast<int64_t>(runs.size()), [&](int64_t k) {
    const auto [i, first] = runs[static_cast<size_t>(k)];
    for (int64_t r = first; r < std::min(first + runRows, partials[i].rows); r++) mergeRow(partials[i], r, sequences[i], shape);
  });
}

}  // namespace fastmqa
