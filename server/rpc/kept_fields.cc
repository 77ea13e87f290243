#include "server/rpc/kept_fields.h"

#include <google/protobuf/unknown_field_set.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {

absl::Status CheckKeptFields(const google::protobuf::Message& request) {
  const google::protobuf::Descriptor& type = *request.GetDescriptor();
  const google::protobuf::Reflection& reflection = *request.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(request);
  for (int i = 0; i < unknown.field_count(); ++i) {
    const int number = unknown.field(i).number();
    if (!type.IsReservedNumber(number)) continue;
    return FieldError(
        absl::StrCat(type.name(), ".", number),
        absl::StrCat("field ", number, " of ", type.name(),
                     " is set, which this server does not know yet: leave it out, or ask a newer server"));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(request, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) continue;
    absl::Status status = CheckKeptFields(reflection.GetMessage(request, field));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace normserve
