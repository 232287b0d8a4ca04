# Says what tools make of the tree in the current directory: their output, or that they failed. argv[1]: room for copies.
set -u
room=$1
part() { echo "== $1"; }
sums() { (cd "$1" && find . -type f ! -name huge -readable -print0 | sort -z | xargs -0 sha256sum) 2>&1; }
listing() { (cd "$1" && find . -printf '%P|%y|%s|%m|%U|%G|%n|%l|%T@\n' 2>&1 | sort); }
part find; listing .
part "find by size, time and kind"; find . -size +1M 2>&1 | sort; find . -newermt @1600000001 2>&1 | sort; find . -perm -4000 2>&1 | sort
part "hard links"; find . -type f -links +1 -printf '%i %P\n' 2>&1 | sort | awk '{n[$1]++} END {for (i in n) print n[i]}'
part du; du -a --apparent-size . 2>&1 | sort -k2; du -sk . 2>&1
part sums; sums .
part attributes; python3 - <<'P' 2>&1
import os
for folder, names, files in sorted(os.walk('.')):
    for name in sorted(names + files):
        path = os.path.join(folder, name)
        try:
            has = [(key, os.getxattr(path, key, follow_symlinks=False)) for key in sorted(os.listxattr(path, follow_symlinks=False))]
        except OSError as error:
            has = error.strerror
        if has:
            print(path, has)
P
part tar; tar --sort=name --numeric-owner --exclude=huge -cf - . 2>"$room/said" | sha256sum; sort "$room/said"
part "tar of holes"; tar -S --sort=name --numeric-owner -cf "$room/tar" . 2>&1 | sort; stat -c %s "$room/tar"
rm -rf "$room/copy" && mkdir "$room/copy"
part "tar, unpacked"; tar -xpf "$room/tar" --numeric-owner -C "$room/copy" 2>&1 | sort; listing "$room/copy"; sums "$room/copy"
rm -rf "$room/copy" "$room/tar"
part cp; cp -a --sparse=always . "$room/copy" 2>&1 | sort; listing "$room/copy"; sums "$room/copy"; du -k "$room/copy/files/island" 2>&1 | cut -f1
rm -rf "$room/copy"
part rsync; rsync -aHAX --sparse ./ "$room/copy/" 2>&1 | sort; listing "$room/copy"; sums "$room/copy"
part "rsync again"; rsync -aHAXi --checksum ./ "$room/copy/" 2>&1 | sort
rm -rf "$room/copy" "$room/said"
part ls; ls -laR --time-style=+%s.%N . 2>&1 | sed 's/^total .*//'
part access; for one in $(find modes files others 2>/dev/null | sort); do
    for how in r w x; do test -$how "$one" && echo "$one $how"; done
done
exit 0
