#include "server/session/change_guard.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxUidBytes = 64;  // longer than any

}  // namespace

absl::Status CheckGuardFields(const ChangeGuard& guard) {
  const std::string& id = guard.request_id;
  if (id.size() > kMaxRequestIdBytes) {
    return FieldError("request_id", absl::StrCat("request_id has ", id.size(), " characters: send at most 128"));
  }
  for (const char c : id) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) {
      return FieldError("request_id", absl::StrCat("request_id is \"", absl::CHexEscape(id),
                                                   "\": send printable ASCII, a random UUID for choice"));
    }
  }
  if (guard.expected_uid.size() > kMaxUidBytes) {
    return FieldError("expected_uid", absl::StrCat("expected_uid has ", guard.expected_uid.size(),
                                                   " characters: send the uid that a reply told"));
  }
  if (guard.expected_generation.value_or(0) < 0) {
    return FieldError("expected_generation", absl::StrCat("expected_generation is ", *guard.expected_generation,
                                                          ": generations are zero or more"));
  }
  return absl::OkStatus();
}

absl::Status CheckExpectations(const ChangeGuard& guard, absl::string_view name, absl::string_view uid,
                               int64_t generation) {
  if (!guard.expected_uid.empty() && guard.expected_uid != uid) {
    return MakeError(absl::StatusCode::kAborted, ErrorReason::kUidMismatch,
                     absl::StrCat("session \"", name, "\" has uid ", uid, ", expected_uid is ",
                                  absl::CHexEscape(guard.expected_uid), ": it is another session of the same name"),
                     {{"session", std::string(name)}, {"uid", std::string(uid)}});
  }
  if (guard.expected_generation.has_value() && *guard.expected_generation != generation) {
    return MakeError(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch,
                     absl::StrCat("session \"", name, "\" has generation ", generation, ", expected_generation is ",
                                  *guard.expected_generation, ": read it again and decide anew"),
                     {{"session", std::string(name)}, {"generation", absl::StrCat(generation)}});
  }
  return absl::OkStatus();
}

void AddExpectations(const ChangeGuard& guard, FingerprintBuilder& fingerprint) {
  fingerprint.Add(static_cast<int64_t>(guard.expected_generation.has_value()))
      .Add(guard.expected_generation.value_or(0))
      .Add(absl::string_view(guard.expected_uid));
}

}  // namespace normserve
