// What is at a path before, during and after it is written.
#include "client/cli/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

namespace normserve::cli {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "output_file_test.XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  void Put(const std::string& name, const std::string& content) const { std::ofstream(Path(name)) << content; }

  std::string Get(const std::string& name) const {
    std::ifstream stream(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  int NumFiles() const { return static_cast<int>(std::distance(fs::directory_iterator(folder_), {})); }

  fs::path folder_;
};

TEST_F(OutputFileTest, OldContentStaysUntilTheNewOneIsComplete) {
  Put("y", "old and longer");
  fs::permissions(Path("y"), fs::perms::owner_read | fs::perms::owner_write);
  absl::StatusOr<OutputFile> file = OutputFile::Open(Path("y"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Get("y"), "old and longer");
  EXPECT_TRUE(file->Write("new").ok());
  EXPECT_EQ(Get("y"), "new");
  EXPECT_EQ(fs::status(Path("y")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(NumFiles(), 1);
}

TEST_F(OutputFileTest, FileThatIsNotWrittenLeavesNothing) {
  {
    absl::StatusOr<OutputFile> file = OutputFile::Open(Path("y"));
    ASSERT_TRUE(file.ok()) << file.status();
    const OutputFile moved = *std::move(file);
  }
  EXPECT_EQ(NumFiles(), 0);
}

TEST_F(OutputFileTest, ProcessThatIsKilledLeavesNothing) {
  EXPECT_EXIT(
      {
        const absl::StatusOr<OutputFile> file = OutputFile::Open(Path("y"));
        if (file.ok()) raise(SIGKILL);
      },
      testing::KilledBySignal(SIGKILL), "");
  const int unnamed = open(folder_.c_str(), O_TMPFILE | O_WRONLY, 0600);
  EXPECT_EQ(NumFiles(), unnamed >= 0 ? 0 : 1) << "a file system without files that have no name keeps the part";
  if (unnamed >= 0) close(unnamed);
}

TEST_F(OutputFileTest, SymbolicLinkStaysOne) {
  Put("target", "old and longer");
  fs::create_symlink("target", Path("y"));
  absl::StatusOr<OutputFile> file = OutputFile::Open(Path("y"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Get("target"), "old and longer");
  EXPECT_TRUE(file->Write("new").ok());
  EXPECT_EQ(Get("target"), "new");
  EXPECT_TRUE(fs::is_symlink(Path("y")));
}

TEST_F(OutputFileTest, NameWithNoRoomForAnotherBesideItIsWrittenInPlace) {
  const std::string name(255, 'y');
  Put(name, "old and longer");
  absl::StatusOr<OutputFile> file = OutputFile::Open(Path(name));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->Write("new").ok());
  EXPECT_EQ(Get(name), "new");
}

TEST_F(OutputFileTest, PathThatCannotBeWrittenIsRefusedAndNamed) {
  const absl::Status absent = OutputFile::Open(Path("absent/y")).status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_NE(std::string(absent.message()).find(Path("absent/y")), std::string::npos);
  EXPECT_FALSE(OutputFile::Open(folder_.string()).ok());
}

TEST_F(OutputFileTest, FullDeviceFailsToBeWrittenNotToBeOpened) {
  absl::StatusOr<OutputFile> file = OutputFile::Open("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(absl::IsResourceExhausted(file->Write("new")));
}

}  // namespace
}  // namespace normserve::cli
