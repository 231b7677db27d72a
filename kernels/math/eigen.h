// Eigenvalues, eigenvectors and polar factors of dense matrices, in fp64.
#pragma once
#include <complex>
#include <cstdint>

namespace fastmqa {

/// All eigenpairs of a real symmetric matrix, to about n * 1e-16 * ||a||: blocked Householder reduction to
/// tridiagonal form (two thirds of it in matrix products), implicit QL, compact WY back-transformation
/// (Golub & Van Loan, Matrix Computations, 8.3; Dongarra, Hammarling & Sorensen 1989). All cores, the same
/// result for any thread count.
/// @param a       [n, n] row-major; only the lower triangle is read; destroyed
/// @param values  [n], descending
/// @param vectors [n, n] row-major; row i is the unit eigenvector of values[i]
/// @throws std::invalid_argument if a value is not finite
void symmetricEigen(int64_t n, double* a, double* values, double* vectors);

/// All eigenpairs of a complex Hermitian matrix by cyclic Jacobi rotations; meant for n <= 128.
/// @param a       [n, n] row-major; destroyed
/// @param values  [n], descending
/// @param vectors [n, n] row-major; row i is the unit eigenvector of values[i]: sum_k a[j,k] row[k] = values[i] row[j]
/// @throws std::invalid_argument if a value is not finite
void hermitianEigen(int64_t n, std::complex<double>* a, double* values, std::complex<double>* vectors);

/// Replaces m = U S V^T by the orthogonal matrix U V^T nearest to it (its polar factor), which maximises
/// trace(Q^T m): the solution of the orthogonal Procrustes problem. Directions that m maps to zero leave Q
/// undetermined; they are completed to some orthogonal matrix. Meant for n <= 512.
/// @param m [n, n] row-major, in and out
/// @throws std::invalid_argument if a value is not finite
void polarFactor(int64_t n, double* m);

}  // namespace fastmqa
