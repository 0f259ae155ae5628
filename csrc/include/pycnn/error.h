#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>

#include "pycnn/export.h"

/// \file
/// Every failure that a user can cause is one of these exceptions. Nothing in the library aborts,
/// prints or exits. Each reaches Python as the class of the same name in `pycnn.errors`.
namespace pycnn {

/// Base of all errors thrown by pycnn.
class PYCNN_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  Error(const Error&) = default;  ///< Shares the text.
  ~Error() override;
};

/// Sizes or ranks disagree.
class PYCNN_API ShapeError : public Error {
 public:
  using Error::Error;
  ~ShapeError() override;
};

/// An element type is not accepted here.
class PYCNN_API DTypeError : public Error {
 public:
  using Error::Error;
  ~DTypeError() override;
};

/// An argument other than a shape or element type is out of its range.
class PYCNN_API ArgumentError : public Error {
 public:
  using Error::Error;
  ~ArgumentError() override;
};

/// Foreign symbol, duplicate name, no path from loss to parameter, not differentiable.
class PYCNN_API GraphError : public Error {
 public:
  using Error::Error;
  ~GraphError() override;
};

/// Device absent, or the library was built without it.
class PYCNN_API DeviceError : public Error {
 public:
  using Error::Error;
  ~DeviceError() override;
};

/// A model, checkpoint or data file is malformed; the text names file, byte offset and field.
class PYCNN_API FormatError : public Error {
 public:
  using Error::Error;
  ~FormatError() override;
};

/// Legal, but not something this version can do.
class PYCNN_API UnsupportedError : public Error {
 public:
  using Error::Error;
  ~UnsupportedError() override;
};

/// A class label is negative or not below the number of classes.
class PYCNN_API LabelError : public Error {
 public:
  using Error::Error;
  ~LabelError() override;
};

/// The operating system refused a file operation. `code()` is errno, `path()` the file.
class PYCNN_API FileError : public Error {
 public:
  FileError(const std::string& message, std::string path, int code);  ///< `code` is an errno.
  FileError(const FileError&) = default;                              ///< Shares the text.
  ~FileError() override;
  int code() const noexcept { return code_; }  ///< errno of the call that was refused.
  const std::string& path() const noexcept { return path_; }  ///< As the caller gave it.

 private:
  std::string path_;
  int code_;
};

/// The memory plan exceeds a limit or what the machine can give, or an allocation failed. The text
/// says how many bytes were wanted and how many there are.
class PYCNN_API MemoryLimitError : public Error {
 public:
  MemoryLimitError(const std::string& message, std::size_t wanted_bytes,
                   std::size_t available_bytes);        ///< `message` should say both numbers.
  MemoryLimitError(const MemoryLimitError&) = default;  ///< Shares the text.
  ~MemoryLimitError() override;
  std::size_t wanted_bytes() const noexcept { return wanted_bytes_; }  ///< What was asked for.
  /// The limit that was set, or what the machine had left.
  std::size_t available_bytes() const noexcept { return available_bytes_; }

 private:
  std::size_t wanted_bytes_;
  std::size_t available_bytes_;
};

/// Another thread is training the same variables.
class PYCNN_API TrainingError : public Error {
 public:
  using Error::Error;
  ~TrainingError() override;
};

/// Our fault. The text asks for a report and holds op, specs and variant.
class PYCNN_API InternalError : public Error {
 public:
  using Error::Error;
  ~InternalError() override;
};

}  // namespace pycnn
