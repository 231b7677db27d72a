#include "blas.h"

#ifndef __CUDACC__
namespace fastmqa::gpu::blas {
bool multiply(const ProductProblem&, Stream) { return false; }
}  // namespace fastmqa::gpu::blas
#else
#include <dlfcn.h>

#include <map>
#include <type_traits>

namespace fastmqa::gpu::blas {
namespace {

using Handle = void*;
/// As cublas_v2.h declares them since CUDA 11; 0 is success everywhere.
struct Library {
  int (*create)(Handle*) = nullptr;
  int (*setStream)(Handle, Stream) = nullptr;
  int (*gemm)(Handle, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*, void*, int, int, int, int) = nullptr;
  bool isUsable = false;
  std::map<int, Handle> handles;  // by device; they live as long as the process

  Library() {
    void* library = nullptr;
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"})
      if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    const auto find = [&](auto& function, const char* name) { function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name)); };
    find(create, "cublasCreate_v2");
    find(setStream, "cublasSetStream_v2");
    find(gemm, "cublasGemmEx");
    isUsable = create && setStream && gemm;
  }
  Handle handle() {
    int device = 0;
    if (!isUsable || cudaGetDevice(&device) != cudaSuccess) return nullptr;
    const auto found = handles.find(device);
    if (found != handles.end()) return found->second;
    Handle made = nullptr;
    if (create(&made) != 0) made = nullptr;
    return handles[device] = made;
  }
};

constexpr int transposed = 1, plain = 0, float16 = 2, bfloat16 = 14, compute32 = 68, defaultAlgorithm = -1;

}  // namespace

bool multiply(const ProductProblem& p, Stream stream) {
  if ((p.type != Dtype::f16 && p.type != Dtype::bf16) || p.outType != p.type || p.bias || p.heads > 1) return false;
  static Library library;
  const Handle handle = library.handle();
  if (!handle || library.setStream(handle, stream) != 0) return false;
  const float one = 1, zero = 0;
  const int type = p.type == Dtype::f16 ? float16 : bfloat16;
  // Column-major there: y^T [n][m] = W x^T.
  return library.gemm(handle, transposed, plain, p.n, p.m, p.k, &one, p.w.data(), type, p.k, p.x.data(), type, p.xStride > 0 ? p.xStride : p.k, &zero, p.y.data(), type, p.yStride > 0 ? p.yStride : p.n,
                      compute32,
                      defaultAlgorithm) == 0;
}

}  // namespace fastmqa::gpu::blas
#endif
