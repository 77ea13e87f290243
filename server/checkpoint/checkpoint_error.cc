#include "server/checkpoint/checkpoint_error.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {

absl::Status CheckpointError(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
                   absl::StrCat("data is no checkpoint that can be read: ", message), {{"field", "data"}});
}

std::string Quoted(absl::string_view name) {
  constexpr size_t kMaxShown = 200;
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMaxShown)), name.size() > kMaxShown ? "...\"" : "\"");
}

}  // namespace normserve
