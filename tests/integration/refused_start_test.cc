// Data directories that a server refuses: it says which file and what to do, and leaves all as it was.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <map>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "tests/integration/durable_server.h"

namespace normserve::integration {
namespace {

using testing::HasSubstr;

using RefusedStartTest = DurabilityTest;

// A server that must not start; its log.
std::string LogOfRefused(const std::string& data_dir, Rights rights = Rights::kOfThisUser) {
  ServerProcess server({"--data-dir", data_dir}, "127.0.0.1:0", rights);
  EXPECT_TRUE(server.address().empty()) << "it serves";
  if (server.address().empty()) {
    EXPECT_EQ(server.Wait(), 1);
  }
  return server.Log();
}

TEST_F(RefusedStartTest, ASecondServerOnADirectoryIsRefusedAndTheFirstServes) {
  auto server = Start();
  ASSERT_FALSE(server->address().empty());
  TestClient(server->stub()).Create("a", 2);
  const auto before = directory_.Contents();
  const std::string log = LogOfRefused(directory_.path());
  EXPECT_THAT(log, HasSubstr(absl::StrCat(directory_.file("normserve.lock"), ": process ", server->pid(),
                                          " serves this directory: stop it")));
  EXPECT_TRUE(directory_.Contents() == before);
  MustCall(*server, &Stub::Forward, MakeForward("a", {2, 2}, {1, 2, 3, 4}));
}

struct Refusal {
  std::string name;
  std::function<void(const ScratchDirectory&)> spoil;  // a directory that a server has left
  std::string file;                                    // that is named, in the directory
  std::string message;                                 // that follows it
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class RefusedStart : public DurabilityTest, public testing::WithParamInterface<Refusal> {};

TEST_P(RefusedStart, NamesTheFileAndWhatToDoAndChangesNothing) {
  {
    auto server = Start();
    ASSERT_FALSE(server->address().empty());
    TestClient(server->stub()).Create("a", 2);
  }
  GetParam().spoil(directory_);
  const auto before = directory_.Contents();
  const std::string log = LogOfRefused(directory_.path(), Rights::kAsFilesPermit);
  EXPECT_THAT(log, HasSubstr(absl::StrCat(directory_.path(), GetParam().file, ": ")));
  EXPECT_THAT(log, HasSubstr(GetParam().message));
  EXPECT_TRUE(directory_.Contents() == before);
  chmod(directory_.path().c_str(), 0700);
}

const Refusal kRefusals[] = {
    {"NoDatabase", [](const ScratchDirectory& d) { d.Write("normserve.db", std::string(8192, 'x')); }, "/normserve.db",
     "restore its directory from a backup"},
    {"DamagedSchema",
     [](const ScratchDirectory& d) {
       std::string bytes = d.Read("normserve.db");
       bytes.replace(100, 3000, 3000, '\xee');
       d.Write("normserve.db", bytes);
     },
     "/normserve.db", "restore its directory from a backup"},
    {"NewerSchema", [](const ScratchDirectory& d) { Sql(d.file("normserve.db"), "PRAGMA user_version = 99"); },
     "/normserve.db", "start the newer server that wrote it"},
    {"DirectoryNotWritable", [](const ScratchDirectory& d) { chmod(d.path().c_str(), 0500); }, "",
     "let this user read and write"},
    {"DatabaseNotWritable", [](const ScratchDirectory& d) { chmod(d.file("normserve.db").c_str(), 0400); },
     "/normserve.db", "let this user read and write"},
};

INSTANTIATE_TEST_SUITE_P(Directories, RefusedStart, testing::ValuesIn(kRefusals),
                         [](const auto& info) { return info.param.name; });

TEST_F(RefusedStartTest, ADataDirectoryThatIsAFileIsRefused) {
  directory_.Write("data", "mine");
  const std::string log = LogOfRefused(directory_.file("data"));
  EXPECT_THAT(log, HasSubstr(absl::StrCat(directory_.file("data"), ": is not a directory: name one")));
  EXPECT_EQ(directory_.Contents(), (std::map<std::string, std::string>{{"data", "mine"}}));
}

}  // namespace
}  // namespace normserve::integration
