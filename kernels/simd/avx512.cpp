#define FASTMQA_VECTOR_BYTES 64
#define FASTMQA_SIMD_NAME "avx512"
#include "kernels.inl"

namespace fastmqa {
extern const Simd* const simd_avx512;
const Simd* const simd_avx512 = &table;
}  // namespace fastmqa
