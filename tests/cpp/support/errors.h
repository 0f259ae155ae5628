#pragma once
#include <doctest/doctest.h>

#include <initializer_list>
#include <string>

// The text of the error that `body` throws; anything but an `Expected` fails the test.
template <class Expected, class Body>
std::string error_text(Body&& body) {
  try {
    body();
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    FAIL_CHECK("threw another class: " << error.what());
    return "";
  }
  FAIL_CHECK("threw nothing");
  return "";
}

// Throws an `Expected` whose text holds each of the parts.
template <class Expected, class Body>
void check_error(Body&& body, std::initializer_list<const char*> parts) {
  const std::string text = error_text<Expected>(body);
  INFO(text);
  for (const char* part : parts) {
    INFO("missing: ", std::string(part));
    CHECK(text.find(part) != std::string::npos);
  }
}
