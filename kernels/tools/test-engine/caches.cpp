// What a cache does over time: windows, settling, roll-back, accounting.
#include <algorithm>
#include <memory>

#include "checks.h"
#include "cpu/attention.h"
#include "definition.h"

using namespace fastmqa;
using check::nameOf;
using check::Random;

namespace {

struct Tokens {
  std::vector<float> k, v, q;  // q: one query of every head
};

struct Kind {
  std::string name;
  CacheSpec spec;
};

constexpr int64_t heads = 4;

Kind kindOf(Dtype dtype, bool tokenGroups, bool symmetric, int64_t sinks, int64_t residual, int64_t window, int64_t kvHeads = 2, int64_t keyDim = 20, int64_t valueDim = 12) {
  Kind kind;
  CacheSpec& s = kind.spec;
  s.kvHeads = kvHeads, s.keyDim = keyDim, s.valueDim = valueDim;
  s.keys.heads = kvHeads;
  s.keys.channels = keyDim;
  s.keys.bands = {{keyDim, dtype, symmetric}};
  s.keys.grouping = tokenGroups ? Grouping::channel : Grouping::token;
  s.values = s.keys;
  s.values->channels = valueDim;
  s.values->bands = {{valueDim, dtype, symmetric}};
  s.values->layout = Layout::tokenRows;
  s.values->grouping = Grouping::token;
  s.values->groupSize = 16;
  s.sinks = sinks, s.residual = residual, s.window = window;
  kind.name = nameOf(dtype) + (tokenGroups ? " token groups" : "") + (symmetric ? " symmetric" : "") + " sinks " + std::to_string(sinks) + " residual " + std::to_string(residual) + " window " + std::to_string(window);
  return kind;
}

/// Every format, with and without token groups, sinks, residual and window.
std::vector<Kind> everyKind() {
  std::vector<Kind> kinds;
  for (const Dtype dtype : check::everyDtype)
    for (const bool tokenGroups : {false, true})
      for (const int64_t sinks : {0, 5})
        for (const int64_t residual : {0, 40})
          for (const int64_t window : {0, 70})
            if (isInteger(dtype) || !tokenGroups) kinds.push_back(kindOf(dtype, tokenGroups, (sinks > 0) != (window > 0), sinks, residual, window));
  return kinds;
}

Tokens tokensFor(Random& r, const CacheSpec& s, int64_t n) {
  return {r.normals(n * s.kvHeads * s.keyDim), r.normals(n * s.kvHeads * s.valueDim), r.normals(heads * s.keyDim)};
}

void append(SequenceCache& cache, const Tokens& x, int64_t from, int64_t n) {
  const int64_t keyWidth = cache.spec().kvHeads * cache.spec().keyDim, valueWidth = cache.spec().kvHeads * cache.spec().valueDim;
  const float *k = x.k.data() + from * keyWidth, *v = x.v.data() + from * valueWidth;
  cache.append(n, {k, v, k, v, keyWidth, valueWidth});
}

AttentionShape shapeOf(const CacheSpec& s) {
  AttentionShape shape;
  shape.heads = heads, shape.kvHeads = s.kvHeads, shape.keyDim = s.keyDim, shape.valueDim = s.valueDim;
  shape.scale = 1 / std::sqrt(static_cast<float>(s.keyDim));
  if (s.window > 0) shape.left = s.window - 1;
  shape.sinks = s.sinks;
  return shape;
}

/// What the last cached token sees.
std::vector<float> attended(const SequenceCache& cache, const Tokens& x, Kernel kernel = Kernel::flash) {
  const AttentionShape shape = shapeOf(cache.spec());
  std::vector<float> out(static_cast<size_t>(heads * shape.valueDim), NAN);
  attend(shape, {{&cache, x.q.data(), 1, cache.length() - 1, heads * shape.keyDim, shape.keyDim, out.data(), heads * shape.valueDim, shape.valueDim, {}}}, nullptr, nullptr, kernel, nullptr);
  return out;
}

std::vector<double> byDefinition(const SequenceCache& cache, const Tokens& x) {
  const CacheSpec& s = cache.spec();
  const auto rounded = [&](const StoreSpec& body, const std::vector<float>& all) {
    const auto width = static_cast<size_t>(body.heads * body.channels);
    std::vector<double> out(all.begin(), all.begin() + cache.length() * static_cast<int64_t>(width)), exact(out);
    for (double& e : exact) e = definition::formatOf(Dtype::f16).rounded(e);
    if (cache.tailKeys()) out = exact;
    definition::roundStored(body, out, cache.settled(), s.sinks);
    std::copy_n(exact.begin(), std::min(cache.length(), s.sinks) * static_cast<int64_t>(width), out.begin());
    return out;
  };
  definition::Attention a;
  a.heads = heads, a.kvHeads = s.kvHeads, a.keyDim = s.keyDim, a.valueDim = s.valueDim;
  a.keys = cache.length(), a.queries = 1, a.firstPosition = cache.length() - 1;
  a.scale = static_cast<double>(shapeOf(s).scale);
  a.sinks = s.sinks;
  if (s.window > 0) a.left = s.window - 1;
  a.q.assign(x.q.begin(), x.q.end());
  a.k = rounded(s.keys, x.k), a.v = rounded(*s.values, x.v);
  return a.output();
}

/// A cache that drops what its window has passed equals the mask on everything, however its tokens arrive.
void windows() {
  Random r(31);
  for (int round = 0; round < check::rounds(50, 120, 2500); round++) {
    const Dtype dtype = r.oneOf(check::everyDtype);
    const int64_t window = r.oneOf<int64_t>({1, 2, 17, 64, 65, 100, 200});
    const Kind kind = kindOf(dtype, isInteger(dtype) && r.oneIn(2), r.oneIn(2), r.oneOf<int64_t>({0, 0, 4, 70}), r.oneOf<int64_t>({0, 0, 16, 128, 300}), window);
    const int64_t total = 3 * window + r.between(150, 700);  // wraps more than three times
    const Tokens x = tokensFor(r, kind.spec, total);
    Arena arena;
    SequenceCache cache(arena, kind.spec);
    const int64_t largest = r.oneOf<int64_t>({1, 9, 256, 500});
    const bool coded = isInteger(dtype);  // a number half way between two codes may go to either: seldom, and one step
    double worst = 0, compared = 0, different = 0;
    while (cache.length() < total) {
      append(cache, x, cache.length(), std::min(total - cache.length(), r.between(1, largest)));
      if (r.oneIn(largest < 10 ? 60 : 3) || cache.length() == total)
        for (const Kernel kernel : {Kernel::flash, Kernel::naive}) {
          const double error = check::relativeL2(attended(cache, x, kernel), byDefinition(cache, x));
          if (!(error <= worst)) worst = error;
          compared++, different += !(error <= 2e-3);
        }
      cache.settle();
    }
    const std::string name = "a ring equals the mask, " + kind.name + " in steps of up to " + std::to_string(largest);
    if (coded)
      check::atMost(name + ", share that differs", std::max(0.0, different - 2) / compared, 0.02);
    else
      check::atMost(name, worst, 2e-6);
  }
  for (const Kind& kind : everyKind()) {  // as wide as the context; one token wide
    CacheSpec wide = kind.spec, full = kind.spec, one = kind.spec;
    wide.window = 300, full.window = 0;
    one.window = 1, one.sinks = 0;
    const Tokens x = tokensFor(r, full, 300);
    Arena arena;
    SequenceCache a(arena, wide), b(arena, full), c(arena, one);
    for (SequenceCache* cache : {&a, &b, &c})
      for (int64_t t = 0; t < 300; t += 20) {
        append(*cache, x, t, 20);
        if (t < 280) cache->settle();
      }
    check::isTrue("a window of the context's length is full attention, " + kind.name, attended(a, x) == attended(b, x));
    std::vector<float> keys(static_cast<size_t>(one.keyDim)), own(static_cast<size_t>(one.valueDim)), out = attended(c, x);
    bool same = true;
    for (int64_t h = 0; h < heads; h++) {
      c.readBack(h / (heads / one.kvHeads), 299, 1, keys.data(), own.data());
      same = same && std::equal(own.begin(), own.end(), out.begin() + h * one.valueDim);
    }
    check::isTrue("a window of 1 returns the token's own value, " + kind.name, same);
  }
}

/// The tail holds f16 numbers, the body whole groups that have left the residual.
void settling() {
  Random r(32);
  for (const Kind& kind : everyKind()) {
    const CacheSpec& s = kind.spec;
    if (s.window > 0) continue;
    const Tokens x = tokensFor(r, s, 400);
    Arena arena;
    SequenceCache cache(arena, s);
    const int64_t group = s.keys.groupsTokens() ? s.keys.groupSize : 1;
    const bool tail = group > 1 || s.residual > 0;
    int timing = 0, exactness = 0;
    double body = 0;
    while (cache.length() < 400) {
      const int64_t before = cache.settled(), n = std::min<int64_t>(400 - cache.length(), r.between(1, 90));
      append(cache, x, cache.length(), n);
      timing += tail && cache.settled() != before;  // nothing is quantised while it can be rolled back
      cache.settle();
      const int64_t expected = tail ? std::max<int64_t>(0, cache.length() - s.residual) / group * group : cache.length();
      timing += cache.settled() != expected;
    }
    for (int64_t g = 0; g < s.kvHeads; g++) {
      std::vector<float> k(static_cast<size_t>(400 * s.keyDim)), v(static_cast<size_t>(400 * s.valueDim));
      cache.readBack(g, 0, 400, k.data(), v.data());
      const auto compare = [&](const StoreSpec& spec, const std::vector<float>& all, const std::vector<float>& got) {
        std::vector<double> wanted(all.begin(), all.end()), mine, its;
        if (tail)
          for (double& w : wanted) w = definition::formatOf(Dtype::f16).rounded(w);
        definition::roundStored(spec, wanted, cache.settled(), s.sinks);
        for (int64_t t = 0; t < 400; t++)
          for (int64_t c = 0; c < spec.channels; c++) {
            const auto from = static_cast<size_t>((t * s.kvHeads + g) * spec.channels + c), at = static_cast<size_t>(t * spec.channels + c);
            if (t < s.sinks || t >= cache.settled())
              exactness += static_cast<double>(got[at]) != definition::formatOf(Dtype::f16).rounded(static_cast<double>(all[from]));
            else
              mine.push_back(static_cast<double>(got[at])), its.push_back(wanted[from]);
          }
        body = std::max(body, check::relativeL2(mine, its));
      };
      compare(s.keys, x.k, k);
      compare(*s.values, x.v, v);
    }
    check::equal("settles whole groups that have left the residual, and no earlier, " + kind.name, timing, 0);
    check::equal("sinks and tail are the f16 numbers, " + kind.name, exactness, 0);
    check::atMost("the body is what its format makes of them, " + kind.name, body, isInteger(s.keys.bands[0].dtype) ? 5e-3 : 0);
  }
}

/// Drafts that were rejected leave no trace, whatever their numbers were.
void rollingBack() {
  Random r(33);
  for (const Kind& kind : everyKind()) {
    const CacheSpec& s = kind.spec;
    const int64_t total = check::rounds(120, 200, 500);
    const Tokens x = tokensFor(r, s, total);
    bool same = true, sameBytes = true, sameRows = true;
    for (const double magnitude : {1.0, 1e-7, 1e7}) {  // the extremes need wider scales than their neighbours
      Tokens draft = tokensFor(r, s, 64);
      for (auto* numbers : {&draft.k, &draft.v})
        for (float& n : *numbers) n *= static_cast<float>(magnitude);
      Arena arena;
      SequenceCache drafted(arena, s), plain(arena, s);
      while (plain.length() < total) {
        const int64_t t = plain.length(), accepted = std::min(total - t, r.between(0, 30)), rejected = r.between(0, 64);
        append(drafted, x, t, accepted);
        append(drafted, draft, 0, rejected);
        (void)attended(drafted, x);
        drafted.rollback(t + accepted);
        if (accepted > 0 && r.oneIn(3)) {  // rolled back further than what was accepted, which comes again
          const int64_t back = r.between(0, accepted);
          drafted.rollback(t + back);
          append(drafted, draft, 0, std::min<int64_t>(3, rejected));
          drafted.rollback(t + back);
          append(drafted, x, t + back, accepted - back);
        }
        append(plain, x, t, accepted);
        if (plain.length() > 0) same = same && attended(drafted, x) == attended(plain, x);
        drafted.settle();
        plain.settle();
      }
      same = same && attended(drafted, x) == attended(plain, x);
      sameBytes = sameBytes && drafted.bytes().logical == plain.bytes().logical && (magnitude != 1.0 || drafted.bytes().allocated == plain.bytes().allocated);
      const int64_t first = s.window > 0 ? total - s.window + 1 : 0;
      std::vector<float> a(static_cast<size_t>(total * (s.keyDim + s.valueDim)), 0.0f), b(a);
      for (int64_t g = 0; g < s.kvHeads; g++) {
        drafted.readBack(g, first, total - first, a.data(), a.data() + total * s.keyDim);
        plain.readBack(g, first, total - first, b.data(), b.data() + total * s.keyDim);
        sameRows = sameRows && a == b;
      }
    }
    check::isTrue("roll-back leaves the outputs of a cache that never drafted, " + kind.name, same);
    check::isTrue("roll-back leaves its numbers, " + kind.name, sameRows);
    check::isTrue("roll-back leaves its bytes, " + kind.name, sameBytes);
    Arena arena;
    SequenceCache cache(arena, s);
    append(cache, x, 0, 100);
    cache.settle();
    append(cache, x, 100, 5);
    cache.rollback(102);
    check::throws<Failure>("roll-back beyond what is committed is refused, " + kind.name, [&] { cache.rollback(99); });
    check::throws<Failure>("roll-back to what was rolled back is refused, " + kind.name, [&] { cache.rollback(103); });
    check::equal("a refused roll-back changes nothing, " + kind.name, static_cast<double>(cache.length()), 102);
  }
}

/// Bytes of one token in memory: rows of channels are padded to eight.
double physical(const StoreSpec& s) {
  double bytes = s.scaleBytesPerToken() / static_cast<double>(s.heads);
  for (const Band& b : s.bands) bytes += static_cast<double>(packedBytes(b.dtype, s.layout == Layout::tokenRows ? (b.channels + 7) / 8 * 8 : b.channels * 8)) / (s.layout == Layout::tokenRows ? 1 : 8);
  return bytes * static_cast<double>(s.heads);
}

void accounting() {
  Random r(34);
  int parts = 0, less = 0, arenas = 0, more = 0;
  double worst = 0;
  std::string worstName;
  const int rounds = check::rounds(200, 1000, 10000);
  for (int round = 0; round < rounds; round++) {
    const Dtype dtype = r.oneOf(check::everyDtype);
    const Kind kind = kindOf(dtype, isInteger(dtype) && r.oneIn(2), r.oneIn(2), r.oneOf<int64_t>({0, 4, 70}), r.oneOf<int64_t>({0, 10, 64}), r.oneIn(2) ? r.between(1, 200) : 0, r.between(1, 3), r.between(1, 70), r.between(1, 70));
    const CacheSpec& s = kind.spec;
    const int64_t length = r.between(1, 700);
    const Tokens x = tokensFor(r, s, length);
    Arena arena;
    SequenceCache cache(arena, s);
    while (cache.length() < length) {
      append(cache, x, cache.length(), std::min(length - cache.length(), r.between(1, 256)));
      cache.settle();
    }
    const CacheBytes b = cache.bytes();
    const auto pages = [](const PanelStore* store) { return store ? static_cast<double>(store->endPage() - store->firstPage()) : 0.0; };
    parts += b.payload + b.scales + b.sinks + b.residual + b.slack + b.table != b.allocated;
    less += !(static_cast<double>(b.allocated) >= b.logical) || b.slack < 0;
    arenas += arena.currentBytes() + b.table != b.allocated;
    // At most: a part of the first and the last page of the body, sinks that lie in the body too, padding of rows;
    // parts of the first and the last page of the tail and of the sinks; 64 bytes for each buffer, two to a page.
    const double bodyToken = physical(s.keys) + physical(*s.values), exactToken = 2.0 * static_cast<double>(s.kvHeads) * static_cast<double>(s.keyDim + (s.valueDim + 7) / 8 * 8);
    const double formula = s.keys.payloadBytesPerToken() + s.keys.scaleBytesPerToken() + s.values->payloadBytesPerToken() + s.values->scaleBytesPerToken();
    const double exactFormula = 2.0 * static_cast<double>(s.kvHeads * (s.keyDim + s.valueDim));
    const double waste = bodyToken * static_cast<double>(63 + (s.window > 0 ? 63 : 0) + std::min(s.sinks, length)) + exactToken * static_cast<double>((cache.tailKeys() ? 30 : 0) + (s.sinks > 0 ? 63 + s.sinks : 0)) +
                         (bodyToken - formula + exactToken - exactFormula) * static_cast<double>(length) +
                         128 * (pages(&cache.bodyKeys()) + pages(cache.bodyValues()) + pages(cache.tailKeys()) + pages(cache.tailValues()) + pages(cache.sinkKeys()) + pages(cache.sinkValues()));
    const double over = static_cast<double>(b.allocated - b.table) - b.logical - waste;
    if (over > 0) more++;
    if (over > worst) worst = over, worstName = ": " + kind.name + " length " + std::to_string(length) + " G" + std::to_string(s.kvHeads) + " D" + std::to_string(s.keyDim) + "/" + std::to_string(s.valueDim);
  }
  const std::string of = ", " + std::to_string(rounds) + " caches";
  check::equal("parts add up to what is allocated" + of, parts, 0);
  check::equal("allocated is at least the formula, slack at least zero" + of, less, 0);
  check::equal("the arena counts the same" + of, arenas, 0);
  check::equal("allocated is the formula and some pages at the most" + of + worstName, more, 0);
  {  // A long sequence in a window needs what a short one needs.
    const Kind kind = kindOf(Dtype::f16, false, false, 4, 0, 100);
    const Tokens x = tokensFor(r, kind.spec, 3000);
    Arena arena;
    SequenceCache cache(arena, kind.spec);
    int64_t most = 0;
    for (int64_t t = 0; t < 3000; t++) {
      append(cache, x, t, 1);
      cache.settle();
      most = std::max(most, cache.bytes().allocated);
    }
    check::atMost("a window's cache stops growing", static_cast<double>(most), (3 * 64 + 8) * 2.0 * 2 * (20 + 16) + 2000);
  }
}

}  // namespace

void testCaches() {
  windows();
  settling();
  rollingBack();
  accounting();
}
