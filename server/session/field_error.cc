#include "server/session/field_error.h"

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

}  // namespace normserve
