"""Writes a large C++ file of templates to stdout: many instances of containers and of a recursive computation by types."""

print("#include <algorithm>\n#include <functional>\n#include <map>\n#include <memory>\n#include <string>\n#include <tuple>")
print("#include <unordered_map>\n#include <variant>\n#include <vector>")
print("template <unsigned N> struct fibonacci { static constexpr unsigned long value = fibonacci<N - 1>::value + fibonacci<N - 2>::value; };")
print("template <> struct fibonacci<0> { static constexpr unsigned long value = 0; };")
print("template <> struct fibonacci<1> { static constexpr unsigned long value = 1; };")
for i in range(4):
    print(f"""
struct item_{i} {{ int number; std::string text; double weight[{i % 7 + 1}]; bool operator<(const item_{i} &o) const {{ return number < o.number; }} }};
unsigned long table_{i}(std::vector<item_{i}> items) {{
    std::map<std::string, std::vector<item_{i}>> by_text;
    std::unordered_map<int, std::unique_ptr<item_{i}>> by_number;
    std::variant<int, std::string, item_{i}> either = items.empty() ? decltype(either)(1) : decltype(either)(items[0]);
    for (auto &item : items) {{ by_text[item.text].push_back(item); by_number.emplace(item.number, std::make_unique<item_{i}>(item)); }}
    std::sort(items.begin(), items.end());
    std::function<unsigned long(const item_{i} &)> weigh = [&](const item_{i} &item) {{ return item.text.size() + by_text.size(); }};
    unsigned long sum = fibonacci<{40 + i}>::value + either.index();
    for (auto &item : items) sum += weigh(item) * std::get<0>(std::make_tuple(item.number, item.text, {i}));
    return sum + by_number.size();
}}""")
