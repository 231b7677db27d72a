// What only compute capability 9.0 has: the bulk tensor copy engine, barriers in shared memory that it completes, and
// matrix products of a warpgroup (four warps). Compiled for sm_90a alone; there is no emulation of it.
#pragma once
#include <cuda.h>

#include "device.h"

namespace fastmqa::gpu::hopper {

constexpr int warpgroupThreads = 128;

/// Bytes of a row of an operand in shared memory: the hardware's widest shuffle, 16-byte chunk c of row r at c ^ r % 8.
constexpr int lineBytes = 128, lineHalves = lineBytes / 2, groupBytes = 8 * lineBytes;

FASTMQA_DEVICE uint32_t sharedAddress(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

/// True in one lane of a warp that is whole; the same one each time.
FASTMQA_DEVICE bool electedLane() { return laneIndex() == 0; }

/// A value that is the same in the whole warp, in a way that the compiler knows: products must not stand where it sees
/// lanes part.
FASTMQA_DEVICE int sameInWarp(int x) { return __reduce_max_sync(0xffffffffu, x); }

// Barriers in shared memory: a phase ends when `arrivals` have come and all announced bytes are there.
FASTMQA_DEVICE void initBarrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// Makes initialised barriers visible to the copy engine.
FASTMQA_DEVICE void publishBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
FASTMQA_DEVICE void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
FASTMQA_DEVICE void arriveExpecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Returns once the phase of this parity (0 for the first) has ended.
FASTMQA_DEVICE void waitPhase(uint32_t barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\nbra again;\nfinished:\n}" ::"r"(barrier), "r"(parity)
      : "memory");
}

/// Whether that phase has ended.
FASTMQA_DEVICE bool phaseEnded(uint32_t barrier, int parity) {
  int ended;
  asm volatile("{\n.reg .pred done;\nmbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.s32 %0, 1, 0, done;\n}" : "=r"(ended) : "r"(barrier), "r"(parity) : "memory");
  return ended != 0;
}

/// A place in a ring of `stages`, and the parity of the phase that it is in.
template <int stages>
struct RingPlace {
  int index = 0, parity = 0;
  FASTMQA_DEVICE void advance() {
    if (++index == stages) index = 0, parity ^= 1;
  }
};

/// Starts copying the box at the given place of a tensor of four dimensions; its bytes count towards the barrier.
FASTMQA_DEVICE void copyBox(uint32_t to, const CUtensorMap& map, int c0, int c1, int c2, int c3, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
               "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier)
               : "memory");
}
/// As above, of `bytes` (a multiple of 16) that lie one after another.
FASTMQA_DEVICE void copyBytes(uint32_t to, const uint8_t* from, int bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}
FASTMQA_DEVICE void prefetchMap(const CUtensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

/// Ordinary stores to shared memory before it are seen by the copy engine and matrix units after it.
FASTMQA_DEVICE void fenceForMatrices() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// A number at an address of shared memory.
FASTMQA_DEVICE float loadFloat(uint32_t from) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
  return x;
}
FASTMQA_DEVICE void storeFloat(uint32_t to, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory"); }

/// Four 8x8 matrices of 16-bit values from registers laid out as a product's sums; lane l gives the address of row l % 8 of
/// matrix l / 8.
FASTMQA_DEVICE void storeMatrices(uint32_t to, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(m0), "r"(m1), "r"(m2), "r"(m3) : "memory");
}
FASTMQA_DEVICE void loadMatrices(uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(from) : "memory");
}

/// As storeMatrices, of the transposed matrices.
FASTMQA_DEVICE void storeMatricesTransposed(uint32_t to, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(m0), "r"(m1), "r"(m2), "r"(m3) : "memory");
}
/// As loadMatrices, of the transposed matrices.
FASTMQA_DEVICE void loadMatricesTransposed(uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3) : "r"(from) : "memory");
}

/// Exchanges registers within four lanes: lane t ends up with x[t] of each, in order.
FASTMQA_DEVICE void transposeQuad(uint32_t (&x)[4]) {
  const int t = laneIndex() % 4;
  const auto swap = [&](uint32_t& low, uint32_t& high, int bit) {
    const bool upper = t & bit;
    const uint32_t received = __shfl_xor_sync(0xffffffffu, upper ? low : high, bit);
    (upper ? low : high) = received;
  };
  swap(x[0], x[1], 1), swap(x[2], x[3], 1);
  swap(x[0], x[2], 2), swap(x[1], x[3], 2);
}

/// Barriers of some of the block's warps, by number; 0 is the whole block's.
FASTMQA_DEVICE void joinBarrier(int number, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory"); }
/// A joinBarrier; true if `x` is true in any thread.
FASTMQA_DEVICE bool joinBarrierAny(int number, int threads, bool x) {
  int any;
  asm volatile("{\n.reg .pred in, out;\nsetp.ne.s32 in, %3, 0;\nbar.red.or.pred out, %1, %2, in;\nselp.s32 %0, 1, 0, out;\n}"
               : "=r"(any)
               : "r"(number), "r"(threads), "r"(static_cast<int>(x))
               : "memory");
  return any != 0;
}
FASTMQA_DEVICE void signalBarrier(int number, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory"); }

template <int registers>
FASTMQA_DEVICE void giveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
FASTMQA_DEVICE void takeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

/// Where a warpgroup finds an operand: address, byte offsets between its pieces, the 128-byte shuffle. Rows of 128
/// bytes, groups of 8 rows `groupBytes` apart. If the product's inner dimension runs along the rows (queries, keys),
/// `alongRows` is not used; if it runs down the rows (values), it is the offset to the next 64 columns.
FASTMQA_DEVICE uint64_t operandAt(uint32_t address, int alongRows = 16) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(alongRows >> 4) << 16 | static_cast<uint64_t>(groupBytes >> 4) << 32 |
         uint64_t{1} << 62;
}

/// As above, of one step of the inner dimension: unshuffled blocks of 8 rows of 16 bytes, the two of a step one after the
/// other, then the next 8 rows.
FASTMQA_DEVICE uint64_t stepOperandAt(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(128 >> 4) << 16 | static_cast<uint64_t>(256 >> 4) << 32;
}

/// Before the first product that reads registers which other instructions wrote.
FASTMQA_DEVICE void beginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FASTMQA_DEVICE void commitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `left` committed groups are under way. Sums must pass through `settled` afterwards.
template <int left>
FASTMQA_DEVICE void waitProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}
/// Keeps the compiler from moving uses of registers across a wait or a fence.
template <int n>
FASTMQA_DEVICE void settled(float (&x)[n]) {
  FASTMQA_UNROLL
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(x[i])::"memory");
}
template <int n>
FASTMQA_DEVICE void settled(uint32_t (&x)[n]) {
  FASTMQA_UNROLL
  for (int i = 0; i < n; i++) asm volatile("" : "+r"(x[i])::"memory");
}

#define FASTMQA_SUMS4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FASTMQA_SUMS8(d, i) FASTMQA_SUMS4(d, i), FASTMQA_SUMS4(d, i + 4)
#define FASTMQA_SUMS16(d, i) FASTMQA_SUMS8(d, i), FASTMQA_SUMS8(d, i + 8)
#define FASTMQA_SUMS32(d, i) FASTMQA_SUMS16(d, i), FASTMQA_SUMS16(d, i + 16)
#define FASTMQA_SUMS64(d, i) FASTMQA_SUMS32(d, i), FASTMQA_SUMS32(d, i + 32)
#define FASTMQA_SUMS128(d, i) FASTMQA_SUMS64(d, i), FASTMQA_SUMS64(d, i + 64)
#define FASTMQA_NAMES8(a, b, c, d, e, f, g, h) "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define FASTMQA_NAMES16 FASTMQA_NAMES8(0, 1, 2, 3, 4, 5, 6, 7) "," FASTMQA_NAMES8(8, 9, 10, 11, 12, 13, 14, 15)
#define FASTMQA_NAMES32                                                                                   \
  FASTMQA_NAMES8(0, 1, 2, 3, 4, 5, 6, 7) "," FASTMQA_NAMES8(8, 9, 10, 11, 12, 13, 14, 15) "," FASTMQA_NAMES8( \
      16, 17, 18, 19, 20, 21, 22, 23) "," FASTMQA_NAMES8(24, 25, 26, 27, 28, 29, 30, 31)
#define FASTMQA_NAMES64                                                                                                                  \
  FASTMQA_NAMES32 "," FASTMQA_NAMES8(32, 33, 34, 35, 36, 37, 38, 39) "," FASTMQA_NAMES8(40, 41, 42, 43, 44, 45, 46, 47) "," FASTMQA_NAMES8( \
      48, 49, 50, 51, 52, 53, 54, 55) "," FASTMQA_NAMES8(56, 57, 58, 59, 60, 61, 62, 63)
#define FASTMQA_NAMES88                                                                                                                  \
  FASTMQA_NAMES64 "," FASTMQA_NAMES8(64, 65, 66, 67, 68, 69, 70, 71) "," FASTMQA_NAMES8(72, 73, 74, 75, 76, 77, 78, 79) "," FASTMQA_NAMES8( \
      80, 81, 82, 83, 84, 85, 86, 87)

#define FASTMQA_NAMES128                                                                                                                             \
  FASTMQA_NAMES88 "," FASTMQA_NAMES8(88, 89, 90, 91, 92, 93, 94, 95) "," FASTMQA_NAMES8(96, 97, 98, 99, 100, 101, 102, 103) "," FASTMQA_NAMES8( \
      104, 105, 106, 107, 108, 109, 110, 111) "," FASTMQA_NAMES8(112, 113, 114, 115, 116, 117, 118, 119) "," FASTMQA_NAMES8(120, 121, 122, 123, 124, 125, 126, 127)

/// 64 x columns sums of a warpgroup: of warp w (in the group) and lane l, d[4f + 2h + c] is row 16w + l / 4 + 8h, column
/// 8f + 2 (l % 4) + c. One step covers 16 of the inner dimension.
template <class Type, int columns>
struct Product;

// Both operands in shared memory, their inner dimension along the rows; `first` starts from zero.
#define FASTMQA_PRODUCT_SHARED(Type, name, columns, NAMES, SUMS, a, b, p)                                                                   \
  static FASTMQA_DEVICE void shared(float (&d)[columns / 2], uint64_t left, uint64_t right, bool first) {                                   \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #p ", 0;\n"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." name "." name " {" NAMES "}, %" #a ", %" #b ", p, 1, 1, 0, 0;}"     \
                 : SUMS                                                                                                                     \
                 : "l"(left), "l"(right), "r"(static_cast<int>(!first)));                                                                   \
  }
// As above, but the right one's inner dimension runs down the rows.
#define FASTMQA_PRODUCT_SHARED_DOWN(Type, name, columns, NAMES, SUMS, a, b)                                                                 \
  static FASTMQA_DEVICE void sharedDown(float (&d)[columns / 2], uint64_t left, uint64_t right) {                                           \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." name "." name " {" NAMES "}, %" #a ", %" #b ", 1, 1, 1, 0, 1;"      \
                 : SUMS                                                                                                                     \
                 : "l"(left), "l"(right));                                                                                                  \
  }
// The left operand in registers, laid out as FragmentA; the right one's inner dimension runs down the rows.
#define FASTMQA_PRODUCT_REGISTERS(Type, name, columns, NAMES, SUMS, a0, a1, a2, a3, b)                                                      \
  static FASTMQA_DEVICE void registers(float (&d)[columns / 2], uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3, uint64_t right) {       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." name "." name " {" NAMES "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3    \
                 "}, %" #b ", 1, 1, 1, 1;"                                                                                                  \
                 : SUMS                                                                                                                     \
                 : "r"(r0), "r"(r1), "r"(r2), "r"(r3), "l"(right));                                                                         \
  }
// As above, but the right one's inner dimension runs along the rows; `first` starts from zero.
#define FASTMQA_PRODUCT_REGISTERS_ALONG(Type, name, columns, NAMES, SUMS, a0, a1, a2, a3, b, p)                                             \
  static FASTMQA_DEVICE void registersAlong(float (&d)[columns / 2], uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3, uint64_t right, bool first) { \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" #p ", 0;\n"                                                                              \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." name "." name " {" NAMES "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3    \
                 "}, %" #b ", p, 1, 1, 0;}"                                                                                                 \
                 : SUMS                                                                                                                     \
                 : "r"(r0), "r"(r1), "r"(r2), "r"(r3), "l"(right), "r"(static_cast<int>(!first)));                                          \
  }
#define FASTMQA_PRODUCTS(Type, name)                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 16> {                                                                                                    \
    FASTMQA_PRODUCT_REGISTERS_ALONG(Type, name, 16, FASTMQA_NAMES8(0, 1, 2, 3, 4, 5, 6, 7), FASTMQA_SUMS8(d, 0), 8, 9, 10, 11, 12, 13) \
  };                                                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 32> {                                                                                                    \
    FASTMQA_PRODUCT_REGISTERS_ALONG(Type, name, 32, FASTMQA_NAMES16, FASTMQA_SUMS16(d, 0), 16, 17, 18, 19, 20, 21)              \
  };                                                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 64> {                                                                                                    \
    FASTMQA_PRODUCT_SHARED(Type, name, 64, FASTMQA_NAMES32, FASTMQA_SUMS32(d, 0), 32, 33, 34)                                   \
    FASTMQA_PRODUCT_REGISTERS(Type, name, 64, FASTMQA_NAMES32, FASTMQA_SUMS32(d, 0), 32, 33, 34, 35, 36)                        \
    FASTMQA_PRODUCT_REGISTERS_ALONG(Type, name, 64, FASTMQA_NAMES32, FASTMQA_SUMS32(d, 0), 32, 33, 34, 35, 36, 37)              \
    FASTMQA_PRODUCT_SHARED_DOWN(Type, name, 64, FASTMQA_NAMES32, FASTMQA_SUMS32(d, 0), 32, 33)                                  \
  };                                                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 128> {                                                                                                   \
    FASTMQA_PRODUCT_SHARED(Type, name, 128, FASTMQA_NAMES64, FASTMQA_SUMS64(d, 0), 64, 65, 66)                                  \
    FASTMQA_PRODUCT_REGISTERS(Type, name, 128, FASTMQA_NAMES64, FASTMQA_SUMS64(d, 0), 64, 65, 66, 67, 68)                       \
    FASTMQA_PRODUCT_SHARED_DOWN(Type, name, 128, FASTMQA_NAMES64, FASTMQA_SUMS64(d, 0), 64, 65)                                 \
  };                                                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 176> {                                                                                                   \
    FASTMQA_PRODUCT_SHARED(Type, name, 176, FASTMQA_NAMES88, FASTMQA_SUMS64(d, 0) FASTMQA_COMMA FASTMQA_SUMS16(d, 64) FASTMQA_COMMA FASTMQA_SUMS4(d, 80) FASTMQA_COMMA FASTMQA_SUMS4(d, 84), 88, 89, 90) \
  };                                                                                                                            \
  template <>                                                                                                                   \
  struct Product<Type, 256> {                                                                                                   \
    FASTMQA_PRODUCT_SHARED_DOWN(Type, name, 256, FASTMQA_NAMES128, FASTMQA_SUMS128(d, 0), 128, 129)                             \
  };
#define FASTMQA_COMMA ,
FASTMQA_PRODUCTS(Bf16, "bf16")
FASTMQA_PRODUCTS(F16, "f16")
#undef FASTMQA_PRODUCTS
#undef FASTMQA_PRODUCT_SHARED
#undef FASTMQA_PRODUCT_SHARED_DOWN
#undef FASTMQA_PRODUCT_REGISTERS
#undef FASTMQA_PRODUCT_REGISTERS_ALONG
#undef FASTMQA_COMMA
#undef FASTMQA_NAMES8
#undef FASTMQA_NAMES16
#undef FASTMQA_NAMES32
#undef FASTMQA_NAMES64
#undef FASTMQA_NAMES88
#undef FASTMQA_NAMES128
#undef FASTMQA_SUMS4
#undef FASTMQA_SUMS8
#undef FASTMQA_SUMS16
#undef FASTMQA_SUMS32
#undef FASTMQA_SUMS64
#undef FASTMQA_SUMS128

}  // namespace fastmqa::gpu::hopper
