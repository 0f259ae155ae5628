#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "support/temporary_directory.h"

// What fails a run of this program (variants_main.cpp), asked of the program itself.
namespace {

struct Ended {
  int status = -1;
  std::string said;
  bool says(const std::string& text) const { return said.find(text) != std::string::npos; }
};

// Names that were reached are appended to the file `reached`; without one, to none.
Ended run_again(const std::string& arguments, const std::string& reached = "") {
  const std::string variable = "PYCNN_REACHED_VARIANTS";
  const std::string command =
      "env " + (reached.empty() ? "-u " + variable : variable + "='" + reached + "'") + " '" +
      std::filesystem::read_symlink("/proc/self/exe").string() + "' " + arguments + " 2>&1";
  Ended ended;
  std::FILE* const pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char part[4096];
  for (std::size_t n = 0; (n = std::fread(part, 1, sizeof part, pipe)) > 0;)
    ended.said.append(part, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) ended.status = WEXITSTATUS(status);
  return ended;
}

const std::string kOneOp = "'-tc=relu6*closed at both ends*'";  // activation_grad, every variant
const std::string kUnreached = ": no test ran it between forbidden pages";

}  // namespace

TEST_CASE("a forked run that checks variants fails for those that no test ran, and names them") {
  const Ended all = run_again("--list-variants");
  REQUIRE(all.status == 0);
  const Ended none = run_again("-tc=nothing --check-variants");
  const Ended one = run_again(kOneOp + " --minimal --check-variants");
  CHECK(none.status == 1);
  CHECK(one.status == 1);
  std::istringstream names(all.said);
  int reached = 0, count = 0;
  for (std::string name; std::getline(names, name); ++count) {
    CAPTURE(name);
    const std::string line = "variant " + name + kUnreached;
    const bool is_run = name.starts_with("activation_grad.");
    reached += is_run ? 1 : 0;
    CHECK(none.says(line));
    CHECK(one.says(line) != is_run);
  }
  CHECK(reached >= 2);
  CHECK(count > 100);
  // Of some tests alone, nobody asked.
  const Ended unasked = run_again(kOneOp);
  CHECK(unasked.status == 0);
  CHECK(!unasked.says(kUnreached));
}

TEST_CASE("a forked run appends the variants that it reached to a file, or fails") {
  const TemporaryDirectory directory;
  const std::string path = directory / "reached";
  std::ofstream(path) << "what was there\n";
  CHECK(run_again(kOneOp, path).status == 0);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  CHECK(text.str().starts_with("what was there\nactivation_grad."));
  CHECK(text.str().find("\nactivation_grad.reference\n") != std::string::npos);
  const Ended lost = run_again(kOneOp, directory / "missing" / "reached");
  CHECK(lost.status == 1);
  CHECK(lost.says("PYCNN_REACHED_VARIANTS: cannot append to"));
}
