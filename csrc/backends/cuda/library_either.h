#pragma once
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/library_kernel.h"

// Two libraries as one, whose plans are timed with one another. Those of the first come first where
// nothing is timed. Either of them may be missing.
namespace pycnn::cuda {

template <class First, class Second>
struct Either {
  struct Link {
    const void* functions = nullptr;
    std::string problem;
    bool is_loaded = false;
    const typename First::Link* first = nullptr;
    const typename Second::Link* second = nullptr;

    bool has_first() const { return first->functions != nullptr; }
    bool has_second() const { return second->functions != nullptr; }
  };
  struct Plan {
    // One of them.
    std::shared_ptr<typename First::Plan> first;
    std::shared_ptr<typename Second::Plan> second;

    std::int64_t scratch_bytes() const {
      return first != nullptr ? first->scratch_bytes() : second->scratch_bytes();
    }
    std::int64_t workspace_bytes() const {
      return first != nullptr ? first->workspace_bytes() : second->workspace_bytes();
    }
  };
  template <class OpType>
  static const char* variant(const Plan& plan) {
    return plan.first != nullptr ? First::template variant<OpType>(*plan.first)
                                 : Second::template variant<OpType>(*plan.second);
  }

  static const void* load(std::string& problem) {
    std::string other;
    if (const void* const first = First::load(problem)) return first;
    return Second::load(other);
  }
  static bool open(Link& link) {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return false;
    link.first = &link_of<First>(device);
    link.second = &link_of<Second>(device);
    return link.has_first() || link.has_second();
  }
  static std::string left_out(const Link& link, const LibraryOptions& options) {
    std::string text;
    const auto add = [&](const std::string& part) {
      if (!part.empty()) text += (text.empty() ? "" : "; ") + part;
    };
    add(link.has_first() ? First::left_out(*link.first, options)
                         : First::kName + std::string(": ") + link.first->problem);
    add(link.has_second() ? Second::left_out(*link.second, options)
                          : Second::kName + std::string(": ") + link.second->problem);
    return text;
  }
  // The link knows them only where there is one.
  static std::vector<std::string> missing(int device, const LibraryOptions& options) {
    return missing(link_of<First>(device), link_of<Second>(device), options);
  }
  static std::vector<std::string> missing(const typename First::Link& first,
                                          const typename Second::Link& second,
                                          const LibraryOptions& options) {
    std::vector<std::string> lines = First::missing(first, options);
    for (std::string& line : Second::missing(second, options)) lines.push_back(std::move(line));
    return lines;
  }
  static std::string key(const Link& link, const ConvTask& task, const LibraryOptions& options) {
    std::string key;
    if (link.has_first()) key = First::key(*link.first, task, options);
    if (link.has_second())
      key += (key.empty() ? "" : "; ") + Second::key(*link.second, task, options);
    return key;
  }
  static std::vector<Offer<Plan>> offers(const Link& link, const ConvTask& task,
                                         const LibraryOptions& options) {
    std::vector<Offer<Plan>> offers;
    if (link.has_first()) add<First>(*link.first, task, options, &Plan::first, offers);
    if (link.has_second()) add<Second>(*link.second, task, options, &Plan::second, offers);
    return offers;
  }
  // Each refuses what the other one wrote.
  static std::string text(const Plan& plan) {
    return plan.first != nullptr ? First::text(*plan.first) : Second::text(*plan.second);
  }
  static std::shared_ptr<Plan> read(const Link& link, const ConvTask& task,
                                    const LibraryOptions& options, const std::string& text) {
    Plan plan;
    if (link.has_first()) plan.first = First::read(*link.first, task, options, text);
    if (plan.first == nullptr && link.has_second())
      plan.second = Second::read(*link.second, task, options, text);
    if (plan.first == nullptr && plan.second == nullptr) return nullptr;
    return std::make_shared<Plan>(std::move(plan));
  }
  // The first one's may.
  static bool measures(const Plan& plan) requires requires { First::measures(*plan.first); }
  { return plan.first != nullptr && First::measures(*plan.first); }
  static void zero_first(Plan& plan) requires requires { First::zero_first(*plan.first); }
  { First::zero_first(*plan.first); }
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
    if (plan.first != nullptr)
      First::run(queue, *plan.first, call, scratch);
    else
      Second::run(queue, *plan.second, call, scratch);
  }
  static Image image(const Plan& plan) {
    return plan.first != nullptr ? First::image(*plan.first) : Second::image(*plan.second);
  }
  static bool packs_bias(const Plan& plan) {
    return plan.first != nullptr ? First::packs_bias(*plan.first)
                                 : Second::packs_bias(*plan.second);
  }
  // The first one may.
  static bool leaves_narrow(const Plan& plan) requires requires {
    First::leaves_narrow(*plan.first);
  }
  { return plan.first != nullptr && First::leaves_narrow(*plan.first); }
  static void forget_stream(const Link& link) {
    if (link.has_first()) First::forget_stream(*link.first);
    if (link.has_second()) Second::forget_stream(*link.second);
  }

 private:
  template <class Library>
  static void add(const typename Library::Link& link, const ConvTask& task,
                  const LibraryOptions& options,
                  std::shared_ptr<typename Library::Plan> Plan::*member,
                  std::vector<Offer<Plan>>& offers) {
    for (Offer<typename Library::Plan>& offer : Library::offers(link, task, options))
      offers.push_back({[make = std::move(offer.make), member](int thread) {
                          auto made = make(thread);
                          if (made == nullptr) return std::shared_ptr<Plan>();
                          auto plan = std::make_shared<Plan>();
                          (*plan).*member = std::move(made);
                          return plan;
                        },
                        offer.compiles, offer.measures});
  }
};

}  // namespace pycnn::cuda
