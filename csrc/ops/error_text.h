#pragma once
#include <string>
#include <utility>

#include "pycnn/error.h"

namespace pycnn::ops {

// Runs `body`; an error that a user can cause leaves with its text passed through `edit`, in the
// same class.
template <class Body, class Edit>
auto with_error_text(Body&& body, Edit&& edit) -> decltype(body()) {
  try {
    return body();
  } catch (const ShapeError& error) {
    throw ShapeError(edit(std::string(error.what())));
  } catch (const DTypeError& error) {
    throw DTypeError(edit(std::string(error.what())));
  } catch (const ArgumentError& error) {
    throw ArgumentError(edit(std::string(error.what())));
  } catch (const GraphError& error) {
    throw GraphError(edit(std::string(error.what())));
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(edit(std::string(error.what())));
  }
}

}  // namespace pycnn::ops
