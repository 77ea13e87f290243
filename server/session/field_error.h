// What a request's field may not hold, as a status.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/error_reason.h"

namespace normserve {

// INVALID_ARGUMENT (INVALID_FIELD) about `field`, such as "config.epsilon". `message` names the field, the value and
// what would be right.
inline absl::Status FieldError(absl::string_view field, absl::string_view message,
                               std::map<std::string, std::string> metadata = {}) {
  metadata["field"] = std::string(field);
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField, message, std::move(metadata));
}

// OK if a vector has one value per channel, whatever they are; else INVALID_ARGUMENT.
inline absl::Status CheckLength(absl::string_view field, size_t found, int64_t length) {
  if (static_cast<int64_t>(found) == length) return absl::OkStatus();
  return FieldError(field, absl::StrCat(field, " has ", found, " values, the session has ", length,
                                        " channels: send one value per channel"));
}

// OK if `values` has `length` values, all finite; else INVALID_ARGUMENT that names the first one that is not.
template <typename T>
absl::Status CheckVector(absl::string_view field, absl::Span<const T> values, int64_t length) {
  if (absl::Status status = CheckLength(field, values.size(), length); !status.ok()) return status;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return FieldError(field, absl::StrCat(field, "[", i, "] is ", values[i], ": send finite values"));
    }
  }
  return absl::OkStatus();
}

// As CheckVector, and none below zero.
absl::Status CheckNonNegative(absl::string_view field, absl::Span<const double> values, int64_t length);

// OK if batches can be normalised with the values, divided by `count`; else INVALID_ARGUMENT that names the first that
// is beyond float32.
absl::Status CheckFitsFloat(absl::string_view field, absl::Span<const double> values, int64_t count = 1);

}  // namespace normserve
