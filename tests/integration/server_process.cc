#include "tests/integration/server_process.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

extern char** environ;

namespace normserve::integration {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

ServerProcess::ServerProcess(const std::vector<std::string>& flags, const std::string& listen, Rights rights) {
  std::string folder = (std::filesystem::temp_directory_path() / "normserve-XXXXXX").string();
  scratch_ = mkdtemp(folder.data());
  std::vector<std::string> arguments = {Environment("NORMSERVE_TEST_PROGRAM"), "--listen", listen, "--port-file",
                                        scratch_ + "/address"};
  for (const auto flag : absl::StrSplit(Environment("NORMSERVE_TEST_FLAGS"), ' ', absl::SkipEmpty())) {
    arguments.emplace_back(flag);
  }
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!absl::StartsWith(*entry, "NORMSERVE_")) environment.emplace_back(*entry);
  }
  const std::vector<char*> argv = Pointers(arguments), envp = Pointers(environment);
  const int log = open((scratch_ + "/log").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  pid_ = fork();
  if (pid_ == 0) {
    // Only calls that are safe in a child of a process with threads.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rights == Rights::kAsFilesPermit) {
      // Gone with the exec. Fails where the user has none of them to lose.
      prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE);
      prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH);
    }
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(log);
  if (!WaitForAddress()) return;
  channel_ = NewChannel();
  stub_ = v1::BatchNormService::NewStub(channel_);
}

ServerProcess::~ServerProcess() {
  stub_.reset();
  channel_.reset();
  if (!ended_) {
    Signal(SIGTERM);
    EXPECT_EQ(Wait(), 0);
  }
  EXPECT_FALSE(absl::StrContains(Log(), "validation: "));
  if (testing::Test::HasFailure()) std::cerr << "--- the server's log:\n" << Log() << "---\n";
  std::filesystem::remove_all(scratch_);
}

std::shared_ptr<grpc::Channel> ServerProcess::NewChannel() const {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A reply that is not read stays with the server but for 64 KiB, however fast the machine.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
}

void ServerProcess::Signal(int number) { kill(pid_, number); }

int ServerProcess::Wait() {
  if (!ended_) {
    int status = 0;
    waitpid(pid_, &status, 0);
    ended_ = true;
    exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  return exit_code_;
}

std::string ServerProcess::Log() const { return ReadFile(scratch_ + "/log"); }

bool ServerProcess::WaitForAddress() {
  while (address_.empty()) {
    const std::vector<std::string> lines = absl::StrSplit(ReadFile(scratch_ + "/address"), '\n');
    address_ = lines[0];
    int status = 0;
    if (address_.empty() && waitpid(pid_, &status, WNOHANG) == pid_) {
      ended_ = true;
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
      return false;
    }
    if (address_.empty()) absl::SleepFor(absl::Milliseconds(5));  // then look again
  }
  return true;
}

}  // namespace normserve::integration
