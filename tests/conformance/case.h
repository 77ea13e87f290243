// One row of cases.json: a batch, what it is normalised with, how exact the answer must be, and why it is there.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/engine.h"

namespace normserve::conformance {

// How the values of a batch are made.
struct DataRecipe {
  enum class Kind {
    kUniform,   // [first, second)
    kNormal,    // mean `first`, standard deviation `second`
    kConstant,  // `first` everywhere
    kRamp,      // first + second * position in the channel, modulo 4096 positions
  };
  Kind kind = Kind::kUniform;
  double first = 0;
  double second = 1;
  // Channel c is multiplied by this to the power of c modulo 8: channels of very different size beside each other.
  double channel_factor = 1;
};

// Weight and bias.
enum class Affine {
  kNone,        // 1 and 0
  kDrawn,       // in [-2, 2) and [-3, 3)
  kZeroWeight,  // 0 and drawn: the output is exactly the bias
};

// Statistics to normalise with. Each channel has its own: mean + spread * u, variance * (1 + spread * u), u in [0, 1).
struct GivenRecipe {
  double mean = 0;
  double variance = 1;
  double spread = 0;
};

// How far an answer may be from the oracle's.
enum class Tolerance {
  // 1e-5 relative and 1e-6 absolute: what every engine owes for any finite batch.
  kPyTorch,
  // Output within 1e-6 of the sizes of its two terms, variance within 5e-7 of itself, mean within 1e-6 of a standard
  // deviation.
  kTight,
  // The output is the bias, bit for bit.
  kExactlyBias,
};

struct Case {
  std::string name;
  std::vector<int64_t> shape;  // [N, C, *]
  double epsilon = 1e-5;
  DataRecipe data;
  uint64_t seed = 1;
  Affine affine = Affine::kNone;
  std::optional<GivenRecipe> given;  // nothing: the batch's own statistics
  bool want_moments = false;         // beside `given`
  Tolerance tolerance = Tolerance::kTight;
  std::string reason;  // the bug that this row guards against
};

// For the messages of a failing test.
inline void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

// Reads the rows of a file like cases.json. INVALID_ARGUMENT names the row and the field: one that is unknown, missing
// or out of range, a name twice, a reason that is no sentence.
absl::StatusOr<std::vector<Case>> LoadCases(const std::string& path);

// What a case says, with the numbers drawn. The same on every machine.
struct CaseData {
  BatchShape shape;
  std::vector<float> x;
  ElementType type = ElementType::kFloat32;  // x holds values of this type
  std::shared_ptr<const AffineParameters> parameters;
  std::shared_ptr<const NormalizationStatistics> given;  // null: the batch's own
};
CaseData MakeData(const Case& test_case);

// The same data with x rounded to `type`.
CaseData InType(CaseData data, ElementType type);
// The same values with the channels last: [N, *, C], that is [N*S, C, 1].
CaseData ChannelsLast(CaseData data);
// A tensor like x of normally distributed values, mean 0.3 and deviation 1, rounded to its type: gradients of the
// output.
std::vector<float> DrawGradient(const CaseData& data, uint64_t seed);

// The bytes of `values` in `type`, in one piece.
InputTensor MakeInput(const BatchShape& shape, ElementType type, const std::vector<float>& values);

// A job over `data`, which must outlive it, in one piece or in pieces that are cut at odd places and lie at odd
// addresses.
enum class Cut { kWhole, kOddPieces };
ForwardJob MakeJob(const Case& test_case, const CaseData& data, Cut cut = Cut::kWhole);

}  // namespace normserve::conformance
