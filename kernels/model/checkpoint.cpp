#include "checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/codec.h"
#include "fastmqa/sizes.h"

namespace fastmqa {
namespace {

constexpr int64_t chunkBytes = 1 << 22;

int64_t bytesOf(StoredType type) {
  constexpr int64_t bytes[] = {4, 8, 2, 2, 1, 1};
  return bytes[static_cast<int>(type)];
}

/// Bytes may stand at any address.
float valueAt(const uint8_t* at, StoredType type) {
  uint16_t half;
  uint32_t bits;
  float single;
  double wide;
  switch (type) {
    case StoredType::f32: std::memcpy(&single, at, 4); return single;
    case StoredType::f64: std::memcpy(&wide, at, 8); return static_cast<float>(wide);
    case StoredType::f16:
      std::memcpy(&half, at, 2);
      // The codec saturates and knows no infinities; a file may hold them.
      return (half & 0x7c00) == 0x7c00 ? NAN : floatFromHalf(half);
    case StoredType::bf16:
      std::memcpy(&half, at, 2);
      bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&single, &bits, 4);
      return single;
    case StoredType::e4m3: return floatFromE4m3(*at);
    case StoredType::e5m2: return floatFromE5m2(*at);
  }
  refuse("expected a known element type");
}

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)) {
    struct stat info {};
    if (fd_ < 0 || fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
      if (fd_ >= 0) close(fd_);
      refuse("expected a readable regular file for the weights but received " + path);
    }
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  void read(void* to, int64_t bytes, int64_t offset, const std::string& name) const {
    for (int64_t done = 0; done < bytes;) {
      const ssize_t n = pread(fd_, static_cast<char*>(to) + done, static_cast<size_t>(bytes - done), static_cast<off_t>(offset + done));
      if (n <= 0) refuse("expected " + std::to_string(bytes) + " bytes for the weights " + name + " but the file ends after " + std::to_string(done));
      done += n;
    }
  }

 private:
  int fd_;
};

}  // namespace

int64_t StoredRows::rows() const {
  int64_t sum = 0;
  for (const auto& range : ranges) sum = elements({sum + elements({range.second})});  // both at most 2^56: no overflow
  return sum;
}

namespace {

/// The scales of one row after the other.
class ScaledRows {
 public:
  ScaledRows(const BlockScales& scales, int64_t columns, const std::string& name)
      : scales_(scales), columns_(columns), name_(name), file_(scales.file), row_(static_cast<size_t>((columns + scales.columns - 1) / scales.columns)) {}
  float at(int64_t row, int64_t column) {
    if (const int64_t block = row / scales_.rows; block != block_) {
      const int64_t bytes = elements({static_cast<int64_t>(row_.size()), static_cast<int64_t>(sizeof(float))});
      file_.read(row_.data(), bytes, elements({scales_.offset}) + elements({block, bytes}), "the scales of " + name_);
      block_ = block;
    }
    return row_[static_cast<size_t>(column / scales_.columns)];
  }

 private:
  const BlockScales& scales_;
  int64_t columns_;
  const std::string& name_;
  File file_;
  std::vector<float> row_;
  int64_t block_ = -1;
};

}  // namespace

Numbers readRows(const StoredRows& rows, const std::string& name) {
  const File file(rows.file);
  std::optional<ScaledRows> scales;
  if (rows.scales) scales.emplace(*rows.scales, rows.columns, name);
  const int64_t size = bytesOf(rows.type), rowBytes = elements({rows.columns, size});
  const auto count = static_cast<size_t>(elements({rows.rows(), rows.columns}));
  const bool isHalf = rows.type == StoredType::f16 || rows.type == StoredType::bf16, isWide = size >= 4;
  std::vector<float> wide(isWide ? count : 0);
  std::vector<uint16_t> halves(isWide ? 0 : count);
  std::vector<uint8_t> bytes;
  size_t at = 0;
  for (const auto& [first, rowCount] : rows.ranges) {
    const int64_t total = elements({rowCount, rowBytes}), start = elements({rows.offset}) + elements({first, rowBytes});
    for (int64_t done = 0; done < total;) {
      const int64_t n = std::min(chunkBytes, total - done);  // a multiple of every element size, or the end
      bytes.resize(static_cast<size_t>(n));
      file.read(bytes.data(), n, start + done, name);
      for (int64_t i = 0; i < n / size; i++, at++) {
        const uint8_t* from = bytes.data() + i * size;
        float x = valueAt(from, rows.type);
        if (scales) x *= scales->at(first + (done / size + i) / rows.columns, (done / size + i) % rows.columns);
        if (!std::isfinite(x)) refuse("expected finite weights for " + name + " but received an infinity or NaN");
        if (isWide)
          wide[at] = x;
        else if (isHalf)
          std::memcpy(&halves[at], from, sizeof(uint16_t));
        else if (scales)
          halves[at] = bfloatFromFloat(x);
        else
          halves[at] = halfFromFloat(x);  // exact: f16 has more of both, exponent and mantissa
      }
      done += n;
    }
  }
  if (isWide) return Numbers(std::move(wide));
  return Numbers(rows.type == StoredType::bf16 || scales ? Dtype::bf16 : Dtype::f16, std::move(halves));
}

}  // namespace fastmqa
