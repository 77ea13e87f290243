// Files that are whole, that lie, and that are cut short.
#include "client/cli/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace normserve::cli {
namespace {

// A file of `version` with `header` as it stands and `values` behind it.
std::string File(int version, const std::string& header, const std::string& values) {
  std::string file("\x93NUMPY", 6);
  file += static_cast<char>(version);
  file += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + values;
}

std::string Bytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

const char kHeader[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n";
const std::vector<float> kValues = {0, 1, -2, 3.5f, 1e30f, -1e-30f};

TEST(NpyTest, AllThreeVersionsAreRead) {
  for (const int version : {1, 2, 3}) {
    const absl::StatusOr<client::Tensor> tensor = ParseNpyTensor(File(version, kHeader, Bytes(kValues)));
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(tensor->values, kValues);
  }
}

TEST(NpyTest, WhatIsWrittenIsReadAgainAndAligned) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{6}, {2, 3}, {1, 1, 6}, {3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}}) {
    const std::string file = EncodeNpy({shape, kValues});
    const absl::StatusOr<NpyHeader> header = ParseNpyHeader(file);
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->data_offset % 64, 0u);
    const absl::StatusOr<client::Tensor> tensor = ParseNpyTensor(file);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->shape, shape);
    EXPECT_EQ(tensor->values, kValues);
  }
}

TEST(NpyTest, ScalarsAndEmptyArraysAreArrays) {
  const std::string scalar = "{'descr': '<f4', 'fortran_order': False, 'shape': ()}";
  EXPECT_EQ(ParseNpyTensor(File(1, scalar, Bytes({7})))->values, std::vector<float>{7});
  const std::string empty = "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 281474976710657)}";
  EXPECT_TRUE(ParseNpyTensor(File(1, empty, ""))->values.empty());
}

TEST(NpyTest, OtherSpellingsOfTheHeaderAreRead) {
  for (const char* header : {
           "{\"shape\":(2,3),\"descr\":\"<f4\",\"fortran_order\":False}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }\n",  // Python 2
           "{'fortran_order': False , 'shape' : ( 2 , 3 , ) , 'descr' : '<f4' , }",
       }) {
    EXPECT_TRUE(ParseNpyTensor(File(1, header, Bytes(kValues))).ok()) << header;
  }
}

TEST(NpyTest, FortranOrderOfAVectorIsItsCOrder) {
  EXPECT_TRUE(ParseNpyTensor(File(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (6,)}", Bytes(kValues))).ok());
}

struct Refusal {
  const char* why;
  std::string file;
  const char* text;  // a part of the message
};

TEST(NpyTest, EveryOtherFileIsRefusedByName) {
  const std::string values = Bytes(kValues);
  const auto with = [&](const std::string& header) { return File(1, header, values); };
  const Refusal refusals[] = {
      {"empty", "", "does not begin"},
      {"text", "1.0 2.0 3.0", "does not begin"},
      {"version 4", File(4, kHeader, values), "version 4.0"},
      {"version 0", File(0, kHeader, values), "version 0.0"},
      {"header length lies, 1.0", std::string("\x93NUMPY\x01\x00\xff\xff{", 11), "65535 bytes"},
      {"header length lies, 2.0", std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{", 13), "4294967295 bytes"},
      {"float64", with("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}"), "type is <f8"},
      {"big-endian", with("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}"), "type is >f4"},
      {"integers", with("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}"), "type is <i4"},
      {"objects", with("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}"), "type is |O"},
      {"records", with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}"), "type is [('a', '<f4')]"},
      {"Fortran order", with("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}"), "Fortran order"},
      {"too few values", File(1, kHeader, values.substr(1)), "needs 24 bytes of values, the file has 23"},
      {"too many values", File(1, kHeader, values + "x"), "needs 24 bytes of values, the file has 25"},
      {"negative size", with("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3)}"), "'shape'"},
      {"size beyond 64 bits", with("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
       "'shape'"},
      {"product beyond 64 bits",
       with("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296)}"), "beyond"},
      {"product that wraps to 6",
       with("{'descr': '<f4', 'fortran_order': False, 'shape': (6148914691236517206, 3, 4)}"), "beyond"},
      {"no shape", with("{'descr': '<f4', 'fortran_order': False}"), "lacks"},
      {"no dictionary", with("('descr', '<f4')"), "begin with {"},
      {"unknown key", with("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}"), "'x'"},
      {"no end", with("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)"), "lacks a comma"},
      {"more after the end", with("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} import os"), "goes on"},
      {"string without end", with("{'descr"), "no dictionary"},
      {"list without end", with("{'descr': [[["), "'descr'"},
      {"order that is a number", with("{'descr': '<f4', 'fortran_order': 0, 'shape': (6,)}"), "'fortran_order'"},
  };
  for (const Refusal& refusal : refusals) {
    const absl::Status status = ParseNpyTensor(refusal.file).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << refusal.why << ": " << status;
    EXPECT_NE(std::string(status.message()).find(refusal.text), std::string::npos) << refusal.why << ": " << status;
  }
}

TEST(NpyTest, FileCutAnywhereIsRefused) {
  const std::string file = EncodeNpy({std::vector<int64_t>{2, 3}, kValues});
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseNpyTensor(file.substr(0, size)).status())) << size;
  }
}

// Nothing to assert but that it ends, within the file's bounds: run under AddressSanitizer too.
TEST(NpyTest, DamagedFilesAreReadOrRefused) {
  const std::string whole = File(1, kHeader, Bytes(kValues));
  std::mt19937 random(1);
  for (int i = 0; i < 100'000; ++i) {
    std::string file = whole;
    for (int damage = random() % 4; damage >= 0; --damage) {
      file[random() % file.size()] = static_cast<char>(random() % 3 == 0 ? "{}()[]'\",:0"[random() % 11] : random());
    }
    file.resize(file.size() - random() % 3);
    const absl::StatusOr<client::Tensor> tensor = ParseNpyTensor(file);
    if (tensor.ok()) {
      ASSERT_LE(tensor->values.size(), kValues.size());
    }
  }
}

TEST(NpyTest, VectorOfStatisticsMayBeDouble) {
  const double wide[] = {0.1, -1e300};
  const std::string bytes(reinterpret_cast<const char*>(wide), sizeof wide);
  const absl::StatusOr<std::vector<double>> vector =
      ParseNpyVector(File(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", bytes));
  ASSERT_TRUE(vector.ok()) << vector.status();
  EXPECT_EQ(*vector, (std::vector<double>{0.1, -1e300}));
  EXPECT_EQ(*ParseNpyVector(EncodeNpy({std::vector<int64_t>{2}, std::vector<float>{0.5f, 2}})),
            (std::vector<double>{0.5, 2}));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseNpyVector(EncodeNpy({std::vector<int64_t>{2, 3}, kValues})).status()));
}

TEST(NpyTest, FileErrorsNameThePath) {
  const absl::Status absent = ReadNpyTensor("/nonexistent/x.npy").status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_NE(std::string(absent.message()).find("/nonexistent/x.npy"), std::string::npos);
  EXPECT_FALSE(ReadNpyTensor("/").ok());
}

}  // namespace
}  // namespace normserve::cli
