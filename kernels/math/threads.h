// A process-wide thread pool. Work is handed out one index at a time, so uneven items balance;
// results never depend on the number of threads because items never share an output.
#pragma once
#include <cstdint>
#include <functional>

namespace fastmqa {

/// Number of threads that parallelFor uses (the calling thread included).
int threadCount();

/// Limits the pool, 1..hardware; 0 restores the default (environment FASTMQA_THREADS or all cores).
void setThreadCount(int threads);

/// Runs body(i) for i in [0, count). Nested calls run serially. The first exception is rethrown here.
void parallelFor(int64_t count, const std::function<void(int64_t)>& body);

}  // namespace fastmqa
