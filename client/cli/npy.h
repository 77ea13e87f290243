// NumPy's .npy files, as far as normctl needs them: dense little-endian floats in C order.
//
// Format: the magic "\x93NUMPY", a version (1.0, 2.0 or 3.0), the header's length (2 bytes in 1.0, 4 after), the
// header, which is a Python dictionary in text, and the values. Source: NumPy's documentation, "NPY format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "normserve/tensor.h"

namespace normserve::cli {

// What a header says; nothing of it is checked against what normctl can use.
struct NpyHeader {
  std::string descr;  // the values' type, such as "<f4"
  bool fortran_order = false;
  std::vector<int64_t> shape;  // all zero or more; the product does not overflow
  size_t num_values = 0;       // the product
  size_t data_offset = 0;      // where the values begin; at most the file's length
};

// Reads the header at the beginning of `file`, a whole file. INVALID_ARGUMENT: it is none, or is cut short.
absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view file);

// The float32 tensor in `file`. INVALID_ARGUMENT: not a .npy file; another type or order, named, with what to do; or
// more or fewer bytes than the header says.
absl::StatusOr<client::Tensor> ParseNpyTensor(absl::string_view file);

// The one-dimensional float32 or float64 vector in `file`, exactly. INVALID_ARGUMENT: as above.
absl::StatusOr<std::vector<double>> ParseNpyVector(absl::string_view file);

// A version 1.0 file, as numpy.save writes it. `tensor` must have as many values as its shape says.
std::string EncodeNpy(const client::TensorView& tensor);

// The bytes of a file. Errors as below.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

// The same from and to files. NOT_FOUND, PERMISSION_DENIED or UNKNOWN: the file cannot be read or written. Messages
// begin with the path.
absl::StatusOr<client::Tensor> ReadNpyTensor(const std::string& path);
absl::StatusOr<std::vector<double>> ReadNpyVector(const std::string& path);

}  // namespace normserve::cli
