#include "server/session/page_token.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/session/field_error.h"
#include "server/session/fingerprint.h"

namespace normserve {
namespace {

constexpr size_t kDigestDigits = 16;

// Ties the token to its prefix and makes a made-up one unlikely to pass.
// A digest and a session's name, in base 64, are shorter.
constexpr size_t kMaxTokenBytes = 1024;

std::string Digest(absl::string_view prefix, absl::string_view last_name) {
  return absl::StrFormat("%016x", FingerprintBuilder("ListSessions").Add(prefix).Add(last_name).Finish().low);
}

}  // namespace

std::string MakePageToken(absl::string_view prefix, absl::string_view last_name) {
  return absl::WebSafeBase64Escape(absl::StrCat(Digest(prefix, last_name), last_name));
}

absl::StatusOr<std::string> ReadPageToken(absl::string_view prefix, absl::string_view token) {
  if (token.size() > kMaxTokenBytes) {
    return FieldError("page_token", absl::StrCat("page_token has ", token.size(),
                                                 " characters, which no next_page_token has: send one unchanged"));
  }
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text) && text.size() > kDigestDigits) {
    std::string last_name = text.substr(kDigestDigits);
    if (text.substr(0, kDigestDigits) == Digest(prefix, last_name)) return last_name;
  }
  return FieldError("page_token", absl::StrCat("page_token is \"", absl::CHexEscape(token), "\", which is no ",
                                               "next_page_token of a listing with prefix \"", prefix,
                                               "\": send the token with the prefix it came for"));
}

}  // namespace normserve
