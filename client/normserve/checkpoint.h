// Checkpoints: batch-norm layers of safetensors files become sessions, and sessions such a file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "normserve/call_options.h"
#include "normserve/session.h"

namespace normserve::client {

// What happens to a layer whose session is open already.
enum class ExistingSession {
  kRefuse = 1,   // the whole import: ALREADY_EXISTS
  kReplace = 2,  // it gets the layer's state, as one generation; uid, config and snapshots stay
  kSkip = 3,     // it stays as it is
};

// Called with the bytes sent or received so far, and with all of them.
using Progress = std::function<void(int64_t bytes, int64_t all_bytes)>;

struct ImportOptions {
  std::string prefix = {};  // only layers below it, such as "backbone", which is taken off; empty: the whole file
  ExistingSession existing = ExistingSession::kRefuse;
  // Of sessions that are made: epsilon and momentum are not in a file. num_features stays 0; affine unset: whether the
  // file has weight or bias.
  SessionConfig config = {};
  Mode mode = Mode::kUnspecified;                 // unset: kEval
  Convention kept_by = Convention::kUnspecified;  // by which the file's statistics were kept; unset: the sessions'
  int64_t values_per_channel = 0;                 // of every batch then; read where the variance must be converted
  Progress progress = {};
  CallOptions call = {};
};

enum class ImportAction { kUnspecified = 0, kCreated = 1, kReplaced = 2, kSkipped = 3 };

// A layer of the file and its session.
struct ImportedLayer {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  int64_t num_features = 0;
  int64_t num_batches_tracked = 0;
  ImportAction action = ImportAction::kUnspecified;
};

// A tensor that looks like a part of a batch-norm layer and was left out.
struct SkippedTensor {
  std::string name;
  std::string reason;
};

struct ImportResult {
  std::vector<ImportedLayer> layers;   // in the order of the sessions' names
  std::vector<SkippedTensor> skipped;  // the first 100 of them
  int64_t num_skipped = 0;
  double largest_parameter_rounding = 0;  // relative, of a weight or bias: 0 unless the file has float64
};

struct ExportOptions {
  std::string prefix = {};                           // put before every tensor's name, with a '.'
  Convention convention = Convention::kUnspecified;  // by which the file's variances are kept; unset: as they are
  bool folded = false;             // instead of the layers, X.scale and X.shift: evaluation as y = x * scale + shift
  int64_t values_per_channel = 0;  // as ImportOptions
  Progress progress = {};
  CallOptions call = {};
};

// A session as it was written.
struct ExportedLayer {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  std::string path;  // what its tensors' names begin with; empty: they are called "running_mean" and so on
  int64_t num_features = 0;
  double epsilon = 0;                 // not in the file
  std::optional<double> momentum;     // nor is this; as the convention writes it; nothing where the average has none
  double largest_relative_error = 0;  // of the file's float32 from the session's double
  double folded_error_bound = 0;      // of y = x * scale + shift in float32, absolute, within 10 standard deviations
};

struct Export {
  std::string file;                   // a safetensors file
  std::vector<ExportedLayer> layers;  // in the order of the sessions' names
  double largest_relative_error = 0;
};

// `checkpoint`, the bytes of a safetensors file, with the values of the layers in `exported`, in its own types and
// shapes; every other byte stays. A count that the checkpoint has no tensor for is left out, and so is a weight of ones
// or a bias of zeros. INVALID_ARGUMENT: one of the two is no safetensors file; the checkpoint lacks another tensor, has
// it with another length, or in a type that does not hold the values.
absl::StatusOr<std::string> MergeIntoCheckpoint(absl::string_view exported, std::string checkpoint);

}  // namespace normserve::client
