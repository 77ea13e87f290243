#include "client/cli/npy.h"

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace normserve::cli {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr absl::string_view kMagic("\x93NUMPY", 6);
// Beyond any tensor; keeps products of sizes far from overflow.
constexpr int64_t kMaxValues = int64_t{1} << 48;

absl::Status Broken(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a readable .npy file: ", what));
}

// The header's text: a Python dictionary of strings, True, False and tuples of integers.
class HeaderReader {
 public:
  explicit HeaderReader(absl::string_view text) : rest_(text) {}

  absl::StatusOr<NpyHeader> Read() {
    NpyHeader header;
    bool has_descr = false, has_order = false, has_shape = false;
    if (!Skip('{')) return Broken("the header does not begin with {");
    while (!Skip('}')) {
      std::string key;
      if (!ReadString(key) || !Skip(':')) return Broken("the header is no dictionary of names and values");
      if (key == "descr") {
        has_descr = ReadDescr(header.descr);
        if (!has_descr) return Broken("'descr' is no string");
      } else if (key == "fortran_order") {
        has_order = ReadBool(header.fortran_order);
        if (!has_order) return Broken("'fortran_order' is neither True nor False");
      } else if (key == "shape") {
        has_shape = ReadShape(header.shape);
        if (!has_shape) return Broken("'shape' is no tuple of sizes of 0 or more");
      } else {
        return Broken(absl::StrCat("the header has a key '", absl::CHexEscape(key), "' that the format does not know"));
      }
      if (!Skip(',') && !Peek('}')) return Broken("the header lacks a comma or its end");
    }
    if (!absl::StripAsciiWhitespace(rest_).empty()) return Broken("the header goes on after its end");
    if (!has_descr || !has_order || !has_shape) return Broken("the header lacks descr, fortran_order or shape");
    return header;
  }

 private:
  bool Peek(char c) {
    rest_ = absl::StripLeadingAsciiWhitespace(rest_);
    return !rest_.empty() && rest_[0] == c;
  }

  bool Skip(char c) {
    if (!Peek(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool SkipWord(absl::string_view word) {
    rest_ = absl::StripLeadingAsciiWhitespace(rest_);
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  bool ReadString(std::string& value) {
    const char quote = Peek('"') ? '"' : '\'';
    if (!Skip(quote)) return false;
    const size_t end = rest_.find(quote);
    if (end == absl::string_view::npos) return false;
    value = std::string(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return value.find('\\') == std::string::npos;
  }

  // A record type is a list; its brackets are enough to refuse it by name.
  bool ReadDescr(std::string& value) {
    if (!Peek('[')) return ReadString(value);
    int depth = 0;
    for (size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '[') ++depth;
      if (rest_[i] == ']' && --depth == 0) {
        value = std::string(rest_.substr(0, i + 1));
        rest_.remove_prefix(i + 1);
        return true;
      }
    }
    return false;
  }

  bool ReadBool(bool& value) {
    value = SkipWord("True");
    return value || SkipWord("False");
  }

  bool ReadShape(std::vector<int64_t>& shape) {
    if (!Skip('(')) return false;
    while (!Skip(')')) {
      rest_ = absl::StripLeadingAsciiWhitespace(rest_);
      size_t digits = 0;
      while (digits < rest_.size() && absl::ascii_isdigit(rest_[digits])) ++digits;
      int64_t size = 0;
      if (!absl::SimpleAtoi(rest_.substr(0, digits), &size)) return false;
      rest_.remove_prefix(digits);
      Skip('L');  // Python 2 wrote 3L
      shape.push_back(size);
      if (!Skip(',') && !Peek(')')) return false;
    }
    return true;
  }

  absl::string_view rest_;
};

// The product of `shape`, or nothing if it is beyond kMaxValues.
bool CountValues(const std::vector<int64_t>& shape, size_t& num_values) {
  num_values = 1;
  for (const int64_t size : shape) {
    if (size == 0) num_values = 0;
  }
  if (num_values == 0) return true;
  for (const int64_t size : shape) {
    if (size > kMaxValues / static_cast<int64_t>(num_values)) return false;
    num_values *= static_cast<size_t>(size);
  }
  return true;
}

// What numpy calls it, and what to do about it.
absl::Status WrongType(absl::string_view descr, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("its type is ", descr.substr(0, 40), "; normctl reads ", wanted,
                   " and converts nothing: numpy.save(FILE, numpy.ascontiguousarray(x, dtype=\"<f4\")) writes it"));
}

// That the file holds what its header says, in an order that can be read: no more, no fewer bytes.
absl::Status CheckValues(absl::string_view file, const NpyHeader& header, size_t value_size) {
  if (header.fortran_order && header.shape.size() > 1) {
    return absl::InvalidArgumentError(
        "its values are in Fortran order; normctl reads C order: numpy.save(FILE, numpy.ascontiguousarray(x)) writes "
        "it");
  }
  const size_t there = file.size() - header.data_offset;
  const size_t wanted = header.num_values * value_size;
  if (there != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("its shape [", absl::StrJoin(header.shape, ", "), "] needs ", wanted,
                                                   " bytes of values, the file has ", there,
                                                   there < wanted ? ": it is cut short" : ": it goes on after them"));
  }
  return absl::OkStatus();
}

template <typename T>
std::vector<T> CopyValues(absl::string_view file, const NpyHeader& header) {
  std::vector<T> values(header.num_values);
  if (!values.empty()) std::memcpy(values.data(), file.data() + header.data_offset, values.size() * sizeof(T));
  return values;
}

absl::Status FileError(const std::string& path, absl::string_view what) {
  const int error = errno;
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  if (error == ENOENT) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  return absl::UnknownError(message);
}

// `result`, with the path before the text of a failure.
template <typename T>
absl::StatusOr<T> About(const std::string& path, absl::StatusOr<T> result) {
  if (result.ok()) return result;
  return absl::Status(result.status().code(), absl::StrCat(path, ": ", result.status().message()));
}

}  // namespace

absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view file) {
  if (file.substr(0, kMagic.size()) != kMagic) return Broken("it does not begin with \\x93NUMPY");
  if (file.size() < 8) return Broken("it is cut short");
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<unsigned char>(file[at])); };
  const size_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0) {
    return Broken(absl::StrCat("it has version ", major, ".", minor, "; normctl reads 1.0, 2.0 and 3.0"));
  }
  const size_t length_size = major == 1 ? 2 : 4;
  if (file.size() < 8 + length_size) return Broken("it is cut short");
  size_t header_size = 0;
  for (size_t i = 0; i < length_size; ++i) header_size |= byte(8 + i) << (8 * i);
  const size_t header_begins = 8 + length_size;
  if (header_size > file.size() - header_begins) {
    return Broken(absl::StrCat("it says that its header has ", header_size, " bytes, but it ends before"));
  }
  absl::StatusOr<NpyHeader> header = HeaderReader(file.substr(header_begins, header_size)).Read();
  if (!header.ok()) return header;
  header->data_offset = header_begins + header_size;
  if (!CountValues(header->shape, header->num_values)) {
    return Broken(absl::StrCat("its shape [", absl::StrJoin(header->shape, ", "), "] is beyond any memory"));
  }
  return header;
}

absl::StatusOr<client::Tensor> ParseNpyTensor(absl::string_view file) {
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(file);
  if (!header.ok()) return header.status();
  if (header->descr != "<f4") return WrongType(header->descr, "<f4 (little-endian float32)");
  if (absl::Status status = CheckValues(file, *header, 4); !status.ok()) return status;
  return client::Tensor{.shape = header->shape, .values = CopyValues<float>(file, *header)};
}

absl::StatusOr<std::vector<double>> ParseNpyVector(absl::string_view file) {
  absl::StatusOr<NpyHeader> header = ParseNpyHeader(file);
  if (!header.ok()) return header.status();
  if (header->shape.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("its shape is [", absl::StrJoin(header->shape, ", "), "]; one value a channel is wanted: [C]"));
  }
  const bool wide = header->descr == "<f8";
  if (!wide && header->descr != "<f4") return WrongType(header->descr, "<f4 and <f8 (little-endian floats)");
  if (absl::Status status = CheckValues(file, *header, wide ? 8 : 4); !status.ok()) return status;
  if (wide) return CopyValues<double>(file, *header);
  const std::vector<float> values = CopyValues<float>(file, *header);
  return std::vector<double>(values.begin(), values.end());
}

std::string EncodeNpy(const client::TensorView& tensor) {
  std::string header = absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': (",
                                    absl::StrJoin(tensor.shape, ", "), tensor.shape.size() == 1 ? ",), }" : "), }");
  // The values begin at a multiple of 64, after a line end.
  const size_t begins = 10;
  header.append(63 - (begins + header.size()) % 64, ' ');
  header += '\n';
  std::string file(kMagic);
  file += '\x01';
  file += '\0';
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  if (!tensor.values.empty()) {
    file.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
  }
  return file;
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::FILE* stream = std::fopen(path.c_str(), "rb");
  if (stream == nullptr) return FileError(path, "cannot be opened");
  const auto close = absl::MakeCleanup([stream] { std::fclose(stream); });
  std::string bytes;
  std::vector<char> chunk(size_t{1} << 20);
  while (const size_t read = std::fread(chunk.data(), 1, chunk.size(), stream)) bytes.append(chunk.data(), read);
  if (std::ferror(stream) != 0) return FileError(path, "cannot be read");
  return bytes;
}

absl::StatusOr<client::Tensor> ReadNpyTensor(const std::string& path) {
  absl::StatusOr<std::string> file = ReadWholeFile(path);
  if (!file.ok()) return file.status();
  return About(path, ParseNpyTensor(*file));
}

absl::StatusOr<std::vector<double>> ReadNpyVector(const std::string& path) {
  absl::StatusOr<std::string> file = ReadWholeFile(path);
  if (!file.ok()) return file.status();
  return About(path, ParseNpyVector(*file));
}

}  // namespace normserve::cli
