# Says what the file is and what is in it. Expects what find.sh leaves behind.
# shellcheck shell=sh disable=SC2154

facts=$(stat -c '%a %u %g %h %Y %s' -- "$file") || no "tool stat"
[ "${facts##* }" -le 4194304 ] || no large
writable=no
[ ! -w "$folder" ] || [ ! -x "$folder" ] || writable=yes
printf 'ok\n%s\n%s\n%s\n%s\n%s\n' "$facts" "$(id -u)" "$(id -G)" "$writable" "$file"
cat -- "$file"
