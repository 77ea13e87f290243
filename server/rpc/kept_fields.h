// Fields that a later version of the contract will have.
#pragma once

#include <google/protobuf/message.h>

#include "absl/status/status.h"

namespace normserve {

// INVALID_ARGUMENT if `request`, or a message in it, has a field whose number proto/ keeps for later: what it asks for
// would be left out in silence, such as other statistics to normalise with. Fields that nobody has kept are ignored, as
// everywhere in Protocol Buffers.
absl::Status CheckKeptFields(const google::protobuf::Message& request);

}  // namespace normserve
