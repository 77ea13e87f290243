// Moments in files: JSON, and NumPy's .npz.
//
//   JSON   {"count": values, "mean": [C values], "m2": [C values], "num_samples": N}, or of a model's layers
//          {"LAYER": {...}, ...}
//   .npz   arrays "count", "mean" and "m2" as numpy.savez(file, count=..., mean=..., m2=...) writes them, or of layers
//          "LAYER/count" and so on; count and num_samples 0-dimensional integers, the others float64 or float32
//
// num_samples may be missing: it is not known then.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "normserve/population.h"

namespace normserve::cli {

// Whether `path` ends as files of moments do: .json or .npz.
bool IsMomentsFile(absl::string_view path);

// What is in the file at `path`, as its name ends. NOT_FOUND, PERMISSION_DENIED: it cannot be read; INVALID_ARGUMENT:
// it is not as above. Messages begin with the path. What fits the session is the server's to say.
absl::StatusOr<client::Data> ReadMomentsFile(const std::string& path);

// One session's moments, as they are read.
nlohmann::ordered_json MomentsJson(const client::Moments& moments);

}  // namespace normserve::cli
