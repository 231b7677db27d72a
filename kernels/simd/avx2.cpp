#define FASTMQA_VECTOR_BYTES 32
#define FASTMQA_SIMD_NAME "avx2"
#include "kernels.inl"

namespace fastmqa {
extern const Simd* const simd_avx2;
const Simd* const simd_avx2 = &table;
}  // namespace fastmqa
