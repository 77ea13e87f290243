// A real server as a child process, on a free port.
#pragma once

#include <grpcpp/channel.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve::integration {

// What the process may do. Root may write whatever its permissions say, unless it gives that right up.
enum class Rights { kOfThisUser, kAsFilesPermit };

// Starts the program in NORMSERVE_TEST_PROGRAM with the flags in NORMSERVE_TEST_FLAGS and `flags`. Dies with this
// process, whatever happens to it.
class ServerProcess {
 public:
  explicit ServerProcess(const std::vector<std::string>& flags = {}, const std::string& listen = "127.0.0.1:0",
                         Rights rights = Rights::kOfThisUser);
  // Ends it by SIGTERM if it still runs; a test fails if it does not exit with 0, or if the validation layer spoke.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Where it serves, as it wrote to its port file; empty if it ended before.
  const std::string& address() const { return address_; }
  v1::BatchNormService::Stub& stub() { return *stub_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  // Another connection to it, shared with nobody.
  std::shared_ptr<grpc::Channel> NewChannel() const;

  pid_t pid() const { return pid_; }
  void Signal(int number);
  // Waits for its end: the exit code, or minus the signal that killed it.
  int Wait();
  // What it has logged so far.
  std::string Log() const;

 private:
  // Reads the port file once it is there; false if the process ended first.
  bool WaitForAddress();

  std::string scratch_;  // a folder of its own
  std::string address_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int exit_code_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::BatchNormService::Stub> stub_;
};

}  // namespace normserve::integration
