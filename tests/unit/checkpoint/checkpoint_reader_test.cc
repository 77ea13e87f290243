#include "server/checkpoint/checkpoint_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "server/checkpoint/checkpoint_writer.h"

namespace normserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <typename T>
std::string Raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string File(const std::string& header, const std::string& data) {
  return absl::StrCat(Raw<uint64_t>({header.size()}), header, data);
}

// Two layers of two channels, and a tensor of another kind between them.
std::string SomeFile() {
  return File(R"({"x.running_var":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
              R"("conv.weight":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},)"
              R"("x.running_mean":{"dtype":"F64","shape":[2],"data_offsets":[16,32]},)"
              R"("y.running_mean":{"dtype":"F32","shape":[2],"data_offsets":[32,40]},)"
              R"("y.running_var":{"dtype":"F32","shape":[2],"data_offsets":[40,48]},)"
              R"("y.bias":{"dtype":"BF16","shape":[2],"data_offsets":[48,52]},)"
              R"("y.num_batches_tracked":{"dtype":"I64","shape":[1],"data_offsets":[52,60]}})",
              absl::StrCat(Raw<float>({1, 2, 3, 4}), Raw<double>({0.1, -0.2}), Raw<float>({5, 6, 7, 8}),
                           Raw<uint16_t>({0x3f80, 0xc000}), Raw<int64_t>({11})));
}

absl::StatusOr<Checkpoint> Read(absl::string_view file, size_t piece_bytes, int64_t* held_bytes = nullptr) {
  CheckpointReader reader("");
  for (size_t at = 0; at < file.size(); at += piece_bytes) {
    if (absl::Status status = reader.Feed(file.substr(at, piece_bytes)); !status.ok()) return status;
    if (held_bytes != nullptr) *held_bytes = std::max(*held_bytes, reader.held_bytes());
  }
  return reader.Finish();
}

TEST(CheckpointReader, ReadsTheSameHoweverTheFileIsCut) {
  const std::string file = SomeFile();
  for (size_t piece = 1; piece <= file.size(); ++piece) {
    const auto read = Read(file, piece);
    ASSERT_TRUE(read.ok()) << piece << " " << read.status();
    ASSERT_EQ(read->layers.size(), 2u);
    const CheckpointLayer &x = read->layers[0], &y = read->layers[1];
    EXPECT_EQ(x.path, "x");
    EXPECT_THAT(x.statistics.mean, ElementsAre(0.1, -0.2));
    EXPECT_THAT(x.statistics.variance, ElementsAre(1, 2));
    EXPECT_TRUE(x.parameters.weight.empty() && x.parameters.bias.empty());
    EXPECT_FALSE(x.num_batches_tracked.has_value());
    EXPECT_THAT(y.statistics.mean, ElementsAre(5, 6));
    EXPECT_THAT(y.parameters.bias, ElementsAre(1, -2));
    EXPECT_EQ(y.num_batches_tracked, 11);
  }
}

TEST(CheckpointReader, KeepsTheTensorsOfLayersAlone) {
  constexpr uint64_t kOther = 50'000'000;
  const std::string head =
      File(absl::StrCat(R"({"w":{"dtype":"U8","shape":[)", kOther, R"(],"data_offsets":[0,)", kOther, "]},",
                        R"("b.running_mean":{"dtype":"F32","shape":[1],"data_offsets":[)", kOther, ",", kOther + 4,
                        "]},", R"("b.running_var":{"dtype":"F32","shape":[1],"data_offsets":[)", kOther + 4, ",",
                        kOther + 8, "]}}"),
           "");
  CheckpointReader reader("");
  ASSERT_TRUE(reader.Feed(head).ok());
  const std::string piece(1 << 20, 'x');
  int64_t held = 0;
  for (uint64_t sent = 0; sent < kOther; sent += piece.size()) {
    const auto part = absl::string_view(piece).substr(0, std::min<uint64_t>(piece.size(), kOther - sent));
    ASSERT_TRUE(reader.Feed(part).ok());
    held = std::max(held, reader.held_bytes());
  }
  ASSERT_TRUE(reader.Feed(Raw<float>({3, 4})).ok());
  const auto read = reader.Finish();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->layers[0].statistics.variance, ElementsAre(4));
  EXPECT_LT(held, 10'000);
}

TEST(CheckpointReader, RefusesALongHeaderByItsLengthAlone) {
  CheckpointReader reader("");
  EXPECT_THAT(std::string(reader.Feed(Raw<uint64_t>({kMaxHeaderBytes + 1})).message()), HasSubstr("100000001"));
  EXPECT_LT(reader.held_bytes(), 1000);
}

// Every file of the format's alphabet: changed, cut, doubled and filled up at random. What comes of it is not known,
// but that it is an answer, that nothing is kept that was not sent, and that what is read is sound.
TEST(CheckpointReader, AnswersEveryRandomChangeOfAFile) {
  const std::string file = SomeFile();
  const std::string alphabet = "{}[]\",:0123456789-.eE\\ufF32I64\x7f\xff \n";
  std::mt19937 random(20260);
  const auto draw = [&](size_t below) { return std::uniform_int_distribution<size_t>(0, below - 1)(random); };
  int num_read = 0, num_refused = 0;
  for (int round = 0; round < 60'000; ++round) {
    std::string changed = file;
    for (size_t change = 0, changes = 1 + draw(3); change < changes && !changed.empty(); ++change) {
      const size_t at = draw(changed.size());
      switch (draw(6)) {
        case 0:
          changed[at] = static_cast<char>(draw(256));
          break;
        case 1:
          changed[at] = alphabet[draw(alphabet.size())];
          break;
        case 2:
          changed.erase(at, 1 + draw(8));
          break;
        case 3:
          changed.insert(at, changed.substr(draw(changed.size()), draw(30)));
          break;
        case 4:
          changed.resize(at + 1);
          break;
        default:
          changed[at] ^= static_cast<char>(1 << draw(8));
      }
      if (draw(2) == 0 && changed.size() > 8) {  // with a length that fits again, more gets past the first check
        const uint64_t length = std::min<uint64_t>(changed.size() - 8, SomeFile().size() - 68 + draw(3));
        std::memcpy(changed.data(), &length, sizeof(length));
      }
    }
    int64_t held = 0;
    const auto read = Read(changed, 1 + draw(64), &held);
    ASSERT_LT(held, 100'000);
    if (!read.ok()) {
      ++num_refused;
      ASSERT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << read.status();
      continue;
    }
    ++num_read;
    for (const CheckpointLayer& layer : read->layers) {
      ASSERT_EQ(layer.statistics.mean.size(), layer.statistics.variance.size());
      for (const double variance : layer.statistics.variance) ASSERT_GE(variance, 0);
      for (const double mean : layer.statistics.mean) ASSERT_TRUE(std::isfinite(mean));
      ASSERT_GE(layer.num_batches_tracked.value_or(0), 0);
    }
  }
  EXPECT_GT(num_read, 1000);
  EXPECT_GT(num_refused, 10'000);
}

}  // namespace
}  // namespace normserve
