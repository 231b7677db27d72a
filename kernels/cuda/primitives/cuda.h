// The device primitives on a GPU; see device.h. Compute capability 7.5 and up: asynchronous copies fall back to plain
// ones and 16x8x16 products to two of 16x8x8 below 8.0.
#pragma once
#include <cuda_runtime.h>

#define FASTMQA_DEVICE __device__ __forceinline__
#define FASTMQA_BOTH __host__ __device__ __forceinline__
#define FASTMQA_KERNEL(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)
#define FASTMQA_UNROLL _Pragma("unroll")
#define FASTMQA_ROLLED _Pragma("unroll 1")
#define FASTMQA_UNROLL_BY(n) _Pragma("unroll 8")

namespace fastmqa::gpu {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool hasAsyncCopies = false;
#else
constexpr bool hasAsyncCopies = true;
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
constexpr bool hasFp8Conversions = true;
#else
constexpr bool hasFp8Conversions = false;
#endif

FASTMQA_DEVICE int threadIndex() { return static_cast<int>(threadIdx.x); }
FASTMQA_DEVICE int laneIndex() { return static_cast<int>(threadIdx.x & 31); }
FASTMQA_DEVICE int warpIndex() { return static_cast<int>(threadIdx.x >> 5); }
FASTMQA_DEVICE GridSize blockIndex() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}
FASTMQA_DEVICE GridSize gridSize() {
  return {static_cast<int>(gridDim.x), static_cast<int>(gridDim.y), static_cast<int>(gridDim.z)};
}

/// The same value, which the compiler must not compute ahead of the loop that this stands in.
FASTMQA_DEVICE int keepInLoop(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

FASTMQA_DEVICE void blockBarrier() { __syncthreads(); }
/// A barrier of the block; true if `x` is true in any thread.
FASTMQA_DEVICE bool anyThread(bool x) { return __syncthreads_or(x); }
FASTMQA_DEVICE void warpBarrier() { __syncwarp(); }
FASTMQA_DEVICE bool anyLane(bool x) { return __any_sync(0xffffffffu, x); }
FASTMQA_DEVICE float shuffleXor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// A kernel that was started to follow another one (launchAfter) may begin before that one is done, from 9.0 on.
/// Lets the kernel that follows begin; it still waits for this one's results.
FASTMQA_DEVICE void releaseFollower() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
/// Waits until the kernel before this one is done and its results are there.
FASTMQA_DEVICE void awaitPredecessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Device memory. The element count is for the host's checks only.
template <class T>
class Global {
 public:
  Global() = default;
  FASTMQA_BOTH Global(T* data, int64_t) : data_(data) {}
  FASTMQA_DEVICE T& operator[](int64_t i) const { return data_[i]; }
  FASTMQA_BOTH explicit operator bool() const { return data_ != nullptr; }
  /// The V at element i, which must be aligned to V.
  template <class V>
  FASTMQA_DEVICE V load(int64_t i) const {
    return *reinterpret_cast<const V*>(data_ + i);
  }
  /// Of what no kernel writes, such as weights: may be read before awaitPredecessor.
  template <class V>
  FASTMQA_DEVICE V loadConstant(int64_t i) const {
    return load<V>(i);
  }
  template <class V>
  FASTMQA_DEVICE void store(int64_t i, V value) const {
    *reinterpret_cast<V*>(data_ + i) = value;
  }
  FASTMQA_BOTH T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class T>
FASTMQA_DEVICE void atomicAddTo(Global<T> g, int64_t i, T value) {
  atomicAdd(g.data() + i, value);
}

/// Memory of the block.
template <class T>
class Shared {
 public:
  FASTMQA_DEVICE explicit Shared(T* data) : data_(data) {}
  template <class V = T>
  FASTMQA_DEVICE V load(int i) const {
    return *reinterpret_cast<const V*>(data_ + i);
  }
  template <class V = T>
  FASTMQA_DEVICE void store(int i, V value) const {
    *reinterpret_cast<V*>(data_ + i) = value;
  }
  FASTMQA_DEVICE uint32_t address(int i) const { return static_cast<uint32_t>(__cvta_generic_to_shared(data_ + i)); }

 private:
  T* data_;
};

/// Hands out the block's dynamic shared memory, piece by piece, aligned to 16 bytes.
class SharedCarver {
 public:
  template <class T>
  FASTMQA_DEVICE Shared<T> take(int count) {
    extern __shared__ __align__(128) unsigned char base[];
    T* at = reinterpret_cast<T*>(base + used_);
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    return Shared<T>(at);
  }

 private:
  int used_ = 0;
};

/// Starts copying `bytes` (4, 8 or 16) to shared memory; zeros if not `valid`, and then `from` is not read.
template <int bytes>
FASTMQA_DEVICE void copyAsync(Shared<uint8_t> to, int toByte, Global<const uint8_t> from, int64_t fromByte, bool valid) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const int size = valid ? bytes : 0;
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to.address(toByte)), "l"(from.data() + fromByte), "r"(size));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to.address(toByte)), "l"(from.data() + fromByte), "n"(bytes), "r"(size));
#else
  if constexpr (bytes == 16)
    to.store(toByte, valid ? from.load<Word4>(fromByte) : Word4{0, 0, 0, 0});
  else if constexpr (bytes == 8)
    to.store(toByte, valid ? from.load<Word2>(fromByte) : Word2{0, 0});
  else
    to.store(toByte, valid ? from.load<uint32_t>(fromByte) : 0u);
#endif
}
FASTMQA_DEVICE void commitCopies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most `left` of this thread's committed groups are under way.
template <int left>
FASTMQA_DEVICE void waitCopies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#endif
}

/// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8 and receives, of each
/// matrix, the pair (row l / 4, columns 2 (l % 4), + 1).
FASTMQA_DEVICE void loadMatrices(uint32_t (&r)[4], Shared<uint8_t> from, int byte) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(byte))
               : "memory");
}
/// As above, of the transposed matrices.
FASTMQA_DEVICE void loadMatricesTransposed(uint32_t (&r)[4], Shared<uint8_t> from, int byte) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from.address(byte))
               : "memory");
}

/// An 8x8 matrix of 16-bit values, of which each lane holds a pair as `loadMatrices` gives it, transposed.
FASTMQA_DEVICE uint32_t transposeMatrix(uint32_t pair) {
  uint32_t r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(pair));
  return r;
}

FASTMQA_DEVICE void multiply(F16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
               : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
               : "r"(a.r[0]), "r"(a.r[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
               : "r"(a.r[2]), "r"(a.r[3]), "r"(b1));
#endif
}
/// As above, c = a * b: no zeros to be set before.
FASTMQA_DEVICE void multiplyFirst(F16 f16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  (void)f16;
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
               : "=f"(c.r[0]), "=f"(c.r[1]), "=f"(c.r[2]), "=f"(c.r[3])
               : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1), "f"(0.0f));
#else
  c = {};
  multiply(f16, c, a, b0, b1);
#endif
}
/// As above, of the first eight columns of a and rows of b alone (16x8x8): registers 0 and 1.
FASTMQA_DEVICE void multiplyFirst(F16, FragmentC& c, uint32_t a0, uint32_t a1, uint32_t b0) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
               : "=f"(c.r[0]), "=f"(c.r[1]), "=f"(c.r[2]), "=f"(c.r[3])
               : "r"(a0), "r"(a1), "r"(b0), "f"(0.0f));
}
/// From 8.0 on; the launcher takes the general kernels below.
FASTMQA_DEVICE void multiply(Bf16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3])
               : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
#else
  (void)c, (void)a, (void)b0, (void)b1;
  __trap();
#endif
}

/// Two values as 16-bit numbers, `low` in the low half; round to nearest even, f16 saturates.
FASTMQA_DEVICE uint32_t packHalves(F16, float low, float high) {
  uint32_t r;
  low = fminf(fmaxf(low, -65504.0f), 65504.0f);
  high = fminf(fmaxf(high, -65504.0f), 65504.0f);
  asm("{.reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}" : "=r"(r) : "f"(low), "f"(high));
  return r;
}
FASTMQA_DEVICE uint32_t packHalves(Bf16, float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  const auto rounded = [](float x) {
    const uint32_t u = __float_as_uint(x);
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
#endif
}
/// Values in [0, 1], which need no saturation.
FASTMQA_DEVICE uint32_t packWeights(F16, float low, float high) {
  uint32_t r;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
  asm("{.reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}" : "=r"(r) : "f"(low), "f"(high));
#endif
  return r;
}
FASTMQA_DEVICE uint32_t packWeights(Bf16, float low, float high) { return packHalves(Bf16(), low, high); }

FASTMQA_DEVICE float lowHalf(F16, uint32_t x) {
  float f;
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(f) : "r"(x));
  return f;
}
FASTMQA_DEVICE float highHalf(F16, uint32_t x) {
  float f;
  asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(f) : "r"(x));
  return f;
}
FASTMQA_DEVICE float lowHalf(Bf16, uint32_t x) { return __uint_as_float(x << 16); }
FASTMQA_DEVICE float highHalf(Bf16, uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

/// Arithmetic on pairs of f16.
FASTMQA_DEVICE uint32_t halfAdd(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("add.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
FASTMQA_DEVICE uint32_t halfMultiply(uint32_t a, uint32_t b) {
  uint32_t r;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
FASTMQA_DEVICE uint32_t halfFma(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
/// Byte i of the result is byte (selector >> 4i) & 7 of b:a.
FASTMQA_DEVICE uint32_t permuteBytes(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }

/// Two e4m3 numbers, in the low or the high half of x, as f16; from 8.9 on.
template <bool high>
FASTMQA_DEVICE uint32_t halvesOfE4m3(uint32_t x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t r;
  if constexpr (high)
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, h;}" : "=r"(r) : "r"(x));
  else
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.rn.f16x2.e4m3x2 %0, l;}" : "=r"(r) : "r"(x));
  return r;
#else
  (void)x;
  __trap();
  return 0;
#endif
}
/// (x & mask) | bits, as the one instruction that it is: the compiler would make two of it, for two constants.
FASTMQA_DEVICE uint32_t maskedOr(uint32_t x, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}
/// (x & mask) ^ bits, likewise.
FASTMQA_DEVICE uint32_t maskedXor(uint32_t x, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}
FASTMQA_DEVICE int64_t wideProduct(int a, int b) {
  int64_t r;
  asm("mul.wide.s32 %0, %1, %2;" : "=l"(r) : "r"(a), "r"(b));
  return r;
}

FASTMQA_DEVICE float exp2Fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
/// To about one unit in the last place.
FASTMQA_DEVICE float reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

FASTMQA_DEVICE float floatOf(uint32_t bits) { return __uint_as_float(bits); }
FASTMQA_DEVICE uint32_t bitsOfFloat(float x) { return __float_as_uint(x); }

}  // namespace fastmqa::gpu
