// The device primitives on the CPU; see device.h. Every thread of a block is a fibre; blocks run one after another.
// Shared memory has a shadow that knows, for every byte, who wrote and read it last and which barriers came since.
#pragma once
#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define FASTMQA_DEVICE inline
#define FASTMQA_BOTH inline
#define FASTMQA_KERNEL(threads, blocks) inline void
#define FASTMQA_UNROLL
#define FASTMQA_ROLLED
#define FASTMQA_UNROLL_BY(n)

namespace fastmqa::gpu {

#ifndef FASTMQA_EMULATED_CAPABILITY
#define FASTMQA_EMULATED_CAPABILITY 80
#endif
constexpr bool hasAsyncCopies = FASTMQA_EMULATED_CAPABILITY >= 80, hasFp8Conversions = false;

/// What a kernel did wrong.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace host {

/// A planted mistake, so that tests can show that it is found.
struct Plant {
  enum Kind { none, skipBlockBarrier, skipWarpBarrier, skipWait, shiftSharedStore, shiftGlobalLoad, swapFragment, skipPredecessor } kind = none;
  int64_t number = 0;  ///< which one, in the order in which a thread meets them
};
void plant(const Plant& p);
/// True if the planted mistake was met since it was planted.
bool planted();

/// Runs `kernel` for every thread of every block. One that begins early, before the kernel in front of it is done, must call
/// awaitPredecessor in every thread, and touch nothing before that but what loadConstant reads. @throws Fault
void runGrid(GridSize grid, int threads, int sharedBytes, const std::function<void()>& kernel, bool beginsEarly = false);
/// Of this process: what ran, to show that something did; and what the host asked of the device (backend/runtime-host.cpp).
struct Counts {
  int64_t blocks = 0, blockBarriers = 0, warpBarriers = 0, products = 0;
  int64_t launches = 0;  ///< of kernels, one by one
  int64_t recordings = 0, replays = 0, allocations = 0, waits = 0, uploadedBytes = 0, downloadedBytes = 0;
};
Counts& counts();

/// Work of a stream: done at once, or, while a graph is recorded, kept for it.
using Recording = std::vector<std::function<void()>>;
void record(Recording* to);  ///< null: no more
bool isRecording();
void submit(std::function<void()> work);

[[noreturn]] void fault(const std::string& what);
/// A kernel that begins early is running.
inline bool beginsEarly = false;
void awaitPredecessor();
void requirePredecessor();
struct Where {
  int thread;
  GridSize block, grid;
};
const Where& where();
void blockBarrier();
bool anyThread(bool x);
void warpBarrier();
/// Hands `value` to the warp; returns the array of all lanes' values, valid until the warp's next meeting.
const uint32_t* exchange(uint32_t value);
int takeShared(int bytes);
void readShared(int offset, int bytes, void* to);
void writeShared(int offset, int bytes, const void* from);
void copyShared(int offset, int bytes, const void* from);
void commitCopies();
void waitCopies(int left);
void loadMatrices(uint32_t (&r)[4], int offset, bool transposed);
void multiply(bool bf16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1);
bool shiftsThisStore();
bool shiftsThisLoad();
float floatFromHalf(uint16_t h);
uint16_t halfFromFloat(float x);

}  // namespace host

inline int threadIndex() { return host::where().thread; }
inline int laneIndex() { return host::where().thread & 31; }
inline int warpIndex() { return host::where().thread >> 5; }
inline GridSize blockIndex() { return host::where().block; }
inline GridSize gridSize() { return host::where().grid; }
inline int keepInLoop(int x) { return x; }
inline void blockBarrier() { host::blockBarrier(); }
inline bool anyThread(bool x) { return host::anyThread(x); }
inline void warpBarrier() { host::warpBarrier(); }
inline void releaseFollower() {}
inline void awaitPredecessor() { host::awaitPredecessor(); }

inline float floatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t bitsOfFloat(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float shuffleXor(float x, int mask) { return floatOf(host::exchange(bitsOfFloat(x))[laneIndex() ^ mask]); }

inline bool anyLane(bool x) {
  const uint32_t* all = host::exchange(x);
  for (int lane = 0; lane < warpSize_; lane++)
    if (all[lane]) return true;
  return false;
}

template <class T>
class Global {
 public:
  Global() = default;
  Global(T* data, int64_t count) : data_(data), count_(count) {}
  T& operator[](int64_t i) const {
    if (host::shiftsThisLoad()) i += 1;
    check(i, sizeof(T));
    return data_[i];
  }
  explicit operator bool() const { return data_ != nullptr; }
  template <class V>
  V load(int64_t i) const {
    if (host::shiftsThisLoad()) i += static_cast<int64_t>(sizeof(V) / sizeof(T));
    check(i, sizeof(V));
    if (reinterpret_cast<uintptr_t>(data_ + i) % alignof(V)) host::fault("misaligned load from device memory");
    V value;
    std::memcpy(&value, data_ + i, sizeof(V));
    return value;
  }
  template <class V>
  V loadConstant(int64_t i) const {
    const bool early = std::exchange(host::beginsEarly, false);
    const V value = load<V>(i);
    host::beginsEarly = early;
    return value;
  }
  template <class V>
  void store(int64_t i, V value) const {
    check(i, sizeof(V));
    if (reinterpret_cast<uintptr_t>(data_ + i) % alignof(V)) host::fault("misaligned store to device memory");
    std::memcpy(data_ + i, &value, sizeof(V));
  }
  T* data() const { return data_; }
  void check(int64_t i, size_t bytes) const {
    if (host::beginsEarly) host::requirePredecessor();
    const auto end = i + static_cast<int64_t>((bytes + sizeof(T) - 1) / sizeof(T));
    if (i < 0 || end > count_)
      host::fault("element " + std::to_string(i) + " of device memory that holds " + std::to_string(count_));
  }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

template <class T>
void atomicAddTo(Global<T> g, int64_t i, T value) {
  g[i] += value;
}

template <class T>
class Shared {
 public:
  Shared(int offset, int count) : offset_(offset), count_(count) {}
  template <class V = T>
  V load(int i) const {
    V value;
    host::readShared(at(i, sizeof(V)), sizeof(V), &value);
    return value;
  }
  template <class V = T>
  void store(int i, V value) const {
    if (host::shiftsThisStore()) i += static_cast<int>(sizeof(V) / sizeof(T));
    host::writeShared(at(i, sizeof(V)), sizeof(V), &value);
  }
  /// Byte offset of element i in the block's memory, checked.
  int at(int i, size_t bytes) const {
    const int end = i + static_cast<int>((bytes + sizeof(T) - 1) / sizeof(T));
    if (i < 0 || end > count_)
      host::fault("element " + std::to_string(i) + " of a shared array that holds " + std::to_string(count_));
    const int byte = offset_ + i * static_cast<int>(sizeof(T));
    if (byte % static_cast<int>(bytes)) host::fault("misaligned access to shared memory");
    return byte;
  }

 private:
  int offset_, count_;
};

class SharedCarver {
 public:
  template <class T>
  Shared<T> take(int count) {
    const int at = used_;
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    host::takeShared(used_);
    return Shared<T>(at, count);
  }

 private:
  int used_ = 0;
};

template <int bytes>
void copyAsync(Shared<uint8_t> to, int toByte, Global<const uint8_t> from, int64_t fromByte, bool valid) {
  uint8_t data[bytes] = {};
  if (valid) {
    from.check(fromByte, bytes);
    if (reinterpret_cast<uintptr_t>(from.data() + fromByte) % bytes) host::fault("misaligned asynchronous copy");
    std::memcpy(data, from.data() + fromByte, bytes);
  }
  if (hasAsyncCopies)
    host::copyShared(to.at(toByte, bytes), bytes, data);
  else
    host::writeShared(to.at(toByte, bytes), bytes, data);
}
inline void commitCopies() { host::commitCopies(); }
template <int left>
void waitCopies() {
  host::waitCopies(left);
}
inline void loadMatrices(uint32_t (&r)[4], Shared<uint8_t> from, int byte) { host::loadMatrices(r, from.at(byte, 16), false); }
inline void loadMatricesTransposed(uint32_t (&r)[4], Shared<uint8_t> from, int byte) {
  host::loadMatrices(r, from.at(byte, 16), true);
}
inline uint32_t transposeMatrix(uint32_t pair) {
  const uint32_t* all = host::exchange(pair);
  const int q = laneIndex() / 4, t = laneIndex() % 4;
  const auto element = [&](int row, int column) { return all[row * 4 + column / 2] >> (16 * (column % 2)) & 0xffffu; };
  return element(2 * t, q) | element(2 * t + 1, q) << 16;
}
inline void multiply(F16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) { host::multiply(false, c, a, b0, b1); }
inline void multiplyFirst(F16 f16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) { c = {}, multiply(f16, c, a, b0, b1); }
inline void multiplyFirst(F16 f16, FragmentC& c, uint32_t a0, uint32_t a1, uint32_t b0) { c = {}, multiply(f16, c, {{a0, a1, 0, 0}}, b0, 0); }
inline void multiply(Bf16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) { host::multiply(true, c, a, b0, b1); }

inline float lowHalf(F16, uint32_t x) { return host::floatFromHalf(static_cast<uint16_t>(x)); }
inline float highHalf(F16, uint32_t x) { return host::floatFromHalf(static_cast<uint16_t>(x >> 16)); }
inline float lowHalf(Bf16, uint32_t x) { return floatOf(x << 16); }
inline float highHalf(Bf16, uint32_t x) { return floatOf(x & 0xffff0000u); }
inline uint32_t packHalves(F16, float low, float high) {
  return host::halfFromFloat(low) | static_cast<uint32_t>(host::halfFromFloat(high)) << 16;
}
inline uint32_t packHalves(Bf16, float low, float high) {
  const auto rounded = [](float x) {
    const uint32_t u = bitsOfFloat(x);
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}
template <class T>
uint32_t packWeights(T type, float low, float high) {
  return packHalves(type, low, high);
}
inline uint32_t halfAdd(uint32_t a, uint32_t b) {
  const F16 f;
  return packHalves(f, lowHalf(f, a) + lowHalf(f, b), highHalf(f, a) + highHalf(f, b));
}
inline uint32_t halfMultiply(uint32_t a, uint32_t b) {
  const F16 f;
  return packHalves(f, lowHalf(f, a) * lowHalf(f, b), highHalf(f, a) * highHalf(f, b));
}
inline uint32_t halfFma(uint32_t a, uint32_t b, uint32_t c) {
  const F16 f;
  return packHalves(f, std::fma(lowHalf(f, a), lowHalf(f, b), lowHalf(f, c)), std::fma(highHalf(f, a), highHalf(f, b), highHalf(f, c)));
}
inline uint32_t permuteBytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; i++) r |= static_cast<uint32_t>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return r;
}
template <bool high>
uint32_t halvesOfE4m3(uint32_t) {
  host::fault("the emulated capability has no fp8 conversions");
}
inline uint32_t maskedOr(uint32_t x, uint32_t mask, uint32_t bits) { return (x & mask) | bits; }
inline uint32_t maskedXor(uint32_t x, uint32_t mask, uint32_t bits) { return (x & mask) ^ bits; }
inline int64_t wideProduct(int a, int b) { return static_cast<int64_t>(a) * b; }
inline float exp2Fast(float x) { return std::exp2(x); }
inline float reciprocal(float x) { return 1 / x; }

}  // namespace fastmqa::gpu
