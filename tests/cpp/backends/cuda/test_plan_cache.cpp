#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "backends/cuda/plan_cache.h"
#include "support/temporary_directory.h"

namespace pycnn::cuda {
namespace {

// A folder that does not exist yet, gone in the end.
struct Folder {
  const TemporaryDirectory directory;
  const std::string path = directory / "plans";
  std::string file() const { return path + "/deep/plans.txt"; }
  std::string content() const {
    std::ifstream stream(file());
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void write(const std::string& text) const { std::ofstream(file(), std::ios::trunc) << text; }
};

TEST_CASE("plan cache: a choice is found again, also by another process") {
  const Folder folder;
  PlanCache cache(folder.file());
  CHECK(!cache.find("a"));
  cache.put("a", "one");
  cache.put("b\twith\ttabs\\", "two\nlines\\n");
  CHECK(cache.find("a") == "one");
  PlanCache other(folder.file());
  CHECK(other.find("a") == "one");
  CHECK(other.find("b\twith\ttabs\\") == "two\nlines\\n");
  CHECK(!other.find("c"));
  other.put("a", "three");
  CHECK(PlanCache(folder.file()).find("a") == "three");
}

TEST_CASE("plan cache: processes keep what others wrote meanwhile") {
  const Folder folder;
  PlanCache first(folder.file()), second(folder.file());
  CHECK(!first.find("a"));
  CHECK(!second.find("a"));
  first.put("a", "1");
  second.put("b", "2");
  PlanCache third(folder.file());
  CHECK(third.find("a") == "1");
  CHECK(third.find("b") == "2");
}

TEST_CASE("plan cache: a choice is written behind the others, and the last one counts") {
  const Folder folder;
  PlanCache cache(folder.file());
  cache.put("a", "1");
  std::string before = folder.content();
  for (const char* const value : {"2", "3"}) {
    cache.put("a", value);
    CHECK(folder.content().starts_with(before));
    CHECK(folder.content().size() > before.size());
    before = folder.content();
    CHECK(PlanCache(folder.file()).find("a") == value);
  }
  PlanCache other(folder.file());
  CHECK(other.find("a") == "3");
  other.put("b", "4");
  CHECK(folder.content().starts_with(before));
  // A file that somebody removed is there again, with all that this process knows.
  REQUIRE(std::remove(folder.file().c_str()) == 0);
  other.put("c", "5");
  PlanCache again(folder.file());
  CHECK(again.find("a") == "3");
  CHECK(again.find("c") == "5");
}

TEST_CASE("plan cache: of a file whose last line is cut off the others count") {
  const Folder folder;
  {
    PlanCache cache(folder.file());
    cache.put("a", "1");
    cache.put("b", "2");
  }
  const std::string good = folder.content();
  for (const std::size_t missing : {1, 3, 9}) {
    folder.write(good.substr(0, good.size() - missing));
    PlanCache cache(folder.file());
    CHECK(cache.find("a") == "1");
    CHECK(!cache.find("b"));
    cache.put("c", "3");
    PlanCache again(folder.file());
    CHECK(again.find("a") == "1");
    CHECK(!again.find("b"));
    CHECK(again.find("c") == "3");
  }
}

TEST_CASE("plan cache: nothing is written behind a line that somebody else left without an end") {
  const Folder folder;
  PlanCache cache(folder.file());
  cache.put("a", "1");
  folder.write(folder.content() + "half a l");
  cache.put("b", "2");
  PlanCache again(folder.file());
  CHECK(again.find("a") == "1");
  CHECK(again.find("b") == "2");
}

TEST_CASE("plan cache: a damaged file counts as empty and is replaced") {
  const Folder folder;
  PlanCache(folder.file()).put("key", "value");
  const std::string good = folder.content();
  std::string changed = good;
  changed[changed.find("value")] = 'V';
  for (const std::string& text :
       {std::string(), std::string("something else\n"), changed, good.substr(0, good.size() - 1),
        good.substr(0, good.size() - 3), good + "x\n", good + "0123456789abcdef\tonly one part\n",
        std::string("\0\1\2\n", 4)}) {
    CAPTURE(text);
    folder.write(text);
    PlanCache cache(folder.file());
    CHECK(!cache.find("key"));
    cache.put("new", "1");
    PlanCache again(folder.file());
    CHECK(again.find("new") == "1");
    CHECK(!again.find("key"));
  }
}

TEST_CASE(
    "plan cache: without a file choices are kept in memory, and a folder that cannot be made "
    "is no error") {
  for (const char* const file : {"", "/proc/none/plans.txt"}) {
    PlanCache cache(file);
    cache.put("a", "1");
    CHECK(cache.find("a") == "1");
    CHECK(!PlanCache(file).find("a"));
  }
}

// Sets a variable of the environment and puts the old value back.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* const old = std::getenv(name)) old_ = old;
    had_ = std::getenv(name) != nullptr;
    if (value != nullptr)
      setenv(name, value, 1);
    else
      unsetenv(name);
  }
  ~Variable() {
    if (had_)
      setenv(name_, old_.c_str(), 1);
    else
      unsetenv(name_);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

TEST_CASE("plan cache: where the file is") {
  const Variable home("HOME", "/home/me");
  const Variable base("XDG_CACHE_HOME", nullptr), own("PYCNN_CACHE", nullptr),
      named("PYCNN_CUDA_PLANS", nullptr);
  CHECK(plan_cache_file() == "/home/me/.cache/pycnn/cuda_plans.txt");
  const Variable set_base("XDG_CACHE_HOME", "/cache");
  CHECK(plan_cache_file() == "/cache/pycnn/cuda_plans.txt");
  const Variable set_own("PYCNN_CACHE", "/mine");
  CHECK(plan_cache_file() == "/mine/cuda_plans.txt");
  const Variable set_named("PYCNN_CUDA_PLANS", "/x/y.txt");
  CHECK(plan_cache_file() == "/x/y.txt");
  const Variable off("PYCNN_CUDA_PLANS", "off");
  CHECK(plan_cache_file().empty());
}

}  // namespace
}  // namespace pycnn::cuda
