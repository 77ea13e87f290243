#include "tests/conformance/case.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <numbers>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/host_tensor.h"
#include "nlohmann/json.hpp"

namespace normserve::conformance {
namespace {

using Json = nlohmann::json;

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, unlike the standard distributions.
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}

  // In [0, 1).
  double Uniform() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }

  // Mean 0, standard deviation 1, by Box and Muller.
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

absl::StatusOr<DataRecipe> ReadData(const Json& json) {
  DataRecipe recipe;
  const std::string kind = json.at("kind");
  if (kind == "uniform") {
    recipe = {DataRecipe::Kind::kUniform, json.at("low"), json.at("high")};
  } else if (kind == "normal") {
    recipe = {DataRecipe::Kind::kNormal, json.at("mean"), json.at("std")};
  } else if (kind == "constant") {
    recipe = {DataRecipe::Kind::kConstant, json.at("value"), 0};
  } else if (kind == "ramp") {
    recipe = {DataRecipe::Kind::kRamp, json.at("start"), json.at("step")};
  } else {
    return absl::InvalidArgumentError(absl::StrCat("data.kind is '", kind, "'"));
  }
  recipe.channel_factor = json.value("channel_factor", 1.0);
  return recipe;
}

absl::StatusOr<Case> ReadCase(const Json& json) {
  static const std::set<std::string> kKnown = {"name",   "shape", "layout",       "epsilon",   "data",  "seed",
                                               "affine", "given", "want_moments", "tolerance", "reason"};
  for (const auto& [key, value] : json.items()) {
    if (!kKnown.contains(key)) return absl::InvalidArgumentError(absl::StrCat("unknown field '", key, "'"));
  }
  Case result;
  result.name = json.at("name");
  result.shape = json.at("shape").get<std::vector<int64_t>>();
  if (auto shape = BatchShape::FromDimensions(result.shape); !shape.ok()) return shape.status();
  if (json.value("layout", "channels_first") != "channels_first") return absl::InvalidArgumentError("layout");
  result.epsilon = json.value("epsilon", 1e-5);
  auto data = ReadData(json.at("data"));
  if (!data.ok()) return data.status();
  result.data = *data;
  result.seed = json.value("seed", uint64_t{1});

  const std::string affine = json.value("affine", "none");
  if (affine == "drawn") {
    result.affine = Affine::kDrawn;
  } else if (affine == "zero_weight") {
    result.affine = Affine::kZeroWeight;
  } else if (affine != "none") {
    return absl::InvalidArgumentError(absl::StrCat("affine is '", affine, "'"));
  }
  if (json.contains("given")) {
    const Json& given = json.at("given");
    result.given = GivenRecipe{given.at("mean"), given.at("variance"), given.value("spread", 0.0)};
  }
  result.want_moments = json.value("want_moments", false);

  const std::string tolerance = json.value("tolerance", "tight");
  if (tolerance == "pytorch") {
    result.tolerance = Tolerance::kPyTorch;
  } else if (tolerance == "exactly_bias") {
    result.tolerance = Tolerance::kExactlyBias;
  } else if (tolerance != "tight") {
    return absl::InvalidArgumentError(absl::StrCat("tolerance is '", tolerance, "'"));
  }
  result.reason = json.at("reason");
  if (result.reason.size() < 20) return absl::InvalidArgumentError("reason is too short to say which bug");
  return result;
}

}  // namespace

absl::StatusOr<std::vector<Case>> LoadCases(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  const Json rows = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!rows.is_array()) return absl::InvalidArgumentError(absl::StrCat(path, " is not a JSON array"));

  std::vector<Case> cases;
  std::set<std::string> names;
  for (const Json& row : rows) {
    absl::StatusOr<Case> read = absl::UnknownError("");
    try {  // the JSON library reports a missing or mistyped field by exception
      read = ReadCase(row);
    } catch (const Json::exception& error) {
      read = absl::InvalidArgumentError(error.what());
    }
    if (!read.ok())
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", row.dump(), ": ", read.status().message()));
    if (!names.insert(read->name).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": two cases are called ", read->name));
    }
    cases.push_back(*std::move(read));
  }
  return cases;
}

CaseData MakeData(const Case& test_case) {
  auto shape = BatchShape::FromDimensions(test_case.shape);
  NORMSERVE_CHECK(shape.ok());
  Generator generator(test_case.seed);
  CaseData data{.shape = *shape};
  data.x.resize(static_cast<size_t>(shape->NumValues()));
  const DataRecipe& recipe = test_case.data;
  size_t i = 0;
  for (int64_t n = 0; n < shape->batch_size; ++n) {
    for (int64_t c = 0; c < shape->num_features; ++c) {
      const double factor = std::pow(recipe.channel_factor, static_cast<double>(c % 8));
      for (int64_t s = 0; s < shape->spatial_size; ++s, ++i) {
        double value = recipe.first;
        if (recipe.kind == DataRecipe::Kind::kUniform) {
          value += (recipe.second - recipe.first) * generator.Uniform();
        } else if (recipe.kind == DataRecipe::Kind::kNormal) {
          value += recipe.second * generator.Normal();
        } else if (recipe.kind == DataRecipe::Kind::kRamp) {
          value += recipe.second * static_cast<double>((n * shape->spatial_size + s) % 4096);
        }
        data.x[i] = static_cast<float>(value * factor);
      }
    }
  }

  AffineParameters parameters;
  for (int64_t c = 0; c < shape->num_features; ++c) {
    const bool none = test_case.affine == Affine::kNone;
    const double weight = none ? 1 : -2 + 4 * generator.Uniform();
    parameters.weight.push_back(test_case.affine == Affine::kZeroWeight ? 0 : static_cast<float>(weight));
    parameters.bias.push_back(none ? 0 : static_cast<float>(-3 + 6 * generator.Uniform()));
  }
  data.parameters = std::make_shared<const AffineParameters>(std::move(parameters));

  if (test_case.given) {
    NormalizationStatistics given;
    for (int64_t c = 0; c < shape->num_features; ++c) {
      given.mean.push_back(test_case.given->mean + test_case.given->spread * generator.Uniform());
      given.variance.push_back(test_case.given->variance * (1 + test_case.given->spread * generator.Uniform()));
    }
    data.given = std::make_shared<const NormalizationStatistics>(std::move(given));
  }
  return data;
}

CaseData InType(CaseData data, ElementType type) {
  data.type = type;
  if (type == ElementType::kFloat32) return data;
  for (float& value : data.x) value = FloatFromBits(type, BitsFromFloat(type, value));
  return data;
}

namespace {

std::vector<float> Transposed(const BatchShape& shape, const std::vector<float>& values) {
  std::vector<float> result(values.size());
  size_t i = 0;
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    for (int64_t c = 0; c < shape.num_features; ++c) {
      for (int64_t s = 0; s < shape.spatial_size; ++s, ++i) {
        result[static_cast<size_t>((n * shape.spatial_size + s) * shape.num_features + c)] = values[i];
      }
    }
  }
  return result;
}

}  // namespace

CaseData ChannelsLast(CaseData data) {
  data.x = Transposed(data.shape, data.x);
  data.shape = {data.shape.ValuesPerChannel(), data.shape.num_features, 1};
  return data;
}

std::vector<float> DrawGradient(const CaseData& data, uint64_t seed) {
  Generator generator(seed);
  CaseData gradient{.shape = data.shape};
  gradient.x.resize(data.x.size());
  for (float& value : gradient.x) value = static_cast<float>(0.3 + generator.Normal());
  return InType(std::move(gradient), data.type).x;
}

InputTensor MakeInput(const BatchShape& shape, ElementType type, const std::vector<float>& values) {
  OutputTensor written = WriteTensor(type, values);
  return {.shape = shape, .type = type, .pieces = std::move(written.pieces), .owner = std::move(written.owner)};
}

ForwardJob MakeJob(const Case& test_case, const CaseData& data, Cut cut) {
  ForwardJob job{.parameters = data.parameters,
                 .epsilon = test_case.epsilon,
                 .given = data.given,
                 .want_moments = test_case.want_moments};
  job.input = MakeInput(data.shape, data.type, data.x);
  if (cut == Cut::kWhole || data.x.empty()) return job;
  const std::shared_ptr<const void> whole = job.input.owner;
  const auto* bytes = job.input.pieces[0].data();
  const size_t size = job.input.pieces[0].size();
  job.input.pieces.clear();
  // Every piece lies one byte beside an aligned address and ends inside a value wherever its length is not 4 k.
  static constexpr size_t kLengths[] = {1, 4099, 2, 3, 61, 16384, 5, 64, 9001};
  auto pieces = std::make_shared<std::vector<std::vector<std::byte>>>();
  for (size_t at = 0, i = 0; at < size; ++i) {
    const size_t length = std::min(kLengths[i % std::size(kLengths)], size - at);
    std::vector<std::byte> piece(length + 1);
    std::memcpy(piece.data() + 1, bytes + at, length);
    pieces->push_back(std::move(piece));
    at += length;
  }
  for (const std::vector<std::byte>& piece : *pieces) {
    job.input.pieces.push_back(absl::MakeConstSpan(piece).subspan(1));
  }
  job.input.owner = std::move(pieces);
  return job;
}

}  // namespace normserve::conformance
