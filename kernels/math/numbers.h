// Numbers of a model as they are kept in memory: in the 16 bits they came in, or in f32.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "fastmqa/dtype.h"

namespace fastmqa {

/// A list of f32 numbers. Those of a type of 16 bits stay in 16 bits and become f32, exactly, where they are read.
class Numbers {
 public:
  Numbers() = default;
  Numbers(std::vector<float> wide) : wide_(std::move(wide)) {}
  /// @param type f16 or bf16
  Numbers(Dtype type, std::vector<uint16_t> halves) : type_(type), halves_(std::move(halves)) {}

  Dtype type() const { return type_; }
  bool isHalf() const { return type_ != Dtype::f32; }
  size_t size() const { return isHalf() ? halves_.size() : wide_.size(); }
  bool empty() const { return size() == 0; }
  int64_t bytes() const { return static_cast<int64_t>(isHalf() ? halves_.size() * sizeof(uint16_t) : wide_.size() * sizeof(float)); }
  float operator[](size_t i) const;
  /// Numbers [first, first + count) as f32.
  void read(size_t first, size_t count, float* to) const;
  std::vector<float> floats() const;
  std::vector<double> doubles() const;
  /// As they are kept; null where they are kept otherwise.
  const float* wide() const { return isHalf() ? nullptr : wide_.data(); }
  const uint16_t* halves() const { return isHalf() ? halves_.data() : nullptr; }

 private:
  Dtype type_ = Dtype::f32;
  std::vector<float> wide_;
  std::vector<uint16_t> halves_;
};

/// `count` stored numbers of a type of 16 bits as f32.
void widen(Dtype type, const uint16_t* halves, int64_t count, float* to);

}  // namespace fastmqa
