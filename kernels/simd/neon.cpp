#define FASTMQA_VECTOR_BYTES 16
#define FASTMQA_SIMD_NAME "neon"
#include "kernels.inl"

namespace fastmqa {
extern const Simd* const simd_neon;
const Simd* const simd_neon = &table;
}  // namespace fastmqa
