# Keeps other processes that change the file out until this shell ends, and removes what one that
# was killed has left. Expects what find.sh leaves behind.
# shellcheck shell=sh disable=SC2154

made=
keep=
leave() {
    [ -z "$made" ] || rm -f -- "$new"
    [ -z "$keep" ] || rm -rf -- "$keep"
}
trap leave EXIT
trap 'exit 1' HUP INT PIPE TERM

if command -v flock >/dev/null; then
    exec 9<"$file"
    flock -n 9 || no busy
else
    folder_lock=${folder%/}/.$name.pgrotate-lock
    mkdir -- "$folder_lock" 2>/dev/null || {
        owner=$(cat -- "$folder_lock/pid" 2>/dev/null)
        [ -n "$owner" ] || no busy
        ! kill -0 "$owner" 2>/dev/null || no busy
        # Whoever made it was killed.
        rm -rf -- "$folder_lock"
        mkdir -- "$folder_lock" 2>/dev/null || no busy
    }
    keep=$folder_lock
    echo $$ >"$keep/pid"
fi
rm -f -- "$new" 2>/dev/null
