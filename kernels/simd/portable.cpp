#define FASTMQA_VECTOR_BYTES 16
#define FASTMQA_SIMD_NAME "portable"
#include "kernels.inl"

namespace fastmqa {
extern const Simd* const simd_portable;
const Simd* const simd_portable = &table;
}  // namespace fastmqa
