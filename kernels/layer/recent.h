// The last few expensive things asked for, by name.
#pragma once
#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace fastmqa {

/// Thread-safe. Making an item holds up every other request, so nothing is made twice.
template <class T, size_t capacity>
class Recent {
 public:
  /// The item of that name; `make` returns it as std::shared_ptr<T>, or throws and leaves everything as it was.
  template <class Make>
  std::shared_ptr<const T> get(const std::string& name, const Make& make) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(items_.begin(), items_.end(), [&](const auto& item) { return item.first == name; });
    if (found != items_.end()) {
      std::rotate(found, found + 1, items_.end());  // the first one is the longest unused
      return items_.back().second;
    }
    std::shared_ptr<const T> made = make();
    if (items_.size() >= capacity) items_.erase(items_.begin());
    items_.emplace_back(name, made);
    return made;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::shared_ptr<const T>>> items_;
};

}  // namespace fastmqa
