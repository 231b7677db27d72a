#include "device.h"

#include <cstdlib>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fastmqa::gpu::host {
namespace {

// ---- fibres: one stack each, switched by hand --------------------------------------------------------------------

constexpr size_t stackBytes = 256 << 10;

struct Fibre {
  std::unique_ptr<char[]> stack{new char[stackBytes]};
#if defined(__x86_64__)
  void* stackPointer = nullptr;
#else
  ucontext_t context;
#endif
  void* sanitizer = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
  bool finished = true;
};

#if defined(__x86_64__)
// Saves the registers that a call must keep on the old stack, and takes those of the new one.
extern "C" void fastmqaSwitchStack(void** from, void* to);
asm(R"(
.text
.globl fastmqaSwitchStack
fastmqaSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
)");
#endif

// ---- a block ---------------------------------------------------------------------------------------------------

enum class Meeting { exchange, barrier, load, product };

struct Warp {
  int size = 0, arrived = 0;
  Meeting meeting{};
  uint64_t generation = 0, epoch = 1;
  uint32_t values[2][warpSize_];  // of alternating exchanges: nobody can be two ahead
  int addresses[warpSize_];
  uint32_t matrices[warpSize_][4];
  FragmentA a[warpSize_];
  uint32_t b[warpSize_][2];
  FragmentC c[warpSize_];
};

struct Copy {
  int offset, bytes;
  uint8_t data[16];
};

struct Thread {
  std::vector<Copy> open;                  // not committed yet
  std::vector<std::vector<Copy>> groups;   // committed, oldest first
  int64_t blockBarriers = 0, warpBarriers = 0, waits = 0, stores = 0, loads = 0, products = 0, predecessors = 0;
  bool hasPredecessor = false;  // it is done
};

constexpr int nobody = -1, several = -2;

/// Of one byte of shared memory.
struct Shadow {
  uint64_t writeEpoch = 0, writeWarpEpoch = 0, readEpoch = 0, readWarpEpoch = 0;
  int writer = nobody, reader = nobody, readerWarp = nobody;
  bool underWay = false;
};

constexpr int mostThreads = 1024;

struct Machine {
  std::vector<Fibre> fibres{mostThreads};
  Fibre home;
  std::vector<Thread> threads{mostThreads};
  std::vector<Warp> warps{mostThreads / warpSize_};
  std::vector<uint8_t> shared;
  std::vector<Shadow> shadow;
  Where where;
  int count = 0, running = 0, finished = 0, sharedBytes = 0;
  int waiting = 0;  // at the block barrier
  uint64_t barrierGeneration = 0;
  bool asked = false, answer = false;  // whether any thread said yes, at the barrier that is under way and at the last one
  uint64_t epoch = 1, blockStart = 1;  // block barriers since the process began
  uint64_t progress = 0, seenProgress = 0;
  int idle = 0;
  std::string failure;
  const std::function<void()>* kernel = nullptr;
  Plant plant;
  bool planted = false;
  Counts counts;
};

Machine theMachine;  // looked at for every byte of shared memory: no guard of a first use
Machine& machine() { return theMachine; }

bool meets(Plant::Kind kind, int64_t& counter) {
  Machine& m = machine();
  const bool hit = m.plant.kind == kind && counter == m.plant.number;
  counter++;
  m.planted |= hit;
  return hit;
}

void switchTo(Fibre& from, Fibre& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer, to.bottom, to.bytes);
#endif
#if defined(__x86_64__)
  fastmqaSwitchStack(&from.stackPointer, to.stackPointer);
#else
  swapcontext(&from.context, &to.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

/// Lets the next unfinished thread run; back home when all have finished or one has failed.
void yield() {
  Machine& m = machine();
  Fibre& self = m.fibres[static_cast<size_t>(m.running)];
  if (m.failure.empty() && m.finished < m.count) {
    if (m.progress != m.seenProgress) {
      m.seenProgress = m.progress;
      m.idle = 0;
    } else if (++m.idle > 2 * m.count) {
      m.failure = "a thread is missing at a barrier";
    }
  }
  if (!m.failure.empty() || m.finished == m.count) return switchTo(self, m.home);
  int next = m.running;
  do next = next + 1 == m.count ? 0 : next + 1;
  while (m.fibres[static_cast<size_t>(next)].finished);
  if (next == m.running) return;
  m.running = next;
  m.where.thread = next;
  switchTo(self, m.fibres[static_cast<size_t>(next)]);
}

void runFibre() {
  Machine& m = machine();
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!m.home.bottom) m.home.bottom = bottom, m.home.bytes = bytes;  // the first fibre comes from there
#endif
  const int self = m.running;
  try {
    (*m.kernel)();
    Thread& t = m.threads[static_cast<size_t>(self)];
    if (!t.open.empty() || !t.groups.empty()) fault("the kernel ended while asynchronous copies were under way");
    if (beginsEarly) requirePredecessor();  // or the kernel after this one would not wait for the one before
  } catch (const std::exception& error) {
    if (m.failure.empty()) m.failure = error.what();
  }
  m.fibres[static_cast<size_t>(self)].finished = true;
  m.finished++;
  m.progress++;
  for (;;) yield();
}

void prepare(Fibre& f) {
  f.finished = false;
  f.bottom = f.stack.get();
  f.bytes = stackBytes;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(f.stack.get(), stackBytes);  // the frames of the fibre before never returned
#endif
#if defined(__x86_64__)
  auto top = reinterpret_cast<uintptr_t>(f.stack.get() + stackBytes) & ~static_cast<uintptr_t>(63);
  void** sp = reinterpret_cast<void**>(top) - 2;
  *sp-- = reinterpret_cast<void*>(&runFibre);
  for (int i = 0; i < 5; i++) *sp-- = nullptr;
  *sp = nullptr;
  f.stackPointer = sp;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack.get();
  f.context.uc_stack.ss_size = stackBytes;
  f.context.uc_link = nullptr;
  makecontext(&f.context, &runFibre, 0);
#endif
}

Warp& warp() { return machine().warps[static_cast<size_t>(machine().where.thread / warpSize_)]; }
Thread& self() { return machine().threads[static_cast<size_t>(machine().where.thread)]; }

/// Waits for all lanes of the warp; the last to come runs `last` first.
template <class Last>
void meet(Meeting meeting, Last last) {
  Machine& m = machine();
  Warp& w = warp();
  if (w.arrived == 0)
    w.meeting = meeting;
  else if (w.meeting != meeting)
    fault("lanes of a warp met at different operations");
  if (++w.arrived == w.size) {
    last(w);
    w.arrived = 0;
    w.generation++;
    m.progress++;
    return;
  }
  const uint64_t generation = w.generation;
  while (w.generation == generation) yield();
}

std::string at(int offset) {
  const Where& w = machine().where;
  return " (byte " + std::to_string(offset) + " of shared memory, thread " + std::to_string(w.thread) + ", block " +
         std::to_string(w.block.x) + "," + std::to_string(w.block.y) + "," + std::to_string(w.block.z) + ")";
}

/// Is what `other` did at those epochs ordered before what this thread does now?
bool ordered(int otherWarp, uint64_t blockEpoch, uint64_t warpEpoch) {
  Machine& m = machine();
  return blockEpoch < m.epoch || (otherWarp == m.where.thread / warpSize_ && warpEpoch < warp().epoch);
}

void noteWrite(int offset, int bytes, bool underWay) {
  Machine& m = machine();
  const int thread = m.where.thread;
  const uint64_t warpEpoch = warp().epoch;
  for (int i = offset; i < offset + bytes; i++) {
    Shadow& s = m.shadow[static_cast<size_t>(i)];
    const bool written = s.writeEpoch >= m.blockStart, read = s.readEpoch >= m.blockStart;
    if (written && s.underWay && s.writeEpoch >= m.blockStart && (s.writer != thread || underWay)) fault("write to the target of a copy under way" + at(i));
    if (written && s.writer != thread && !ordered(s.writer / warpSize_, s.writeEpoch, s.writeWarpEpoch))
      fault("two threads write with no barrier between" + at(i));
    if (read && s.reader != thread && !ordered(s.readerWarp, s.readEpoch, s.readWarpEpoch))
      fault("write to what another thread reads, with no barrier between" + at(i));
    s.writeEpoch = m.epoch;
    s.writeWarpEpoch = warpEpoch;
    s.writer = thread;
    s.underWay = underWay;
  }
}

void makeTable(std::vector<float>& table) {
  table.resize(1 << 16);
  for (uint32_t h = 0; h < table.size(); h++) {
    const uint32_t magnitude = (h & 0x7fffu) << 13;
    float x = floatOf(magnitude) * 0x1p112f;
    if ((h & 0x7c00u) == 0x7c00u) x = (h & 0x3ffu) ? NAN : INFINITY;
    table[h] = (h & 0x8000u) ? -x : x;
  }
}

}  // namespace

void fault(const std::string& what) { throw Fault(what); }
const Where& where() { return machine().where; }
void plant(const Plant& p) {
  machine().plant = p;
  machine().planted = false;
}
bool planted() { return machine().planted; }
Counts& counts() { return machine().counts; }

namespace {
Recording* recording = nullptr;
}
void record(Recording* to) { recording = to; }
bool isRecording() { return recording; }
void submit(std::function<void()> work) {
  if (recording)
    recording->push_back(std::move(work));
  else
    work();
}

float floatFromHalf(uint16_t h) {
  static std::vector<float> table;
  if (table.empty()) makeTable(table);
  return table[h];
}

uint16_t halfFromFloat(float x) {
  const uint32_t u = bitsOfFloat(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7bffu);
  if (magnitude < 0x38800000u) return static_cast<uint16_t>(sign | (bitsOfFloat(floatOf(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<uint16_t>(sign | (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13);
}

void runGrid(GridSize grid, int threads, int sharedBytes, const std::function<void()>& kernel, bool early) {
  Machine& m = machine();
  const struct Early {
    explicit Early(bool early) { beginsEarly = early; }
    ~Early() { beginsEarly = false; }
  } scope(early);
  if (threads < 1 || threads > mostThreads || threads % warpSize_) throw Fault("block of " + std::to_string(threads) + " threads");
  m.kernel = &kernel;
  m.count = threads;
  m.where.grid = grid;
  m.sharedBytes = sharedBytes;
  if (static_cast<int>(m.shared.size()) < sharedBytes) {
    m.shared.resize(static_cast<size_t>(sharedBytes));
    m.shadow.resize(static_cast<size_t>(sharedBytes));
  }
  for (int z = 0; z < grid.z; z++)
    for (int y = 0; y < grid.y; y++)
      for (int x = 0; x < grid.x; x++) {
        m.where.block = {x, y, z};
        m.blockStart = ++m.epoch;
        m.finished = m.waiting = m.running = m.idle = 0;
        m.where.thread = 0;
        m.asked = m.answer = false;
        m.failure.clear();
        std::memset(m.shared.data(), 0xff, static_cast<size_t>(sharedBytes));  // NaN in every format
        for (int i = 0; i < threads; i++) prepare(m.fibres[static_cast<size_t>(i)]), m.threads[static_cast<size_t>(i)] = {};
        for (int w = 0; w < threads / warpSize_; w++) {
          m.warps[static_cast<size_t>(w)].size = warpSize_;
          m.warps[static_cast<size_t>(w)].arrived = 0;
        }
        m.counts.blocks++;
        switchTo(m.home, m.fibres[0]);
        if (!m.failure.empty()) throw Fault(m.failure);
      }
}

void awaitPredecessor() {
  if (meets(Plant::skipPredecessor, self().predecessors)) return;
  self().hasPredecessor = true;
}
void requirePredecessor() {
  if (!self().hasPredecessor) fault("a kernel that begins early does not wait for the one before it");
}

void blockBarrier() {
  Machine& m = machine();
  m.counts.blockBarriers++;
  if (meets(Plant::skipBlockBarrier, self().blockBarriers)) return;
  if (++m.waiting == m.count) {
    m.waiting = 0;
    m.answer = m.asked;
    m.asked = false;
    m.epoch++;
    m.barrierGeneration++;
    m.progress++;
    return;
  }
  const uint64_t generation = m.barrierGeneration;
  while (m.barrierGeneration == generation) yield();
}

bool anyThread(bool x) {
  machine().asked |= x;
  blockBarrier();
  return machine().answer;
}

void warpBarrier() {
  machine().counts.warpBarriers++;
  if (meets(Plant::skipWarpBarrier, self().warpBarriers)) return;
  meet(Meeting::barrier, [](Warp& w) { w.epoch++; });
}

const uint32_t* exchange(uint32_t value) {
  Warp& w = warp();
  uint32_t* values = w.values[w.generation & 1];
  values[laneIndex()] = value;
  meet(Meeting::exchange, [](Warp&) {});
  return values;
}

int takeShared(int bytes) {
  if (bytes > machine().sharedBytes)
    fault("the kernel takes " + std::to_string(bytes) + " bytes of shared memory but was launched with " + std::to_string(machine().sharedBytes));
  return bytes;
}

void readShared(int offset, int bytes, void* to) {
  Machine& m = machine();
  const int thread = m.where.thread, myWarp = thread / warpSize_;
  const uint64_t warpEpoch = warp().epoch;
  for (int i = offset; i < offset + bytes; i++) {
    Shadow& s = m.shadow[static_cast<size_t>(i)];
    if (s.writeEpoch < m.blockStart) fault("read of shared memory that nothing wrote" + at(i));
    if (s.underWay) fault("read of the target of a copy under way" + at(i));
    if (s.writer != thread && !ordered(s.writer / warpSize_, s.writeEpoch, s.writeWarpEpoch))
      fault("read of what another thread wrote, with no barrier between" + at(i));
    const bool first = s.readEpoch != m.epoch;
    s.reader = first || s.reader == thread ? thread : several;
    s.readerWarp = first || s.readerWarp == myWarp ? myWarp : several;
    s.readEpoch = m.epoch;
    s.readWarpEpoch = warpEpoch;
  }
  std::memcpy(to, m.shared.data() + offset, static_cast<size_t>(bytes));
}

void writeShared(int offset, int bytes, const void* from) {
  noteWrite(offset, bytes, false);
  std::memcpy(machine().shared.data() + offset, from, static_cast<size_t>(bytes));
}

void copyShared(int offset, int bytes, const void* from) {
  noteWrite(offset, bytes, true);
  Copy copy{offset, bytes, {}};
  std::memcpy(copy.data, from, static_cast<size_t>(bytes));
  self().open.push_back(copy);
}

void commitCopies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}

void waitCopies(int left) {
  Machine& m = machine();
  if (meets(Plant::skipWait, self().waits)) return;
  auto& groups = self().groups;
  const size_t done = groups.size() > static_cast<size_t>(left) ? groups.size() - static_cast<size_t>(left) : 0;
  for (size_t g = 0; g < done; g++)
    for (const Copy& copy : groups[g]) {
      noteWrite(copy.offset, copy.bytes, false);
      std::memcpy(m.shared.data() + copy.offset, copy.data, static_cast<size_t>(copy.bytes));
    }
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(done));
}

void loadMatrices(uint32_t (&r)[4], int offset, bool transposed) {
  Warp& w = warp();
  readShared(offset, 16, w.matrices[laneIndex()]);
  meet(Meeting::load, [&](Warp& warp) {
    uint32_t out[warpSize_][4];
    for (int matrix = 0; matrix < 4; matrix++)
      for (int lane = 0; lane < warpSize_; lane++) {
        const auto element = [&](int row, int column) {
          return warp.matrices[8 * matrix + row][column / 2] >> 16 * (column % 2) & 0xffff;
        };
        const int row = lane / 4, column = 2 * (lane % 4);
        out[lane][matrix] = transposed ? element(column, row) | element(column + 1, row) << 16
                                       : element(row, column) | element(row, column + 1) << 16;
      }
    std::memcpy(warp.matrices, out, sizeof(out));
  });
  // Nobody overwrites it: the next load needs this lane too.
  std::memcpy(r, w.matrices[laneIndex()], sizeof(r));
}

void multiply(bool bf16, FragmentC& c, const FragmentA& a, uint32_t b0, uint32_t b1) {
  Warp& w = warp();
  const int lane = laneIndex();
  w.a[lane] = a;
  if (meets(Plant::swapFragment, self().products)) std::swap(w.a[lane].r[1], w.a[lane].r[2]);
  w.b[lane][0] = b0;
  w.b[lane][1] = b1;
  w.c[lane] = c;
  meet(Meeting::product, [&](Warp& p) {
    machine().counts.products++;
    const auto decode = [&](uint32_t pair, int half) {
      const auto bits = static_cast<uint16_t>(pair >> 16 * half);
      return bf16 ? floatOf(static_cast<uint32_t>(bits) << 16) : floatFromHalf(bits);
    };
    float rows[16][16], columns[8][16];
    for (int l = 0; l < warpSize_; l++)
      for (int half = 0; half < 2; half++) {
        const int q = l / 4, k = 2 * (l % 4) + half;
        for (int i = 0; i < 4; i++) rows[q + 8 * (i & 1)][k + 8 * (i >> 1)] = decode(p.a[l].r[i], half);
        for (int i = 0; i < 2; i++) columns[q][k + 8 * i] = decode(p.b[l][i], half);
      }
    for (int l = 0; l < warpSize_; l++)
      for (int i = 0; i < 4; i++) {
        const float* row = rows[l / 4 + 8 * (i >> 1)];
        const float* column = columns[2 * (l % 4) + (i & 1)];
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += row[k] * column[k];
        p.c[l].r[i] += sum;
      }
  });
  c = w.c[lane];
}

bool shiftsThisStore() { return meets(Plant::shiftSharedStore, self().stores); }
bool shiftsThisLoad() { return meets(Plant::shiftGlobalLoad, self().loads); }

}  // namespace fastmqa::gpu::host
