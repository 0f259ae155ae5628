"""What stands in for doctest where that is missing: it finds what fails, and says how many cases there were."""

from __future__ import annotations

import shutil
import subprocess

import pytest

PROGRAM = r"""
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

enum class Kind { kOne, kTwo };
struct Plain {
  int value;
  bool operator==(const Plain&) const = default;
};
static void fail_with(const char* text) { throw std::runtime_error(text); }

TEST_CASE("good: comparisons, and more") {
  const std::vector<int> list = {1, 2};
  int* const null = nullptr;
  CHECK(list.size() == 2);
  CHECK(null == nullptr);
  CHECK(Kind::kOne != Kind::kTwo);
  CHECK(Plain{1} == Plain{1});
  CHECK(list == std::vector<int>{1, 2});
  CHECK_FALSE(list.empty());
  CHECK((list.empty() || !list.empty()));
  CHECK(1.00001 == doctest::Approx(1.0));
  CHECK(1.1 == doctest::Approx(1.0).epsilon(0.1));
  CHECK(1.1 != doctest::Approx(1.0));
  CHECK_THROWS_AS(fail_with("x"), std::runtime_error);
  CHECK_THROWS_WITH(fail_with("abc"), "abc");
  CHECK_THROWS_WITH_AS(fail_with("abc"), doctest::Contains("b"), std::exception);
  CHECK_NOTHROW(list.at(1));
  CHECK_MESSAGE(true, "said ", 1);
  REQUIRE(list[0] < list[1]);
  MESSAGE("left out: ", 5);
}
TEST_CASE("good: parts") {
  static int runs = 0, leaves = 0;
  ++runs;
  SUBCASE("a") {
    SUBCASE("a1") { ++leaves; }
    SUBCASE("a2") { ++leaves; }
  }
  SUBCASE("b") { ++leaves; }
  CHECK(runs == leaves);
  MESSAGE("leaf ", leaves);
}
TEST_CASE("good: parts in a loop") {
  for (int i = 0; i < 2; ++i) {
    CAPTURE(i);
    SUBCASE("a") { MESSAGE("round a", i); }
    SUBCASE("b") {
      SUBCASE("b1") { MESSAGE("round b1", i); }
      SUBCASE("b2") { MESSAGE("round b2", i); }
    }
  }
}
TEST_CASE("bad: check") {
  const int found = 3;
  CAPTURE(found);
  INFO("noted ", 7);
  CHECK(found == 4);
  MESSAGE("went on");
}
TEST_CASE("bad: require") {
  REQUIRE(1 > 2);
  MESSAGE("not reached");
}
TEST_CASE("bad: thrown") {
  INFO("before it");
  fail_with("of its own");
}
TEST_CASE("bad: thrown in a check") { CHECK_FALSE(std::vector<int>{}.at(1) == 1); }
TEST_CASE("bad: nothing thrown") { CHECK_THROWS_AS(static_cast<void>(0), std::exception); }
TEST_CASE("bad: another text") { CHECK_THROWS_WITH(fail_with("abc"), "b"); }
TEST_CASE("bad: another class") { CHECK_THROWS_AS(fail_with("abc"), std::logic_error); }
TEST_CASE("bad: number") { CHECK(1.1 == doctest::Approx(1.0)); }
TEST_CASE("bad: told") { FAIL_CHECK("told " << 9); }
TEST_CASE("bad: in the first part") {
  SUBCASE("first") { FAIL("it"); }
  SUBCASE("second") { MESSAGE("second part"); }
}
"""


@pytest.fixture(scope="module")
def program(root, tmp_path_factory):
    """Run the program above with arguments: exit status and output."""
    headers = root / "tests/cpp/support/plain_doctest"
    compiler = shutil.which("c++")
    if compiler is None or not headers.is_dir():
        pytest.skip("no C++ compiler, or no checkout")
    folder = tmp_path_factory.mktemp("plain_doctest")
    (folder / "tests.cpp").write_text(PROGRAM)
    command = [compiler, "-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{headers}", "tests.cpp", "-o", "tests"]
    subprocess.run(command, cwd=folder, check=True)

    def run(*arguments):
        result = subprocess.run([folder / "tests", *arguments], capture_output=True, text=True, timeout=60)
        return result.returncode, result.stdout

    return run


def test_good_cases_pass_and_are_silent_if_asked(program):
    code, output = program("-tc=good*")
    assert code == 0
    assert "test cases: 3 | 3 passed | 0 failed | 10 skipped" in output
    assert "assertions: 19 | 19 passed | 0 failed" in output
    assert output.count("leaf") == 3
    rounds = [line.split()[-1] for line in output.splitlines() if "round" in line]
    assert rounds == ["a0", "a1", "b10", "b11", "b20", "b21"]
    assert program("--minimal", "--test-case=good: comparisons\\, and more")[1].splitlines()[-2].endswith("left out: 5")


def test_a_failing_case_fails_the_run_and_shows_values_and_notes(program):
    code, output = program("--minimal", "-tc=bad: check")
    assert code == 1
    for part in ("TEST CASE:  bad: check", "CHECK( found == 4 )", "3 == 4", "found := 3", "noted 7", "went on"):
        assert part in output
    assert "test cases: 1 | 0 passed | 1 failed" in output


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("require", "1 >  2"),
        ("thrown", "of its own"),
        ("thrown in a check", "THREW"),
        ("nothing thrown", "threw nothing"),
        ("another text", "abc"),
        ("another class", "abc"),
        ("number", "1.1 == Approx( 1 )"),
        ("told", "told 9"),
        ("in the first part", "second part"),
    ],
)
def test_all_that_can_fail_does(program, case, said):
    code, output = program(f"-tc=bad: {case}")
    assert code == 1
    assert said in output
    assert "1 failed" in output
    assert "not reached" not in output
    assert ("before it" in output) == (case == "thrown")


def test_filters_and_lists_are_those_of_doctest(program):
    names = program("--list-test-cases", "-tce=bad*")[1].splitlines()
    assert [name for name in names if not name.startswith(("[doctest]", "="))] == [
        "good: comparisons, and more",
        "good: parts",
        "good: parts in a loop",
    ]
    assert "test cases: 2 |" in program("-tc=*REQUIRE,good: part?")[1]
    assert "test cases: 13 |" in program("-sf=*tests.cpp")[1]
    assert program("--no-such-option")[0] == 2
