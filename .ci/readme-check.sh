#!/usr/bin/env bash
# Holds the README against what is there: its commands do what it says they do, and no document links to nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() {
    echo "readme check: $*" >&2
    exit 1
}

# A command that the README gains must be tried here too.
expected='zcache run --ram 512M -- PROGRAM ARGS…
./demo
bash .ci/test
zcache measure PID|FILE…'
found=$(sed -n 's/^    \([^ ].*\)/\1/p' README.md)
[ "$found" = "$expected" ] || fail "its commands are not those that are tried here:
$found"

while IFS=: read -r document target; do
    [ "$target" != https ] || continue
    [ -e "$(dirname "$document")/$target" ] || fail "$document links to $target, which is not there"
done < <(find . -name "*.md" -not -path "*/target/*" -print0 | xargs -0 grep -oHE '\]\([^)#:]+' | sed "s/:\](/:/")

grep -q 'sorts 400 MiB' README.md && grep -qF 'mib=${1:-400}' demo || fail "README and demo differ in the size of the data"
# The same with less data: sort's peak, half of it as the budget, the output compared.
said=$(./demo 100) || fail "./demo 100 failed:
$said"
grep -q '^output right: yes$' <<< "$said" || fail "./demo does not say that the output is right:
$said"

zcache=${CARGO_TARGET_DIR:-target}/release/zcache
[ "$("$zcache" run --ram 512M -- printf '%s-' one 'two three')" = 'one-two three-' ] || fail "zcache run does not run a program"
[[ $("$zcache" measure $$ README.md) = *"--ram"*"README.md: "*"pages"*"together"* ]] || fail "zcache measure does not measure"
grep -E '^ +peak|^output right' <<< "$said"
echo "readme check: ok"
