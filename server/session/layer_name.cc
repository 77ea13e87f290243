#include "server/session/layer_name.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

constexpr size_t kMaxSegmentBytes = 63;

std::string Segments(absl::string_view path) {
  std::string segments;
  while (path.size() > kMaxSegmentBytes) {
    const size_t dot = path.rfind('.', kMaxSegmentBytes);
    if (dot == absl::string_view::npos || dot == 0) break;  // no name comes of it, which is said later
    absl::StrAppend(&segments, path.substr(0, dot), "/");
    path.remove_prefix(dot + 1);
  }
  return absl::StrCat(segments, path);
}

}  // namespace

absl::StatusOr<std::string> SessionNameOfLayer(absl::string_view target, absl::string_view path) {
  const std::string shown = absl::CHexEscape(path.substr(0, 300));
  if (!absl::EndsWith(target, "/")) {
    if (path.empty()) return std::string(target);
    return FieldError("name", absl::StrCat("name is the session \"", target, "\", but the file has a layer \"", shown,
                                           "\": name a model (\"", target, "/\"), or set prefix to that layer"));
  }
  if (path.empty()) {
    return FieldError("name",
                      absl::StrCat("name is the model \"", target,
                                   "\", but the file has a layer without a path: name a session (without '/'), or a "
                                   "shorter prefix"));
  }
  std::string name = absl::StrCat(target, Segments(path));
  // A '/' of the path's own would come back as a '.'.
  if (!absl::StrContains(path, '/') && CheckSessionName("name", name).ok()) return name;
  return FieldError("data",
                    absl::StrCat("layer \"", shown, "\" would become session \"", absl::CHexEscape(name.substr(0, 300)),
                                 "\", whose name is not legal: letters, digits, '_', '.' and '-', steps of at most "
                                 "63 bytes, 255 bytes in all; choose layers with prefix, or rename this one"));
}

std::string PathOfLayer(absl::string_view target, absl::string_view name) {
  if (!absl::EndsWith(target, "/")) return "";
  std::string path(name.substr(target.size()));
  std::replace(path.begin(), path.end(), '/', '.');
  return path;
}

}  // namespace normserve
