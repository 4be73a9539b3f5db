# Puts what comes on stdin in the file's place, if the file still is what it was. Expects what
# lock.sh leaves behind, and: $was and $will, the SHA-256 of the old content and of the new one,
# and $size, the new one's bytes.
# shellcheck shell=sh disable=SC2154,SC2034

[ "$(sum "$file")" = "$was" ] || no changed
umask 077
made=yes
# Nothing that stands there already is written to, a link least of all.
why=$( (set -C && cat >"$new") 2>&1) || reason "$why"
# Owner, mode, access lists and labels; where `cp` knows less, owner and mode.
cp --attributes-only --preserve=all -- "$file" "$new" 2>/dev/null || {
    chown "$(stat -c '%u:%g' -- "$file")" "$new" 2>/dev/null
    chmod "$(stat -c '%a' -- "$file")" "$new" 2>/dev/null
}
[ "$(stat -c '%a %u %g' -- "$new")" = "$(stat -c '%a %u %g' -- "$file")" ] || no foreign
touch -c -- "$new" 2>/dev/null
# A connection that breaks ends the input early, which looks like its end.
[ "$(wc -c <"$new")" -eq "$size" ] || no torn
[ "$(sum "$new")" = "$will" ] || no torn
sync -- "$new" 2>/dev/null || sync
[ "$(sum "$file")" = "$was" ] || no changed
why=$(mv -f -- "$new" "$file" 2>&1) || reason "$why"
made=
sync -- "$folder" 2>/dev/null || sync
printf 'ok\n'
cat -- "$file"
