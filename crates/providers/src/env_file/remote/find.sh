# Finds the file itself as $file, with its $folder and its $name: a link is followed, within the folder.
# Expects $path.
# shellcheck shell=sh disable=SC2154,SC2034

no() {
    printf 'no %s\n' "$1"
    exit 0
}

sum() {
    sum=$(sha256sum <"$1") && printf '%s' "${sum%% *}"
}

# What the system has to say against something; its words are in English by LC_ALL.
reason() {
    case $1 in
    *'ermission denied'* | *'not permitted'*) no forbidden ;;
    *'ead-only file system'*) no readonly ;;
    *'o space left'* | *'uota exceeded'*) no space ;;
    *) no unwritten ;;
    esac
}

for tool in cat chmod chown id mv rm sha256sum stat sync touch wc; do
    command -v "$tool" >/dev/null || no "tool $tool"
done

folder=${path%/*}
name=${path##*/}
cd -P -- "${folder:-/}" 2>/dev/null || {
    why=$(ls -d -- "$folder/." 2>&1 >/dev/null)
    case $why in
    *'ermission denied'*) no forbidden ;;
    *) no missing ;;
    esac
}
folder=$(pwd -P)
file=${folder%/}/$name
if [ -h "$file" ]; then
    target=$(readlink -f -- "$file") || no missing
    [ -e "$target" ] || no missing
    case $target in
    "${folder%/}"/*) file=$target ;;
    *) no outside ;;
    esac
fi
folder=${file%/*}
folder=${folder:-/}
name=${file##*/}
[ -e "$file" ] || no missing
[ -f "$file" ] || no irregular
[ -r "$file" ] || no forbidden
new=${folder%/}/.$name.pgrotate-new
