#include "threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace fastmqa {
namespace {

int defaultThreads() {
  const char* wanted = std::getenv("FASTMQA_THREADS");
  const int hardware = std::max(1u, std::thread::hardware_concurrency());
  const int parsed = wanted ? std::atoi(wanted) : 0;
  return parsed >= 1 ? std::min(parsed, hardware) : hardware;
}

struct Job {
  int64_t count;
  const std::function<void(int64_t)>* body;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex errorMutex;

  void work() {
    for (int64_t i; !failed.load(std::memory_order_relaxed) && (i = next.fetch_add(1)) < count;) {
      try {
        (*body)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(errorMutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  }
};

thread_local bool insidePool = false;

// A step of decode is several jobs of tens of microseconds one after the other; to sleep and be woken costs as much.
// Who waits looks this often first, about 20 to 50 microseconds.
constexpr int looks = 1500;

template <class Done>
void lookFor(const Done& done) {
  for (int i = 0; i < looks && !done(); i++) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

class Pool {
 public:
  explicit Pool(int helpers) {
    for (int i = 0; i < helpers; i++) threads_.emplace_back([this] { loop(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      generation_++;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int size() const { return static_cast<int>(threads_.size()) + 1; }

  void run(Job& job) {
    std::lock_guard<std::mutex> oneJob(runMutex_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      generation_++;
    }
    wake_.notify_all();
    insidePool = true;
    job.work();
    insidePool = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;  // nothing is left to take: who wakes now need not be waited for
    }
    lookFor([this] { return active_ == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return active_ == 0; });
  }

 private:
  void loop() {
    insidePool = true;
    uint64_t seen = 0;
    for (;;) {
      lookFor([&] { return generation_ != seen; });
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      Job* job = job_;
      if (!job) continue;
      active_++;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_, runMutex_;
  std::condition_variable wake_, done_;
  // Written with the mutex held; atomic for those who look without it.
  std::atomic<int> active_{0};
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  bool stopping_ = false;
};

std::mutex poolMutex;
std::unique_ptr<Pool> pool;
int wantedThreads = 0;

Pool& currentPool() {
  std::lock_guard<std::mutex> lock(poolMutex);
  if (!pool) pool = std::make_unique<Pool>((wantedThreads > 0 ? wantedThreads : defaultThreads()) - 1);
  return *pool;
}

}  // namespace

int threadCount() { return currentPool().size(); }

void setThreadCount(int threads) {
  std::lock_guard<std::mutex> lock(poolMutex);
  wantedThreads = std::max(0, threads);
  pool.reset();
}

void parallelFor(int64_t count, const std::function<void(int64_t)>& body) {
  if (count <= 0) return;
  if (insidePool || count == 1) {
    for (int64_t i = 0; i < count; i++) body(i);
    return;
  }
  Job job;
  job.count = count;
  job.body = &body;
  currentPool().run(job);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fastmqa
