# Says what the file is and what is in it. Expects what find.sh leaves behind.
# shellcheck shell=sh disable=SC2154

facts=$(stat -c '%a %u %g %h %Y %s' -- "$file") || no "tool stat"
[ "${facts##* }" -le 4194304 ] || no large
writable=no
[ ! -w "$folder" ] || [ ! -x "$folder" ] || writable=yes
# In kilobytes, by POSIX's form; nothing where there is no `df`.
room=$(df -Pk -- "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }' 2>/dev/null)
printf 'ok\n%s\n%s\n%s\n%s\n%s\n%s\n' "$facts" "$(id -u)" "$(id -G)" "$writable" "$room" "$file"
cat -- "$file"
