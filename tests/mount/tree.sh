# Makes a tree of every kind of thing in the current directory, as far as its filesystem has them. What it refuses is left out, and
# said, so that two filesystems that are one say the same.
set -u
say() { "$@" 2>/dev/null || echo "refused: $*"; }
noise() { head -c "$1" /dev/zero | openssl enc -aes-128-ctr -K "$2" -iv 0 2>/dev/null; }
mkdir -p files links modes names deep/er/still others
for size in 0 1 4095 4096 4097 70000 1048576 1500001; do noise "$size" "$size" >"files/$size"; done
truncate -s 3M files/hole
noise 5000 1 | dd of=files/island bs=1000 seek=2000 conv=notrunc status=none
say truncate -s 64M files/huge
say ln files/4097 links/same
say ln files/4097 links/third
say ln -s ../files/4097 links/soft
say ln -s /no/such/thing links/dangling
say ln -s links links/folder
say mkfifo links/fifo
say mknod links/device c 1 3
for mode in 000 400 644 755 1777 2755 4755 2644 7777; do
    echo "$mode" >"modes/$mode" && say chmod "$mode" "modes/$mode"
done
say chmod 1777 deep
say chmod 2775 deep/er
say touch "names/$(printf 'a\nb')" "names/$(printf '\xc3\xa4\xe2\x82\xac')" "names/$(printf 'n%.0s' $(seq 250))" "names/ space" "names/-n"
echo other >others/file && say chown 65534:65534 others/file && say chown 12345:54321 others
say python3 -c "import os; os.setxattr('files/1', 'user.one', b'1' * 100); os.setxattr('deep', 'user.two', b'')"
for i in $(seq 150); do echo "$i" >"deep/er/still/$i"; done
find . -depth -exec touch -h -d @1600000000.123456789 {} + 2>/dev/null || find . -depth -exec touch -h -d @1600000000 {} +
exit 0
