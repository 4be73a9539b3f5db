step=$first
[[ " ${steps[*]} " == *" $first "* ]] || stop '@step@'" $first"

begin() { # TITLE
    printf '\n== %s\n' "$1" >&2
    if [[ -t 0 ]]; then
        printf '%s' '@go_on@' >&2
        IFS= read -r
    fi
}

left() { # STATUS
    if (($1 != 0)); then
        printf '\n%s %s\n%s\n' '@stopped@' "$step" '@then@'" bash $0 $step" >&2
    fi
}
trap 'left $?' EXIT

for tool in "${tools[@]}"; do
    command -v "$tool" >/dev/null || stop '@no_tool@'" $tool"
done
ask_passwords
for step in "${steps[@]}"; do
    if ((step >= first)); then
        "step_$step"
    fi
done
printf '\n%s\n' '@done@' >&2
