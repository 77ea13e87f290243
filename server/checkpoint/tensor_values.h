// The bytes of a tensor in a file as numbers, and numbers as such bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"

namespace normserve {

// Whether ReadValues can: "F64", "F32", "F16" or "BF16".
bool IsFloatingDtype(absl::string_view dtype);

// The values, exactly. `bytes` has a whole number of them.
std::vector<double> ReadValues(absl::string_view dtype, absl::string_view bytes);

// Whether ReadInteger can: "I64" or "I32".
bool IsCounterDtype(absl::string_view dtype);

// The one value of `bytes`.
int64_t ReadInteger(absl::string_view dtype, absl::string_view bytes);

// |as float32 - value| / |value|, of which 2^-24 is the most for a value in float32's normal range; 0 for 0.
double RoundingError(double value);

}  // namespace normserve
