// Weights in files: which bytes make up a matrix, read piece by piece, never a whole file at once.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fastmqa/status.h"
#include "math/numbers.h"

namespace fastmqa {

enum class StoredType { f32, f64, f16, bf16, e4m3, e5m2 };

/// One scale for every block of a matrix: W[r][c] = stored[r][c] * scale[r / rows][c / columns] (DeepSeek-V3's `weight_scale_inv`).
struct BlockScales {
  std::string file;
  int64_t offset = 0;  ///< of the first of [ceil(rows of the matrix / rows)][ceil(its columns / columns)] f32
  int64_t rows = 1, columns = 1;
};

/// Rows of a stored matrix (or, with one column, elements of a vector): a fused projection is cut by its ranges.
struct StoredRows {
  std::string file;
  int64_t offset = 0;  ///< of the tensor's first byte in the file
  StoredType type = StoredType::f32;
  int64_t columns = 1;
  std::vector<std::pair<int64_t, int64_t>> ranges;  ///< first row, count
  std::optional<BlockScales> scales;
  int64_t rows() const;
};

/// By what the decoder calls them: `embedding`, `layers.3.q`, ...
using Checkpoint = std::map<std::string, StoredRows>;

/// Row-major; stored numbers of 8 and 16 bits are kept in 16, those with scales in bf16. @throws Failure refused for a file that is too short, no regular file, or a value that is not finite
Numbers readRows(const StoredRows& rows, const std::string& name);

}  // namespace fastmqa
