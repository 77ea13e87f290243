#include "server/session/part_id.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"

namespace normserve {

absl::Status CheckPartId(const std::string& field, absl::string_view id, bool is_required) {
  if (id.empty() && is_required) {
    return FieldError(field, absl::StrCat(field, " is empty: send up to ", kMaxPartIdBytes,
                                          " printable ASCII characters, such as \"site-3\""));
  }
  const bool is_printable = std::all_of(id.begin(), id.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (id.size() <= kMaxPartIdBytes && is_printable) return absl::OkStatus();
  return FieldError(field, absl::StrCat(field, " is \"", absl::CHexEscape(id.substr(0, 64)), "\" of ", id.size(),
                                        " bytes: send up to ", kMaxPartIdBytes, " printable ASCII characters"));
}

absl::Status PartConflict(const std::string& session, const std::string& id) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kPartConflict,
                   absl::StrCat("part \"", id, "\" came to session \"", session,
                                "\" before with other data: send each part once, or under an id of its own"),
                   {{"field", "part_id"}, {"part", id}, {"session", session}});
}

}  // namespace normserve
