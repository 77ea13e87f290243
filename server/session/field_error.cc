#include "server/session/field_error.h"

#include <limits>

namespace normserve {

absl::Status CheckNonNegative(absl::string_view field, absl::Span<const double> values, int64_t length) {
  if (absl::Status status = CheckVector(field, values, length); !status.ok()) return status;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0) {
      return FieldError(field, absl::StrCat(field, "[", i, "] is ", values[i], ": send zero or more"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFitsFloat(absl::string_view field, absl::Span<const double> values, int64_t count) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::abs(values[i] / static_cast<double>(count)) <= std::numeric_limits<float>::max()) continue;
    return FieldError(field,
                      absl::StrCat(field, "[", i, "] is ", values[i], count == 1 ? "" : ", to be divided by the count",
                                   ": batches are normalised in float32, whose largest value is 3.4e38"));
  }
  return absl::OkStatus();
}

}  // namespace normserve
